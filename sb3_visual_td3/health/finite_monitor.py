"""Looks whether updates are finite, at every one of them, for the price of a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import Network, NetworkUpdate
from sb3_visual_td3.health import quantities

_LOSS: Mapping[Network, str] = {"actor": tags.ACTOR_LOSS, "critic": tags.CRITIC_LOSS}


class NotFinite(NamedTuple):
    """The first number that is none: a logged name, its value, and the update that it was seen in."""

    tag: str
    value: float
    n_updates: int


class FiniteMonitor:
    """Takes a few numbers of every update: an :class:`~sb3_visual_td3.common.types.UpdateObserver`.

    They are the loss, where the algorithm shows it, and the norm of the gradients of each group's biases: what is not
    finite anywhere on the way back from a loss is not finite in the biases before it. Nothing leaves the device before
    :meth:`first`.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[str, int, th.Tensor]] = []

    def after_backward(self, update: NetworkUpdate) -> None:
        """Take the numbers."""
        if "loss" in update.values:
            self._seen.append((_LOSS[update.network], update.n_updates, update.values["loss"]))
        for group, weights in update.groups.items():
            if some := _watched(weights):
                self._seen.append((tags.GRADIENT_NORM[group], update.n_updates, quantities.gradient_norm(some)))

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Nothing new."""

    def after_step(self, update: NetworkUpdate) -> None:
        """Nothing new."""

    def first(self) -> NotFinite | None:
        """:return: the first number since the last call that is not finite, in one transfer; None if all are"""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        values = th.stack([value.detach().double() for *_, value in seen]).tolist()
        for (tag, n_updates, _), value in zip(seen, values, strict=True):
            if not math.isfinite(value):
                return NotFinite(tag, value, n_updates)
        return None


def _watched(weights: Sequence[th.Tensor]) -> list[th.Tensor]:
    """:return: the vectors (biases) among the weights that have a gradient; without any, the smallest weight"""
    moved = [weight for weight in weights if weight.grad is not None]
    return [weight for weight in moved if weight.dim() == 1] or sorted(moved, key=th.Tensor.numel)[:1]
