"""Sort a policy's weights into parameter groups, each with its learning rate and its clipping.

Each network's optimizer holds one parameter group for the encoder and one for the rest (see
:mod:`~sb3_visual_td3.common.groups`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch as th
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_visual_td3.common.groups import CRITIC_CNN, GROUP_OF_NAME, GROUPS, groups_of
from sb3_visual_td3.common.numbers import to_float
from sb3_visual_td3.common.schedules import Schedule, ScheduleLike, parse_schedule
from sb3_visual_td3.common.types import NETWORKS, Network

Groups = dict[str, list[nn.Parameter]]
MaxGradNorm = float | Mapping[str, float] | None
GradClip = Literal["norm", "adaptive"]
SMALLEST_WEIGHT_NORM = 1e-3
"""Adaptive clipping replaces smaller weight norms by this one, because weights that start at zero could not change
otherwise."""


class ClippedUnit(NamedTuple):
    """List groups of weights whose gradients are clipped together, by their joint norm.

    :ivar groups: names of the groups
    :ivar max_norm: the largest joint norm
    """

    groups: tuple[str, ...]
    max_norm: float


def named_groups(policy: TD3Policy, network: Network) -> Groups:
    """Sort the weights of a network into its groups.

    :param policy: the policy
    :param network: ``"actor"`` or ``"critic"``
    :return: weights by group name, the encoder first. A group without weights is absent, and the weights of a shared
        encoder are in the critic's groups only
    """
    module: nn.Module = getattr(policy, network)
    encoder = getattr(module, "features_extractor", None)
    in_encoder = set()
    if encoder is not None:
        # Parameters are compared by identity, because == compares tensors element by element.
        in_encoder = {id(parameter) for parameter in encoder.parameters()}
    cnn, mlp = groups_of(network)
    groups: Groups = {cnn.name: [], mlp.name: []}
    for parameter in module.parameters():
        group = cnn if id(parameter) in in_encoder else mlp
        groups[group.name].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def group_optimizers(policy: TD3Policy) -> None:
    """Divide the weights in the optimizers of actor and critics into groups.

    A second call changes nothing.

    :param policy: the policy, whose optimizers are changed
    :raises ValueError: if an optimizer lacks trainable weights of its network, holds weights of others, or has groups
        with settings of their own
    """
    for network in NETWORKS:
        module: nn.Module = getattr(policy, network)
        optimizer: th.optim.Optimizer = module.optimizer  # type: ignore[assignment]
        groups = list(named_groups(policy, network).values())
        held = {id(weight) for param_group in optimizer.param_groups for weight in param_group["params"]}
        every = {id(weight) for weight in module.parameters()}
        # An optimizer may leave out weights that do not train.
        trained = {id(weight) for weights in groups for weight in weights if weight.requires_grad}
        if not trained <= held <= every:
            raise ValueError(
                f"{type(policy).__name__}: the {network}'s optimizer lacks {len(trained - held)} of the {network}'s "
                f"{len(trained)} trainable weights and holds {len(held - every)} weights of other networks. "
                f"Give it all of the {network}'s trainable weights, and no others. To freeze weights, set "
                f"requires_grad=False or use a rate of 0 ({network}_lr, {network}_cnn_lr)"
            )
        settings = [
            {key: param_group[key] for key in param_group if key not in ("params", "lr")}
            for param_group in optimizer.param_groups
        ]
        if any(each != settings[0] for each in settings):
            raise ValueError(
                f"{type(policy).__name__}: the {network}'s optimizer has parameter groups with settings of their own "
                f"({settings}). Expected the same settings for all; set rates by group with {network}_lr and "
                f"{network}_cnn_lr"
            )
        base = optimizer.param_groups[0]
        optimizer.param_groups = [{**base, "params": weights} for weights in groups]
        # Models saved by stock TD3 have one group per network. When such a state is loaded, the hook divides its group.
        if regrouped not in optimizer._optimizer_load_state_dict_pre_hooks.values():
            optimizer.register_load_state_dict_pre_hook(regrouped)


def regrouped(optimizer: th.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Fit a saved optimizer's state to the groups of an optimizer with the same weights in the same order.

    Stock TD3 has one group per network and VisualTD3 has two.

    :param optimizer: the optimizer to load the state into
    :param state: the saved result of ``optimizer.state_dict()``
    :raises ValueError: if the number of weights differs
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    groups = state["param_groups"]
    if [len(group["params"]) for group in groups] != sizes:
        saved = [parameter for group in groups for parameter in group["params"]]
        if len(saved) != sum(sizes):
            raise ValueError(
                f"the saved optimizer holds {len(saved)} weights, but this model's optimizer holds {sum(sizes)}: the "
                "networks differ. Use the policy and policy_kwargs of the saved model"
            )
        base, groups, start = groups[0], [], 0
        for size in sizes:
            groups.append({**base, "params": saved[start : start + size]})
            start += size
    # "foreach" and "fused" choose an implementation for this machine, so this optimizer keeps its own values.
    own = [{key: group[key] for key in ("foreach", "fused") if key in group} for group in optimizer.param_groups]
    return {**state, "param_groups": [{**group, **ways} for group, ways in zip(groups, own, strict=True)]}


def fuse(optimizer: th.optim.Optimizer) -> None:
    """Turn on the fused implementation of an optimizer, if its class has one."""
    for param_group in optimizer.param_groups:
        if "fused" in param_group:
            param_group.update(fused=True, foreach=False)


def group_schedules(requested: Mapping[str, ScheduleLike | None], present: Iterable[str]) -> dict[str, Schedule]:
    """Parse the learning rates of the groups that have their own.

    :param requested: rates by group name; None means the model's ``learning_rate``
    :param present: names of the model's groups
    :return: schedules of the groups with a rate of their own
    :raises ValueError: if a rate is not a schedule, or its group does not exist
    """
    present = set(present)
    schedules = {}
    for group in GROUPS:
        value = requested.get(group.name)
        if value is None:
            continue
        if group.name not in present:
            raise ValueError(
                f"{group.rate_argument}={value!r} has no effect: this model has no group {group.name} "
                f"(it has {', '.join(sorted(present))}). For a shared encoder use {CRITIC_CNN.rate_argument}; "
                "MlpPolicy has no encoders"
            )
        schedules[group.name] = parse_schedule(value, group.rate_argument)
    return schedules


def parsed_norms(max_grad_norm: Any) -> float | dict[str, float] | None:
    """Convert the values of ``max_grad_norm`` to Python floats, and check them.

    :param max_grad_norm: one largest norm, a dict of norms by name, or None
    :raises ValueError: if a norm is not a finite number above 0
    """
    if max_grad_norm is None:
        return None
    is_by_name = isinstance(max_grad_norm, Mapping)
    by_name = max_grad_norm if is_by_name else dict.fromkeys(NETWORKS, max_grad_norm)
    norms = {}
    for name, norm in by_name.items():
        try:
            norms[name] = to_float(name, norm, above=0.0)
        except ValueError as error:
            raise ValueError(
                f"max_grad_norm: {name}={norm!r}: expected a finite number above 0. To switch clipping off, leave this "
                "key out of the dict, or pass max_grad_norm={}"
            ) from error
    return norms if is_by_name else norms[NETWORKS[0]]


def clipped_units(max_grad_norm: MaxGradNorm, present: Sequence[str]) -> dict[Network, list[ClippedUnit]]:
    """Find which gradients are clipped together, for each network.

    :param max_grad_norm: a number limits the gradient norm of each network; a dict sets limits by the name of a network
        or group; None turns clipping off
    :param present: names of the model's groups
    :return: the groups that are clipped together, by network
    :raises ValueError: if a norm is not above 0, a name is unknown, or two names contain the same group
    """
    norms = parsed_norms(max_grad_norm)
    if norms is None:
        norms = {}
    elif not isinstance(norms, dict):
        norms = dict.fromkeys(NETWORKS, norms)
    units: dict[Network, list[ClippedUnit]] = {network: [] for network in NETWORKS}
    for name, max_norm in norms.items():
        # "actor" stands for both groups of the actor, "actor_cnn" for itself.
        groups = tuple(group for group in present if name in (group, GROUP_OF_NAME[group].network))
        if not groups:
            raise ValueError(
                f"max_grad_norm: {name!r} is neither a network ({', '.join(NETWORKS)}) nor a group of this model "
                f"({', '.join(present)})"
            )
        network = GROUP_OF_NAME[groups[0]].network
        if any(set(groups) & set(unit.groups) for unit in units[network]):
            raise ValueError(
                f"max_grad_norm: {name!r} and another key both apply to the same gradients: remove one of these keys"
            )
        units[network].append(ClippedUnit(groups, max_norm))
    return units


@th.no_grad()
def clip_adaptively(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Limit the norm of each unit's gradient to ``factor`` times the norm of the unit's weights.

    A unit is a row of a matrix or a filter of a convolution; a vector (bias, LayerNorm) is one unit.

    :param parameters: weights, whose gradients are changed in place
    :param factor: largest ratio of a unit's gradient norm to its weight norm, above 0

    Source: Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization", equation 3.
    """
    for parameter in parameters:
        if parameter.grad is None:
            continue
        # One row per unit: (units, weights of a unit). The norms are (units, 1).
        rows = parameter.shape[0] if parameter.dim() > 1 else 1
        weight_norm = parameter.reshape(rows, -1).norm(dim=1, keepdim=True).clamp(min=SMALLEST_WEIGHT_NORM)
        gradient = parameter.grad.reshape(rows, -1)
        limit = factor * weight_norm
        norm = gradient.norm(dim=1, keepdim=True)
        scale = th.where(norm > limit, limit / norm, th.ones_like(norm))
        parameter.grad.copy_((gradient * scale).reshape(parameter.grad.shape))


class ParameterGroups:
    """Manage the groups of a policy, with their learning rates and clipping.

    :param policy: the policy; call ``group_optimizers(policy)`` before ``set_learning_rates``
    :param rates: learning rates by group name; None means the model's ``learning_rate``
    :param max_grad_norm: a number limits the gradient norm of each network; a dict sets limits by the name of a network
        or group; None turns clipping off
    :param grad_clip: ``"norm"`` limits the gradient norm of a network or group; ``"adaptive"`` limits the gradient of
        each row or filter, with ``max_grad_norm`` as the factor of :func:`clip_adaptively`
    :raises ValueError: if a rate or a norm is out of range, or a name is unknown
    """

    def __init__(
        self,
        policy: TD3Policy,
        rates: Mapping[str, ScheduleLike | None],
        max_grad_norm: MaxGradNorm,
        grad_clip: GradClip,
    ) -> None:
        self.of_network: dict[Network, Groups] = {network: named_groups(policy, network) for network in NETWORKS}
        self.parameters: Groups = {name: group for groups in self.of_network.values() for name, group in groups.items()}
        self._schedules = group_schedules(rates, self.parameters)
        self._grad_clip = grad_clip
        self._units = clipped_units(max_grad_norm, list(self.parameters))

    def trained_weights(self, network: Network) -> list[nn.Parameter]:
        """Return the weights of a network that are trained (``requires_grad``)."""
        groups = self.of_network[network].values()
        return [weight for weights in groups for weight in weights if weight.requires_grad]

    def learning_rates(self, default: Schedule, progress_remaining: float, scale: float = 1.0) -> dict[str, float]:
        """Return the learning rate of each group by name, at one point of the training.

        :param default: schedule of groups without a rate of their own
        :param progress_remaining: 1 at the start of training, 0 at the end
        :param scale: factor on all rates
        """
        return {name: self._schedules.get(name, default)(progress_remaining) * scale for name in self.parameters}

    def set_learning_rates(self, network: Network, optimizer: th.optim.Optimizer, rates: Mapping[str, float]) -> None:
        """Write the groups' learning rates into the network's optimizer.

        :param network: ``"actor"`` or ``"critic"``
        :param optimizer: the network's optimizer
        :param rates: rates by group name, from :meth:`learning_rates`
        """
        for param_group, name in zip(optimizer.param_groups, self.of_network[network], strict=True):
            param_group["lr"] = rates[name]

    def clip(self, network: Network) -> None:
        """Scale the network's gradients down to their largest permitted norms."""
        for unit in self._units[network]:
            parameters = [parameter for group in unit.groups for parameter in self.parameters[group]]
            if self._grad_clip == "adaptive":
                clip_adaptively(parameters, unit.max_norm)
            else:
                nn.utils.clip_grad_norm_(parameters, unit.max_norm)
