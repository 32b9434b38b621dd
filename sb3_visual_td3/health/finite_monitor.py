"""Check every update for NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import checked_weights
from sb3_visual_td3.common.types import Network, NetworkUpdate
from sb3_visual_td3.health import quantities

_LOSS: Mapping[Network, str] = {"actor": tags.ACTOR_LOSS, "critic": tags.CRITIC_LOSS}


class NotFinite(NamedTuple):
    """Name the first non-finite number: its logged name, its value, and the update in which it was seen."""

    tag: str
    value: float
    n_updates: int


class FiniteMonitor:
    """Find the first non-finite number in any update.

    This class is an :class:`~sb3_visual_td3.common.types.UpdateObserver`. It observes the loss, if the algorithm
    reports it, and the norms of the bias gradients. A NaN or infinity anywhere in the backward pass reaches one of
    these numbers.
    """

    handles_non_finite = True
    """A callback attaches this monitor only if it acts on what :meth:`first` returns."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, int, th.Tensor]] = []

    def after_backward(self, update: NetworkUpdate) -> None:
        """Store the loss and the norms of the bias gradients as tensors on the device; :meth:`first` checks them."""
        if "loss" in update.values:
            self._seen.append((_LOSS[update.network], update.n_updates, update.values["loss"]))
        for group, weights in update.groups.items():
            if some := checked_weights(weights):
                self._seen.append((tags.GRADIENT_NORM[group], update.n_updates, quantities.gradient_norm(some)))

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Do nothing; :meth:`after_backward` stores all values that are checked."""

    def after_step(self, update: NetworkUpdate) -> None:
        """Do nothing; :meth:`after_backward` stores all values that are checked."""

    def first(self) -> NotFinite | None:
        """Return the first non-finite number since the last call, in one device transfer; None if all are finite."""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        values = th.stack([value.detach().double() for *_, value in seen]).tolist()
        for (tag, n_updates, _), value in zip(seen, values, strict=True):
            if not math.isfinite(value):
                return NotFinite(tag, value, n_updates)
        return None
