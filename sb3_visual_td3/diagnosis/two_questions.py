"""Answer two questions about a run, "is it stable?" and "is it learning?", and derive one verdict from the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from sb3_visual_td3.diagnosis.baseline_comparison import Comparison, compare_with_baselines
from sb3_visual_td3.diagnosis.own_scale import Stability, judge_stability
from sb3_visual_td3.diagnosis.return_curve import (
    MIN_STEPS_FOR_NO,
    Answer,
    CurveState,
    Learning,
    ReturnCurve,
    judge_learning,
    on_environment_steps,
)
from sb3_visual_td3.diagnosis.run_kind import Family, RunKind, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, not_finite_from, once_per_run
from sb3_visual_td3.diagnosis.tag_search import find_actor_losses, find_critic_losses, find_returns, return_tag
from sb3_visual_td3.diagnosis.verdict import Verdict

EvidenceLevel = Literal["full", "standard", "thin"]
EVIDENCE_LEVELS: tuple[EvidenceLevel, ...] = ("thin", "standard", "full")
"""The evidence levels, from the lowest to the highest. They say how much of a run could be checked."""

EARLY_STEPS = 2_000
"""A run with fewer environment steps is too short for a verdict, unless a value is not finite."""
EARLY_UPDATES = 500
"""An off-policy run of fewer than 10,000 environment steps is too short for a verdict if it made fewer updates than
this."""
LATE_UPDATES = 0.5
"""The updates begin late if at least this fraction of the run lies before the first one. Up to a tenth is usual."""


class Answers(NamedTuple):
    """Hold the answers to both questions about a run.

    :param kind: kind of algorithm
    :param stability: answer to "is it stable?"
    :param learning: answer to "is it learning?"
    :param comparison: comparison of the evaluations with baselines; None if no baseline was logged
    """

    kind: RunKind
    stability: Stability
    learning: Learning
    comparison: Comparison | None = None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict that follows from the answers to "is it stable?" and "is it learning?"."""
        return verdict_of(self.stability.answer, self.learning.answer)


@once_per_run
def ask(data: SeriesSet) -> Answers:
    """Answer "is it stable?" and "is it learning?" for one run.

    :param data: everything that the run logged
    """
    kind = recognise(data.names())
    comparison = compare_with_baselines(data)
    learning = _combined(judge_learning(data), comparison, environment_steps(data))
    learning = _after_warm_up(_while_finite(learning, data), data)
    return Answers(kind, judge_stability(data, kind, learning.answer), learning, comparison)


def verdict_of(stable: Answer, learning: Answer) -> Verdict:
    """Return NO-GO if either answer is no, GO if both are yes, and INSUFFICIENT otherwise."""
    if "no" in (stable, learning):
        return Verdict.NO_GO
    if stable == learning == "yes":
        return Verdict.GO
    return Verdict.INSUFFICIENT


@once_per_run
def environment_steps(data: SeriesSet) -> int | None:
    """Return the last step of the tags whose x-axis counts environment steps.

    The result is None if there is no such tag, or if the steps seem to count something else.
    """
    known = [data[name] for name in on_environment_steps(data)]
    if _count_by_one(known):
        return None
    return max((int(series.steps[-1]) for series in known), default=None)


def _count_by_one(known: Sequence[Series]) -> bool:
    """Return whether the steps of each tag usually increase by 1, and at least one tag is the return of an episode.

    The steps then count episodes or epochs, because an episode lasts more than one environment step. Tags with at most
    two points are ignored.
    """
    curves = [series for series in known if len(series) > 2]
    has_return = any(return_tag(series.name) is not None for series in curves)
    return has_return and all(float(np.median(np.diff(series.offsets))) == 1.0 for series in curves)


def uncounted_steps(data: SeriesSet) -> str | None:
    """Return what is wrong if the steps of a run cannot be used, such as "at step 0"; None if they can be used.

    The steps cannot be used if all points are at one step, although a tag has several points, or if all steps are
    negative.
    """
    every = [data[name] for name in data.names()]
    first = min((int(series.steps[0]) for series in every), default=0)
    last = max((int(series.steps[-1]) for series in every), default=0)
    if first == last and any(len(series) > 1 for series in every):
        return f"at step {first:,}"
    if last < 0:
        return f"at negative steps, {first:,} to {last:,}"
    return None


@once_per_run
def too_early(data: SeriesSet) -> str | None:
    """Return why it is too early for a verdict; None if the run is long enough or its length is unknown.

    :param data: the series of the run
    """
    where = uncounted_steps(data)
    if where is not None:
        return f"too early to say: all points are {where}"
    steps = environment_steps(data)
    if steps is None:
        return None
    if steps < EARLY_STEPS:
        return f"too early to say: {steps:,} environment steps, and a verdict needs {EARLY_STEPS:,}"
    updates = data["train/n_updates"].finite
    if len(updates) and steps < MIN_STEPS_FOR_NO and recognise(data.names()).family is Family.OFF_POLICY:
        n_updates = int(updates.values.max())
        if n_updates < EARLY_UPDATES:
            return f"too early to say: {n_updates:,} updates, and a verdict needs {EARLY_UPDATES:,}"
    return None


@once_per_run
def in_or_after_warm_up(data: SeriesSet) -> str | None:
    """Return why a run has hardly been trained yet, although it has many steps; None if it has, or if that is unknown.

    A warm-up of 10,000 steps is nothing unusual in a run of a million steps. If such a run is judged at its step
    10,500, random actions have made nearly all of its returns, so they do not show that it fails to learn. The answer
    needs the planned length of the run, because a warm-up that takes most of this length is a mistake.

    :param data: the series of the run
    """
    steps, planned = environment_steps(data), data.planned_steps
    if steps is None or planned is None or steps >= planned:
        return None
    kind = recognise(data.names())
    if kind.family is Family.ON_POLICY:
        return None
    losses = [data[name].finite for name in (*find_critic_losses(data.names()), *find_actor_losses(data.names()))]
    first_losses = [int(series.steps[0]) for series in losses if len(series)]
    first_update = data.learning_starts
    if first_update is None:
        first_update = min(first_losses, default=None)
    if first_update is None or first_update >= LATE_UPDATES * planned:
        return None
    # A run that continues from a checkpoint keeps its step count and needs no second warm-up.
    begin = min((int(data[name].steps[0]) for name in on_environment_steps(data)), default=0) if first_losses else 0
    needed = min(first_update - begin, MIN_STEPS_FOR_NO)
    trained = steps - first_update
    if trained >= needed:
        return None
    if trained <= 0:
        return f"the run is in its warm-up of {first_update:,.0f} steps, in which nothing is learned"
    return (
        f"too early to say no: {trained:,.0f} steps since the first update, after a warm-up of {first_update:,.0f}; "
        f"a no needs {needed:,.0f}"
    )


def _after_warm_up(learning: Learning, data: SeriesSet) -> Learning:
    """Turn a no into unknown if the warm-up has only just ended."""
    why = in_or_after_warm_up(data) if learning.answer == "no" else None
    return learning if why is None else replace(learning, answer="unknown", reasons=(why, *learning.reasons))


def _combined(learning: Learning, comparison: Comparison | None, n_steps: int | None) -> Learning:
    """Combine what the return curves and the comparison with baselines say about learning."""
    if comparison is None:
        return learning
    answer = _combined_answer(learning, comparison, n_steps)
    curve = _combined_curve(learning.curve, comparison, answer)
    return Learning(answer, curve, learning.curves, (comparison.reason, *learning.reasons))


def _while_finite(learning: Learning, data: SeriesSet) -> Learning:
    """Turn a yes into unknown if a return ends as NaN or infinity: nothing then shows how good the last policy is.

    The answer is not "no", because a NaN may be a mean over no episodes.
    """
    ended = [(tag.name, not_finite_from(data[tag.name])) for tag in find_returns(data.names())]
    reasons = tuple(f"{name} is not finite from {step:,} on" for name, step in ended if step is not None)
    if not reasons:
        return learning
    answer: Answer = "unknown" if learning.answer == "yes" else learning.answer
    return replace(learning, answer=answer, reasons=(*reasons, *learning.reasons))


def _combined_answer(learning: Learning, comparison: Comparison, n_steps: int | None) -> Answer:
    answer, curve = learning.answer, learning.curve
    if comparison.has_fallen:
        # A fall in a few evaluations does not prove a failure, but does not justify a long run either.
        return "no" if answer == "no" else "unknown"
    if comparison.answer == "yes":
        # The comparison takes precedence over a flat curve, because logging may have started after the policy had
        # learned. It also takes precedence over an unclear training curve, which contains exploration.
        is_contradicted = answer == "no" and curve is not None and curve.state is not CurveState.FLAT
        return "unknown" if is_contradicted else "yes"
    if comparison.answer == "no":
        is_long = n_steps is not None and n_steps >= MIN_STEPS_FOR_NO
        return "no" if answer != "yes" and is_long else "unknown"
    # A rising return shows learning only if the last evaluations are above the best baseline and above the untrained
    # policy.
    if answer == "yes" and comparison.late <= max(comparison.baseline, comparison.untrained):
        return "unknown"
    return answer


def _combined_curve(curve: ReturnCurve | None, comparison: Comparison, answer: Answer) -> ReturnCurve:
    """Return the curve that represents the run in the report.

    The curve agrees with ``answer``, the answer to "is it learning?" from the returns and the comparison together. It
    is usually the curve of the returns. Without a logged return, or if only the comparison with baselines shows
    learning or a collapse, the curve is made from the comparison.
    """
    if comparison.has_fallen:
        if curve is not None and curve.state is CurveState.COLLAPSED:
            return curve
        return _curve_of(comparison, CurveState.COLLAPSED)
    if comparison.answer == "yes":
        if curve is not None and (answer != "yes" or curve.state in {CurveState.IMPROVING, CurveState.PLATEAU}):
            return curve
        is_rising = comparison.peak_step == comparison.last_step
        return _curve_of(comparison, CurveState.IMPROVING if is_rising else CurveState.PLATEAU)
    if curve is not None:
        return curve
    return _curve_of(comparison, CurveState.FLAT if comparison.answer == "no" else CurveState.UNCLEAR)


def _curve_of(comparison: Comparison, state: CurveState) -> ReturnCurve:
    return ReturnCurve(
        comparison.tag,
        state,
        comparison.answer,
        comparison.n_points,
        start=comparison.baseline,
        late=comparison.late,
        peak=comparison.peak,
        peak_step=comparison.peak_step,
        last_step=comparison.last_step,
        reasons=(comparison.reason,),
    )
