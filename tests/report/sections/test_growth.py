from __future__ import annotations

import math

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import evenly, representative, value_at
from sb3_visual_td3.report.sections.growth import growth, growth_section, timeline


def series(values: list[float], every: int = 100) -> Series:
    return Series("a", np.arange(len(values)) * every, np.array(values))


def test_each_row_has_the_change_and_factors_computed_by_hand() -> None:
    found = timeline(series([-2.0, 6.0, -3.0, -12.0]))
    assert found is not None
    assert [tuple(row) for row in found.rows] == [
        (0, -2.0, None, None, 1.0),
        (100, 6.0, 8.0, 3.0, 3.0),
        (200, -3.0, -9.0, 0.5, 1.5),
        (300, -12.0, -9.0, 4.0, 6.0),
    ]
    assert found.multiplier == 6.0
    assert found.largest == 12.0


def test_growth_rates_of_an_exponential_series_match_its_exponent() -> None:
    steps = np.arange(0, 3001, 100)
    found = timeline(Series("a", steps, -5 * np.exp(0.002 * steps)))
    assert found is not None
    assert found.per_1000_steps == pytest.approx(math.exp(2))
    assert found.doubling_steps == pytest.approx(math.log(2) / 0.002)
    assert found.later_half == pytest.approx(math.exp(3))


def test_an_outlier_does_not_decide_the_robust_slope() -> None:
    steps = np.arange(0, 3001, 100)
    values = np.exp(0.001 * steps)
    values[15] = 1e9
    found = timeline(Series("a", steps, values))
    assert found is not None
    assert found.per_1000_steps == pytest.approx(math.e, rel=0.02)


def test_a_run_shorter_than_1000_steps_is_not_extrapolated() -> None:
    found = timeline(series([1.0, 2.0, 4.0]))
    assert found is not None
    assert found.per_1000_steps is None
    assert found.doubling_steps == pytest.approx(100)


def test_a_series_that_does_not_double_has_no_doubling_time() -> None:
    found = timeline(series([1.0, 1.1, 1.2, 1.3]))
    assert found is not None
    assert found.doubling_steps is None


def test_growth_is_computed_without_zeros() -> None:
    steps = np.arange(0, 4001, 100)
    found = timeline(Series("a", steps, np.where(steps <= 500, np.exp(-0.01 * steps), 0.0)))
    assert found is not None
    assert (found.per_1000_steps, found.doubling_steps, found.later_half) == (None, None, None)
    found = timeline(Series("a", steps, np.where(steps <= 2000, np.exp(0.001 * steps), 0.0)))
    assert found is not None
    assert found.per_1000_steps == pytest.approx(math.e)


def test_a_shrinking_series_does_not_double() -> None:
    found = timeline(series([8.0, 4.0, 2.0, 1.0]))
    assert found is not None
    assert found.doubling_steps is None
    assert found.multiplier == 0.125


def test_a_growth_factor_relative_to_zero_is_none() -> None:
    found = timeline(series([0.0, 3.0, 0.0]))
    assert found is not None
    assert [row.multiplier for row in found.rows] == [None, None, 0.0]
    assert [row.cumulative for row in found.rows] == [None, None, None]


def test_non_finite_values_are_left_out_of_the_timeline() -> None:
    found = timeline(series([1.0, math.nan, math.inf, 4.0]))
    assert found is not None
    assert [row.step for row in found.rows] == [0, 300]
    assert timeline(series([math.nan])) is None


@pytest.mark.parametrize("n", [1, 2, 11, 12, 13, 25, 1000])
def test_about_a_dozen_representative_points_include_the_ends_and_the_largest_magnitude(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    chosen = representative(Series("a", np.arange(n), values))
    assert len(chosen) <= 13
    assert len(chosen) >= min(n, 12)
    assert {0, n - 1, int(np.abs(values).argmax())} <= set(chosen.steps.tolist())


def test_rows_are_evenly_chosen() -> None:
    assert evenly(5).tolist() == [0, 1, 2, 3, 4]
    assert evenly(21, 3).tolist() == [0, 10, 20]


def test_value_at_returns_the_last_value_logged_at_the_step() -> None:
    points = Series("a", np.array([1, 3, 3]), np.array([5.0, 6.0, 7.0]))
    assert [value_at(points, step) for step in (0, 1, 2, 3, 4)] == [None, 5.0, None, 7.0, None]


def test_the_section_starts_with_the_actor_loss_and_is_absent_without_data() -> None:
    steps = np.arange(0, 5001, 100)
    data = SeriesSet.of(
        [
            Series(tags.ACTOR_LOSS, steps, -np.exp(0.002 * steps)),
            Series(tags.GRADIENT_NORM["actor_cnn"], steps, np.ones(steps.size)),
        ]
    )
    section = growth_section(growth(data))
    assert section is not None
    assert "".join(part if isinstance(part, str) else part.text for part in section.sentences[0]) == (
        "train/actor_loss went from -1 at step 0 to -22,026.5 at step 5,000. Its last magnitude is 22,000x the first. "
        "By a robust slope over all points, the magnitude doubled every 347 steps."
    )
    assert [table.folded for table in section.tables] == [False, False, True]
    assert growth_section(growth(SeriesSet())) is None
