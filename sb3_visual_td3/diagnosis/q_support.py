"""Check whether the Q values on state-action pairs in the replay buffer are large enough to explain the actor's loss.

The actor's loss is minus the critic's value of the policy's own actions. So its magnitude is about that of the Q values
if the run is healthy. A far larger magnitude is called *unsupported*. It is a sign of one of two faults: the critic
overrates the policy's own actions (rule ``policy_extrapolation``), or the critic receives the actor's features instead
of its own (rule ``feature_leak``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, once_per_run
from sb3_visual_td3.diagnosis.trends import onset

REPLAY_Q_TAGS = (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN)
FLOOR = 1.0
"""The actor's loss is divided by the largest |Q|, but never by less than this value, because the Q values of an
untrained critic are near 0."""

UNSUPPORTED = 10.0
"""The actor's loss is called unsupported if its magnitude exceeds this many times the largest |Q| on replayed pairs. In
two recorded runs with the fault that the rule ``feature_leak`` reports, the magnitude of the loss was 8e4 and 3e7 times
the largest |Q|. The criterion actor_loss_stable uses the same value."""

Q_PER_TD_ERROR = 1000.0
"""If no Q was logged, the largest |Q| is estimated as this many times the critic's largest temporal-difference error.
The factor is a high guess, to avoid false alarms."""


class QSupport(NamedTuple):
    """Compare the actor's loss at the end of a run with the largest |Q| of state-action pairs in the replay buffer.

    :ivar ratio: magnitude of the loss, divided by ``q_scale``
    :ivar loss: median of the last losses
    :ivar q_scale: the largest |Q|, at least 1
    :ivar first_unsupported_step: the step from which the loss is unsupported (see ``UNSUPPORTED``); None if it never is
    :ivar estimated: whether ``q_scale`` was estimated from the critic's loss; an estimate cannot show that the loss is
        healthy
    """

    ratio: float
    loss: float
    q_scale: float
    first_unsupported_step: int | None
    estimated: bool = False

    @property
    def scale_in_words(self) -> str:
        """Return ``q_scale`` and its origin in words; see :func:`q_scale_in_words`."""
        if self.estimated:
            return q_scale_in_words(self.q_scale, "the largest |Q| that the critic's loss makes plausible")
        return q_scale_in_words(self.q_scale, "the largest |Q| on replayed pairs")


def q_scale_in_words(scale: float, largest: str) -> str:
    """Describe the Q scale in words that fit into a sentence.

    The Q scale is the number by which other values, such as the actor's loss, are divided.

    :param scale: the largest |Q| of a run, at least 1 (:data:`FLOOR`)
    :param largest: words for the largest |Q|, such as "the largest |Q| on replayed pairs"
    :return: such as "the Q scale (the largest |Q| on replayed pairs, but at least 1), which is 20 here"
    """
    return f"the Q scale ({largest}, but at least {rounded(FLOOR)}), which is {rounded(scale)} here"


@once_per_run
def actor_loss_support(data: SeriesSet) -> QSupport | None:
    """Compare the actor's loss at the end of a run with the largest |Q|.

    If no Q value was logged, the largest |Q| is estimated from the critic's loss.

    :param data: the series of a run, or of a window of it
    :return: the comparison; None if the actor's loss is missing, or if the Q values and the critic's loss are missing
    """
    loss = data[tags.ACTOR_LOSS].finite
    if len(loss) == 0:
        return None
    # The median is used because the loss of single updates is noisy, and the last loss may be an outlier.
    last = float(np.median(loss.values[-max(3, len(loss) // 10) :]))
    q_series = [data[tag].finite for tag in REPLAY_Q_TAGS if len(data[tag].finite)]
    if not q_series:
        return _against_critic_loss(data, loss, last)
    # The loss at the end is compared with the largest Q of the whole run. For the onset, the loss of each step is
    # compared with the largest Q up to that step: a running maximum over all Q series.
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
    # The critic's loss is a mean squared error, so its root has the unit of Q.
    q_scale = Q_PER_TD_ERROR * max(FLOOR, math.sqrt(critic.abs_max()))
    first = onset(loss, np.abs(loss.values) > UNSUPPORTED * q_scale)
    return QSupport(abs(last) / q_scale, last, q_scale, first, estimated=True)
