"""The report first answers "is it stable?" and "is it learning?", and says what to do next.

If evidence is missing, the report says which callback or code logs it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.two_questions import EvidenceLevel
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.next_step import next_step
from sb3_visual_td3.report.render_html import render_html
from sb3_visual_td3.report.run_settings import RunSettings
from sb3_visual_td3.report.sections.availability import missing_section
from sb3_visual_td3.report.wording import (
    answers_line,
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
    settings = RunSettings()
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


def test_a_run_that_has_fallen_is_told_the_step_to_go_back_to_before_anything_else() -> None:
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


def test_a_go_names_no_cause_and_the_command_of_the_long_run() -> None:
    manifest = RunManifest("VisualTD3", "LiteDriving-v0")
    analysis = analysed(healthy(), manifest)
    assert analysis.verdict is Verdict.GO
    assert analysis.cause is None
    assert first_step_to_take(analysis).startswith("Start the long run")
    assert how_to_relax(analysis) is None


def test_a_name_from_a_file_that_is_no_plain_name_is_not_shown_as_a_command() -> None:
    analysis = analysed(healthy(), RunManifest("VisualTD3", "<b>; rm -rf /"))
    assert "rm" not in first_step_to_take(analysis)


def test_a_short_run_is_too_early_to_judge_and_never_no_go() -> None:
    run = {tag: (steps[steps <= 1500], values[steps <= 1500]) for tag, (steps, values) in leaking().items()}
    analysis = analysed({tag: points for tag, points in run.items() if len(points[0])})
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert verdict_sentence(analysis).startswith("It is too early to say: 1,500 environment steps")
    assert analysis.cause is None
    assert "2,000 environment steps" in first_step_to_take(analysis)


def test_a_short_run_that_is_not_finite_is_no_go() -> None:
    run = {tag: (steps[:4], values[:4]) for tag, (steps, values) in healthy().items()}
    steps, loss = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps, np.where(steps > 1200, np.nan, loss))
    assert analysed(run).verdict is Verdict.NO_GO


def test_ppo_is_go_without_our_callbacks_and_is_never_sent_to_them() -> None:
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


def test_full_evidence_is_enough_for_what_asks_for_it() -> None:
    assert analysed(healthy(), require="full").verdict is Verdict.GO
    assert analysed(leaking(), require="full").verdict is Verdict.NO_GO


def test_missing_returns_are_asked_for_in_the_words_of_the_code_that_logs() -> None:
    sb3 = {tag: points for tag, points in ppo().items() if tag != "rollout/ep_rew_mean"}
    sb3["time/fps"] = sb3["train/std"]
    assert "Monitor" in first_step_to_take(analysed(sb3))
    own = {f"my/{tag.rpartition('/')[2]}": points for tag, points in sb3.items()}
    assert "add_scalar" in first_step_to_take(analysed(own))


def test_a_pass_close_to_its_limit_is_told_beside_a_go() -> None:
    run = healthy()
    steps, _ = run[tags.Q1_VALUE]
    run[tags.Q_BOUND] = (steps, np.full(steps.size, 1.1 * np.abs(run[tags.POLICY_Q_VALUE][1]).max()))
    analysis = analysed(run)
    assert analysis.verdict is Verdict.GO
    assert any("q_within_bound" in near for near in near_misses(analysis))
    assert not near_misses(analysed(leaking()))


def test_the_reader_of_a_no_go_is_shown_how_to_relax_what_decided() -> None:
    relax = how_to_relax(analysed(leaking()))
    assert relax is not None
    assert "--criteria" in relax
    assert "blocking: false" in relax


def test_a_foreign_runs_page_begins_with_its_returns_and_folds_what_does_not_apply() -> None:
    page = render_html([analysed(ppo())])
    assert page.index("run-0-plot-returns") < page.index("What to do first")
    assert "do not apply to this run" in page


def test_the_page_of_a_ppo_run_names_no_callback_that_does_not_fit_it() -> None:
    analysis = analysed(ppo())
    missing = missing_section(analysis.sections.availability)
    assert missing is not None
    assert "GradientNormCallback" not in str(missing)
    assert "Driving" not in str(missing)
