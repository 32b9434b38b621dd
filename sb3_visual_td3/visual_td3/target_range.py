"""What a bootstrapped target may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as th

from sb3_visual_td3.visual_td3.losses import possible_range


class TargetRange:
    """Keeps targets within what the rewards sampled so far can add up to, or within a fixed limit.

    The range only grows, so that one dull batch does not narrow it. Undiscounted returns (a discount of 1) have no
    range that follows from the rewards: targets are then left as they are.

    :param limit: True follows the rewards; a number allows +- that number; False allows everything
    """

    def __init__(self, limit: float | bool = False) -> None:
        self.limit = limit
        self.lower = th.zeros(())
        self.upper = th.zeros(())

    def get_state(self) -> dict[str, Any]:
        """:return: the range so far, as plain numbers"""
        return {"lower": float(self.lower), "upper": float(self.upper)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a range, as returned by :meth:`get_state`."""
        self.lower, self.upper = th.tensor(float(state["lower"])), th.tensor(float(state["upper"]))

    def __getstate__(self) -> dict[str, Any]:
        """:return: plain numbers: a model saved on a GPU must load where there is none"""
        return {"limit": self.limit, **self.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.limit = state["limit"]
        self.set_state(state)

    def clamp(self, targets: th.Tensor, rewards: th.Tensor, discounts: th.Tensor | float) -> th.Tensor:
        """Widen the range by a batch's rewards, and clamp the batch's targets to it.

        :param targets: ``(batch, 1)``
        :param rewards: ``(batch, 1)``, n-step sums where n > 1
        :param discounts: ``(batch, 1)`` or a number: gamma to the power of the steps summed
        :return: ``(batch, 1)``
        """
        if self.limit is False:
            return targets
        if self.limit is not True:
            return targets.clamp(-self.limit, self.limit)
        if not isinstance(discounts, th.Tensor):
            if discounts >= 1.0:
                return targets
            self._widen(*possible_range(rewards, discounts))
            return targets.clamp(self.lower, self.upper)
        # Decided on the device: to ask for the number would make a GPU wait in every update.
        has_limit = (discounts < 1.0).all()
        lower, upper = possible_range(rewards, discounts)
        self._widen(th.where(has_limit, lower, 0.0), th.where(has_limit, upper, 0.0))
        return th.where(has_limit, targets.clamp(self.lower, self.upper), targets)

    def _widen(self, lower: th.Tensor, upper: th.Tensor) -> None:
        """Take in the limits of one batch; a NaN among its rewards says nothing of what is possible."""
        self.lower = th.fmin(self.lower.to(lower.device), lower)
        self.upper = th.fmax(self.upper.to(upper.device), upper)
