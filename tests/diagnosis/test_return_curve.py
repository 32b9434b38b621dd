"""Test that return curves are judged against their own noise, at any scale of the reward."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sb3_visual_td3.diagnosis.return_curve import (
    CurveState,
    block_wander,
    counts_episodes,
    episode_spread,
    is_still_rising,
    judge_curve,
    judge_learning,
    of_new_episodes,
)
from sb3_visual_td3.diagnosis.series import FloatArray, Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import return_tag

SEEDS = range(5)


def series(values: object, name: str = "rollout/ep_rew_mean", every: int = 1_000, first: int = 1) -> Series:
    values = np.asarray(values, dtype=float)
    return Series(name, np.arange(first, values.size + first) * every, values)


def noise(n: int, seed: int = 0, sigma: float = 1.0) -> FloatArray:
    return np.random.default_rng(seed).normal(0.0, sigma, n)


def rising(n: int = 200, seed: int = 0) -> FloatArray:
    """Return a curve that rises from -5 to 5, with noise of standard deviation 1."""
    return np.linspace(-5.0, 5.0, n) + noise(n, seed)


def learned_early(n: int = 200, seed: int = 0) -> FloatArray:
    return 10.0 * (1.0 - np.exp(-np.linspace(0.0, 20.0, n))) + noise(n, seed)


def fallen(n: int = 200, seed: int = 0) -> FloatArray:
    return np.interp(np.arange(n), [0, n // 3, n // 2, n - 1], [0.0, 10.0, 10.0, 0.0]) + noise(n, seed)


def moving_mean(values: FloatArray, window: int, every: int) -> FloatArray:
    """Return the mean of the last ``window`` episodes after every ``every`` episodes, as SB3 logs it."""
    ends = range(every, values.size + 1, every)
    return np.array([values[max(0, end - window) : end].mean() for end in ends])


# ---- Noise


@pytest.mark.parametrize(("window", "every"), [(1, 1), (100, 4), (100, 25), (100, 100), (100, 300), (5, 5)])
def test_the_spread_of_single_episodes_is_estimated_from_a_moving_mean(window: int, every: int) -> None:
    episodes = noise(20_000, sigma=3.0)
    points = moving_mean(episodes, window, every)[window // every + 1 :]
    assert episode_spread(points, window, every) == pytest.approx(3.0, rel=0.25)


def test_the_spread_estimate_ignores_trends_and_single_outliers() -> None:
    values = np.linspace(0.0, 100.0, 1_000) + noise(1_000)
    values[::50] += 1e6
    assert episode_spread(values) == pytest.approx(1.0, rel=0.2)


def test_the_spread_estimate_tolerates_40_percent_equal_points() -> None:
    values = np.where(np.arange(1_000) < 600, noise(1_000), 250.0)
    assert 0.1 < episode_spread(values) < 2.0


def test_slow_fluctuations_are_larger_for_a_random_walk_than_for_independent_noise() -> None:
    steady, drifting = noise(2_000), np.cumsum(noise(2_000, seed=1))
    assert block_wander(steady) == pytest.approx(np.sqrt(np.pi / 2) / 10.0, rel=0.6)
    assert block_wander(drifting) > 20.0 * block_wander(steady)
    assert block_wander(np.linspace(0.0, 7.0, 2_000)) == pytest.approx(0.0, abs=1e-9)


def test_a_curve_that_comes_back_to_where_it_was_is_not_rising() -> None:
    down_and_up = np.concatenate([np.linspace(0.0, -10.0, 60), np.linspace(-10.0, -1.0, 60)])
    assert not is_still_rising(down_and_up)
    assert is_still_rising(np.linspace(0.0, 10.0, 120))
    assert not is_still_rising(np.zeros(120))


# ---- States


@pytest.mark.parametrize("seed", SEEDS)
def test_a_curve_that_rises_to_the_end_is_improving(seed: int) -> None:
    curve = judge_curve(series(rising(seed=seed)))
    assert (curve.state, curve.learning) == (CurveState.IMPROVING, "yes")
    assert curve.lost == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_curve_that_rose_and_stays_is_a_plateau(seed: int) -> None:
    curve = judge_curve(series(learned_early(seed=seed)))
    assert curve.learning == "yes"
    assert curve.state in {CurveState.PLATEAU, CurveState.IMPROVING}
    assert curve.late == pytest.approx(10.0, abs=1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_around_one_level_is_flat(seed: int) -> None:
    curve = judge_curve(series(noise(200, seed)))
    assert (curve.state, curve.learning) == (CurveState.FLAT, "no")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_curve_that_only_falls_is_declining(seed: int) -> None:
    curve = judge_curve(series(-rising(seed=seed)))
    assert (curve.state, curve.learning) == (CurveState.DECLINING, "no")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_curve_that_loses_what_it_gained_has_collapsed_and_the_peak_is_named(seed: int) -> None:
    curve = judge_curve(series(fallen(seed=seed)))
    assert (curve.state, curve.learning) == (CurveState.COLLAPSED, "no")
    assert curve.peak_step is not None
    assert 50_000 <= curve.peak_step <= 110_000
    assert curve.lost > 0.8
    assert f"{curve.peak_step:,}" in curve.reasons[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_losing_two_fifths_of_the_gain_is_a_collapse_but_learning_stays_unknown(seed: int) -> None:
    values = np.interp(np.arange(200), [0, 80, 110, 199], [0.0, 20.0, 20.0, 12.0]) + noise(200, seed)
    curve = judge_curve(series(values))
    assert (curve.state, curve.learning) == (CurveState.COLLAPSED, "unknown")
    assert curve.lost == pytest.approx(0.4, abs=0.1)


def test_a_significant_gain_of_half_the_episode_spread_does_not_count_as_learning() -> None:
    """A gain of half a standard deviation does not count as learning.

    With twenty thousand episodes, the gain is statistically significant.
    """
    values = np.repeat([10.0, 10.5], [4_000, 16_000]) + noise(20_000)
    assert judge_curve(series(values, "ep_r", 10)).learning == "no"
    averaged = moving_mean(values, 100, 100)
    assert judge_curve(series(averaged, every=1_000), 100).learning == "no"


def test_a_mean_return_that_grows_several_fold_is_learning_despite_a_small_effect_size() -> None:
    """The return of an episode is 100 if the episode reaches a goal, otherwise 0.

    The fraction of episodes that reach the goal rises from 5 % to 60 %. The mean return thus grows to several
    times its first value, but this gain is small relative to the standard deviation of the returns of single episodes.
    """
    rng = np.random.default_rng(0)
    reached = rng.random(20_000) < np.linspace(0.05, 0.6, 20_000)
    curve = judge_curve(series(moving_mean(np.where(reached, 100.0, 0.0), 100, 100)), 100)
    assert curve.gain < 1.75
    assert curve.learning == "yes"


@pytest.mark.parametrize("n", [10, 11, 12, 14, 15, 19])
def test_a_steady_rise_of_a_short_curve_is_not_mistaken_for_noise(n: int) -> None:
    x = np.linspace(1.0 / n, 1.0, n)
    lengths = series(np.full(3, 700.0))
    answers = []
    for seed in range(40):
        levels = 1_400.0 + 1_800.0 * (1.0 - np.exp(-5.0 * x)) + noise(n, seed, sigma=20.0)
        answers.append(judge_curve(series(levels, every=5_000_000 // n), 100, lengths=lengths).learning)
    assert "no" not in answers
    assert answers.count("yes") >= 15
    assert judge_curve(series(300.0 + 600.0 * x, every=5_000_000 // n), 100, lengths=lengths).learning == "yes"
    flat = [judge_curve(series(noise(n, seed), every=5_000), 100).learning for seed in range(100)]
    assert flat.count("yes") <= 2
    assert flat.count("no") >= 80


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (0.02, 0.4, "yes"),
        (0.02, 0.45, "yes"),
        (0.55, 0.97, "yes"),
        (0.02, 0.6, "yes"),
        (0.02, 0.02, "no"),
        (0.5, 0.5, "no"),
        # The policy may have learned during the first episodes.
        (0.97, 0.97, "unknown"),
        (0.9, 0.5, "no"),
    ],
)
@pytest.mark.parametrize("goal", [1.0, 100.0])
def test_returns_of_two_values_are_judged_by_means_because_medians_hide_a_rise(
    first: float, last: float, expected: str, goal: float
) -> None:
    rate = np.interp(np.arange(10_000), [0, 2_000, 5_000, 9_999], [first, first, last, last])
    for seed in SEEDS:
        returns = goal * (np.random.default_rng(seed).random(10_000) < rate)
        curve = judge_curve(series(returns, "charts/episodic_return", every=100))
        assert curve.learning == expected
        assert curve.late == pytest.approx(goal * last, abs=0.1 * goal)


def test_returns_that_are_mostly_zero_are_judged_by_means() -> None:
    rng = np.random.default_rng(0)
    rate = np.interp(np.arange(5_000), [0, 1_000, 3_000, 4_999], [0.02, 0.02, 0.45, 0.45])
    returns = np.where(rng.random(5_000) < rate, rng.normal(10.0, 1.0, 5_000), 0.0)
    assert judge_curve(series(returns, "charts/episodic_return", every=100)).learning == "yes"


@pytest.mark.parametrize("n", [0, 1, 4])
def test_fewer_than_five_points_are_too_short(n: int) -> None:
    curve = judge_curve(series(np.arange(n)))
    assert (curve.state, curve.learning) == (CurveState.TOO_SHORT, "unknown")
    assert math.isnan(curve.gain)


def test_five_evaluations_can_prove_learning_but_cannot_rule_it_out() -> None:
    assert judge_curve(series([-120.0, -100.0, 280.0, 290.0, 285.0]), 1).learning == "yes"
    assert judge_curve(series([-120.0, -100.0, 20.0, -90.0, 40.0]), 1).learning == "unknown"
    assert judge_curve(series([3.0, -1.0, 2.0, 0.0, 1.0]), 1).learning == "unknown"


def test_a_flat_curve_of_a_short_run_is_too_short_and_not_a_failure() -> None:
    curve = judge_curve(series(noise(35), "episode_return", every=1), on_steps=False)
    assert (curve.state, curve.learning) == (CurveState.TOO_SHORT, "unknown")
    # With twenty episodes per point, the same values are enough for a "no".
    assert judge_curve(series(noise(35), "episode_return", every=20), on_steps=False).learning == "no"


def test_learning_is_unknown_if_a_flat_curve_rises_at_the_end() -> None:
    episodes = np.concatenate([np.full(560, -10.0), np.linspace(-10.0, -9.2, 240)]) + noise(800)
    curve = judge_curve(series(moving_mean(episodes, 100, 4)), 100, lengths=series(np.full(200, 250.0)))
    assert curve.learning == "unknown"
    assert curve.still_rising


def test_random_drifts_of_a_moving_mean_rarely_count_as_a_rise() -> None:
    lengths = series(np.full(100, 250.0))
    curves = [judge_curve(series(moving_mean(noise(400, seed), 100, 4)), 100, lengths=lengths) for seed in range(40)]
    assert sum(curve.still_rising for curve in curves) <= 2
    assert sum(curve.learning == "no" for curve in curves) >= 38


def test_learning_is_unknown_until_a_flat_moving_mean_covers_two_windows_of_episodes() -> None:
    for n_episodes, expected in ((180, "unknown"), (240, "no")):
        points = moving_mean(noise(n_episodes), 100, 4)
        assert judge_curve(series(points), 100, lengths=series(np.full(100, 250.0))).learning == expected


def test_one_unlucky_first_point_of_a_short_curve_rarely_counts_as_learning() -> None:
    answers = []
    for seed in range(100):
        unlucky = np.append(-2.5, noise(16, seed)[1:])
        answers.append(judge_curve(series(unlucky, "eval/return", every=5_000)).learning)
    assert answers.count("yes") <= 2
    assert answers.count("no") >= 50


def test_one_lucky_first_point_of_a_short_curve_does_not_hide_learning() -> None:
    answers: dict[float, list[str]] = {3.0: [], 8.0: []}
    for seed in range(40):
        learned = np.linspace(0.0, 8.0, 16) + noise(16, seed)
        for first, found in answers.items():
            curve = judge_curve(series(np.append(first, learned[1:]), "eval/return", every=5_000))
            found.append(curve.learning)
    assert answers[3.0].count("yes") >= 30
    # A policy that is as good at the end as at the start has learned nothing.
    assert "yes" not in answers[8.0]


def test_learning_that_is_complete_by_the_second_evaluation_is_recognised() -> None:
    values = np.append(-10.0, noise(15, sigma=0.5))
    assert judge_curve(series(values, "eval/return", every=5_000)).learning == "yes"


def test_a_constant_curve_is_not_learning_but_a_constant_training_mean_is_unknown() -> None:
    assert judge_curve(series(np.full(50, 7.0)), 5).learning == "no"
    stale = judge_curve(series(np.full(1_593, 31.31)), 100)
    assert stale.learning == "unknown"
    assert "the logger repeats an old value" in stale.reasons[0]


def test_a_run_that_continues_another_run_is_not_a_failure_because_it_stays_flat() -> None:
    values = 900.0 + noise(200)
    assert judge_curve(series(values)).learning == "no"
    continued = judge_curve(series(values, first=1_000))
    assert (continued.state, continued.learning) == (CurveState.FLAT, "unknown")
    assert continued.reasons[-1] == "the curve begins only at step 1,000,000: the policy may have learned before"
    constant = judge_curve(series(np.full(40, 900.0), "eval/mean_reward", first=1_000), 5)
    assert (constant.state, constant.learning) == (CurveState.FLAT, "unknown")
    # Only the steps of the run itself count.
    assert judge_curve(series(-rising(), first=1_000)).learning == "no"
    assert judge_curve(series(-rising(), every=40, first=25_000)).learning == "unknown"


# ---- What must not matter


CURVES = {"rising": rising(), "early": learned_early(), "flat": noise(200), "fallen": fallen(), "falling": -rising()}


@given(
    kind=st.sampled_from(sorted(CURVES)),
    scale=st.sampled_from([1e-300, 1e-200, 1e-6, 0.01, 100.0, 1e6, 1e300]),
    every=st.sampled_from([100, 1_000, 10**12]),
    first=st.sampled_from([1, 10**6]),
)
@settings(max_examples=60)
def test_the_answer_does_not_depend_on_the_scale_of_the_reward_or_where_the_steps_begin(
    kind: str, scale: float, every: int, first: int
) -> None:
    expected = judge_curve(series(CURVES[kind], every=10**6))
    steps = np.arange(first, first + 200) * every
    found = judge_curve(Series("rollout/ep_rew_mean", steps, CURVES[kind] * scale))
    assert found.state is expected.state
    # A policy whose flat curve begins late may have learned before.
    is_late = kind == "flat" and first > 1
    assert found.learning == ("unknown" if is_late else expected.learning)
    assert found.gain == pytest.approx(expected.gain, rel=1e-6)


@pytest.mark.parametrize("shift", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("kind", sorted(CURVES))
def test_a_constant_added_to_all_returns_never_turns_yes_into_no_or_no_into_yes(kind: str, shift: float) -> None:
    answers = {judge_curve(series(CURVES[kind])).learning, judge_curve(series(CURVES[kind] + shift)).learning}
    assert answers != {"yes", "no"}


@given(kind=st.sampled_from(["flat", "fallen", "falling"]), data=st.data())
@settings(max_examples=150)
def test_points_that_are_removed_never_turn_no_into_yes(kind: str, data: st.DataObject) -> None:
    """Points are removed at random, in blocks, or at either end of the return curve.

    ``time/fps`` keeps all of its points, so the report can see how long the run was.
    """
    whole = series(CURVES[kind])
    run = SeriesSet.of([whole, series(np.full(200, 100.0), "time/fps")])
    assert judge_learning(run).answer == "no"
    mask = np.ones(200, bool)
    for _ in range(data.draw(st.integers(1, 3))):
        how = data.draw(st.sampled_from(["thin", "block", "begin", "end"]))
        at, size = data.draw(st.integers(0, 199)), data.draw(st.integers(1, 150))
        if how == "thin":
            mask &= np.random.default_rng(at).random(200) < size / 150
        elif how == "block":
            mask[at : at + size] = False
        elif how == "begin":
            mask[:size] = False
        else:
            mask[200 - size :] = False
    assert judge_learning(SeriesSet.of([whole.where(mask), run["time/fps"]])).answer != "yes"


@pytest.mark.parametrize("kind", sorted(CURVES))
def test_nan_points_and_points_written_twice_change_nothing(kind: str) -> None:
    values = CURVES[kind]
    expected = judge_curve(series(values))
    steps = np.arange(1, 201) * 1_000
    doubled = Series("rollout/ep_rew_mean", np.repeat(steps, 2), np.repeat(values, 2))
    assert judge_curve(doubled) == expected
    with_nan = Series("rollout/ep_rew_mean", np.append(steps, [500, 2_500]), np.append(values, [np.nan, np.inf]))
    assert judge_curve(with_nan) == expected


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60))
@example([0.0] * 30)
@example([1.7e308, -1.7e308] * 15)
@settings(max_examples=150)
def test_any_values_are_judged_without_an_error(values: list[float]) -> None:
    with np.errstate(all="raise", under="ignore"):
        curve = judge_curve(series(values, "ep_r"))
    assert curve.learning in {"yes", "no", "unknown"}


def test_a_hundred_thousand_points_are_judged_like_a_hundred() -> None:
    assert judge_curve(series(rising(100_000), "ep_r")).learning == "yes"
    assert judge_curve(series(noise(100_000), "ep_r")).learning == "no"


# ---- The x-axis


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("Episode/Reward", np.arange(400), True),
        ("Reward/info", np.arange(20, 760, 20), True),
        ("ep_r", np.arange(0, 5_000_000, 2_000), False),
        ("episode_reward", np.cumsum(np.random.default_rng(0).integers(50, 300, 400)), False),
        ("rollout/ep_rew_mean", np.arange(400), False),
        ("train/episode_reward", np.arange(400), True),
        ("eval/return", np.arange(0, 400, 10), False),
    ],
)
def test_an_episode_axis_is_distinguished_from_a_step_axis(name: str, steps: FloatArray, expected: bool) -> None:
    tag = return_tag(name)
    assert tag is not None
    assert counts_episodes(tag, SeriesSet.of([Series(name, steps, np.zeros(steps.size))])) is expected


@pytest.mark.parametrize(
    ("every", "loss_steps", "states_unit", "expected"),
    [
        (50, np.arange(100, 5_001, 100), None, False),  # episodes of 50 steps, and losses over the same axis
        (50, np.arange(4_000, 5_001), None, False),  # the losses begin after a warm-up
        (50, np.arange(100, 50_001, 100), None, True),  # 50,000 steps, and 5,000 episodes
        (50, np.arange(0), None, True),
        (50, np.arange(0), True, False),
        (50, np.arange(100, 5_001, 100), False, True),
        (1, np.arange(1, 101), None, True),  # both are logged once per episode
    ],
)
def test_other_tags_show_that_episodes_of_a_fixed_length_are_on_environment_steps(
    every: int, loss_steps: FloatArray, states_unit: bool | None, expected: bool
) -> None:
    returns = series(noise(100), "episode_reward", every)
    losses = Series("train/actor_loss", loss_steps, np.zeros(loss_steps.size))
    run = SeriesSet({each.name: each for each in (returns, losses)}, counts_environment_steps=states_unit)
    tag = return_tag("episode_reward")
    assert tag is not None
    assert counts_episodes(tag, run) is expected


# ---- The mean of all episodes so far


def first_window(episodes: FloatArray, lengths: FloatArray, every: int = 4) -> tuple[Series, Series]:
    """Return ``rollout/ep_rew_mean`` and ``rollout/ep_len_mean`` as SB3 logs them for at most one hundred episodes.

    Each point is the mean over all episodes up to this point, at the step at which the latest of these episodes ended.
    """
    ends = np.arange(every, episodes.size + 1, every)
    steps = np.cumsum(lengths)[ends - 1].astype(int)
    means = [
        Series(f"rollout/{name}_mean", steps, [v[:end].mean() for end in ends])
        for name, v in (("ep_rew", episodes), ("ep_len", lengths))
    ]
    return means[0], means[1]


def test_new_episode_returns_are_recovered_exactly_from_the_cumulative_mean() -> None:
    episodes, lengths = noise(76), np.random.default_rng(1).integers(50, 300, 76).astype(float)
    undone, averaged_over = of_new_episodes(*first_window(episodes, lengths))
    assert averaged_over == 4
    np.testing.assert_allclose(undone.values, episodes.reshape(-1, 4).mean(axis=1), atol=1e-9)
    # If a point is missing, the next point covers more episodes.
    rewards, mean_lengths = first_window(episodes, lengths)
    kept = np.arange(19) != 7
    undone, _ = of_new_episodes(rewards.where(kept), mean_lengths.where(kept))
    assert undone.values[7] == pytest.approx(episodes[28:36].mean())


def test_a_curve_that_is_not_a_cumulative_mean_stays_unchanged() -> None:
    episodes, lengths = noise(76), np.full(76, 200.0)
    rewards, mean_lengths = first_window(episodes, lengths)
    more = first_window(noise(120), np.full(120, 200.0))
    other_steps = Series(rewards.name, rewards.steps + 77, rewards.values)
    for pair in (more, (other_steps, mean_lengths), (rewards, series(np.zeros(0), "rollout/ep_len_mean"))):
        assert of_new_episodes(*pair) == (pair[0], 100)


def test_learning_within_the_first_100_episodes_is_recognised() -> None:
    lengths = np.full(76, 200.0)
    learned = np.where(np.arange(76) < 24, -1_200.0, -150.0) + noise(76, sigma=60.0)
    for episodes, expected in ((learned, "yes"), (noise(76, sigma=300.0) - 1_200.0, "no")):
        learning = judge_learning(SeriesSet.of(first_window(episodes, lengths)))
        assert learning.answer == expected
        parts = "means of 4 episodes, computed from rollout/ep_rew_mean, which is the mean of all episodes so far"
        assert parts in learning.reasons[-1]


# ---- One run


def test_learning_is_unknown_if_training_returns_rise_and_evaluation_is_flat() -> None:
    run = SeriesSet.of([series(rising()), series(noise(200), "eval/mean_reward")])
    assert judge_learning(run).answer == "unknown"


def test_learning_is_unknown_if_a_flat_evaluation_starts_after_training_returns_rose() -> None:
    trained = series(1.7 * (1.0 - np.exp(-np.linspace(0.0, 8.0, 200))) + noise(200))
    evaluated = series(1.7 + noise(19, 1, sigma=0.3), "eval/mean_reward", every=10_000, first=2)
    learning = judge_learning(SeriesSet.of([trained, evaluated]))
    assert {curve.tag: curve.learning for curve in learning.curves} == {trained.name: "unknown", evaluated.name: "no"}
    assert learning.answer == "unknown"
    assert (
        "eval/mean_reward begins only at step 20,000, at a level above the middle of the rise of rollout/ep_rew_mean"
    ) in learning.reasons

    before_learning = Series(evaluated.name, evaluated.steps, evaluated.values - 1.7)
    assert judge_learning(SeriesSet.of([trained, before_learning])).answer == "no"


def test_training_returns_that_show_learning_do_not_override_an_evaluation_that_fell() -> None:
    evaluated = np.repeat([0.0, 50.0, 30.0], [8, 8, 8]) + noise(24)
    run = SeriesSet.of([series(learned_early(), "ep_r"), series(evaluated, "eval/mean_reward", every=8_000)])
    learning = judge_learning(run)
    assert [curve.learning for curve in learning.curves] == ["unknown", "yes"]
    assert learning.answer == "unknown"
    assert learning.curve is not None
    assert learning.curve.state is CurveState.COLLAPSED


def test_of_two_returns_of_the_same_kind_a_tag_of_this_package_is_judged() -> None:
    run = SeriesSet.of([series(noise(400), "episode_score"), series(learned_early(), "train/episode_reward")])
    assert [curve.tag for curve in judge_learning(run).curves] == ["train/episode_reward"]


def test_learning_is_unknown_if_no_episode_return_is_logged() -> None:
    learning = judge_learning(SeriesSet.of([series(rising(), "train/actor_loss"), series(rising(), "reward_step")]))
    assert (learning.answer, learning.curve) == ("unknown", None)


def test_learning_is_unknown_if_the_return_ends_long_before_the_run() -> None:
    run = SeriesSet.of([series(rising()), series(np.zeros(400), "train/actor_loss")])
    learning = judge_learning(run)
    assert learning.answer == "unknown"
    assert any("only a part" in reason for reason in learning.reasons)


def test_learning_is_unknown_if_the_return_rises_because_episodes_end_at_once() -> None:
    values = series(np.linspace(-65.0, -5.0, 200) + noise(200))
    run = SeriesSet.of([values, series(np.linspace(8.0, 1.4, 200), "rollout/ep_len_mean", every=1_000)])
    assert judge_learning(SeriesSet.of([values])).answer == "yes"
    assert judge_learning(run).answer == "unknown"


def test_learning_is_unknown_for_a_walker_that_only_learned_to_stand_still() -> None:
    lengths = Series("Episode/Length", np.arange(200), np.where(np.arange(200) < 60, 100.0, 1_600.0))
    for late, expected in ((-70.0, "unknown"), (-40.0, "yes"), (200.0, "yes")):
        returns = np.where(np.arange(200) < 60, -110.0, late) + noise(200, sigma=4.0)
        run = SeriesSet.of([Series("Episode/Reward", np.arange(200), returns), lengths])
        assert judge_learning(run).answer == expected
    # If the episodes do not get longer, a smaller cost counts as learning.
    shorter = Series("Episode/Length", np.arange(200), np.full(200, 200.0))
    returns = np.where(np.arange(200) < 60, -200.0, -110.0) + noise(200, sigma=4.0)
    assert judge_learning(SeriesSet.of([Series("Episode/Reward", np.arange(200), returns), shorter])).answer == "yes"


def test_learning_is_unknown_if_episode_lengths_continue_after_the_last_return() -> None:
    whole = Series("Episode/Reward", np.arange(400), learned_early(400))
    lengths = Series("Episode/Length", np.arange(400), np.full(400, 200.0))
    cut = whole.where(np.arange(400) < 250)
    assert judge_learning(SeriesSet.of([whole, lengths])).answer == "yes"
    assert judge_learning(SeriesSet.of([cut, lengths])).answer == "unknown"
    # A tag that counts updates does not show that the return breaks off.
    updates = Series("QValues/Q1", np.arange(40_000), np.zeros(40_000))
    assert judge_learning(SeriesSet.of([whole, lengths, updates])).answer == "yes"


# ---- What other tags of the run show


@pytest.mark.parametrize("name", ["total_reward", "cumulative_reward", "rollout/cumulative_reward"])
@pytest.mark.parametrize("level", [50.0, -50.0])
def test_learning_is_unknown_if_the_return_is_the_sum_of_all_returns_so_far(name: str, level: float) -> None:
    for seed in SEEDS:
        learning = judge_learning(SeriesSet.of([series(np.cumsum(level + noise(1_000, seed, 10.0)), name, every=200)]))
        assert learning.answer == "unknown"
        assert "the sum of all returns so far" in learning.reasons[0]


def test_rising_returns_are_not_mistaken_for_a_sum() -> None:
    for name in ("total_reward", "episode_return"):
        assert judge_learning(SeriesSet.of([series(50.0 + 5.0 * rising(), name)])).answer == "yes"
    smooth = 10.0 * (1.0 - np.exp(-np.linspace(0.0, 6.0, 200)))
    assert judge_learning(SeriesSet.of([series(smooth, "total_reward")])).answer == "yes"


def test_a_task_that_is_never_solved_is_a_failure_although_its_return_is_constant() -> None:
    def answer(value: float, length: float, **others: float) -> str:
        tags = {"rollout/ep_rew_mean": value, "rollout/ep_len_mean": length}
        tags |= {f"rollout/{name}": other for name, other in others.items()}
        return judge_learning(SeriesSet.of(series(np.full(600, v), name, 800) for name, v in tags.items())).answer

    assert answer(-200.0, 200.0) == "no"
    assert answer(0.0, 50.0, success_rate=0.0) == "no"
    assert answer(31.31, 1_600.0) == "unknown"
    assert answer(-200.0, 150.0) == "unknown"
    # A pole that is always balanced to the end is no failure.
    assert answer(500.0, 500.0) == "unknown"
    short = [series(np.full(20, v), name, 400) for name, v in (("rollout/ep_rew_mean", -200.0), ("ep_len", 200.0))]
    assert judge_learning(SeriesSet.of(short)).answer == "unknown"


def test_learning_before_the_first_evaluation_counts() -> None:
    trained = series(np.append(np.linspace(20.0, 500.0, 40), np.full(160, 500.0)) + noise(200, sigma=5.0), every=2_000)
    evaluated = series(np.full(16, 500.0), "eval/mean_reward", every=20_000, first=5)
    lengths = series(trained.values, "rollout/ep_len_mean", every=2_000)
    assert judge_learning(SeriesSet.of([trained, evaluated, lengths])).answer == "yes"
    # Random actions that end also raise a training return. Without a sign of success, the answer is unknown.
    assert judge_learning(SeriesSet.of([trained, evaluated])).answer == "unknown"
    for rate, expected in ((0.0, "unknown"), (1.0, "yes")):
        success = series(np.full(16, rate), "eval/success_rate", every=20_000, first=5)
        assert judge_learning(SeriesSet.of([trained, evaluated, lengths, success])).answer == expected
    # The evaluation is as good before the training return rises, for example because less and less noise is added.
    early = series(np.full(199, 500.0), "eval/mean_reward", every=2_000, first=2)
    assert judge_learning(SeriesSet.of([trained, early])).answer == "unknown"
    lower = series(np.full(16, 100.0), "eval/mean_reward", every=20_000, first=5)
    assert judge_learning(SeriesSet.of([trained, lower])).answer == "unknown"


def test_constant_evaluations_that_last_to_the_end_may_show_a_solved_task() -> None:
    lengths = series(np.full(20, 500.0), "eval/mean_ep_length", every=20_000)
    for level, expected in ((500.0, "unknown"), (-500.0, "no"), (0.0, "no")):
        evaluated = series(np.full(20, level), "eval/mean_reward", every=20_000)
        assert judge_learning(SeriesSet.of([evaluated, lengths])).answer == expected


def test_a_success_rate_that_rises_contradicts_a_flat_return() -> None:
    flat = series(noise(200) - 100.0)
    rate = np.clip(
        np.interp(np.arange(200), [0, 60, 120, 199], [0.0, 0.0, 0.9, 0.9]) + noise(200, sigma=0.02), 0.0, 1.0
    )
    learning = judge_learning(SeriesSet.of([flat, series(rate, "rollout/success_rate")]))
    assert learning.answer == "unknown"
    assert learning.reasons[-1].startswith("rollout/success_rate rises from 0")
    never = series(np.full(200, 0.05) + noise(200, sigma=0.01), "rollout/success_rate")
    assert judge_learning(SeriesSet.of([flat, never])).answer == "no"


def test_a_rising_return_without_a_single_success_is_noted() -> None:
    learning = judge_learning(SeriesSet.of([series(rising()), series(np.zeros(200), "rollout/success_rate")]))
    assert learning.answer == "yes"
    assert "rollout/success_rate stayed 0 throughout" in learning.reasons[-1]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        (np.full(195, 250.0), "unknown"),
        # Q of a run from scratch grows to its final size.
        (250.0 * (1.0 - np.exp(-np.linspace(0.1, 20.0, 195))), "no"),
        # An untrained critic, for example with a learning rate of 0, and a critic that diverges.
        (np.full(195, 0.05), "no"),
        (np.geomspace(250.0, 1e6, 195), "no"),
    ],
)
@pytest.mark.parametrize("tag", ["train/actor_loss", "train/q_policy"])
def test_a_flat_return_is_no_failure_of_a_model_that_was_already_trained(
    q: FloatArray, expected: str, tag: str
) -> None:
    values = 3_000.0 + noise(200, sigma=15.0)
    run = [series(values), series(np.full(200, 1_000.0), "rollout/ep_len_mean")]
    run += [series(-q if "loss" in tag else q, tag, first=6), series(np.ones(195), "train/critic_loss", first=6)]
    learning = judge_learning(SeriesSet.of(run))
    assert learning.answer == expected
    assert ("already trained" in learning.reasons[-1]) is (expected == "unknown")


def test_a_lagging_mean_does_not_override_evaluations_that_fell() -> None:
    episodes = 3_000.0 * np.interp(np.arange(1_000), [0, 200, 400, 920, 930, 999], [0, 0, 1, 1, 0, 0])
    mean = series(moving_mean(episodes + noise(1_000, sigma=150.0), 100, 4), every=4_000)
    evaluated = series(episodes[19::20] + noise(50, 1, 60.0), "eval/mean_reward", every=20_000)
    lengths = series(np.full(250, 1_000.0), "rollout/ep_len_mean", every=4_000)
    learning = judge_learning(SeriesSet.of([mean, evaluated, lengths]))
    assert [curve.learning for curve in learning.curves] == ["no", "yes"]
    assert learning.answer == "no"
    # With shorter episodes, the mean covers only episodes after the fall, so it contradicts the evaluations.
    shorter = series(np.full(250, 100.0), "rollout/ep_len_mean", every=4_000)
    assert judge_learning(SeriesSet.of([mean, evaluated, shorter])).answer == "unknown"


def test_episodes_of_length_zero_do_not_end_the_judgement() -> None:
    run = [series(3_000.0 + noise(200, sigma=15.0)), series(np.zeros(200), "rollout/ep_len_mean")]
    run += [
        series(np.full(195, -250.0), "train/actor_loss", first=6),
        series(np.ones(195), "train/critic_loss", first=6),
    ]
    assert judge_learning(SeriesSet.of(run)).answer == "no"


def test_a_fast_learner_with_rare_failures_learns() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        returns = np.where(rng.random(200) < 0.9, 500.0, rng.uniform(10.0, 60.0, 200))
        returns[:10] = rng.uniform(10.0, 60.0, 10)
        assert judge_curve(series(returns, "charts/episodic_return", every=400)).learning == "yes"


def test_constant_returns_of_successful_episodes_are_no_failure() -> None:
    run = [series(np.full(200, -50.0)), series(np.full(200, 50.0), "rollout/ep_len_mean")]
    for rate, expected in ((0.0, "no"), (1.0, "unknown")):
        success = series(np.full(200, rate), "rollout/success_rate")
        assert judge_learning(SeriesSet.of([*run, success])).answer == expected


def test_a_training_mean_at_its_peak_contradicts_evaluations_that_fell() -> None:
    mean = series(np.interp(np.arange(250), [0, 50, 100], [0.0, 0.0, 3_000.0]) + noise(250, sigma=10.0), every=4_000)
    fell = np.append(np.interp(np.arange(18), [3, 7], [0.0, 3_000.0]), [0.0, 0.0]) + noise(20, 1, 20.0)
    evaluated = series(fell, "eval/mean_reward", every=50_000)
    lengths = series(np.full(250, 1_000.0), "rollout/ep_len_mean", every=4_000)
    assert judge_learning(SeriesSet.of([mean, evaluated, lengths])).answer == "unknown"
