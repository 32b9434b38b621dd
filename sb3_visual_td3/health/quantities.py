"""One quantity, one small function: tensors in, a scalar tensor out, nothing moved off the device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch as th

SATURATED = 0.98
"""An action with a larger absolute value counts as saturated: tanh' is below 0.04 there."""


def total_norm(tensors: Sequence[th.Tensor]) -> th.Tensor:
    """L2 norm of all numbers together.

    :param tensors: at least one, all on one device
    :return: a scalar >= 0 (not finite where a number is not; on a GPU also where its square is not)
    """
    # What th.nn.utils.get_total_norm gives, to the bit, without looking for several devices.
    norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(list(tensors))))
    # A sum of squares overflows long before a norm does; a GPU is not waited for to find that out.
    return _scaled_norm(tensors) if norm.device.type == "cpu" and not norm.isfinite() else norm


def _scaled_norm(tensors: Sequence[th.Tensor]) -> th.Tensor:
    """:return: the same as float64, also where the squares are too large for the tensors' own dtype"""
    largest = th.stack([tensor.abs().max() for tensor in tensors if tensor.numel()]).max().double()
    if not largest.isfinite():
        return largest
    parts: list[th.Tensor] = [th.linalg.vector_norm(tensor.double() / largest) for tensor in tensors]
    norm: th.Tensor = largest * th.linalg.vector_norm(th.stack(parts))
    return norm


def is_frozen(parameters: Iterable[th.Tensor]) -> bool:
    """:return: whether none of these weights is trained (``requires_grad`` is False)"""
    return not any(parameter.requires_grad for parameter in parameters)


def gradient_norm(parameters: Iterable[th.Tensor]) -> th.Tensor:
    """L2 norm of all gradients together.

    :param parameters: parameters; those without a gradient count as zero
    :return: a scalar >= 0 (not finite where a gradient is not)
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return total_norm(gradients) if gradients else th.zeros((), device=parameters[0].device)


def gradients_of(parameters: Iterable[th.Tensor]) -> th.Tensor:
    """:return: a copy of the gradients that are there, as one vector"""
    gradients = [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
    return th.cat(gradients) if gradients else th.zeros(0)


def were_changed(before: th.Tensor, parameters: Iterable[th.Tensor]) -> th.Tensor:
    """Whether any gradient is another number than it was.

    :param before: what :func:`gradients_of` gave for the same parameters
    :param parameters: the parameters
    :return: a scalar, 1 or 0; what was NaN before does not count
    """
    if before.device.type != "cpu" or before.dtype not in {th.float32, th.float64}:
        return ((gradients_of(parameters) != before) & ~before.isnan()).any().float()
    gradients = [parameter.grad.flatten().numpy() for parameter in parameters if parameter.grad is not None]
    places = np.cumsum([gradient.size for gradient in gradients[:-1]])
    return th.tensor(float(any(map(_differs, np.split(before.numpy(), places), gradients))))


def _differs(old: npt.NDArray[np.floating], new: npt.NDArray[np.floating]) -> bool:
    """:return: what torch would say, five times as fast, and faster still where nothing does"""
    differs = new != old
    return bool(differs.any()) and bool((differs & ~np.isnan(old)).any())


def update_ratio(before: Sequence[th.Tensor], after: Sequence[th.Tensor]) -> th.Tensor:
    """Norm of a step over the norm of the weights it started from.

    :param before: the weights before the step
    :param after: the same weights after it
    :return: a scalar >= 0; about 1e-3 is usual for Adam, 0 where nothing moved; not finite where the weights were all 0
        and moved, for there is no such ratio then

    Source: Karpathy 2015, CS231n notes, "Ratio of weights:updates".
    """
    step = total_norm(th._foreach_sub(list(after), list(before))).double()
    return th.where(step == 0.0, 0.0, step / total_norm(before).double())


def action_saturation(actions: th.Tensor) -> th.Tensor:
    """Fraction of actions at the end of their range.

    :param actions: ``(batch, action_dim)`` in [-1, 1]
    :return: a scalar in [0, 1]
    """
    return (actions.abs() > SATURATED).float().mean()


def smallest_action_std(actions: th.Tensor) -> th.Tensor:
    """Spread of the action dimension that varies least: a stuck throttle need not be saturated.

    :param actions: ``(batch, action_dim)``
    :return: a scalar >= 0
    """
    return actions.std(dim=0, correction=0).min()


def value_bound(rewards: th.Tensor, discounts: th.Tensor) -> th.Tensor:
    """Largest |Q| that rewards like these allow: max |r| / (1 - discount).

    :param rewards: ``(batch, 1)``, n-step sums where n > 1
    :param discounts: ``(batch, 1)`` or a scalar: gamma to the power of the steps summed
    :return: a scalar >= 0; infinite where there is no bound: where a discount is 1 (undiscounted returns), and where
        the dtype cannot hold it
    """
    missing = 1.0 - discounts
    # A float32 close to 1 is off by up to half its spacing, 6e-8; the bound must not be smaller for that.
    missing = th.where(discounts > 0.9999, missing - 6e-8, missing)
    return th.where(missing > 0.0, rewards.abs() / missing, math.inf).max()


def distance(weights: Sequence[th.Tensor], others: Sequence[th.Tensor]) -> th.Tensor:
    """L2 distance between two sets of weights of the same shapes.

    :param weights: of a network
    :param others: of its target copy
    :return: a scalar >= 0
    """
    return total_norm(th._foreach_sub(list(weights), list(others)))
