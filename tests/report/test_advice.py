"""The report first answers "is it stable?" and "is it learning?", and says what to do next.

If evidence is missing, the report says which callback or code logs it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import Criterion, load_criteria
from sb3_visual_td3.diagnosis.two_questions import EvidenceLevel
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.next_step import next_step
from sb3_visual_td3.report.render_html import render_html
from sb3_visual_td3.report.run_settings import run_settings
from sb3_visual_td3.report.sections.availability import missing_section
from sb3_visual_td3.report.wording import (
    answers_line,
    findings_beside_go,
    how_to_relax,
    near_misses,
    verdict_sentence,
)
from sb3_visual_td3.runs.manifest import RunManifest

from .synthetic_runs import Values, as_series, healthy, leaking

EVALS = np.arange(1000, 10_001, 1000)


def first_step_to_take(analysis: Analysis) -> str:
    """Return everything that the report says to do first, with the lines to copy."""
    step = next_step(analysis)
    return "\n".join([step.text, *(f"{each.caption}\n{each.text}" for each in step.snippets)])


def analysed(run: Values, manifest: RunManifest | None = None, require: EvidenceLevel = "thin") -> Analysis:
    data = RunData(Path("run"), as_series(run), (), 1)
    settings, _ = run_settings(None, manifest, None)
    return analyse(data, load_criteria(), name="run", manifest=manifest, settings=settings, require_evidence=require)


def ppo(n_points: int = 200) -> Values:
    """Return a PPO run that learns, without evaluations."""
    rng = np.random.default_rng(0)
    steps = np.arange(1, n_points + 1) * 2048
    x = np.linspace(0, 1, n_points)
    return {
        "rollout/ep_rew_mean": (steps, 20 + 400 * np.minimum(2 * x, 1) + rng.normal(0, 2, n_points)),
        "train/approx_kl": (steps, 0.01 + rng.random(n_points) * 0.005),
        "train/clip_fraction": (steps, 0.1 + rng.random(n_points) * 0.02),
        "train/explained_variance": (steps, np.where(np.arange(n_points) == 3, np.nan, 0.8)),
        "train/learning_rate": (steps, np.full(n_points, 3e-4)),
        "train/std": (steps, 1.0 - 0.5 * x),
        "train/value_loss": (steps, 10 - 5 * x),
    }


def test_advice_for_a_collapsed_run_names_the_step_of_the_checkpoint_to_restore() -> None:
    run = healthy(last_step=10_000)
    metres = np.array([8, 358, 342, 210, 235, 268, 436, 277, 264, 255], dtype=float)
    run[tags.EVAL_DISTANCE] = (EVALS, metres)
    analysis = analysed(run)
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert "collapsed after learning; best near step 7,000 of 10,000" in answers_line(analysis)
    told = first_step_to_take(analysis)
    assert "7,000" in told
    assert "restore the checkpoint of this policy" in told
    assert "Start the long run" not in told


@pytest.mark.parametrize(("ends_at", "named"), [(10_000, ""), (9_000, " in rollout/ep_rew_mean")])
def test_a_curve_that_ends_before_the_run_is_named_beside_its_best_step(ends_at: int, named: str) -> None:
    run = {tag: series for tag, series in healthy(last_step=10_000).items() if not tag.startswith("eval/")}
    returns = np.concatenate([np.linspace(0, 400, 45), np.full(45, 400.0)])
    run["rollout/ep_rew_mean"] = (np.linspace(100, ends_at, 90).astype(int), returns)
    line = answers_line(analysed(run))
    assert f" of {ends_at:,}{named})" in line


def test_a_go_verdict_has_no_cause_and_advises_to_start_the_long_run() -> None:
    manifest = RunManifest("VisualTD3", "LiteDriving-v0")
    analysis = analysed(healthy(), manifest)
    assert analysis.verdict is Verdict.GO
    assert analysis.cause is None
    assert first_step_to_take(analysis).startswith("Start the long run")
    assert how_to_relax(analysis) is None


def test_a_hostile_environment_name_in_run_json_does_not_appear_in_the_advice() -> None:
    plain, hostile = (
        first_step_to_take(analysed(ppo(), RunManifest("PPO", env), require="full"))
        for env in ("Pendulum-v1", '<b>"; rm -rf /')
    )
    assert 'PolicyEvalCallback("Pendulum-v1"' in plain
    assert 'PolicyEvalCallback("YOUR_ENV_ID"' in hostile
    assert "rm -rf" not in hostile


def test_a_short_run_is_too_early_to_judge_and_never_no_go() -> None:
    run = {tag: (steps[steps <= 1500], values[steps <= 1500]) for tag, (steps, values) in leaking().items()}
    analysis = analysed({tag: points for tag, points in run.items() if len(points[0])})
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert verdict_sentence(analysis).startswith("It is too early to say: 1,500 environment steps")
    assert analysis.cause is None
    assert "2,000 environment steps" in first_step_to_take(analysis)


def test_a_short_run_with_nan_in_the_critic_loss_is_no_go() -> None:
    run = {tag: (steps[:4], values[:4]) for tag, (steps, values) in healthy().items()}
    steps, loss = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps, np.where(steps > 1200, np.nan, loss))
    assert analysed(run).verdict is Verdict.NO_GO


def test_a_ppo_run_is_go_and_is_not_advised_to_use_gradient_norm_callback() -> None:
    analysis = analysed(ppo())
    assert analysis.verdict is Verdict.GO
    assert analysis.evidence.level == "thin"
    assert "on-policy" in answers_line(analysis)
    strict = analysed(ppo(), require="full")
    assert strict.verdict is Verdict.INSUFFICIENT
    told = first_step_to_take(strict)
    assert "EvalCallback" in told
    assert "GradientNormCallback" not in told
    assert "Driving" not in told


def test_runs_with_full_evidence_are_judged_if_full_evidence_is_required() -> None:
    assert analysed(healthy(), require="full").verdict is Verdict.GO
    assert analysed(leaking(), require="full").verdict is Verdict.NO_GO


def test_advice_on_missing_returns_names_monitor_for_sb3_and_add_scalar_for_other_code() -> None:
    sb3 = {tag: points for tag, points in ppo().items() if tag != "rollout/ep_rew_mean"}
    sb3["time/fps"] = sb3["train/std"]
    assert "Monitor" in first_step_to_take(analysed(sb3))
    own = {f"my/{tag.rpartition('/')[2]}": points for tag, points in sb3.items()}
    assert "add_scalar" in first_step_to_take(analysed(own))


def test_a_run_whose_steps_do_not_count_is_insufficient_and_told_to_log_them() -> None:
    for run, where in (
        (
            {tag: (steps - 10_000, values) for tag, (steps, values) in healthy().items()},
            "at negative steps, -10,000 to",
        ),
        ({tag: (0 * steps, values) for tag, (steps, values) in healthy().items()}, "at step 0"),
    ):
        analysis = analysed(run)
        assert analysis.verdict is Verdict.INSUFFICIENT
        assert f"points are {where}" in first_step_to_take(analysis)


def test_criteria_passed_by_a_narrow_margin_are_listed_for_a_go_only() -> None:
    run = healthy()
    steps, _ = run[tags.Q1_VALUE]
    run[tags.Q_BOUND] = (steps, np.full(steps.size, 1.1 * np.abs(run[tags.POLICY_Q_VALUE][1]).max()))
    analysis = analysed(run)
    assert analysis.verdict is Verdict.GO
    assert any("q_within_bound" in near for near in near_misses(analysis))
    assert not near_misses(analysed(leaking()))


OWN = {"title": "Mine", "source": "mine", "tags": ("my/tag",), "blocking": True, "min_points": 1}


@pytest.mark.parametrize(
    ("kind", "value", "threshold", "words"),
    [
        ("mean_below", 9.0, 10.0, "Mine: 9 of 10, 10% below (mine)"),
        ("mean_at_most", 10.0, 10.0, "Mine: 10 of 10, 0% below (mine)"),
        ("tail_mean_above", 12.0, 10.0, "Mine: 12, 20% above 10 (mine)"),
        ("mean_below", 7.9, 10.0, None),
        ("tail_mean_above", 12.6, 10.0, None),
        # Limits below zero count in the same way.
        ("mean_below", -11.0, -10.0, "Mine: -11 of -10, 10% below (mine)"),
        ("tail_mean_above", -9.0, -10.0, "Mine: -9, 10% above -10 (mine)"),
        ("tail_mean_above", 9.0, -10.0, None),
        ("mean_below", -1.0, 0.0, None),
        # Episodes of one length last as long as they can, so their ratio of 1 is not close to a limit.
        ("episode_length_rises", 500.0, 1.0, None),
    ],
)
def test_a_criterion_of_the_users_own_is_also_told_if_its_value_is_close(
    kind: str, value: float, threshold: float, words: str | None
) -> None:
    run = healthy()
    run["my/tag"] = (run[tags.Q1_VALUE][0], np.full(run[tags.Q1_VALUE][0].size, value))
    criteria = (*load_criteria(), Criterion(id="mine", kind=kind, threshold=threshold, is_named_by_user=True, **OWN))
    analysis = analyse(RunData(Path("run"), as_series(run), (), 1), criteria, name="run")
    assert analysis.verdict is Verdict.GO
    assert [near for near in near_misses(analysis) if "(mine)" in near] == ([] if words is None else [words])


def test_a_policy_that_drives_hardly_further_than_a_baseline_is_told() -> None:
    run = healthy(last_step=10_000)
    # Only the last evaluation is close to the distance of random actions.
    run[tags.EVAL_DISTANCE] = (EVALS, np.array([10.0, 100, 400, 395, 405, 400, 402, 398, 401, 110]))
    run[tags.EVAL_RANDOM_DISTANCE] = (EVALS, np.full(EVALS.size, 100.0))
    analysis = analysed(run)
    assert analysis.verdict is Verdict.GO
    (near,) = (told for told in near_misses(analysis) if "(policy_drives)" in told)
    assert ": 110, 10% above 100 (policy_drives)" in near


def test_required_evidence_does_not_change_whether_a_run_is_stable() -> None:
    assert analysed(ppo()).verdict is Verdict.GO
    analysis = analysed(ppo(), require="standard")
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert (analysis.stable, analysis.learning) == ("yes", "yes")


def test_a_no_go_report_shows_how_to_relax_the_failed_criterion() -> None:
    relax = how_to_relax(analysed(leaking()))
    assert relax is not None
    assert "--criteria" in relax
    assert "blocking: false" in relax


def test_a_ppo_runs_page_shows_returns_before_advice_and_says_what_does_not_apply() -> None:
    page = render_html([analysed(ppo())])
    assert page.index("run-0-plot-returns") < page.index("What to do first")
    assert "do not apply to this run" in page


def test_the_page_of_a_ppo_run_names_no_callback_that_does_not_fit_it() -> None:
    analysis = analysed(ppo())
    missing = missing_section(analysis.sections.availability)
    assert missing is not None
    assert "GradientNormCallback" not in str(missing)
    assert "Driving" not in str(missing)


def judged(run: Values, *criteria: Criterion) -> Analysis:
    return analyse(RunData(Path("run"), as_series(run), (), 1), criteria or load_criteria(), name="run")


RETURNS = ("rollout/ep_rew_mean", "eval/mean_reward")


def learner() -> Values:
    """Return a run that learns, by its training and its evaluations."""
    steps = np.arange(500, 100_001, 500)
    rng = np.random.default_rng(0)
    run = {tag: (steps, np.minimum(steps / 600.0, 100.0) + rng.normal(0, 2, steps.size)) for tag in RETURNS}
    return {**run, "train/critic_loss": (steps, 1 + rng.random(steps.size) / 10)}


@pytest.mark.parametrize("tag", RETURNS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("n_last", [1, 100])
def test_a_run_whose_returns_end_as_nan_or_infinity_is_not_go(tag: str, value: float, n_last: int) -> None:
    run = learner()
    assert judged(run).verdict is Verdict.GO
    run[tag][1][-n_last:] = value
    analysis = judged(run)
    assert (analysis.verdict, analysis.learning) == (Verdict.INSUFFICIENT, "unknown")
    assert analysis.cause is not None
    assert analysis.cause.id == "non_finite"


def test_a_single_infinite_return_is_told_beside_a_go() -> None:
    run = learner()
    assert findings_beside_go(judged(run)) == ()
    run["eval/mean_reward"][1][100] = np.inf
    analysis = judged(run)
    assert analysis.verdict is Verdict.GO
    (line,) = findings_beside_go(analysis)
    assert line.startswith("non_finite (confidence 95%, first seen at step 50,500)")
    assert line.endswith("(eval/mean_reward)")


@pytest.mark.parametrize(("begin", "spacing"), [(0, 0), (100_000, 0), (-200_000, 500)])
def test_a_log_without_steps_is_insufficient_and_told_how_to_log_them(begin: int, spacing: int) -> None:
    run = {tag: (begin + spacing * np.arange(200), values) for tag, (_, values) in learner().items()}
    analysis = judged(run)
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert "writer.add_scalar(tag, value, global_step)" in next_step(analysis).text


def own_criteria(tmp_path: Path, text: str) -> tuple[Criterion, ...]:
    (tmp_path / "c.yml").write_text(f"format_version: 1\ncriteria: {text}\n")
    return load_criteria(tmp_path / "c.yml")


def test_an_own_criterion_that_fails_is_not_told_as_instability(tmp_path: Path) -> None:
    text = "{x: {title: t, kind: tail_mean_above, tags: [%s], threshold: 1000, blocking: true, source: me}}"
    analysis = judged(learner(), *own_criteria(tmp_path, text % RETURNS[0]))
    assert (analysis.verdict, analysis.stable, analysis.learning) == (Verdict.NO_GO, "yes", "yes")
    analysis = judged(learner(), *own_criteria(tmp_path, text % "no/such"))
    assert (analysis.verdict, analysis.stable, analysis.learning) == (Verdict.INSUFFICIENT, "yes", "yes")
    assert next_step(analysis).text == (
        "Log no/such, which the criterion x reads, or correct its tags in the file of --criteria."
    )


def test_a_run_without_a_blocking_criterion_is_told_to_change_the_criteria_file(tmp_path: Path) -> None:
    text = "{learning: {blocking: false}, stable_in_own_scale: {blocking: false}}"
    analysis = judged(learner(), *own_criteria(tmp_path, text))
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert "remove 'blocking: false' from a criterion in the file of --criteria" in next_step(analysis).text
