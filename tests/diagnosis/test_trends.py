from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import return_curve
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned, once_per_run
from sb3_visual_td3.diagnosis.trends import (
    block_medians,
    episode_length_ends,
    growth_factor,
    moving_medians,
    onset,
    theil_sen_slope,
)


def series(values: object, steps: object = None, name: str = "a") -> Series:
    values = np.asarray(values, dtype=float)
    return Series(name, np.arange(values.size) if steps is None else np.asarray(steps), values)


def test_theil_sen_is_the_median_of_the_pairwise_slopes() -> None:
    # Slopes of (0,0), (1,1), (2,4): 1, 3, 2.
    assert theil_sen_slope(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0])) == 2.0
    assert np.isnan(theil_sen_slope(np.array([1.0, 1.0]), np.array([0.0, 9.0])))


def test_one_outlier_does_not_move_the_slope() -> None:
    y = np.arange(21.0)
    y[10] = 1e9
    assert theil_sen_slope(np.arange(21.0), y) == pytest.approx(1.0)


def test_theil_sen_slope_is_accurate_for_a_long_noisy_series() -> None:
    rng = np.random.default_rng(0)
    x = np.arange(50_000.0)
    assert theil_sen_slope(x, 3 * x + rng.normal(0, 100, x.size)) == pytest.approx(3, rel=1e-3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 60))
def test_block_medians_are_those_of_each_block_alone(values: list[float], n_blocks: int) -> None:
    n_blocks = min(n_blocks, len(values))
    found = block_medians(np.array(values), n_blocks)
    assert found.tolist() == [np.median(part) for part in np.array_split(np.array(values), n_blocks)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 70))
def test_moving_medians_are_those_of_each_window_alone(values: list[float], window: int) -> None:
    begins, medians = moving_medians(np.array(values), window)
    for begin, found in zip(begins.tolist(), medians.tolist(), strict=True):
        part = values[begin : begin + window]
        assert len(part) == min(window, len(values))
        assert found == np.median(part)
    assert begins[0] == 0
    assert begins[-1] + min(window, len(values)) == len(values)
    assert (np.diff(begins) <= max(1, window // 4)).all()


@given(st.lists(st.integers(0, 20), max_size=20), st.integers(-1, 21))
def test_the_points_until_a_step_are_those_at_or_before_it(steps: list[int], step: int) -> None:
    whole = series(np.arange(len(steps), dtype=float), steps)
    until = whole.until(step)
    kept = [(s, v) for s, v in zip(whole.steps.tolist(), whole.values.tolist(), strict=True) if s <= step]
    assert list(zip(until.steps.tolist(), until.values.tolist(), strict=True)) == kept
    assert not until.steps.flags.writeable


def test_a_once_per_run_function_is_computed_once_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    @once_per_run
    def length(data: SeriesSet) -> int:
        asked.append(data)
        return len(data.names())

    first, second = SeriesSet.of([series([1.0])]), SeriesSet.of([series([1.0]), series([2.0], name="b")])
    assert [length(first), length(second), length(first), length(second)] == [1, 2, 1, 2]
    assert [data is first for data in asked] == [True, False]
    # A dozen rules and two criteria ask whether the run learns.
    judged = []
    monkeypatch.setattr(
        return_curve,
        "judge_curve",
        lambda *args, of=return_curve.judge_curve, **kwargs: judged.append(1) or of(*args, **kwargs),
    )
    run = SeriesSet.of(
        [
            series(np.arange(50.0), np.arange(50) * 1000, "rollout/ep_rew_mean"),
            series(np.arange(50.0), np.arange(50) * 1000, "train/actor_loss"),
        ]
    )
    judge(load_criteria(), run)
    diagnose(run)
    assert len(judged) == 1


def test_growth_factor_is_1024_after_ten_doublings_and_1_for_a_constant_series() -> None:
    assert growth_factor(series(-(2.0 ** np.arange(11)))) == pytest.approx(1024)
    assert growth_factor(series(np.full(11, 7.0))) == pytest.approx(1)
    assert np.isnan(growth_factor(series(np.zeros(5))))
    assert np.isnan(growth_factor(series([])))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_growth_factor_is_never_negative_and_never_raises(values: list[float]) -> None:
    factor = growth_factor(series(values))
    assert np.isnan(factor) or factor >= 0


def test_episode_lengths_are_compared_by_thirds_of_the_steps_not_of_the_episodes() -> None:
    lengths = [50.0] * 20 + [2.0] * 500  # 1,000 steps each: two thirds of the episodes' first third are short
    ends = episode_length_ends(series(lengths))
    assert ends is not None
    assert (ends.early, ends.late, ends.part) == (50.0, 2.0, "third")


def test_few_long_episodes_are_compared_by_halves_and_three_are_too_few() -> None:
    ends = episode_length_ends(series([100.0] * 5))
    assert ends is not None
    assert (ends.early, ends.late, ends.part) == (100.0, 100.0, "half")
    assert episode_length_ends(series([100.0, 100.0, 100.0])) is None


def test_onset_is_the_first_step_of_the_last_period_in_which_a_condition_holds() -> None:
    points = series([0, 9, 0, 9, 9], steps=[10, 20, 30, 40, 50])
    assert onset(points, points.values > 5) == 40
    points = series([0, 9, 0], steps=[10, 20, 30])
    assert onset(points, points.values > 5) == 20
    assert onset(points, points.values > 99) is None


def test_a_series_sorts_its_steps_and_cannot_be_changed() -> None:
    points = series([3.0, 1.0], steps=[2, 1])
    assert points.values.tolist() == [1.0, 3.0]
    with pytest.raises(ValueError, match="read-only"):
        points.values[0] = 0
    with pytest.raises(ValueError, match="expected two one-dimensional arrays"):
        Series("a", np.array([1]), np.array([1.0, 2.0]))


def test_aligned_keeps_common_steps_and_the_last_point_of_each_step() -> None:
    a, b = aligned(series([1, 2, 3, np.nan], steps=[1, 2, 2, 4]), series([5, 6, 7], steps=[2, 3, 4], name="b"))
    assert (a.steps.tolist(), a.values.tolist(), b.values.tolist()) == ([2], [3.0], [5.0])


def test_the_length_of_a_run_comes_from_step_tags_and_episode_lengths_never_from_episode_numbers() -> None:
    q = series([1.0], steps=[3000], name=tags.Q1_VALUE)
    episodes = series([100.0] * 40, steps=np.arange(90_000, 90_040), name=tags.EPISODE_LENGTH)
    foreign = series([1.0], steps=[77_000], name="foreign/tag")
    assert SeriesSet.of([q, foreign]).n_steps == 3000
    assert SeriesSet.of([q, episodes]).n_steps == 4000
    assert SeriesSet.of([foreign]).n_steps == 77_000
    # Of Stable-Baselines3's own names, only some are in the table of tags.
    evaluated = series([0.0], steps=[8_000], name=tags.EVAL_REWARD)
    standard = series([0.0, 0.0], steps=[2_048, 199_000], name="rollout/ep_rew_mean")
    assert SeriesSet.of([evaluated, standard, foreign]).n_steps == 199_000
    assert SeriesSet().n_steps is None
