"""The named parameter groups: which weights are whose, at what learning rate, clipped to what norm.

Groups are found by their place in the optimizer, encoder first: names do not survive a state dict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch as th
from torch import nn

from sb3_visual_td3.common.numbers import to_float
from sb3_visual_td3.common.schedules import Schedule, ScheduleLike, parse_schedule
from sb3_visual_td3.common.tags import GROUPS
from sb3_visual_td3.common.types import NETWORKS, Network

if TYPE_CHECKING:
    from sb3_visual_td3.visual_td3.policies import VisualTD3Policy

Groups = dict[str, list[nn.Parameter]]
MaxGradNorm = float | Mapping[str, float] | None
GradClip = Literal["norm", "adaptive"]
SMALLEST_WEIGHT_NORM = 1e-3
"""Adaptive clipping takes no weights to be smaller, so that fresh zeros can move."""


class ClippedUnit(NamedTuple):
    """Groups whose gradients are scaled together, so that their joint norm stays within ``max_norm``."""

    groups: tuple[str, ...]
    max_norm: float


def named_groups(policy: VisualTD3Policy, network: Network) -> Groups:
    """Sort the weights of a network.

    :param policy: the policy that holds it
    :param network: ``"actor"`` or ``"critic"``
    :return: ``{network}_cnn`` (the features extractor; absent where it has no weights or belongs to the critic)
        and ``{network}_mlp`` (the rest, trunks included), in this order
    """
    module: nn.Module = getattr(policy, network)
    encoder = getattr(module, "features_extractor", None)
    in_encoder = set() if encoder is None else {id(parameter) for parameter in encoder.parameters()}
    groups: Groups = {f"{network}_cnn": [], f"{network}_mlp": []}
    for parameter in module.parameters():
        groups[f"{network}_cnn" if id(parameter) in in_encoder else f"{network}_mlp"].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def group_optimizers(policy: VisualTD3Policy) -> None:
    """Give both optimizers one parameter group per named group. Adam's arithmetic does not change by it.

    Optimizers that a policy class of the user's own has made are taken as well, and those grouped before again.

    :param policy: with its networks and their optimizers
    :raises ValueError: if an optimizer does not hold the network's weights, or has groups with settings of their own
    """
    for network in NETWORKS:
        optimizer: th.optim.Optimizer = getattr(policy, network).optimizer
        groups = list(named_groups(policy, network).values())
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # What does not train may be left out.
        whole, wanted = (
            getattr(policy, network).parameters(),
            {id(p) for group in groups for p in group if p.requires_grad},
        )
        if not wanted <= {id(p) for p in held} <= {id(p) for p in whole}:
            raise ValueError(
                f"{type(policy).__name__}: the {network}'s optimizer holds {len(held)} weights, expected the "
                f"{len(wanted)} of the {network}. To leave some as they are set requires_grad=False, or a rate of 0 "
                f"({network}_lr, {network}_cnn_lr)"
            )
        settings = [
            {key: group[key] for key in group if key not in ("params", "lr")} for group in optimizer.param_groups
        ]
        if any(each != settings[0] for each in settings):
            raise ValueError(
                f"{type(policy).__name__}: the {network}'s optimizer has parameter groups with settings of their own "
                f"({settings}). Expected one for all: rates by group are {network}_lr and {network}_cnn_lr"
            )
        base = optimizer.param_groups[0]
        optimizer.param_groups = [{**base, "params": group} for group in groups]
        if regrouped not in optimizer._optimizer_load_state_dict_pre_hooks.values():
            optimizer.register_load_state_dict_pre_hook(regrouped)


def fuse(optimizer: th.optim.Optimizer) -> None:
    """Let an optimizer that can do so update all weights in one pass; a saved state does not change that."""
    for param_group in optimizer.param_groups:
        if "fused" in param_group:
            param_group.update(fused=True, foreach=False)


def group_schedules(asked_for: Mapping[str, ScheduleLike | None], present: Iterable[str]) -> dict[str, Schedule]:
    """Find the groups that have a learning rate of their own.

    :param asked_for: by group; None means the model's ``learning_rate``
    :param present: the groups that this model has
    :return: one schedule for each group that a rate was given for
    :raises ValueError: if a rate was given for a group that is not there, or is no schedule
    """
    present = set(present)
    schedules = {}
    for group in GROUPS:
        value = asked_for.get(group)
        if value is None:
            continue
        name = f"{group.removesuffix('_mlp')}_lr"
        if group not in present:
            raise ValueError(
                f"{name}={value!r} has nothing to act on: this model has no group {group} "
                f"(it has {', '.join(sorted(present))}). A shared encoder is the critic's: use critic_cnn_lr. "
                "MlpPolicy has no encoders."
            )
        schedules[group] = parse_schedule(value, name)
    return schedules


def settled_norms(max_grad_norm: Any) -> float | dict[str, float] | None:
    """Return the norms to clip to as plain numbers.

    :param max_grad_norm: None, one norm, or norms by name
    :return: the same
    :raises ValueError: if one is not a finite number above 0
    """
    if max_grad_norm is None:
        return None
    by_name = max_grad_norm if isinstance(max_grad_norm, Mapping) else dict.fromkeys(NETWORKS, max_grad_norm)
    norms = {}
    for name, norm in by_name.items():
        try:
            norms[name] = to_float(name, norm, above=0.0)
        except ValueError as error:
            raise ValueError(
                f"max_grad_norm: {name} has {norm!r}, expected a finite number above 0 (leave it out: no clipping)"
            ) from error
    return norms if isinstance(max_grad_norm, Mapping) else norms[NETWORKS[0]]


def clipped_units(max_grad_norm: MaxGradNorm, present: Sequence[str]) -> dict[Network, list[ClippedUnit]]:
    """Find which gradients are clipped together, for each network.

    :param max_grad_norm: None, one norm for each network, or norms by network or by group
    :param present: the groups that this model has
    :return: the units of ``"actor"`` and of ``"critic"``
    :raises ValueError: if a norm is not above 0, or a name is no network or group of this model
    """
    settled = settled_norms(max_grad_norm)
    asked_for: Mapping[str, float] = {}
    if settled is not None:
        asked_for = settled if isinstance(settled, Mapping) else dict.fromkeys(NETWORKS, settled)
    units: dict[Network, list[ClippedUnit]] = {network: [] for network in NETWORKS}
    for name, max_norm in asked_for.items():
        named = [network for network in NETWORKS if name.partition("_")[0] == network]
        groups = tuple(group for group in present if named and name in (group, named[0]) and group.startswith(named[0]))
        if not groups:
            raise ValueError(
                f"max_grad_norm: {name!r} is neither a network ({', '.join(NETWORKS)}) nor a group of this model "
                f"({', '.join(present)})"
            )
        if any(set(groups) & set(unit.groups) for unit in units[named[0]]):
            raise ValueError(f"max_grad_norm: {name!r} names gradients that another key names already")
        units[named[0]].append(ClippedUnit(groups, max_norm))
    return units


def regrouped(optimizer: th.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Fit a saved optimizer's state to the groups of another one over the same weights in the same order.

    Stock TD3 has one group where we have two; encoders come first in both.

    :param optimizer: the one to load it into
    :param state: what ``optimizer.state_dict()`` gave when it was saved
    :return: a state that ``optimizer.load_state_dict`` accepts
    :raises ValueError: if the weights are not as many
    """
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    groups = state["param_groups"]
    if [len(group["params"]) for group in groups] != sizes:
        saved = [parameter for group in groups for parameter in group["params"]]
        if len(saved) != sum(sizes):
            raise ValueError(
                f"the saved optimizer holds {len(saved)} weights, this model's {sum(sizes)}: other networks"
            )
        ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        groups = [{**groups[0], "params": saved[end - size : end]} for size, end in zip(sizes, ends, strict=True)]
    # How the arithmetic is carried out is this optimizer's own matter.
    own = [{key: group[key] for key in ("foreach", "fused") if key in group} for group in optimizer.param_groups]
    return {**state, "param_groups": [{**group, **ways} for group, ways in zip(groups, own, strict=True)]}


@th.no_grad()
def clip_adaptively(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Scale each unit's gradient down to ``factor`` times the norm of the unit's weights.

    A unit is a row of a matrix or a filter of a convolution; a vector (bias, LayerNorm) is one unit.

    :param parameters: with their gradients, which are changed in place
    :param factor: largest ratio of the two norms, above 0

    Source: Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization", equation 3;
    Hafner et al. 2023 (DreamerV3) use 0.3.
    """
    for parameter in parameters:
        if parameter.grad is None:
            continue
        rows = parameter.shape[0] if parameter.dim() > 1 else 1
        weight_norm = parameter.reshape(rows, -1).norm(dim=1, keepdim=True).clamp(min=SMALLEST_WEIGHT_NORM)
        gradient = parameter.grad.reshape(rows, -1)
        limit = factor * weight_norm
        norm = gradient.norm(dim=1, keepdim=True)
        scale = th.where(norm > limit, limit / norm, th.ones_like(norm))
        parameter.grad.copy_((gradient * scale).reshape(parameter.grad.shape))


class ParameterGroups:
    """The groups of a policy, with the learning rate and the clipping of each.

    :param policy: the policy; its optimizers hold one parameter group for each named group, encoder first
    :param rates: by group; None means the model's ``learning_rate``
    :param max_grad_norm: None, one norm for each network, or norms by network or by group
    :param grad_clip: whether ``max_grad_norm`` limits the norm, or its ratio to the norm of each unit's weights
    :raises ValueError: if a rate or a norm is out of its range, or names what this model has not
    """

    def __init__(
        self,
        policy: VisualTD3Policy,
        rates: Mapping[str, ScheduleLike | None],
        max_grad_norm: MaxGradNorm,
        grad_clip: GradClip,
    ) -> None:
        self.of_network: dict[Network, Groups] = {network: named_groups(policy, network) for network in NETWORKS}
        self.parameters: Groups = {name: group for groups in self.of_network.values() for name, group in groups.items()}
        self._schedules = group_schedules(rates, self.parameters)
        self._grad_clip = grad_clip
        self._units = clipped_units(max_grad_norm, list(self.parameters))

    def learning_rates(self, default: Schedule, progress_remaining: float, scale: float = 1.0) -> dict[str, float]:
        """Look up the learning rate of each group at this moment.

        :param default: the model's own schedule, for groups that have no rate of their own
        :param progress_remaining: 1 at the start, 0 at the end of training
        :param scale: factor on all of them
        :return: by group
        """
        return {name: self._schedules.get(name, default)(progress_remaining) * scale for name in self.parameters}

    def set_learning_rates(
        self,
        network: Network,
        optimizer: th.optim.Optimizer,
        default: Schedule,
        progress_remaining: float,
        scale: float,
    ) -> None:
        """Write each group's own rate into the network's optimizer; for the rest as :meth:`learning_rates`."""
        rates = self.learning_rates(default, progress_remaining, scale)
        for param_group, name in zip(optimizer.param_groups, self.of_network[network], strict=True):
            param_group["lr"] = rates[name]

    def weights(self, network: Network) -> list[nn.Parameter]:
        """:return: all the weights of a network"""
        return [parameter for group in self.of_network[network].values() for parameter in group]

    def clip(self, network: Network) -> None:
        """Scale the network's gradients down to the norms asked for."""
        for unit in self._units[network]:
            parameters = [parameter for group in unit.groups for parameter in self.parameters[group]]
            if self._grad_clip == "adaptive":
                clip_adaptively(parameters, unit.max_norm)
            else:
                nn.utils.clip_grad_norm_(parameters, unit.max_norm)
