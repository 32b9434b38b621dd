"""Derive a verdict from the results of the criteria, and an exit code from verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from sb3_visual_td3.common.errors import ExitCode


class Status(str, Enum):
    """Define the possible results of a criterion."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"


class Verdict(str, Enum):
    """Define the possible verdicts on a run: whether a long run with the same settings is worth its cost."""

    GO = "GO"
    NO_GO = "NO-GO"
    INSUFFICIENT = "INSUFFICIENT"


EXIT_CODE_OF = {
    Verdict.GO: ExitCode.GO,
    Verdict.NO_GO: ExitCode.NO_GO,
    Verdict.INSUFFICIENT: ExitCode.INSUFFICIENT,
}

WORST_FIRST = (
    ExitCode.INTERNAL_ERROR,
    ExitCode.BAD_USAGE,
    ExitCode.NO_GO,
    ExitCode.INSUFFICIENT,
    ExitCode.GO,
)


Side = Literal["below", "above"]
"""The side of its limit on which a measured value passes."""


@dataclass(frozen=True)
class CriterionResult:
    """Hold one criterion with its result.

    :param id: id of the criterion
    :param title: sentence that is true if the criterion passes
    :param status: whether the criterion passed, failed or is unknown
    :param blocking: whether it counts for the verdict; see ``scale_dependent`` in criteria.yml
    :param value: measured value; None if nothing could be measured
    :param threshold: threshold for the value; None if the criterion needs none
    :param source: where the criterion comes from
    :param detail: the measured numbers, in words
    :param tags: logged names that the criterion reads
    :param needs_callback: callback that the run lacks and that would log the missing tags; None without such a callback
    :param side: side of ``limit`` on which the value passes; None if the value alone does not decide
    :param limit: number that the value was compared with: the threshold, or a number that the run logged; None without
        such a number
    :param is_own: whether the user's criteria file adds this criterion; such a criterion is about neither stability nor
        learning
    """

    id: str
    title: str
    status: Status
    blocking: bool
    value: float | None
    threshold: float | None
    source: str
    detail: str = ""
    tags: tuple[str, ...] = ()
    needs_callback: str | None = None
    side: Side | None = None
    limit: float | None = None
    is_own: bool = False


def decide(results: Iterable[CriterionResult]) -> Verdict:
    """Return the verdict, which depends on the ``blocking`` criteria only.

    The verdict is NO-GO if one of them failed. Otherwise it is INSUFFICIENT if one is unknown, or if not a single one
    passed. In all other cases it is GO.

    :param results: results of all criteria
    """
    blocking = {r.status for r in results if r.blocking}
    if Status.FAIL in blocking:
        return Verdict.NO_GO
    if Status.UNKNOWN in blocking or Status.PASS not in blocking:
        return Verdict.INSUFFICIENT
    return Verdict.GO


LEARNING, STABLE_IN_OWN_SCALE = "learning", "stable_in_own_scale"
"""Ids of the criteria that repeat the answers of ``two_questions.py``."""
EVIDENCE = "evidence"
"""Id of the criterion that ``--require-evidence`` adds; it is about neither stability nor learning."""
ABOUT_LEARNING = frozenset([LEARNING, "policy_drives"])
"""Ids of the criteria that answer "is it learning?"; all other built-in criteria answer "is it stable?"."""


def answer_of(results: Iterable[CriterionResult], about_learning: bool) -> Literal["yes", "no", "unknown"]:
    """Answer one of the two questions about a run: is it learning, or is it stable?

    Only ``blocking`` criteria are read, and never the criterion :data:`EVIDENCE` or a criterion that the user added.

    :param results: results of all criteria
    :param about_learning: True for "is it learning?", False for "is it stable?"
    :return: "no" if a criterion failed; otherwise "unknown" if one is unknown or not a single one passed; in all other
        cases "yes"
    """
    counting = (r for r in results if r.blocking and r.id != EVIDENCE and not r.is_own)
    asked = {r.status for r in counting if (r.id in ABOUT_LEARNING) is about_learning}
    if Status.FAIL in asked:
        return "no"
    if Status.UNKNOWN in asked or Status.PASS not in asked:
        return "unknown"
    return "yes"


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the worst exit code; the order from worst to best is 4, 2, 1, 3, 0. Without any code, return 2."""
    given = set(codes)
    return next((code for code in WORST_FIRST if code in given), ExitCode.BAD_USAGE)


def worst_verdict(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of several verdicts: NO-GO, INSUFFICIENT, GO, in this order. Without any: INSUFFICIENT."""
    given = set(verdicts)
    order = (Verdict.NO_GO, Verdict.INSUFFICIENT, Verdict.GO)
    return next((verdict for verdict in order if verdict in given), Verdict.INSUFFICIENT)
