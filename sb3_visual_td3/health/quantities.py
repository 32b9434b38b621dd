"""Compute health measures: small functions that turn tensors into a scalar tensor on the same device."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch as th

SATURATED = 0.98
"""An action with a larger absolute value counts as saturated: the derivative of tanh is below 0.04 there."""


def total_norm(tensors: Sequence[th.Tensor]) -> th.Tensor:
    """Return the L2 norm of all numbers in some tensors together.

    :param tensors: at least one tensor, all on one device
    :return: a scalar >= 0. On a GPU, it is not finite if the square of a number overflows.
    """
    # This gives the result of th.nn.utils.get_total_norm, bit for bit, but without sorting the tensors by device.
    norm: th.Tensor = th.linalg.vector_norm(th.stack(th._foreach_norm(list(tensors))))
    # A sum of squares overflows long before the norm does. On a GPU, testing for that would mean waiting for the
    # device.
    if norm.device.type == "cpu" and not norm.isfinite():
        return _scaled_norm(tensors)
    return norm


def _scaled_norm(tensors: Sequence[th.Tensor]) -> th.Tensor:
    """Return the L2 norm of some tensors as float64, even if their squares are too large for their own dtype."""
    largest = th.stack([tensor.abs().max() for tensor in tensors if tensor.numel()]).max().double()
    if not largest.isfinite():
        return largest
    parts: list[th.Tensor] = [th.linalg.vector_norm(tensor.double() / largest) for tensor in tensors]
    norm: th.Tensor = largest * th.linalg.vector_norm(th.stack(parts))
    return norm


def is_frozen(parameters: Iterable[th.Tensor]) -> bool:
    """Return whether all given weights are frozen (``requires_grad`` is False)."""
    return not any(parameter.requires_grad for parameter in parameters)


def gradient_norm(parameters: Iterable[th.Tensor]) -> th.Tensor:
    """Return the L2 norm of the gradients of some parameters together.

    :param parameters: a parameter without a gradient counts as zero
    :return: a scalar >= 0; not finite if a gradient is not finite
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return th.zeros((), device=parameters[0].device)
    return total_norm(gradients)


def gradients_of(parameters: Iterable[th.Tensor]) -> th.Tensor:
    """Return a copy of the gradients of some parameters as one vector."""
    gradients = [parameter.grad.flatten() for parameter in parameters if parameter.grad is not None]
    return th.cat(gradients) if gradients else th.zeros(0)


def were_changed(before: th.Tensor, parameters: Iterable[th.Tensor]) -> th.Tensor:
    """Return whether any gradient has changed since it was copied.

    :param before: result of an earlier :func:`gradients_of`
    :param parameters: the parameters whose gradients were copied
    :return: 1 or 0; numbers that were NaN before are ignored
    """
    if before.device.type != "cpu" or before.dtype not in {th.float32, th.float64}:
        return ((gradients_of(parameters) != before) & ~before.isnan()).any().float()
    gradients = [parameter.grad.flatten().numpy() for parameter in parameters if parameter.grad is not None]
    places = np.cumsum([gradient.size for gradient in gradients[:-1]])
    return th.tensor(float(any(map(_differs, np.split(before.numpy(), places), gradients))))


def _differs(old: npt.NDArray[np.floating], new: npt.NDArray[np.floating]) -> bool:
    """Return whether new gradients differ from old ones; places where the old gradient is NaN are ignored.

    NumPy is five times faster here than torch.
    """
    differs = new != old
    return bool(differs.any()) and bool((differs & ~np.isnan(old)).any())


def update_ratio(before: Sequence[th.Tensor], after: Sequence[th.Tensor]) -> th.Tensor:
    """Return the norm of a step divided by the norm of the weights before it.

    :param before: weights before the step
    :param after: weights after the step
    :return: a scalar >= 0, usually about 1e-3 for Adam; not finite if all weights were 0 before and then changed

    Source: Karpathy 2015, CS231n notes, "Ratio of weights:updates".
    """
    step = total_norm(th._foreach_sub(list(after), list(before))).double()
    return th.where(step == 0.0, 0.0, step / total_norm(before).double())


def action_saturation(actions: th.Tensor) -> th.Tensor:
    """Return the fraction of saturated actions, whose absolute value is above :data:`SATURATED`.

    :param actions: the actions, ``(batch, action_dim)`` in [-1, 1]
    :return: a scalar in [0, 1]
    """
    return (actions.abs() > SATURATED).float().mean()


def smallest_action_std(actions: th.Tensor) -> th.Tensor:
    """Return the standard deviation of the action dimension that varies least, to find a stuck but unsaturated action.

    :param actions: the actions, ``(batch, action_dim)``
    :return: a scalar >= 0
    """
    return actions.std(dim=0, correction=0).min()


def value_bound(rewards: th.Tensor, discounts: th.Tensor) -> th.Tensor:
    """Return the largest |Q| that the given rewards allow: max |r| / (1 - discount).

    :param rewards: ``(batch, 1)`` rewards, or n-step sums of them
    :param discounts: ``(batch, 1)`` or a scalar: gamma to the power of the number of summed steps
    :return: a scalar >= 0; infinite if a discount is 1
    """
    missing = 1.0 - discounts
    # A float32 just below 1 is a multiple of 6e-8, so a discount is rounded by less than 6e-8. Without the
    # correction, the bound could be too small.
    missing = th.where(discounts > 0.9999, missing - 6e-8, missing)
    return th.where(missing > 0.0, rewards.abs() / missing, math.inf).max()


def distance(weights: Sequence[th.Tensor], others: Sequence[th.Tensor]) -> th.Tensor:
    """Return the L2 distance between two sets of weights with the same shapes.

    :param weights: weights of a network
    :param others: weights of its target copy
    :return: a scalar >= 0
    """
    return total_norm(th._foreach_sub(list(weights), list(others)))
