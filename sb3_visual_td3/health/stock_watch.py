"""Watches a stock algorithm's updates from outside: no subclass, and nothing of the algorithm is changed."""

from __future__ import annotations

from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_visual_td3.common.types import Network, NetworkUpdate, UpdateObserver
from sb3_visual_td3.health.forward_taps import ForwardTaps
from sb3_visual_td3.health.stock_groups import Groups, encoder_is_shared, stepped_groups


class StockWatch:
    """Shows observers the updates of TD3, SAC, DDPG, TQC and CrossQ as VisualTD3 shows its own.

    It is a :class:`~sb3_visual_td3.common.types.WatchedModel`. Gradients are seen when the optimizer sees them:
    ``seen_by_optimizer`` is set, and ``after_clipping`` follows ``after_backward`` at once. To be seen are
    ``q_values`` of the critics, ``policy_q``, ``actions`` and ``pre_tanh`` of the actor, and the observations; losses,
    targets, rewards and discounts stay inside the algorithm's ``train()``.

    :param model: the algorithm; no network of it is copied or changed
    :raises ValueError: if it has no actor and critic that Stable-Baselines3's optimizers step
    """

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self.observers: list[UpdateObserver] = []
        self.n_updates = 0
        """Updates of the critics: some algorithms count theirs only after the last of a series."""
        self._model = model
        self._handles: list[Any] = []
        self._taps: ForwardTaps | None = None
        self._watched: tuple[th.optim.Optimizer, ...] = ()
        self.attach()

    @property
    def is_attached(self) -> bool:
        """Whether the hooks sit on the optimizers that the model has now."""
        return bool(self._watched) and all(a is b for a, b in zip(self._watched, self._optimizers(), strict=True))

    def attach(self) -> None:
        """Put the hooks where they belong. Loading or a rollback may have replaced the networks: call it again then.

        Calling it where nothing was replaced changes nothing; no update is ever shown twice.

        :raises ValueError: if the model has no actor and critic that Stable-Baselines3's optimizers step
        """
        if self.is_attached:
            return
        self.detach()
        actor, critic = self._networks()
        self._groups = stepped_groups(actor, critic)
        self._taps = ForwardTaps(actor, critic, is_joint=getattr(self._model, "critic_target", None) is None)
        self.n_updates = self._model._n_updates
        for network, module in (("actor", actor), ("critic", critic)):
            self._hook(network, module.optimizer)  # type: ignore[arg-type]
        self._watched = self._optimizers()

    def detach(self) -> None:
        """Take every hook away; the observers stay for the next :meth:`attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._taps is not None:
            self._taps.remove()
        self._taps = None
        self._watched = ()

    @property
    def reward_is_normalized(self) -> bool:
        """Whether the critic sees rewards that VecNormalize has scaled."""
        normalizer = self._model.get_vec_normalize_env()
        return normalizer is not None and normalizer.norm_reward

    @property
    def encoder_is_shared(self) -> bool | None:
        """Whether actor and critic have one encoder; None where there is none."""
        return encoder_is_shared(*self._networks())

    @property
    def groups(self) -> Groups:
        """The named parameter groups of both networks."""
        return {name: weights for groups in self._groups.values() for name, weights in groups.items()}

    @property
    def learning_rates(self) -> dict[str, float]:
        """The learning rate in force, by group."""
        optimizers: dict[Network, th.optim.Optimizer] = dict(zip(("actor", "critic"), self._optimizers(), strict=True))
        return {
            name: float(optimizers[network].param_groups[0]["lr"])
            for network, groups in self._groups.items()
            for name in groups
        }

    def describe(self) -> dict[str, tuple[Any, str]]:
        """Say what the algorithm was given.

        :return: its plain settings, each with the algorithm's name as where it comes from
        """
        plain = (bool, int, float, str)
        origin = type(self._model).__name__
        return {
            name: (value, origin)
            for name, value in vars(self._model).items()
            if isinstance(value, plain) and not name.startswith("_")
        }

    def _networks(self) -> tuple[nn.Module, nn.Module]:
        actor, critic = (getattr(self._model, name, None) for name in ("actor", "critic"))
        for network in (actor, critic):
            if not isinstance(getattr(network, "optimizer", None), th.optim.Optimizer):
                raise ValueError(
                    f"{type(self._model).__name__} has no actor and critic with an optimizer each: expected "
                    "Stable-Baselines3's TD3, SAC or DDPG, or sb3-contrib's TQC or CrossQ"
                )
        assert isinstance(actor, nn.Module)
        assert isinstance(critic, nn.Module)
        return actor, critic

    def _optimizers(self) -> tuple[th.optim.Optimizer, ...]:
        return tuple(network.optimizer for network in self._networks())  # type: ignore[misc]

    def _hook(self, network: Network, optimizer: th.optim.Optimizer) -> None:
        current: list[NetworkUpdate] = []

        def before(_optimizer: th.optim.Optimizer, _args: object, _kwargs: object) -> None:
            if network == "critic":
                self.n_updates += 1
            current[:] = [self._update(network)]
            for observer in self.observers:
                observer.after_backward(current[0])
            for observer in self.observers:
                observer.after_clipping(current[0])

        def after(_optimizer: th.optim.Optimizer, _args: object, _kwargs: object) -> None:
            for observer in self.observers:
                observer.after_step(current[0])
            current.clear()

        self._handles += [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]

    def _update(self, network: Network) -> NetworkUpdate:
        assert self._taps is not None
        values = self._taps.critic_values() if network == "critic" else self._taps.actor_values()
        return NetworkUpdate(
            network, self.n_updates, self._groups[network], values, self._taps.observations, seen_by_optimizer=True
        )


def attach(model: OffPolicyAlgorithm, *observers: UpdateObserver) -> StockWatch:
    """Show observers every update of a stock algorithm from now on.

    :param model: the algorithm
    :param observers: who watches
    :return: the handle: ``detach()`` ends it, ``attach()`` takes it to networks that have been replaced
    :raises ValueError: if the algorithm cannot be watched
    """
    watch = StockWatch(model)
    watch.observers.extend(observers)
    return watch
