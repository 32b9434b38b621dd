"""Measure a training run once, and share the measurements among all callbacks that read them.

A :class:`HealthWatch` attaches the monitors of ``health/`` to a model, and :func:`watch` returns it to callbacks with
the same ``sample_freq``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.pictures import pictures_read
from sb3_visual_td3.common.types import Points, WatchedModel
from sb3_visual_td3.health.camera_monitor import CameraMonitor
from sb3_visual_td3.health.finite_monitor import FiniteMonitor
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.network_probe import NetworkProbe
from sb3_visual_td3.health.quantities import is_frozen
from sb3_visual_td3.health.reward_monitor import RewardMonitor
from sb3_visual_td3.health.stock_watch import StockWatch

Form = Literal["means", "points"]
"""Form in which a callback reads measurements: averages since its last read (``"means"``), or individual measurements
(``"points"``)."""


def pictures_seen_by(model: OffPolicyAlgorithm) -> dict[str, spaces.Box]:
    """Return the image spaces among the observations of a policy, by key.

    :param model: any off-policy algorithm
    """
    policy = model.policy
    return pictures_read(model.observation_space, policy.normalize_images, policy.features_extractor_class)


class HealthWatch:
    """Hold the monitors of one training run, which measure its updates, networks, images and rewards.

    :param model: any off-policy algorithm
    :param sample_freq: updates and networks are measured every ``sample_freq`` gradient updates; images and rewards
        give one measurement per ``sample_freq`` steps of the environments
    :raises ValueError: if the model's updates cannot be watched
    """

    def __init__(self, model: BaseAlgorithm, sample_freq: int) -> None:
        if not isinstance(model, OffPolicyAlgorithm):
            raise ValueError(
                f"{type(model).__name__} cannot be watched: expected VisualTD3, TD3, SAC, DDPG, TQC or CrossQ"
            )
        self.sample_freq = sample_freq
        self._model = model
        self.model: WatchedModel | StockWatch = model if isinstance(model, WatchedModel) else StockWatch(model)
        self.monitor = GradientMonitor(sample_freq)
        self.monitor.probe = NetworkProbe(model)
        self.finite = FiniteMonitor()
        self._camera = CameraMonitor(sample_freq, pictures_seen_by(model))
        self._rewards = RewardMonitor(sample_freq)
        self._last_seen = -1
        self.forms: list[Form] = []
        self.model.observers.append(self.monitor)

    @property
    def n_updates(self) -> int:
        """Return the number of gradient updates of the critics so far."""
        if isinstance(self.model, StockWatch):
            return self.model.n_updates
        return self._model._n_updates

    def set_forms(self, *forms: Form) -> None:
        """Set how the callbacks read the measurements: as averages, or as individual measurements.

        :param forms: one entry for each callback; individual measurements are kept only if an entry is ``"points"``
        """
        self.forms = list(forms)
        reads_points = "points" in forms
        self.monitor.keep_points = reads_points
        self.monitor.logs_losses = "means" in forms
        # Searching every update for non-finite values takes time, so it is done only if a callback acts on them.
        # After an exception, the model has no observers any more, and must not get a new one here.
        is_attached = self.finite in self.model.observers
        if reads_points and not is_attached and self.monitor in self.model.observers:
            self.model.observers.append(self.finite)
        elif is_attached and not reads_points:
            self.model.observers.remove(self.finite)

    def reattach(self) -> None:
        """Watch the model's current networks; the model may have replaced the networks that were watched before."""
        if isinstance(self.model, StockWatch):
            self.model.attach()
            self.model.run_began_at = self._model.start_time

    def see(self, locals_: Mapping[str, Any], num_timesteps: int) -> None:
        """Measure the images and the rewards of one step of the environments.

        :param locals_: local variables of Stable-Baselines3's ``collect_rollouts``
        :param num_timesteps: environment steps so far
        """
        # Each callback that shares this watch calls this method, and only the first call in a step counts.
        if num_timesteps != self._last_seen:
            self._last_seen = num_timesteps
            self._camera.see(locals_["new_obs"], self.n_updates)
            self._rewards.see(np.asarray(locals_["rewards"]) / self.model.reward_divisor, self.n_updates)

    def read(self) -> dict[str, float]:
        """Return the mean of each quantity over the measurements since the last call, by logged name."""
        if "points" not in self.forms:
            self._discard_points()
        return {**self.monitor.read(), **self._camera.read()}

    def read_points(self) -> list[Points]:
        """Return the individual measurements of updates, rewards and images since the last call.

        Each value comes with the number of gradient updates at which it was measured. The last mapping in the list
        holds the current settings of the model: the learning rates, and flags with the value 1 or 0. The flags tell
        which groups of weights are frozen and, if the policy has an encoder, whether actor and critic share the
        encoder.
        """
        if "means" not in self.forms:
            self.monitor.read()
            self._camera.read()
        state: dict[str, list[tuple[int, float]]] = {
            tags.GROUP_LR[group]: [(self.n_updates, rate)] for group, rate in self.model.learning_rates.items()
        }
        for group, parameters in self.model.groups.items():
            state[tags.GROUP_FROZEN[group]] = [(self.n_updates, float(is_frozen(parameters)))]
        if self.model.encoder_is_shared is not None:
            state[tags.ENCODER_IS_SHARED] = [(self.n_updates, float(self.model.encoder_is_shared))]
        # Both sources have the largest and smallest reward. The rewards that arrive now take precedence over replayed
        # rewards.
        return [{**self.monitor.read_points(), **self._rewards.read_points()}, self._camera.read_points(), state]

    def _discard_points(self) -> None:
        self.monitor.read_points()
        self._rewards.read_points()
        self._camera.read_points()

    def get_state(self) -> dict[str, Any]:
        """Return the measurements that have not been read yet."""
        return {
            "monitor": self.monitor.get_state(),
            "camera": self._camera.get_state(),
            "rewards": self._rewards.get_state(),
            "last_seen": self._last_seen,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the measurements that ``get_state`` returned.

        :param state: the state returned by ``get_state``
        """
        self.monitor.set_state(state["monitor"], self._model.device)
        self._camera.set_state(state["camera"])
        self._rewards.set_state(state["rewards"])
        self._last_seen = state["last_seen"]
        # A StockWatch counts updates itself, and its count began before the model's counter was restored.
        if isinstance(self.model, StockWatch):
            self.model.n_updates = self._model._n_updates

    def detach(self) -> None:
        """Detach all monitors from the model."""
        for observer in (self.monitor, self.finite):
            if observer in self.model.observers:
                self.model.observers.remove(observer)
        if isinstance(self.model, StockWatch):
            self.model.detach()


_WATCHES = "health_watches"
"""Key of a callback's ``locals``: list of the HealthWatch objects of this training."""


def watch(callback: BaseCallback, sample_freq: int, form: Form) -> HealthWatch:
    """Return a HealthWatch of a callback's model; call this when training starts, and :func:`unwatch` when it ends.

    Callbacks of one training share a HealthWatch if they have the same ``sample_freq`` and read different forms. A
    measurement can be read only once, so two callbacks that read the same form get a HealthWatch each.

    :param callback: the callback that reads the measurements
    :param sample_freq: how often to measure, see :class:`HealthWatch`
    :param form: ``"means"`` if the callback reads averages since its last read, ``"points"`` if it reads
        individual measurements
    :return: the HealthWatch, shared or new
    :raises ValueError: if the model's updates cannot be watched
    """
    # All callbacks of a training have the same dict of learn()'s local variables, and each training has a new dict. So
    # a HealthWatch of an earlier training, which an exception ended, is not found here.
    watches: list[HealthWatch] = callback.locals.setdefault(_WATCHES, [])
    found = next((each for each in watches if each.sample_freq == sample_freq and form not in each.forms), None)
    if found is None:
        found = HealthWatch(callback.model, sample_freq)
        watches.append(found)
    found.set_forms(*found.forms, form)
    return found


def unwatch(callback: BaseCallback, found: HealthWatch, form: Form) -> None:
    """Stop reading from a HealthWatch, and detach it if no other callback reads from it.

    :param callback: the callback that has read the measurements
    :param found: the HealthWatch, as :func:`watch` returned it
    :param form: ``"means"`` or ``"points"``, as in the call of :func:`watch`
    """
    # rl-zoo calls on_training_end() of the first callback twice.
    if form not in found.forms:
        return
    found.set_forms(*(other for other in found.forms if other != form))
    if not found.forms:
        found.detach()
        callback.locals[_WATCHES].remove(found)
