"""The sentences and table rows that every format of the report shares."""

from __future__ import annotations

import math
import re

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import counted, number
from sb3_visual_td3.diagnosis.return_curve import MIN_POINTS, CurveState, ReturnCurve
from sb3_visual_td3.diagnosis.run_kind import Family
from sb3_visual_td3.diagnosis.two_questions import EARLY_STEPS
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict
from sb3_visual_td3.report.analysis import Analysis
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
"""The sign before text that a reader should see first."""

VERDICT_SENTENCE = {
    Verdict.GO: "The run is stable, and it learns. Nothing in it argues against a long run.",
    Verdict.NO_GO: "A long run like this one would be wasted.",
    Verdict.INSUFFICIENT: "The logged data do not suffice for a GO; no blocking criterion failed.",
}
_NEAR = 0.8
"""A criterion that passes with more than this part of its threshold is a near miss."""


def verdict_sentence(analysis: Analysis) -> str:
    """Return the verdict in one sentence."""
    early = analysis.early
    if analysis.verdict is Verdict.INSUFFICIENT and early is not None:
        return f"It is {early}."
    return VERDICT_SENTENCE[analysis.verdict]


def answers_line(analysis: Analysis) -> str:
    """Return both answers, the shape of the return curve, and the evidence level, in one line."""
    learning = f"Learning: {analysis.learning}"
    curve = analysis.curve
    if curve is not None:
        learning += f" ({curve.state.value}"
        says_peak = curve.state not in {CurveState.TOO_SHORT, CurveState.UNCLEAR, CurveState.FLAT}
        if says_peak and curve.peak_step is not None and curve.last_step is not None:
            unit = "step" if curve_is_on_steps(curve) else "episode"
            learning += f"; best near {unit} {curve.peak_step:,} of {curve.last_step:,}"
        learning += ")"
    kind = analysis.questions.kind
    line = f"Stable: {analysis.stable}. {learning}. Evidence: {analysis.evidence}."
    if kind.family is not Family.UNKNOWN:
        algorithms = f" ({kind.algorithms})" if kind.algorithms else ""
        line += f" Kind of run: {kind.family.value}{algorithms}."
    return line


def curve_is_on_steps(curve: ReturnCurve) -> bool:
    """Return whether the steps of a curve are environment steps, judged by its name."""
    return curve.tag not in {tags.EPISODE_REWARD, tags.EPISODE_LENGTH}


def near_misses(analysis: Analysis) -> tuple[str, ...]:
    """Return the blocking criteria of a GO that passed close to their limit, in words."""
    if analysis.verdict is not Verdict.GO:
        return ()
    near = []
    for r in analysis.blocking(Status.PASS):
        if r.value is None or not r.threshold or not math.isfinite(r.value):
            continue
        # Thresholds that a value must stay below; the others have no common scale for "near".
        if r.id in _STAYS_BELOW and r.threshold > r.value > _NEAR * r.threshold:
            near.append(f"{r.title}: {number(r.value)} of {number(r.threshold)} ({r.id})")
    return tuple(near)


_STAYS_BELOW = frozenset(
    [
        "actor_cnn_norm_mean",
        "actor_loss_stable",
        "critic_loss_mean",
        "twin_critics_synchronised",
        "actor_cnn_norm_no_go",
        "actor_loss_no_exponential_growth",
        "q_magnitude",
        "q_within_bound",
        "policy_is_alive",
        "no_sure_cause",
    ]
)


def how_to_relax(analysis: Analysis) -> str | None:
    """Return how to make the first deciding criterion inform only; None for a GO."""
    why = [r for r in reasons(analysis) if r.id != "evidence"]
    if not why or (analysis.verdict is Verdict.INSUFFICIENT and analysis.early is not None):
        return None
    return (
        f"To let a criterion inform only, give --criteria a file with: "
        f"{{format_version: 1, criteria: {{{why[0].id}: {{blocking: false}}}}}}"
    )


def reasons(analysis: Analysis) -> tuple[CriterionResult, ...]:
    """Return the criteria that decided the verdict: the failed ones, otherwise the unknown ones."""
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


def first_step_to_take(analysis: Analysis) -> str:
    """Return the first thing to do about a run."""
    curve = analysis.curve
    fell = ""
    if curve is not None and curve.state is CurveState.COLLAPSED and curve.peak_step is not None:
        unit = "step" if curve_is_on_steps(curve) else "episode"
        fell = (
            f"The run has fallen from its best policy, which was near {unit} {curve.peak_step:,} of "
            f"{curve.last_step or 0:,}: restore that checkpoint (rl-zoo and EvalCallback keep it as best_model.zip)."
        )
    if analysis.cause is not None:
        # This cause names the step itself.
        if analysis.cause.id == "learned_then_fell":
            return analysis.cause.remedy
        return f"{analysis.cause.remedy} {fell}".strip()
    if analysis.verdict is Verdict.GO:
        return f"{fell} {_long_run(analysis)}".strip()
    if analysis.verdict is Verdict.NO_GO:
        return fell or "No known cause fits. Start with the failed criteria and the plots of their tags."
    return f"{fell} {_what_is_missing(analysis)}".strip()


def until_line(analysis: Analysis) -> str | None:
    """Return a line on the step up to which the run was judged; None for the whole run."""
    if analysis.until is None:
        return None
    return f"Judged up to step {analysis.until:,} (--until): later points are left out."


MAX_CHANGES = 6
"""A verdict that changes more often is described without its single changes."""


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
        sentence += f" {over_time.part_after:.0%} of the run came after the failure could be seen."
    return sentence


def _verdict(prefix: Prefix) -> str:
    return "" if prefix.verdict is None else prefix.verdict.value


_PLAIN = re.compile(r"[A-Za-z0-9_./:-]{1,100}")


def _long_run(analysis: Analysis) -> str:
    """Return the command for the long run, with the settings that the run's files show."""
    advice = "Start the long run"
    algo, env = analysis.settings.algo, analysis.manifest.env_id if analysis.manifest is not None else None
    # Both come from files of the run: they are shown only if they are plain names.
    if algo and env and _PLAIN.fullmatch(algo) and _PLAIN.fullmatch(env) and env != "unknown":
        return (
            f"{advice}: visual-td3 train --algo {algo} --env {env}, with the number of steps, the buffer and the "
            "schedule of its own block (the short run set -n), or with -n STEPS."
        )
    if analysis.manifest is None:
        return f"{advice}: the same program and settings, with the buffer size and the schedules of its full length."
    return f"{advice}."


def _what_is_missing(analysis: Analysis) -> str:
    """Return advice on how to supply the missing evidence, for this kind of run."""
    if analysis.early is not None:
        return f"Let the run continue to {EARLY_STEPS:,} environment steps, with three evaluations, and judge it then."
    unknown = analysis.blocking(Status.UNKNOWN)
    advice: list[str] = []
    owners = {
        tags.TAGS[tag].owner: None for r in unknown for tag in r.tags if tag in tags.TAGS and _is_absent(tag, analysis)
    }
    for owner in owners:
        advice.append(f"Add {owner}, which logs the missing tags.")
    names = {r.id for r in unknown}
    if "learning" in names:
        advice.append(_what_shows_learning(analysis))
    if "stable_in_own_scale" in names:
        advice.append(_what_shows_stability(analysis))
    if "evidence" in names:
        advice.append(_what_adds_evidence(analysis))
    is_finished = analysis.manifest is not None and analysis.manifest.finished is not None
    if not advice and not is_finished:
        advice.append("Let the run continue until it can be judged.")
    if not advice:
        advice.append("The run is finished: judge a longer one, or look at the criteria that are unknown.")
    return " ".join(advice)


def _is_absent(tag: str, analysis: Analysis) -> bool:
    return len(analysis.series[tag].finite) == 0


def _what_shows_learning(analysis: Analysis) -> str:
    curve = analysis.curve
    if curve is None:
        if any(name.startswith(("rollout/", "time/")) for name in analysis.series.names()):
            return (
                "Log the returns of episodes: wrap the environment in Monitor (SB3 then writes rollout/ep_rew_mean), "
                "and give learn() an EvalCallback (eval/mean_reward)."
            )
        return (
            "Log the return of each episode at its environment step, for example "
            'writer.add_scalar("charts/episodic_return", episode_return, global_step), or name your tag with --tags.'
        )
    if curve.state is CurveState.COLLAPSED:
        return "Evaluate that checkpoint on more episodes before a long run."
    if curve.n_points < MIN_POINTS:
        return (
            f"Log more returns: {curve.n_points} points are too few for a curve. Evaluate more "
            "often (EvalCallback's eval_freq)."
        )
    if len(analysis.questions.learning.curves) > 1:
        return "The returns do not show clearly whether the run learns: evaluate more episodes, or train longer."
    return (
        "The returns do not show clearly whether the run learns: evaluate without exploration (EvalCallback, "
        "eval/mean_reward), or train longer."
    )


def _what_shows_stability(analysis: Analysis) -> str:
    family = analysis.questions.kind.family
    if family is Family.ON_POLICY:
        return (
            "Log the losses, approx_kl, explained_variance and the policy's entropy or std, as SB3 does under train/."
        )
    if family is Family.OFF_POLICY:
        return "Add GradientNormCallback, which logs more about the critics and the actor of such a run."
    return "Log losses and Q values (SB3 writes train/actor_loss and train/critic_loss), or name your tags with --tags."


def _what_adds_evidence(analysis: Analysis) -> str:
    callbacks = sorted({r.needs_callback for r in analysis.criteria if r.needs_callback is not None})
    if callbacks:
        return f"For more evidence add {' and '.join(callbacks)}."
    return "For more evidence log the returns of training and of evaluation (Monitor and EvalCallback)."


def run_line(analysis: Analysis) -> str:
    """Describe a run in one line: its length, and the number of tags, points and files."""
    steps = analysis.series.n_steps
    # The unit is named, because a reader would take episodes or epochs for environment steps.
    length = "unknown length" if steps is None else f"{steps:,} {analysis.data.axis}"
    files = counted(len(analysis.data.files), "file")
    return f"{length} · {len(analysis.metrics)} tags · {analysis.data.n_points:,} points · {files}"
