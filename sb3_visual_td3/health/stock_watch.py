"""Call observers at the updates of stock algorithms, by hooks on their optimizers and layers.

Stock algorithms are Stable-Baselines3's TD3, SAC and DDPG and sb3-contrib's TQC and CrossQ. They do not call observers
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_visual_td3.common.groups import groups_of
from sb3_visual_td3.common.types import NETWORKS, Network, NetworkUpdate, UpdateObserver

Groups = dict[str, list[th.Tensor]]


def stepped_groups(actor: nn.Module, critic: nn.Module) -> dict[Network, Groups]:
    """Return the weights that each optimizer trains, by group.

    An encoder that both networks share belongs to the actor, whose loss alone trains it.

    :param actor: the actor, with its ``optimizer``
    :param critic: the critic, with its ``optimizer``
    :return: weights by network and group; a group without weights is absent
    """
    return {name: _groups(name, module, actor) for name, module in zip(NETWORKS, (actor, critic), strict=True)}


def _groups(name: Network, module: nn.Module, actor: nn.Module) -> Groups:
    optimizer = module.optimizer
    assert isinstance(optimizer, th.optim.Optimizer)
    encoder = {id(weight) for weight in _encoder(module)}
    borrowed = set()
    if module is not actor:
        borrowed = {id(weight) for weight in _encoder(actor)}
    stepped = [weight for group in optimizer.param_groups for weight in group["params"] if id(weight) not in borrowed]
    cnn, mlp = groups_of(name)
    groups = {
        cnn.name: [weight for weight in stepped if id(weight) in encoder],
        mlp.name: [weight for weight in stepped if id(weight) not in encoder],
    }
    return {group: weights for group, weights in groups.items() if weights}


def _encoder(module: nn.Module) -> list[th.Tensor]:
    extractor = module.features_extractor
    assert isinstance(extractor, nn.Module)
    return list(extractor.parameters())


Observations = th.Tensor | Mapping[str, th.Tensor]


class ForwardTaps:
    """Record the Q-values and pre-tanh actions of the latest forward passes with gradients enabled.

    :param actor: an actor of Stable-Baselines3 or sb3-contrib
    :param critic: a critic with ``q_networks``
    :param is_joint: whether the critic gets observations and next observations in one batch, in this order (CrossQ)
    """

    def __init__(self, actor: nn.Module, critic: nn.Module, is_joint: bool) -> None:
        self._is_joint = is_joint
        self._q_values: dict[int, th.Tensor] = {}
        self._pre_tanh: th.Tensor | None = None
        self.observations: Observations | None = None
        """Observations of the critic's last batch."""
        self._handles = [_last_linear(actor).register_forward_hook(self._keep_pre_tanh)]
        self._handles.append(critic.register_forward_pre_hook(self._keep_observations, with_kwargs=True))
        q_networks = critic.q_networks
        assert isinstance(q_networks, list | nn.ModuleList)
        for index, q_network in enumerate(q_networks):
            self._handles.append(q_network.register_forward_hook(self._keeping_q_values(index)))

    def remove(self) -> None:
        """Remove the hooks that record Q-values and actions from the actor and the critic."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def critic_values(self) -> dict[str, th.Tensor]:
        """Return the Q-values that the critic's latest loss used, and drop this object's references to them.

        :return: ``q_values`` (batch, n_critics), which are means if the critics predict quantiles; empty if no critic
            has run with gradients enabled since the last call
        """
        caught, self._q_values = self._q_values, {}
        if not caught:
            return {}
        q_values = th.stack([caught[index].mean(dim=1) for index in sorted(caught)], dim=1)
        if self._is_joint:  # The second half of the batch are next observations, from which CrossQ computes the target.
            q_values = q_values[: len(q_values) // 2]
        return {"q_values": q_values}

    def actor_values(self) -> dict[str, th.Tensor]:
        """Return the tensors that the actor's latest loss used, and drop this object's references to them.

        :return: ``policy_q`` (batch, 1), the first critic's Q-values; ``pre_tanh`` (batch, action_dim); ``actions``
            (batch, action_dim). If the policy is a distribution, ``pre_tanh`` is its mean, and ``actions`` is the tanh
            of this mean.
        """
        values = {}
        if 0 in self._q_values:
            values["policy_q"] = self._q_values[0].mean(dim=1, keepdim=True)
        if self._pre_tanh is not None:
            values["pre_tanh"] = self._pre_tanh
            values["actions"] = th.tanh(self._pre_tanh)
        self._q_values, self._pre_tanh = {}, None
        return values

    def _keep_pre_tanh(self, _module: nn.Module, _inputs: object, output: th.Tensor) -> None:
        if th.is_grad_enabled():  # output.requires_grad would leave out a frozen actor
            self._pre_tanh = output.detach()

    def _keep_observations(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if th.is_grad_enabled():
            self.observations = args[0] if args else kwargs.get("obs")

    def _keeping_q_values(self, index: int) -> Any:
        def keep(_module: nn.Module, _inputs: object, output: th.Tensor) -> None:
            if output.requires_grad:
                self._q_values[index] = output.detach()

        return keep


def _last_linear(actor: nn.Module) -> nn.Module:
    """Return the actor's last layer before the tanh that limits actions to [-1, 1]; in SAC, the layer of the means."""
    mu = actor.mu
    assert isinstance(mu, nn.Module)
    # TD3's head ends with its tanh; in SAC the distribution applies the tanh. With gSDE, the head ends with a clipping
    # layer, whose output is the mean.
    if isinstance(mu, nn.Sequential) and isinstance(mu[-1], nn.Tanh):
        return mu[-2]
    return mu


class StockWatch:
    """Call observers at the updates of TD3, SAC, DDPG, TQC and CrossQ, as VisualTD3 does at its own updates.

    It is a :class:`~sb3_visual_td3.common.types.WatchedModel`. If the algorithm clips gradients, observers see them
    only after clipping. Observers get no losses, targets, rewards or discounts.

    :param model: the algorithm; its networks are neither copied nor changed
    :raises ValueError: if the algorithm has no actor or no critic, or if one of them lacks an optimizer of its own
    """

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self.observers: list[UpdateObserver] = []
        self.n_updates = 0
        """Number of updates of the critics. Some algorithms raise their own counter later."""
        self.run_began_at: float | None = None
        """The model's ``start_time``, if the observers are for one call of ``learn()``; None if they are for all."""
        self._model = model
        self._handles: list[Any] = []
        self._taps: ForwardTaps | None = None
        self._watched: tuple[th.optim.Optimizer, ...] = ()
        self.attach()

    @property
    def is_attached(self) -> bool:
        """Return whether this object's hooks are on the optimizers that the model has now."""
        return bool(self._watched) and all(a is b for a, b in zip(self._watched, self._optimizers(), strict=True))

    def attach(self) -> None:
        """Add hooks to the model's networks and optimizers, unless the hooks are already there.

        Call it again after the model has loaded weights or returned to a snapshot, because its networks may then be
        other objects.

        :raises ValueError: if the model has no actor or no critic, or if one of them lacks an optimizer of its own
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
        """Remove every hook from the model; the list of observers stays as it is, for the next :meth:`attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._taps is not None:
            self._taps.remove()
        self._taps = None
        self._watched = ()

    @property
    def reward_is_normalized(self) -> bool:
        """Return whether the critic is trained on rewards that VecNormalize has scaled."""
        normalizer = self._model.get_vec_normalize_env()
        return normalizer is not None and normalizer.norm_reward

    @property
    def reward_divisor(self) -> float:
        """Return 1: Stable-Baselines3's algorithms do not scale rewards themselves."""
        return 1.0

    @property
    def encoder_is_shared(self) -> bool | None:
        """Return False if there is an encoder, otherwise None.

        True would mean that the critic's loss trains a shared encoder. With ``share_features_extractor=True``, only the
        actor's loss trains the shared encoder.
        """
        if not all(_encoder(network) for network in self._networks()):
            return None
        return False

    @property
    def groups(self) -> Groups:
        """Return the weights of actor and critic, by the name of their group."""
        return {name: weights for groups in self._groups.values() for name, weights in groups.items()}

    @property
    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate of each group of weights, by the name of the group."""
        optimizers: dict[Network, th.optim.Optimizer] = dict(zip(("actor", "critic"), self._optimizers(), strict=True))
        return {
            name: float(optimizers[network].param_groups[0]["lr"])
            for network, groups in self._groups.items()
            for name in groups
        }

    def describe(self) -> dict[str, tuple[Any, str]]:
        """Return the model's settings that are numbers, booleans or text.

        :return: ``(value, name of the model's class)`` by the name of the setting; names that begin with "_" are left
            out
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
                    f"{type(self._model).__name__} has no actor or no critic, or one of them lacks an optimizer of its "
                    "own, so its updates cannot be watched: expected Stable-Baselines3's TD3, SAC or DDPG, or "
                    "sb3-contrib's TQC or CrossQ"
                )
        assert isinstance(actor, nn.Module)
        assert isinstance(critic, nn.Module)
        return actor, critic

    def _optimizers(self) -> tuple[th.optim.Optimizer, ...]:
        return tuple(network.optimizer for network in self._networks())  # type: ignore[misc]

    def _hook(self, network: Network, optimizer: th.optim.Optimizer) -> None:
        current: list[NetworkUpdate] = []

        def before(_optimizer: th.optim.Optimizer, _args: object, _kwargs: object) -> None:
            if self.run_began_at not in (None, self._model.start_time):
                # The observers belong to an earlier call of learn(). An exception ended this call, so no callback has
                # detached them. The hooks stay, because a hook cannot remove itself while PyTorch runs the hooks.
                self.observers.clear()
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
    """Call observers at every update of a stock algorithm from now on.

    :param model: the algorithm
    :param observers: objects whose methods are called at each update
    :return: the watch. Call its ``attach()`` again after the model has loaded weights, and its ``detach()`` to remove
        the hooks
    :raises ValueError: if the algorithm has no actor or no critic, or if one of them lacks an optimizer of its own
    """
    watch = StockWatch(model)
    watch.observers.extend(observers)
    return watch
