"""Measure how much of a run could be checked: its evidence level (full, standard or thin) and the number of checks.

A verdict from few tags can be right, but a missing tag might have shown a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sb3_visual_td3.diagnosis.criteria import callbacks_that_ran
from sb3_visual_td3.diagnosis.run_kind import Family
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_returns
from sb3_visual_td3.diagnosis.two_questions import EVIDENCE_LEVELS, Answers, EvidenceLevel
from sb3_visual_td3.diagnosis.verdict import LEARNING, STABLE_IN_OWN_SCALE, CriterionResult, Status

_EVERY_KIND = ("finite_losses", "learning_rate")
_OF_CRITICS = (*_EVERY_KIND, "q_within_returns", "critic_error")
_OWN_SCALE = {
    Family.OFF_POLICY: _OF_CRITICS,
    Family.VALUE_BASED: _OF_CRITICS,
    # The entropy of a discrete policy and the spread of a continuous policy count as the same check here, because a run
    # has only one of them.
    Family.ON_POLICY: (*_EVERY_KIND, "policy_spread", "explained_variance", "policy_steps"),
    Family.UNKNOWN: _EVERY_KIND,
}


class RunEvidence(NamedTuple):
    """State how much of a run could be checked.

    :param level: "full" if the callbacks of this package ran, evaluations were logged, and every criterion that can
        block a GO was judged. "standard" if the returns of training and evaluation were logged, and all checks for this
        kind of algorithm were made. "thin" otherwise. If the callbacks do not support the algorithm, a run that meets
        the conditions of "standard" gets "full".
    :param n_made: number of checks that could be made
    :param n_possible: number of checks for this kind of run
    """

    level: EvidenceLevel
    n_made: int
    n_possible: int

    def __str__(self) -> str:
        return f"{self.level} ({self.n_made} of {self.n_possible} checks could be made from the logged tags)"

    def is_below(self, required: EvidenceLevel) -> bool:
        """Return whether the run has less evidence than a required level, such as "standard"."""
        return EVIDENCE_LEVELS.index(self.level) < EVIDENCE_LEVELS.index(required)


def evidence_of(data: SeriesSet, results: Sequence[CriterionResult], answers: Answers) -> RunEvidence:
    """Return how much of a run could be checked.

    :param data: the series of the run
    :param results: results of all criteria
    :param answers: answers to "is it stable?" and "is it learning?"
    """
    # These two criteria repeat the answers. The checks behind the answers are counted below.
    asked = [r for r in results if r.id not in {STABLE_IN_OWN_SCALE, LEARNING}]
    open_ones = [r for r in asked if r.status not in {Status.PASS, Status.FAIL}]
    n_made = len(asked) - len(open_ones)
    # A criterion that does not apply could have been checked only if a callback had logged its tags.
    n_possible = n_made + sum(r.status is Status.UNKNOWN or r.needs_callback is not None for r in open_ones)

    wanted = set(_OWN_SCALE[answers.kind.family])
    made = {"policy_spread" if check == "policy_entropy" else check for check in answers.stability.checks}
    n_made += len(made & wanted)
    n_possible += len(wanted)

    sources = {tag.source for tag in find_returns(data.names())}
    has_evaluation = "evaluation" in sources or answers.comparison is not None
    has_training = "training" in sources
    # The returns of training and of evaluation count as one check each.
    n_made += int(has_evaluation) + int(has_training)
    n_possible += 2

    is_known = answers.kind.family is not Family.UNKNOWN
    is_standard = is_known and has_evaluation and has_training and made >= wanted
    if answers.kind.family in {Family.ON_POLICY, Family.VALUE_BASED}:
        # The callbacks of this package do not fit these algorithms, so nothing is missing without them.
        is_full = is_standard
    else:
        is_full = has_evaluation and _is_answered_by_callbacks(data, asked)
    level: EvidenceLevel = "thin"
    if is_full:
        level = "full"
    elif is_standard:
        level = "standard"
    return RunEvidence(level, n_made, n_possible)


def _is_answered_by_callbacks(data: SeriesSet, asked: Sequence[CriterionResult]) -> bool:
    """Return whether the callbacks of this package logged what the criteria need.

    :param data: the series of the run
    :param asked: results of the criteria
    :return: True if GradientNormCallback and ExplosionAlertCallback ran, every criterion that can block a GO was
        judged, and no result names a callback in ``needs_callback``
    """
    if not callbacks_that_ran(data) >= {"GradientNormCallback", "ExplosionAlertCallback"}:
        return False
    is_answered = all(r.status is not Status.UNKNOWN for r in asked if r.blocking)
    return is_answered and not any(r.needs_callback for r in asked)
