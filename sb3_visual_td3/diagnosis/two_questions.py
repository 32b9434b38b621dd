"""Asks a run two questions, "is it stable?" and "is it learning?", and makes one verdict of the answers."""

from __future__ import annotations

from typing import NamedTuple

from sb3_visual_td3.diagnosis.own_scale import Stability, judge_stability
from sb3_visual_td3.diagnosis.return_curve import Answer, Learning, judge_learning
from sb3_visual_td3.diagnosis.run_kind import RunKind, recognise
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import Verdict


class Answers(NamedTuple):
    """The answers of a run to the two questions.

    :param kind: the kind of algorithm, which decides what can be asked.
    :param stability: the answer to "is it stable?", with its signs.
    :param learning: the answer to "is it learning?", with the curves behind it.
    """

    kind: RunKind
    stability: Stability
    learning: Learning

    @property
    def verdict(self) -> Verdict:
        """The verdict that follows from both answers."""
        return verdict_of(self.stability.answer, self.learning.answer)


def ask(data: SeriesSet) -> Answers:
    """Return the answers of a run to both questions.

    :param data: everything that the run logged, under the names that its own code uses.
    """
    kind = recognise(data.names())
    learning = judge_learning(data)
    return Answers(kind, judge_stability(data, kind, learning.answer), learning)


def verdict_of(stable: Answer, learning: Answer) -> Verdict:
    """Return NO-GO if either answer is no, GO if both are yes, and INSUFFICIENT otherwise."""
    if "no" in (stable, learning):
        return Verdict.NO_GO
    if stable == learning == "yes":
        return Verdict.GO
    return Verdict.INSUFFICIENT
