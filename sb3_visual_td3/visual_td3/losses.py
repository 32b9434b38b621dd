"""Compute the losses of critics and actor, the scale of the rewards, and the range of possible returns.

Source: Fujimoto et al. 2018, "Addressing Function Approximation Error in Actor-Critic Methods" (TD3), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch.nn import functional as F

ActorObjective = Literal["q1", "min", "mean"]
CriticLoss = Literal["mse", "huber"]


def smoothed_actions(actions: th.Tensor, noise: th.Tensor, noise_clip: float) -> th.Tensor:
    """Add clipped noise to the target policy's actions (target policy smoothing).

    :param actions: ``(batch, action_dim)`` actions of the target policy in [-1, 1]
    :param noise: ``(batch, action_dim)`` unclipped noise
    :param noise_clip: largest magnitude of the noise, >= 0
    :return: ``(batch, action_dim)`` actions in [-1, 1]
    """
    return (actions + noise.clamp(-noise_clip, noise_clip)).clamp(-1, 1)


def td_target(
    rewards: th.Tensor, dones: th.Tensor, discounts: th.Tensor | float, next_q_values: th.Tensor
) -> th.Tensor:
    """Return the targets, which bootstrap from the smallest of the critics' values (clipped double Q-learning).

    :param rewards: ``(batch, 1)`` rewards, or n-step sums of them
    :param dones: ``(batch, 1)``, 1 where the episode terminated (not where it was truncated)
    :param discounts: ``(batch, 1)`` or a number: gamma**n for n summed steps
    :param next_q_values: ``(batch, n_critics)`` values of the target critics
    :return: ``(batch, 1)`` targets
    """
    smallest, _ = th.min(next_q_values, dim=1, keepdim=True)
    return rewards + (1 - dones) * discounts * smallest


def critic_losses(
    q_values: Sequence[th.Tensor], target_q_values: th.Tensor, kind: CriticLoss = "mse"
) -> list[th.Tensor]:
    """Return the loss of each critic.

    :param q_values: one ``(batch, 1)`` tensor per critic
    :param target_q_values: ``(batch, 1)`` targets from :func:`td_target`
    :param kind: ``"mse"`` for the squared error, ``"huber"`` for Huber's loss with delta 1 (MR.Q, Fujimoto et al. 2025)
    :return: one scalar per critic
    """
    distance = F.mse_loss if kind == "mse" else F.smooth_l1_loss
    return [distance(q, target_q_values) for q in q_values]


def actor_loss(q_values: Sequence[th.Tensor], objective: ActorObjective = "q1") -> th.Tensor:
    """Return the actor's loss: the negative mean Q-value of the policy's actions.

    :param q_values: one ``(batch, 1)`` tensor of Q(s, pi(s)) per critic, each on the critic's own features
    :param objective: ``"q1"`` for the first critic (TD3), ``"min"`` (DrQ-v2) or ``"mean"`` (MR.Q)
    :return: a scalar
    """
    if objective == "q1":
        return -q_values[0].mean()
    stacked = th.cat(list(q_values), dim=1)  # (batch, n_critics)
    if objective == "min":
        return -stacked.min(dim=1).values.mean()
    return -stacked.mean(dim=1).mean()


def pre_tanh_penalty(pre_tanh: th.Tensor) -> th.Tensor:
    """Return the mean squared input of the policy's tanh.

    As a penalty it keeps these inputs small, because the tanh has almost no gradient far from 0.

    :param pre_tanh: ``(batch, action_dim)`` outputs of the actor before the tanh
    :return: a scalar >= 0

    Source: Fujimoto et al. 2025, "Towards General-Purpose Model-Free Reinforcement Learning" (MR.Q).
    """
    return pre_tanh.pow(2).mean()


def possible_range(rewards: th.Tensor, discounts: th.Tensor | float) -> tuple[th.Tensor, th.Tensor]:
    """Return the smallest and the largest return that is possible with the rewards of a batch.

    If every step brings the reward r, the return is r / (1 - discount). An episode may end at any step, so the range
    always includes 0.

    :param rewards: ``(batch, 1)`` rewards, or n-step sums of them
    :param discounts: ``(batch, 1)`` or a number: gamma**n for n summed steps, below 1
    :return: lower and upper limit of any return, scalars
    """
    largest = th.finfo(rewards.dtype).max
    values = (rewards / (1.0 - discounts)).clamp(-largest, largest)
    return values.min().clamp(max=0.0), values.max().clamp(min=0.0)


class RewardScale:
    """Measure the mean magnitude of all rewards so far, by which the sampled rewards are divided.

    So the same learning rate and ``pre_tanh_penalty`` suit any unit of the rewards.

    The mean includes rewards of 0. If only one step in 1,000 has a reward, the mean is a thousandth of this reward, and
    the scaled reward is about 1,000.

    The relabelled rewards of HerReplayBuffer are not measured.

    Source: Fujimoto et al. 2025 (MR.Q), which takes the mean over the replay buffer.
    """

    def __init__(self) -> None:
        self._total = 0.0
        """Sum of the magnitudes."""
        self._n_rewards = 0

    @property
    def divisor(self) -> float:
        """Return the number to divide rewards by: their mean magnitude so far, or 1 while all rewards were 0."""
        return self._total / self._n_rewards if self._total > 0.0 else 1.0

    @property
    def is_empty(self) -> bool:
        """Return whether no reward was added yet."""
        return self._n_rewards == 0

    def add(self, rewards: NDArray[np.floating]) -> None:
        """Add rewards of any shape to the mean; NaN and infinite ones are left out."""
        magnitudes = np.abs(rewards[np.isfinite(rewards)], dtype=np.float64)
        self._total += float(magnitudes.sum())
        self._n_rewards += magnitudes.size

    def get_state(self) -> dict[str, Any]:
        """Return the number of rewards and the sum of their magnitudes."""
        return {"total": self._total, "n_rewards": self._n_rewards}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`get_state` returned."""
        self._total, self._n_rewards = float(state["total"]), int(state["n_rewards"])


class TargetRange:
    """Clamp targets to the range of possible returns, or to a fixed limit.

    The range contains all returns that are possible with the rewards of the batches so far, so it only grows. Without
    a range, each overestimated target would raise the next one further. If the discount is 1, no range follows from
    the rewards, and only a fixed limit clamps the targets.

    The limits are in the unit of the environment's rewards, even with ``scale_rewards``.

    :param limit: True clamps targets to the range that follows from the rewards. A number x clamps targets to [-x, x].
        False does not clamp them
    """

    def __init__(self, limit: float | bool = False) -> None:
        self.limit = limit
        self.lower = th.zeros(())
        self.upper = th.zeros(())
        self.is_normalized: bool | None = None
        """Whether VecNormalize scaled the rewards from which the range was found; None if not known yet."""

    def use_unit(self, *, is_normalized: bool) -> None:
        """Forget the range if it was found in another unit of the rewards.

        :param is_normalized: whether VecNormalize scales the rewards from now on
        """
        if self.is_normalized not in (None, is_normalized):
            self.lower, self.upper = th.zeros(()), th.zeros(())
        self.is_normalized = is_normalized

    def get_state(self) -> dict[str, Any]:
        """Return the present lower and upper limit of the targets, as plain numbers."""
        return {"lower": float(self.lower), "upper": float(self.upper)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the limits of the targets that :meth:`get_state` returned."""
        self.lower, self.upper = th.tensor(float(state["lower"])), th.tensor(float(state["upper"]))

    def __getstate__(self) -> dict[str, Any]:
        """Return plain numbers, because a model saved on a GPU must load on a machine without a GPU."""
        return {"limit": self.limit, "is_normalized": self.is_normalized, **self.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.limit = state["limit"]
        self.is_normalized = state.get("is_normalized")  # models of earlier versions have none
        self.set_state(state)

    def clamp(
        self, targets: th.Tensor, rewards: th.Tensor, discounts: th.Tensor | float, reward_divisor: float = 1.0
    ) -> th.Tensor:
        """Update the range of possible returns with a batch's rewards, and clamp the batch's targets to this range.

        If a fixed limit was given, the targets are clamped to this limit instead.

        :param targets: ``(batch, 1)`` targets of the critics
        :param rewards: ``(batch, 1)`` rewards, or n-step sums of them
        :param discounts: ``(batch, 1)`` or a number: gamma**n for n summed steps
        :param reward_divisor: number by which the environment's rewards were divided to give ``rewards``
        :return: ``(batch, 1)`` clamped targets
        """
        if self.limit is False:
            return targets
        if self.limit is not True:
            return targets.clamp(-self.limit / reward_divisor, self.limit / reward_divisor)
        if not isinstance(discounts, th.Tensor):
            if discounts >= 1.0:
                return targets
            lower, upper = possible_range(rewards, discounts)
            self._widen(lower * reward_divisor, upper * reward_divisor)
            return targets.clamp(self.lower / reward_divisor, self.upper / reward_divisor)
        # n-step discounts are a tensor. th.where decides on the device whether there is a limit, because reading a
        # number from the tensor would make a GPU wait in every update.
        has_limit = (discounts < 1.0).all()
        lower, upper = possible_range(rewards, discounts)
        self._widen(th.where(has_limit, lower * reward_divisor, 0.0), th.where(has_limit, upper * reward_divisor, 0.0))
        clamped = targets.clamp(self.lower / reward_divisor, self.upper / reward_divisor)
        return th.where(has_limit, clamped, targets)

    def _widen(self, lower: th.Tensor, upper: th.Tensor) -> None:
        """Extend the range of allowed targets to include the limits that follow from one batch."""
        # A NaN reward makes a limit NaN. fmin and fmax ignore it.
        self.lower = th.fmin(self.lower.to(lower.device), lower)
        self.upper = th.fmax(self.upper.to(upper.device), upper)
