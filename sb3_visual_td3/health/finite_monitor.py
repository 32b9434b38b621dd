"""Looks whether updates are finite, at every one of them, for the price of a number each."""

from __future__ import annotations

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
    """Takes the loss of every update: an :class:`~sb3_visual_td3.common.types.UpdateObserver`.

    A loss that is not finite leaves no gradient of the network finite, and a gradient that is not shows in the next
    loss at the latest. Where an algorithm does not show its losses, the gradient of the heads' biases stands for them.
    Nothing leaves the device before :meth:`first`.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[str, int, th.Tensor]] = []

    def after_backward(self, update: NetworkUpdate) -> None:
        """Take the number."""
        if "loss" in update.values:
            seen = _LOSS[update.network], update.values["loss"]
        else:
            group = list(update.groups)[-1]
            seen = tags.GRADIENT_NORM[group], quantities.gradient_norm(_biases(update.groups[group]))
        tag, value = seen
        self._seen.append((tag, update.n_updates, value.detach()))

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Nothing new."""

    def after_step(self, update: NetworkUpdate) -> None:
        """Nothing new."""

    def first(self) -> NotFinite | None:
        """:return: the first number since the last call that is not finite, in one transfer; None if all are"""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        values = th.stack([value.float() for *_, value in seen])
        broken = (~values.isfinite()).nonzero().flatten().tolist()
        if not broken:
            return None
        tag, n_updates, _ = seen[broken[0]]
        return NotFinite(tag, float(values[broken[0]]), n_updates)


def _biases(weights: Sequence[th.Tensor]) -> list[th.Tensor]:
    return [weight for weight in weights if weight.dim() == 1]
