"""Keep an exponential average of the actor's weights over its updates; ``predict`` uses this average.

TD3's policy fluctuates from update to update, and the average fluctuates less. The training is the same, bit for bit,
with or without an average.

The average is corrected for its start, as in Adam. After ``t`` updates with decay ``d``, the weights of ``k`` updates
ago have the coefficient ``(1 - d) d^k / (1 - d^t)``.

Source: Polyak and Juditsky 1992; Kingma and Ba 2015 (Adam) for the correction. Measured in benchmarks/stability.py.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch as th
from torch import nn

AVERAGE = "averaged_actor."
"""Prefix of the averaged actor's weights in a policy's state dict."""


def copy_of_actor(actor: nn.Module) -> Any:
    """Return a copy of an actor without its optimizer; the copy has an encoder of its own.

    :param actor: an actor of this package or of Stable-Baselines3; it may borrow the critic's encoder
    """
    # The optimizer is an attribute of the actor. Copying it would also copy Adam's moments.
    optimizer = vars(actor).pop("optimizer", None)
    try:
        copied = copy.deepcopy(actor)
    finally:
        if optimizer is not None:
            actor.optimizer = optimizer
    if hasattr(copied, "borrows_encoder"):
        copied.borrows_encoder = False  # type: ignore[assignment]
    return copied


def averaged_copy(actor: nn.Module) -> Any:
    """Return a copy of an actor for the averaged weights, which the copy holds as buffers.

    The copy has its own encoder. Optimizers and gradient clipping ignore buffers.

    :param actor: the actor; it may borrow the critic's encoder
    :return: the copy, in evaluation mode
    """
    average = copy_of_actor(actor)
    # The key is the id of a parameter: if two modules share a parameter, they also share its average.
    averages: dict[int, th.Tensor] = {}
    for module in average.modules():
        for name, parameter in list(module._parameters.items()):
            buffer = None
            if parameter is not None:
                buffer = averages.setdefault(id(parameter), parameter.detach())
            del module._parameters[name]
            module.register_buffer(name, buffer)
    average.train(False)
    return average


@th.no_grad()
def update_average(average: nn.Module, actor: nn.Module, decay: float, n_updates: int) -> None:
    """Move the average of an actor's weights towards the actor's present weights.

    :param average: result of :func:`averaged_copy`
    :param actor: the actor, after its update
    :param decay: the factor of the old average in one update, in (0, 1)
    :param n_updates: number of updates so far, including this one
    """
    # This step gives the weights of earlier updates the coefficients in the module's docstring.
    step = (1.0 - decay) / (1.0 - decay**n_updates)
    # remove_duplicate=False includes the critic's encoder if the actor uses it. It is averaged too.
    latest: dict[str, th.Tensor] = dict(actor.named_parameters(remove_duplicate=False))
    latest.update(actor.named_buffers(remove_duplicate=False))
    averages: list[th.Tensor] = []
    targets: list[th.Tensor] = []
    # named_buffers() returns each average once, even if its module has several names, such as one encoder for two
    # cameras.
    for name, tensor in average.named_buffers():
        if tensor.is_floating_point():
            averages.append(tensor)
            targets.append(latest[name])
        else:
            tensor.copy_(latest[name])  # a counter, such as BatchNorm's, has no average
    th._foreach_lerp_(averages, targets, min(step, 1.0))


def completed_state(state: Mapping[str, Any], has_average: bool, encoder_is_shared: bool) -> dict[str, Any]:
    """Make saved weights fit a policy: add the averaged actor's weights, or remove them.

    An average that was not saved starts with the actor's weights.

    :param state: saved weights of a policy, by name
    :param has_average: whether the policy that loads them has an averaged actor
    :param encoder_is_shared: whether the policy's actor uses the critic's encoder
    """
    if not has_average:
        return {name: weight for name, weight in state.items() if not name.startswith(AVERAGE)}
    completed = dict(state)
    if any(name.startswith(AVERAGE) for name in state):
        return completed
    for name, weight in state.items():
        if name.startswith("actor."):
            completed[AVERAGE + name.removeprefix("actor.")] = weight
        elif encoder_is_shared and name.startswith("critic.features_extractor."):
            completed[AVERAGE + name.removeprefix("critic.")] = weight
    return completed
