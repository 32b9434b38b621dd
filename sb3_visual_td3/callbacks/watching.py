"""What is measured of a training: once, for all callbacks that look at it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Literal

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.pictures import pictures_in
from sb3_visual_td3.common.types import Points, WatchedModel
from sb3_visual_td3.health.camera_monitor import CameraMonitor
from sb3_visual_td3.health.finite_monitor import FiniteMonitor
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.network_probe import NetworkProbe
from sb3_visual_td3.health.quantities import is_frozen
from sb3_visual_td3.health.reward_monitor import RewardMonitor
from sb3_visual_td3.health.stock_watch import StockWatch

Reader = Literal["means", "points"]


def pictures_seen_by(model: OffPolicyAlgorithm) -> dict[str, spaces.Box]:
    """:return: the pictures that a policy sees, by key, of stock policies too"""
    is_flat = issubclass(model.policy.features_extractor_class, FlattenExtractor)  # it reads no pictures
    return pictures_in(model.observation_space, is_scaled=not model.policy.normalize_images and not is_flat)


class HealthWatch:
    """The monitors of one training: its updates, its networks, its camera and its rewards.

    Somebody may read means over what was measured since the last time, somebody else the single points; what nobody
    reads is not kept.

    :param model: any off-policy algorithm of Stable-Baselines3's kind; VisualTD3 shows its updates itself
    :param sample_freq: how many updates, or steps, lie between two that are measured
    :raises ValueError: if the model's updates cannot be watched
    """

    def __init__(self, model: BaseAlgorithm, sample_freq: int) -> None:
        if not isinstance(model, OffPolicyAlgorithm):
            raise ValueError(
                f"{type(model).__name__} offers no updates to watch: expected VisualTD3, Stable-Baselines3's TD3, SAC "
                "or DDPG, or sb3-contrib's TQC or CrossQ"
            )
        self._model = model
        self.model: WatchedModel | StockWatch = model if isinstance(model, WatchedModel) else StockWatch(model)
        self.monitor = GradientMonitor(sample_freq)
        self.monitor.probe = NetworkProbe(model)
        self.finite = FiniteMonitor()
        self._camera = CameraMonitor(sample_freq, pictures_seen_by(model))
        self._rewards = RewardMonitor(sample_freq)
        self._last_seen = -1
        self.readers: list[Reader] = []
        self.model.observers.append(self.monitor)

    @property
    def n_updates(self) -> int:
        """Gradient updates of the critics so far."""
        return self.model.n_updates if isinstance(self.model, StockWatch) else self._model._n_updates

    def set_readers(self, *readers: Reader) -> None:
        """Say who reads from now on: what nobody reads is not measured."""
        self.readers = list(readers)
        self.monitor.keep_points = "points" in readers
        if ("points" in readers) != (self.finite in self.model.observers):
            (self.model.observers.append if "points" in readers else self.model.observers.remove)(self.finite)

    def reattach(self) -> None:
        """Follow the model to networks that have replaced others; without such, nothing changes."""
        if isinstance(self.model, StockWatch):
            self.model.attach()

    def see(self, locals_: Mapping[str, Any], num_timesteps: int) -> None:
        """Take a step of the environments, which several callbacks may show.

        :param locals_: of Stable-Baselines3's ``collect_rollouts``
        :param num_timesteps: how many steps there have been
        """
        if num_timesteps != self._last_seen:
            self._last_seen = num_timesteps
            self._camera.see(locals_["new_obs"], self.n_updates)
            self._rewards.see(locals_["rewards"], self.n_updates)

    def read(self) -> dict[str, float]:
        """:return: by tag, means since the last call"""
        if "points" not in self.readers:
            self._discard_points()
        return {**self.monitor.read(), **self._camera.read()}

    def read_points(self) -> list[Points]:
        """:return: what single updates and steps showed since the last call, by source"""
        if "means" not in self.readers:
            self.monitor.read()
            self._camera.read()
        state: dict[str, list[tuple[int, float]]] = {
            tags.GROUP_LR[group]: [(self.n_updates, rate)] for group, rate in self.model.learning_rates.items()
        }
        for group, parameters in self.model.groups.items():
            state[tags.GROUP_FROZEN[group]] = [(self.n_updates, float(is_frozen(parameters)))]
        if self.model.encoder_is_shared is not None:
            state[tags.ENCODER_IS_SHARED] = [(self.n_updates, float(self.model.encoder_is_shared))]
        # The rewards that arrive stand for those that are replayed, where both are there.
        return [{**self.monitor.read_points(), **self._rewards.read_points()}, self._camera.read_points(), state]

    def _discard_points(self) -> None:
        self.monitor.read_points()
        self._rewards.read_points()
        self._camera.read_points()

    def get_state(self) -> dict[str, Any]:
        """:return: what has been measured and not yet read"""
        return {
            "monitor": self.monitor.get_state(),
            "camera": self._camera.get_state(),
            "rewards": self._rewards.get_state(),
            "last_seen": self._last_seen,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called."""
        self.monitor.set_state(state["monitor"], self._model.device)
        self._camera.set_state(state["camera"])
        self._rewards.set_state(state["rewards"])
        self._last_seen = state["last_seen"]
        if isinstance(self.model, StockWatch):  # it began to count when the model's counters were not set yet
            self.model.n_updates = self._model._n_updates

    def detach(self) -> None:
        """Watch no more."""
        for observer in (self.monitor, self.finite):
            if observer in self.model.observers:
                self.model.observers.remove(observer)
        if isinstance(self.model, StockWatch):
            self.model.detach()


_watches: weakref.WeakKeyDictionary[BaseAlgorithm, dict[int, HealthWatch]] = weakref.WeakKeyDictionary()


def watch(model: BaseAlgorithm, sample_freq: int, reader: Reader) -> HealthWatch:
    """Begin to watch a model, or look on where it is being watched.

    :param model: any off-policy algorithm
    :param sample_freq: how many updates lie between two that are measured
    :param reader: what is to be read
    :return: the model's watch of that rhythm
    :raises ValueError: if the model's updates cannot be watched
    """
    of_model = _watches.setdefault(model, {})
    # A reader that comes twice belongs to a training that was interrupted: it starts anew.
    if sample_freq in of_model and reader in of_model[sample_freq].readers:
        of_model.pop(sample_freq).detach()
    if sample_freq not in of_model:
        of_model[sample_freq] = HealthWatch(model, sample_freq)
    found = of_model[sample_freq]
    found.set_readers(*found.readers, reader)
    return found


def unwatch(model: BaseAlgorithm, found: HealthWatch, reader: Reader) -> None:
    """Read no more; the last reader ends the watch."""
    found.set_readers(*(other for other in found.readers if other != reader))
    of_model = _watches.get(model, {})
    if not found.readers:
        found.detach()
        for sample_freq in [freq for freq, each in of_model.items() if each is found]:
            del of_model[sample_freq]
