"""Write the sentences and table rows that all formats of the report share."""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.live import CRITICAL_FROM
from sb3_visual_td3.diagnosis.numerals import counted, number
from sb3_visual_td3.diagnosis.return_curve import NOTED_FALL, CurveState
from sb3_visual_td3.diagnosis.run_kind import Family
from sb3_visual_td3.diagnosis.verdict import EVIDENCE, CriterionResult, Status, Verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.next_step import curve_unit
from sb3_visual_td3.report.over_time import Prefix

STATUS_MARK = {
    Status.PASS: "✓",
    Status.FAIL: "✗",
    Status.UNKNOWN: "?",
    Status.NOT_APPLICABLE: "-",
}
STATUS_WORD = {
    Status.PASS: "pass",
    Status.FAIL: "fail",
    Status.UNKNOWN: "unknown",
    Status.NOT_APPLICABLE: "not applicable",
}
VERDICT_MARK = {Verdict.GO: "✓", Verdict.NO_GO: "✗", Verdict.INSUFFICIENT: "?", None: "·"}
VERDICT_MARKS = tuple((VERDICT_MARK[verdict], verdict.value) for verdict in Verdict)
FLAG_MARK = "▲"
"""Sign before text that a reader should see first."""

VERDICT_SENTENCE = {
    Verdict.GO: "The run is stable, and it learns. Nothing in it argues against a long run.",
    Verdict.NO_GO: "A long run like this one would be wasted.",
    Verdict.INSUFFICIENT: "The logged data do not suffice for a GO; no blocking criterion failed.",
}
_NEAR = 0.8
"""A passed criterion is a near miss if its value is close to the limit. For a limit of 100, this means 80 to 100 for an
upper limit, and 100 to 125 for a lower one."""


def verdict_sentence(analysis: Analysis) -> str:
    """Return the verdict in one sentence."""
    early = analysis.early
    if analysis.verdict is Verdict.INSUFFICIENT and early is not None:
        return f"It is {early}."
    if analysis.verdict is Verdict.GO and not analysis.stable == analysis.learning == "yes":
        return "Every criterion that can block a GO passes."
    return VERDICT_SENTENCE[analysis.verdict]


def answers_line(analysis: Analysis) -> str:
    """Return one line: whether the run is stable and learns, the shape of its return curve, and the evidence level."""
    learning = f"Learning: {analysis.learning}"
    curve = analysis.curve
    if curve is not None:
        learning += f" ({curve.state.value}"
        says_peak = curve.state not in {CurveState.TOO_SHORT, CurveState.UNCLEAR, CurveState.FLAT}
        if says_peak and curve.peak_step is not None and curve.last_step is not None:
            unit = curve_unit(analysis, curve)
            learning += f"; best near {unit} {curve.peak_step:,} of {curve.last_step:,}"
            n_steps = analysis.series.n_steps
            if n_steps is None or curve.last_step < 0.95 * n_steps:
                # Without the name of the curve, the reader would take this step for the length of the run.
                learning += f" in {curve.tag}"
        learning += ")"
    kind = analysis.answers.kind
    line = f"Stable: {analysis.stable}. {learning}. Evidence: {analysis.evidence}."
    if kind.family is not Family.UNKNOWN:
        algorithms = f" ({kind.algorithms})" if kind.algorithms else ""
        line += f" Kind of run: {kind.family.value}{algorithms}."
    return line


def near_misses(analysis: Analysis) -> tuple[str, ...]:
    """Return a line for each blocking criterion that a GO run passed only narrowly, with the distance to its limit.

    :param analysis: the analysis of the run
    """
    if analysis.verdict is not Verdict.GO:
        return ()
    near = []
    for r in analysis.blocking(Status.PASS):
        if r.value is None or r.side is None or not r.limit or not _NEAR < r.value / r.limit < 1 / _NEAR:
            continue
        distance = f"{abs(r.value / r.limit - 1):.0%}"
        # A criterion can also pass for another reason, although its value is beyond the limit.
        if r.side == "below" and r.value <= r.limit:
            near.append(f"{r.title}: {number(r.value)} of {number(r.limit)}, {distance} below ({r.id})")
        elif r.side == "above" and r.value >= r.limit:
            near.append(f"{r.title}: {number(r.value)}, {distance} above {number(r.limit)} ({r.id})")
    lost = _lost_since_peak(analysis)
    if lost is not None and lost > _NEAR * NOTED_FALL:
        told = f"{lost:.0%} of the return gained up to the best point is lost again"
        limit = f"a loss of {NOTED_FALL:.0%} counts as a fall"
        if lost >= NOTED_FALL:
            limit = "this would count as a fall if it were larger than the noise of the returns"
        near.append(f"The policy keeps what it has learned: {told}; {limit} (learning)")
    return tuple(near)


def findings_beside_go(analysis: Analysis) -> tuple[str, ...]:
    """Return a line for each sure diagnosis of a GO run, such as a single infinite return.

    :param analysis: the analysis of the run
    """
    if analysis.verdict is not Verdict.GO:
        return ()
    return tuple(
        f"{diagnosis_line(found)} ({found.evidence[0].tag})"
        for found in analysis.diagnoses
        if found.role == "cause" and found.confidence >= CRITICAL_FROM
    )


def diagnosis_line(found: Diagnosis) -> str:
    """Return one line: a diagnosis with its confidence and the step at which it was first seen."""
    since = "" if found.first_step is None else f", first seen at step {found.first_step:,}"
    return f"{found.id} (confidence {found.confidence:.0%}{since}): {found.title}"


def _lost_since_peak(analysis: Analysis) -> float | None:
    """Return the fraction of the gained return that the run has lost again; None if the return never rose."""
    comparison, curve = analysis.answers.comparison, analysis.curve
    if comparison is not None and comparison.peak > comparison.baseline:
        return (comparison.peak - comparison.late) / (comparison.peak - comparison.baseline)
    if curve is None or not curve.peak > curve.start:
        return None
    return (curve.peak - curve.late) / (curve.peak - curve.start)


def how_to_relax(analysis: Analysis) -> str | None:
    """Return advice on how to judge the run again without the criterion that decided the verdict.

    :param analysis: the analysis of the run; only its first deciding criterion is named
    :return: the advice; None for a GO, for a run that is too short to be judged, or if only the criterion ``evidence``
        prevents a verdict
    """
    why = [r for r in reasons(analysis) if r.id != EVIDENCE]
    if not why or (analysis.verdict is Verdict.INSUFFICIENT and analysis.early is not None):
        return None
    return (
        "To stop this criterion from blocking, give --criteria a file with: {format_version: 1, criteria: "
        f"{{{why[0].id}: {{blocking: false}}}}}}"
    )


def reasons(analysis: Analysis) -> tuple[CriterionResult, ...]:
    """Return the criteria that decided the verdict; a GO has none.

    They are the blocking criteria that failed (NO-GO) or whose result is unknown (INSUFFICIENT).
    """
    if analysis.verdict is Verdict.NO_GO:
        return analysis.blocking(Status.FAIL)
    if analysis.verdict is Verdict.INSUFFICIENT:
        return analysis.blocking(Status.UNKNOWN)
    return ()


def reason(result: CriterionResult) -> str:
    """Return the measured value of a criterion with its threshold, or the reason why nothing could be measured."""
    if result.value is None:
        first_word = result.detail.split(" ", 1)[0]
        if "/" in first_word or "_" in first_word:
            return result.detail
        return f"{result.detail[:1].upper()}{result.detail[1:]}"
    against = "" if result.threshold is None else f" (threshold {number(result.threshold)})"
    return f"Found: {number(result.value)}{against}; {result.detail}"


def until_line(analysis: Analysis) -> str | None:
    """Return a line that says up to which step the run was judged; None if the whole run was judged."""
    if analysis.until is None:
        return None
    return f"Judged up to step {analysis.until:,} (--until): later points are left out."


MAX_CHANGES = 6
"""If the verdict changes more often than this, the report gives only the number of changes and the last verdict."""


def over_time_line(analysis: Analysis) -> str | None:
    """Return the earlier verdicts in one line; None if they were not requested."""
    over_time = analysis.over_time
    if over_time is None:
        return None
    changes = over_time.changes
    if len(changes) == 1:
        sentence = f"{_verdict(changes[0])} from step {changes[0].until:,} on."
    elif len(changes) <= MAX_CHANGES:
        sentence = ", ".join(f"{_verdict(change)} from step {change.until:,}" for change in changes) + "."
    else:
        sentence = f"The verdict changed {len(changes) - 1} times, and was {_verdict(changes[-1])} from step "
        sentence += f"{changes[-1].until:,} on."
    if over_time.part_after:
        sentence += f" When the failure could first be seen, {over_time.part_after:.0%} of the run was still to come."
    return sentence


def _verdict(prefix: Prefix) -> str:
    return "" if prefix.verdict is None else prefix.verdict.value


def run_line(analysis: Analysis) -> str:
    """Describe a run in one line: its length, and the number of tags, points and files."""
    length = length_in_words(analysis)
    files = counted(len(analysis.data.files), "file")
    return f"{length} · {len(analysis.metrics)} tags · {analysis.data.n_points:,} points · {files}"


def length_in_words(analysis: Analysis) -> str:
    """Return the length of a run with its unit, such as "5,000 environment steps"."""
    steps = analysis.series.n_steps
    if steps is None:
        return "unknown length"
    # A reader would take a number of episodes or epochs for environment steps, so the unit is stated. Other code may
    # log its returns over episodes and its losses over updates. The largest step of all tags is then not a number of
    # episodes.
    if analysis.data.axis == "episodes":
        n_episodes = _n_episodes(analysis)
        if n_episodes is None:
            return f"{steps:,} steps"
        # If the lengths of the episodes were logged, ``steps`` is a number of environment steps.
        if tags.EPISODE_LENGTH in analysis.series:
            return f"{n_episodes:,} episodes, {steps:,} environment steps"
        other = f", other tags up to step {steps:,}" if n_episodes < steps else ""
        return f"{n_episodes:,} episodes{other}"
    return f"{steps:,} {analysis.data.axis}"


def _n_episodes(analysis: Analysis) -> int | None:
    """Return the number of episodes of a run, as the tags over episodes show it; None if no tag is over episodes."""
    over_episodes = [name for name in analysis.series.names() if tags.is_on_episodes(name)]
    curve = analysis.curve
    if curve is not None and curve_unit(analysis, curve) == "episode":
        over_episodes.append(curve.tag)
    if curve is None and not over_episodes:
        over_episodes = [*analysis.series.names()]
    steps = [analysis.series[name].steps for name in over_episodes]
    # Episodes are numbered from 0 or from 1.
    return max((int(each[-1]) + (each[0] == 0) for each in steps if len(each)), default=None)
