"""How far the actor's loss lies beyond what the critics say of replayed pairs.

A healthy actor's loss is about minus the value that its own actions are given, so it stays of the order
of the Q values seen on replayed pairs, whatever the scale of the reward. A loss far beyond them is earned
somewhere else than in the world.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

REPLAY_Q_TAGS = (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN)
FLOOR = 1.0
"""Q values below one are counted as one: an untrained critic says nothing of the scale."""

UNSUPPORTED = 10.0
"""A loss of this many times the largest replayed Q is not supported by it."""

Q_PER_TD_ERROR = 1000.0
"""Where no Q is logged, Q is taken to be below this many temporal-difference errors. A guess on the safe
side: a loss that is called unsupported is then 10,000 such errors large."""


class QSupport(NamedTuple):
    """The actor's loss at the end of the series against the largest replayed Q.

    :ivar estimated: whether the scale of Q was estimated from the critic's loss. It can then say that a
        loss is not supported, never that it is.
    """

    ratio: float
    loss: float
    q_scale: float
    first_unsupported_step: int | None
    estimated: bool = False

    @property
    def scale_in_words(self) -> str:
        """What the loss is held against."""
        if self.estimated:
            return "the largest |Q| that the critic's loss makes plausible"
        return "the largest |Q| on replayed pairs (counted as 1 at least)"


def actor_loss_support(data: SeriesSet) -> QSupport | None:
    """Compare the median of the last tenth of the actor's losses (three points at least) with the Q scale.

    None where the run logged no actor loss, or neither a Q value nor a critic loss.
    """
    loss = data[tags.ACTOR_LOSS].finite
    if len(loss) == 0:
        return None
    last = float(np.median(loss.values[-max(3, len(loss) // 10) :]))
    q_series = [data[tag].finite for tag in REPLAY_Q_TAGS if len(data[tag].finite)]
    if not q_series:
        return _against_critic_loss(data, loss, last)
    q_scale = max([FLOOR, *(q.abs_max() for q in q_series)])
    q_steps = np.concatenate([q.steps for q in q_series])
    q_values = np.abs(np.concatenate([q.values for q in q_series]))
    order = np.argsort(q_steps, kind="stable")
    running = np.maximum.accumulate(np.maximum(q_values[order], FLOOR))
    at = np.searchsorted(q_steps[order], loss.steps, side="right") - 1
    scale_then = np.where(at >= 0, running[np.maximum(at, 0)], q_scale)
    first = onset(loss, np.abs(loss.values) > UNSUPPORTED * scale_then)
    return QSupport(abs(last) / q_scale, last, q_scale, first)


def _against_critic_loss(data: SeriesSet, loss: Series, last: float) -> QSupport | None:
    critic = data[tags.CRITIC_LOSS].finite
    if len(critic) == 0:
        return None
    q_scale = Q_PER_TD_ERROR * max(FLOOR, math.sqrt(critic.abs_max()))
    first = onset(loss, np.abs(loss.values) > UNSUPPORTED * q_scale)
    return QSupport(abs(last) / q_scale, last, q_scale, first, estimated=True)
