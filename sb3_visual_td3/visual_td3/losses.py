"""The losses of critics and actor, and the range of values that the rewards seen so far allow.

Source: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods" (TD3), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch as th
from torch.nn import functional as F

ActorObjective = Literal["q1", "min", "mean"]
CriticLoss = Literal["mse", "huber"]


def smoothed_actions(actions: th.Tensor, noise: th.Tensor, noise_clip: float) -> th.Tensor:
    """Target policy smoothing.

    :param actions: ``(batch, action_dim)`` actions of the target policy in [-1, 1]
    :param noise: ``(batch, action_dim)`` unclipped noise
    :param noise_clip: limit of |noise|
    :return: ``(batch, action_dim)`` in [-1, 1]
    """
    return (actions + noise.clamp(-noise_clip, noise_clip)).clamp(-1, 1)


def td_target(
    rewards: th.Tensor, dones: th.Tensor, discounts: th.Tensor | float, next_q_values: th.Tensor
) -> th.Tensor:
    """Bootstrap from the smallest of the critics.

    :param rewards: ``(batch, 1)``, n-step sums where n > 1
    :param dones: ``(batch, 1)``, 1 where the episode terminated (not where it was truncated)
    :param discounts: ``(batch, 1)`` or a number: gamma to the power of the steps summed
    :param next_q_values: ``(batch, n_critics)``
    :return: ``(batch, 1)``
    """
    smallest, _ = th.min(next_q_values, dim=1, keepdim=True)
    return rewards + (1 - dones) * discounts * smallest


def critic_losses(
    q_values: Sequence[th.Tensor], target_q_values: th.Tensor, kind: CriticLoss = "mse"
) -> list[th.Tensor]:
    """Each critic's distance from the target.

    :param q_values: one ``(batch, 1)`` tensor per critic
    :param target_q_values: ``(batch, 1)``
    :param kind: squared error, or Huber's with delta 1 (MR.Q, Fujimoto et al. 2025)
    :return: one scalar per critic
    """
    distance = F.mse_loss if kind == "mse" else F.smooth_l1_loss
    return [distance(q, target_q_values) for q in q_values]


def actor_loss(q_values: Sequence[th.Tensor], objective: ActorObjective = "q1") -> th.Tensor:
    """What the policy is worth, negated.

    :param q_values: one ``(batch, 1)`` tensor per critic, of Q(s, pi(s)), each on the critic's own features
    :param objective: the first critic (TD3), the smallest (DrQ-v2) or the mean (MR.Q)
    :return: a scalar
    """
    if objective == "q1":
        return -q_values[0].mean()
    stacked = th.cat(list(q_values), dim=1)
    return -(stacked.min(dim=1).values if objective == "min" else stacked.mean(dim=1)).mean()


def pre_tanh_penalty(pre_tanh: th.Tensor) -> th.Tensor:
    """Mean squared activation before the policy's tanh; large ones are where its gradient dies.

    :param pre_tanh: ``(batch, action_dim)``
    :return: a scalar >= 0

    Source: Fujimoto et al. 2025, "Towards General-Purpose Model-Free Reinforcement Learning" (MR.Q).
    """
    return pre_tanh.pow(2).mean()


def possible_range(rewards: th.Tensor, discounts: th.Tensor | float) -> tuple[th.Tensor, th.Tensor]:
    """The smallest and the largest value that rewards like these can add up to.

    A value v = r + discount * v never leaves r / (1 - discount), and an episode may end at any step, so 0 always
    lies within. A limit that the dtype cannot hold is the dtype's largest number.

    :param rewards: ``(batch, 1)``, n-step sums where n > 1
    :param discounts: ``(batch, 1)`` or a number: gamma to the power of the steps summed, below 1 (from 1 on nothing
        limits a value, and what is returned means nothing)
    :return: lower and upper limit of any value, scalars
    """
    largest = th.finfo(rewards.dtype).max
    values = (rewards / (1.0 - discounts)).clamp(-largest, largest)
    return values.min().clamp(max=0.0), values.max().clamp(min=0.0)


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
