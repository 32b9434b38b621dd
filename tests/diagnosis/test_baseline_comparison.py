"""Test the comparison of evaluations with baselines, such as random actions."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.baseline_comparison import compare_with_baselines, evaluation_spread
from sb3_visual_td3.diagnosis.return_curve import CurveState
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.two_questions import ask

FALLEN = (8, 358, 342, 210, 235, 268, 436, 277, 264, 255)
"""Evaluated distances, in metres, of a run whose best policy was at step 7,000."""
KEPT = (14, 392, 352, 401, 369)


def evaluated(metres: tuple[float, ...], random: float = 11.0, of_reward: bool = False) -> SeriesSet:
    steps = np.arange(1, len(metres) + 1) * 1000
    tag, baseline = tags.EVAL_DISTANCE, tags.EVAL_RANDOM_DISTANCE
    if of_reward:
        tag, baseline = tags.EVAL_REWARD, tags.EVAL_RANDOM_REWARD
    return SeriesSet.of([Series(tag, steps, np.array(metres)), Series(baseline, steps[:1], np.array([random]))])


def test_a_run_whose_evaluations_stay_above_the_baseline_has_learned() -> None:
    found = compare_with_baselines(evaluated(KEPT))
    assert found is not None
    assert found.answer == "yes"
    assert not found.has_fallen


def test_the_reason_for_a_fallen_run_names_the_step_of_its_best_policy() -> None:
    data = evaluated(FALLEN)
    found = compare_with_baselines(data)
    assert found is not None
    assert found.has_fallen
    assert "near step 7,000" in found.reason
    learning = ask(data).learning
    assert learning.answer == "unknown"
    assert learning.curve is not None
    assert (learning.curve.state, learning.curve.peak_step) == (CurveState.COLLAPSED, 7000)


def test_a_curve_that_still_rises_has_not_fallen() -> None:
    found = compare_with_baselines(evaluated((60.0, 100.0, 140.0)))
    assert found is not None
    assert (found.answer, found.has_fallen) == ("yes", False)


def test_a_flat_return_curve_shows_learning_only_above_the_return_of_random_actions() -> None:
    late = (610.0, 640.0, 590.0, 630.0, 605.0, 615.0)
    assert ask(evaluated(late, random=-35.0, of_reward=True)).learning.answer == "yes"
    assert ask(evaluated(late, random=612.0, of_reward=True)).learning.answer == "unknown"


@pytest.mark.parametrize(("metres", "answer"), [((300.0, 400.0), "unknown"), ((5.0, 6.0, 4.0), "no")])
def test_the_answer_is_unknown_for_few_evaluations_and_no_for_bad_ones(metres: tuple[float, ...], answer: str) -> None:
    found = compare_with_baselines(evaluated(metres))
    assert found is not None
    assert found.answer == answer


@pytest.mark.parametrize(
    ("metres", "answer"),
    [((5.0, 8.0, 60.0), "unknown"), ((5.0, 8.0, 12.0), "no"), ((5.0, 80.0, 6.0, 8.0), "no")],
    ids=["the last evaluation stands out", "within the noise", "stood out earlier"],
)
def test_a_policy_that_has_just_begun_to_learn_is_no_failure(metres: tuple[float, ...], answer: str) -> None:
    found = compare_with_baselines(evaluated(metres))
    assert found is not None
    assert found.answer == answer


def test_no_comparison_is_made_without_a_baseline() -> None:
    data = evaluated(KEPT)
    assert compare_with_baselines(SeriesSet.of([data[tags.EVAL_DISTANCE]])) is None


def test_a_steady_trend_does_not_count_as_spread() -> None:
    assert evaluation_spread(np.arange(8) * 100.0) == 0.0
    noise = np.random.default_rng(0).normal(0.0, 3.0, 4000)
    assert evaluation_spread(noise + np.arange(4000) * 50.0) == pytest.approx(3.0, rel=0.1)


def test_a_policy_that_training_made_no_better_has_not_learned_although_it_beats_random_actions() -> None:
    data = evaluated((66.4, 65.8, 63.5, 63.9, 66.8), random=57.3, of_reward=True)
    assert ask(data).learning.answer == "yes"
    untrained = Series(tags.EVAL_UNTRAINED_REWARD, np.array([0]), np.array([67.7]))
    data = SeriesSet({**data.series, untrained.name: untrained})
    found = compare_with_baselines(data)
    assert found is not None
    assert (found.answer, ask(data).learning.answer) == ("unknown", "unknown")
    assert "the policy before its first update at 67.7" in found.reason
    better = evaluated((70.0, 85.0, 92.0, 91.0, 92.5), random=57.3, of_reward=True)
    assert ask(SeriesSet({**better.series, untrained.name: untrained})).learning.answer == "yes"


def test_an_early_jump_in_the_evaluations_is_not_treated_as_noise() -> None:
    found = compare_with_baselines(evaluated((65.6, 57.0, 94.2, 94.0, 96.3, 96.6), random=57.3, of_reward=True))
    assert found is not None
    assert found.answer == "yes"
    noisy = compare_with_baselines(evaluated((65.6, 57.0, 94.2, 64.0, 96.3, 66.6), random=57.3, of_reward=True))
    assert noisy is not None
    assert noisy.answer == "unknown"
