"""Test the evidence level of a run, and how it changes when tags are removed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.evidence import RunEvidence, evidence_of
from sb3_visual_td3.diagnosis.two_questions import EVIDENCE_LEVELS, ask
from sb3_visual_td3.diagnosis.verdict import Verdict, answer_of, decide
from tests.report.synthetic_runs import Values, as_series, healthy

BUILT_IN = load_criteria()


def seen(run: Values) -> tuple[Verdict, RunEvidence]:
    data = as_series(run)
    results = judge(BUILT_IN, data)
    return decide(results), evidence_of(data, results, ask(data))


def stock_sac(fails: bool = False) -> Values:
    """Return a run with the tags of SB3's SAC. If it ``fails``, only its evaluation returns drop."""
    rng = np.random.default_rng(0)
    steps = np.arange(1000, 200_001, 1000)
    x = np.linspace(0, 1, steps.size)
    rise = -100 + 300 * np.minimum(3 * x, 1)
    evaluated = rise if not fails else -100 + 300 * np.where(x < 0.5, np.minimum(3 * x, 1), 0.0)
    return {
        "rollout/ep_rew_mean": (steps, rise + rng.normal(0, 3, steps.size)),
        "rollout/ep_len_mean": (steps, np.full(steps.size, 200.0)),
        tags.EVAL_REWARD: (steps, evaluated + rng.normal(0, 10, steps.size)),
        "train/actor_loss": (steps, -20 * x + rng.normal(0, 0.1, steps.size)),
        "train/critic_loss": (steps, 0.5 + rng.random(steps.size) * 0.1),
        "train/ent_coef": (steps, 0.1 * np.exp(-3 * x)),
        "train/learning_rate": (steps, np.full(steps.size, 3e-4)),
    }


def test_a_stock_sb3_run_gets_go_without_any_tag_of_our_callbacks() -> None:
    verdict, evidence = seen(stock_sac())
    assert verdict is Verdict.GO
    assert evidence.level == "standard"
    assert 0 < evidence.n_made < evidence.n_possible


def test_a_healthy_run_with_our_callbacks_gets_go_with_full_evidence() -> None:
    verdict, evidence = seen(healthy())
    assert (verdict, evidence.level) == (Verdict.GO, "full")


def test_with_our_callbacks_a_missing_tag_of_a_blocking_criterion_makes_the_verdict_insufficient() -> None:
    run = healthy()
    asked = {tag for criterion in BUILT_IN if criterion.blocking for tag in criterion.tags}
    ours = sorted(asked & run.keys() - {tags.EPISODE_LENGTH})
    assert len(ours) > 20
    for tag in ours:
        assert seen({name: points for name, points in run.items() if name != tag})[0] is Verdict.INSUFFICIENT, tag


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_evidence_level_falls_if_removing_tags_makes_the_verdict_go(data: st.DataObject) -> None:
    run = stock_sac(fails=True)
    verdict, evidence = seen(run)
    assert verdict is not Verdict.GO
    removed = data.draw(st.sets(st.sampled_from(sorted(run)), max_size=3))
    without, thinner = seen({name: points for name, points in run.items() if name not in removed})
    if without is Verdict.GO:
        assert thinner.is_below(evidence.level), removed


def test_removing_the_only_tag_that_shows_the_failure_lowers_the_evidence_level() -> None:
    run = stock_sac(fails=True)
    _, evidence = seen(run)
    without, thinner = seen({name: points for name, points in run.items() if name != tags.EVAL_REWARD})
    # The verdict becomes GO, but a gate that requires the previous level refuses the run.
    assert (without, evidence.level, thinner.level) == (Verdict.GO, "standard", "thin")
    assert thinner.is_below("standard")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({tags.ALERT_CRITICAL, tags.ALERT_WARNING}, Verdict.GO),
        ({tags.EVAL_DISTANCE}, Verdict.INSUFFICIENT),
    ],
)
def test_removing_alert_tags_or_the_evaluated_distance_lowers_the_evidence_level(
    names: set[str], expected: Verdict
) -> None:
    verdict, evidence = seen({name: points for name, points in healthy().items() if name not in names})
    assert verdict is expected
    assert evidence.is_below("full")


def test_an_environment_without_vehicles_needs_no_driving_evaluation_for_full_evidence() -> None:
    """The run has all tags that DrivingMetricsCallback writes for an ``info`` with nothing but ``reward_terms``."""
    only_driving = {tags.EVAL_DISTANCE, tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE}
    own = {name: points for name, points in healthy().items() if name not in only_driving}
    steps = np.arange(100, 5001, 100)
    returns = (steps, np.minimum(steps / 20.0, 150.0))
    own |= dict.fromkeys((tags.EPISODE_REWARD, tags.EVAL_REWARD, "rollout/ep_rew_mean", tags.PROGRESS_REWARD), returns)
    own |= {"reward/mine": (steps, np.ones(steps.size)), tags.PROGRESS_EPISODE_STEPS: (steps, np.ones(steps.size))}
    verdict, evidence = seen(own)
    assert (verdict, evidence.level) == (Verdict.GO, "full")
    of_a_vehicle = {**own, tags.PROGRESS_SPEED: (steps, np.ones(steps.size))}
    assert seen(of_a_vehicle)[1].is_below("full"), "DrivingEvalCallback is missing there"


def test_only_thin_evidence_is_below_standard_and_the_text_counts_the_checks() -> None:
    assert [RunEvidence(level, 1, 2).is_below("standard") for level in EVIDENCE_LEVELS] == [True, False, False]
    assert str(RunEvidence("thin", 7, 21)) == "thin (7 of 21 checks could be made from the logged tags)"


def test_criterion_results_answer_whether_a_run_is_stable_and_whether_it_learns() -> None:
    results = judge(BUILT_IN, as_series(stock_sac()))
    assert answer_of(results, about_learning=False) == answer_of(results, about_learning=True) == "yes"
    assert answer_of((), about_learning=True) == "unknown"
