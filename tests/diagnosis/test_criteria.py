from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import CHECKS, Criterion, judge, load_criteria
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.verdict import (
    ABOUT_LEARNING,
    EVIDENCE,
    LEARNING,
    STABLE_IN_OWN_SCALE,
    Status,
    Verdict,
    decide,
)

P, F, U, N = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.NOT_APPLICABLE
BUILT_IN = {criterion.id: criterion for criterion in load_criteria()}


def points(tag: str, values: object, steps: object = None) -> Series:
    values = np.asarray(values, dtype=float)
    return Series(tag, np.arange(1, values.size + 1) * 100 if steps is None else np.asarray(steps), values)


def status(identifier: str, *series: Series) -> Status:
    (result,) = judge([BUILT_IN[identifier]], SeriesSet.of(series))
    return result.status


def test_all_thirteen_criteria_of_the_first_carla_run_are_built_in() -> None:
    sources = [criterion.source for criterion in BUILT_IN.values()]
    assert sources.count("first CARLA run, GO list") == 7
    assert sources.count("first CARLA run, NO-GO list") == 6


def test_every_built_in_criterion_reads_known_tags_and_every_kind_is_used() -> None:
    assert {tag for criterion in BUILT_IN.values() for tag in criterion.tags} <= tags.TAGS.keys()
    assert {criterion.kind for criterion in BUILT_IN.values()} == CHECKS.keys()


def test_the_ids_that_the_code_treats_in_a_special_way_are_those_of_built_in_criteria() -> None:
    assert {LEARNING, STABLE_IN_OWN_SCALE, *ABOUT_LEARNING} <= BUILT_IN.keys()
    assert EVIDENCE not in BUILT_IN


def test_a_run_that_logged_nothing_passes_no_criterion() -> None:
    results = judge(tuple(BUILT_IN.values()), SeriesSet())
    # What only a callback of ours logs does not apply where it did not run; it blocks nothing either.
    assert {result.status for result in results if result.blocking} == {U}
    assert {result.status for result in results} == {U, Status.NOT_APPLICABLE}
    assert decide(results) is Verdict.INSUFFICIENT


CNN, Q1, Q2 = tags.GRADIENT_NORM["actor_cnn"], tags.Q1_VALUE, tags.Q2_VALUE


@pytest.mark.parametrize(
    ("identifier", "tag", "value", "expected"),
    [
        ("actor_cnn_norm_mean", CNN, 9_999.9, P),
        ("actor_cnn_norm_mean", CNN, 10_000.0, F),
        ("actor_cnn_norm_no_go", CNN, 50_000.0, P),
        ("actor_cnn_norm_no_go", CNN, 50_000.1, F),
        ("critic_loss_mean", tags.CRITIC_LOSS, 199.9, P),
        ("critic_loss_mean", tags.CRITIC_LOSS, 200.0, F),
        ("policy_is_alive", tags.ACTION_SATURATION, 0.49, P),
        ("policy_is_alive", tags.ACTION_SATURATION, 0.5, F),
        ("every_action_varies", tags.ACTION_STD_MIN, 0.011, P),
        ("every_action_varies", tags.ACTION_STD_MIN, 0.01, F),
    ],
)
def test_a_pass_needs_enough_points_within_threshold(identifier: str, tag: str, value: float, expected: Status) -> None:
    assert status(identifier, points(tag, [value] * 8)) is expected
    too_few = F if expected is F else U
    assert status(identifier, points(tag, [value] * 2)) is too_few


def test_q_magnitude_fails_if_either_q_is_too_large_and_needs_both_to_pass() -> None:
    calm = [1.0] * 8
    assert status("q_magnitude", points(Q1, calm), points(Q2, [*calm[:-1], -200.0])) is P
    assert status("q_magnitude", points(Q1, calm), points(Q2, [*calm[:-1], -200.1])) is F
    assert status("q_magnitude", points(Q1, calm)) is U
    assert status("q_magnitude", points(Q1, [300.0])) is F


def test_twin_critics_are_compared_at_common_steps() -> None:
    assert status("twin_critics_synchronised", points(Q1, [0.0] * 8), points(Q2, [4.9] * 8)) is P
    assert status("twin_critics_synchronised", points(Q1, [0.0] * 8), points(Q2, [5.0] * 8)) is F
    assert status("twin_critics_synchronised", points(Q1, [0.0] * 8), points(Q2, [0.0] * 8, np.arange(8))) is U


def test_alert_criteria_pass_without_an_active_alert_and_fail_with_one() -> None:
    for identifier in ("no_critical_alerts", "no_critical_alerts_no_go"):
        assert status(identifier, points(tags.ALERT_CRITICAL, [0.0] * 22)) is P
        assert status(identifier, points(tags.ALERT_CRITICAL, [0.0] * 21 + [1.0])) is F


def test_an_actor_loss_that_follows_q_passes_and_one_that_explodes_beyond_q_fails() -> None:
    q = [points(tag, np.linspace(-2, 30, 40)) for tag in (Q1, Q2)]
    healthy = points(tags.ACTOR_LOSS, np.linspace(2, -30, 40))
    leak = points(tags.ACTOR_LOSS, -np.exp(np.linspace(0, 16, 40)))
    for identifier in ("actor_loss_stable", "actor_loss_no_exponential_growth"):
        assert status(identifier, healthy, *q) is P
        assert status(identifier, leak, *q) is F


def test_an_actor_loss_that_stops_growing_far_beyond_q_still_fails() -> None:
    q = [points(tag, np.full(40, 20.0)) for tag in (Q1, Q2)]
    leak = points(tags.ACTOR_LOSS, [*-np.exp(np.linspace(0, 16, 20)), *np.full(20, -9e6)])
    assert status("actor_loss_stable", leak, *q) is F
    assert status("actor_loss_no_exponential_growth", leak, *q) is F


def test_without_q_values_actor_loss_growth_is_unknown_unless_far_beyond_the_critic_loss() -> None:
    growing = points(tags.ACTOR_LOSS, -np.exp(np.linspace(0, 6, 40)))
    leak = points(tags.ACTOR_LOSS, -np.exp(np.linspace(0, 16, 40)))
    critic = points(tags.CRITIC_LOSS, np.full(40, 100.0))
    assert status("actor_loss_no_exponential_growth", growing) is U
    assert status("actor_loss_no_exponential_growth", growing, critic) is U
    assert status("actor_loss_no_exponential_growth", leak, critic) is F
    assert status("actor_loss_stable", growing, critic) is U


@pytest.mark.parametrize(("late", "expected"), [(100.0, P), (50.0, P), (25.0, P), (24.0, F), (3.0, F)])
def test_late_episodes_may_be_half_as_long_as_early_ones_but_not_shorter(late: float, expected: Status) -> None:
    n_late = int(2000 / late)
    lengths = points(tags.EPISODE_LENGTH, [50.0] * 40 + [late] * n_late, np.arange(40 + n_late))
    assert status("episode_length_not_decreasing", lengths) is expected


@pytest.mark.parametrize(("n_steps", "expected"), [(2499, N), (2500, F)])
def test_the_episode_length_criterion_applies_to_runs_of_at_least_2500_steps(n_steps: int, expected: Status) -> None:
    lengths = points(tags.EPISODE_LENGTH, [50.0] * 20 + [2.0] * 500, np.arange(520))
    length_of_run = points(Q1, [0.0], [n_steps])
    assert status("episode_length_not_decreasing", lengths, length_of_run) is expected


def test_episode_length_need_not_improve_if_late_episodes_are_near_the_longest() -> None:
    for lengths, expected in (([100.0] * 200, P), ([50.0, 51.0, *[50.0] * 298], P), ([80.0, *[50.0] * 298], F)):
        series = points(tags.EPISODE_LENGTH, lengths, np.arange(len(lengths)))
        assert status("episode_length_improves", series) is expected


def test_q_is_compared_with_the_bound_of_its_own_step() -> None:
    bound = points(tags.Q_BOUND, [10.0, 10.0, 50.0, 50.0, 50.0, 50.0])
    q = [10.0, -10.0, 50.0, 1.0, 1.0, 1.0]
    others = [points(tag, [1.0] * 6) for tag in (Q2, tags.POLICY_Q_VALUE)]
    assert status("q_within_bound", bound, points(Q1, q), *others) is P
    assert status("q_within_bound", bound, points(Q1, [11.0, *q[1:]]), *others) is F
    assert status("q_within_bound", bound, points(Q1, q)) is U
    assert status("q_within_bound", points(tags.Q_BOUND, [0.0] * 6), points(Q1, q), *others) is U


def test_q_values_before_the_first_logged_bound_prevent_a_pass_but_not_a_failure() -> None:
    q = [points(tag, [1.0] * 6) for tag in (Q1, Q2, tags.POLICY_Q_VALUE)]
    late = points(tags.Q_BOUND, [10.0] * 5, [200, 300, 400, 500, 600])
    assert status("q_within_bound", points(tags.Q_BOUND, [10.0] * 6), *q) is P
    assert status("q_within_bound", late, *q) is U
    assert status("q_within_bound", late, points(Q1, [1.0] * 5 + [11.0]), *q[1:]) is F
    assert status("q_within_bound", points(tags.Q_BOUND, [0.0, *[10.0] * 5]), *q) is P


def test_a_bound_read_back_in_single_precision_still_holds() -> None:
    bound = points(tags.Q_BOUND, np.full(6, np.float32(0.1)))
    q = [points(tag, np.full(6, 0.1 * (1 + 5e-7))) for tag in (Q1, Q2, tags.POLICY_Q_VALUE)]
    assert status("q_within_bound", bound, *q) is P


def test_early_jumps_of_q_pass_and_late_jumps_or_a_falling_q_fail() -> None:
    early = [0, 20, -10, *np.linspace(0, 20, 37)]
    late = [*np.linspace(0, 20, 37), 2, 20, 21]
    falling = [*np.linspace(0, 20, 20), *np.linspace(20, 0, 20)]
    for values, expected in ((early, P), (late, F), (falling, F)):
        assert status("q_values_increase_smoothly", points(Q1, values), points(Q2, values)) is expected


def test_one_non_finite_value_of_any_tag_fails_the_criterion() -> None:
    assert status("no_nan_or_inf", points("any/thing", [1.0] * 9)) is P
    for bad in (np.nan, np.inf, -np.inf):
        assert status("no_nan_or_inf", points("any/thing", [1.0] * 9), points("other", [bad])) is F


def test_a_training_that_the_alert_ended_because_of_nan_fails() -> None:
    losses = points("train/critic_loss", [1.0] * 9)
    assert status("no_nan_or_inf", losses, points("alerts/non_finite", [0.0, 1.0, 0.0])) is P
    assert status("no_nan_or_inf", losses, points("alerts/non_finite", [0.0, 0.0, 1.0])) is F


def test_a_small_q_gap_passes_and_a_gap_nearly_as_large_as_q_fails() -> None:
    q = points(Q1, np.full(8, 20.0))
    assert status("q_gap_small", points(tags.Q_GAP, np.full(8, 1.0)), q) is P
    assert status("q_gap_small", points(tags.Q_GAP, np.full(8, 15.0)), q) is F


NEW = "title: t, kind: mean_below, tags: [x], threshold: 1, blocking: true, source: me"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("criteria: {}", "format_version is None"),
        ("format_version: 1\ncriterias: {}", "unknown key 'criterias'"),
        ("format_version: 1\ncriteria: {policy_drives: {blokking: false}}", "unknown key 'blokking'"),
        ("format_version: 1\ncriteria: {policy_drives: {blocking: maybe}}", "blocking is 'maybe'"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {threshold: 'high'}}", "threshold is 'high'"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {threshold: true}}", "threshold is True"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {threshold: .nan}}", "threshold is nan; expected a number"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {reward_size: [1, .nan]}}", "expected .lowest, highest"),
        ("format_version: 1\ncriteria: {learning: {threshold: 5}}", "learning does not read threshold; remove it"),
        ("format_version: 1\ncriteria: {stable_in_own_scale: {tags: [a]}}", "own_scale does not read tags"),
        ("format_version: 1\ncriteria: {policy_drives: {threshold: 1}}", "last_above_baselines does not read thr"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {threshold: null}}", "needs a threshold"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {kind: eval}}", "unknown kind 'eval'"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {tags: []}}", "needs 1 or more"),
        ("format_version: 1\ncriteria: {critic_loss_mean: {tags: [1]}}", "expected a list of names"),
        ("format_version: 1\ncriteria: {mine: {blocking: true}}", "new criterion also needs kind, source, tags, title"),
        ("format_version: 1\ncriteria: [1]", "expected a mapping from each criterion's id"),
        ("- 1", "expected a mapping"),
        ("{", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_wrong_criteria_file_is_refused_with_key_and_file(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as refused:
        load_criteria(path)
    assert "mine.yml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_criteria_file_changes_single_keys_and_adds_criteria(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(f"format_version: 1\ncriteria: {{policy_drives: {{blocking: false}}, mine: {{{NEW}}}}}")
    loaded = {criterion.id: criterion for criterion in load_criteria(path)}
    assert loaded["policy_drives"].blocking is False
    assert loaded["policy_drives"].kind == BUILT_IN["policy_drives"].kind
    assert loaded["mine"] == Criterion("mine", "t", "mean_below", ("x",), True, "me", threshold=1.0)
    assert len(loaded) == len(BUILT_IN) + 1


def test_a_criterion_does_not_pass_if_its_tag_ends_as_nan() -> None:
    criterion = Criterion("mine", "t", "tail_mean_above", ("x",), True, "me", threshold=1.0, is_named_by_user=True)
    # NaN between finite values stands for no value, so a NaN at the end does as well.
    for values, expected in (
        ([2.0] * 10, P),
        ([2.0] * 9 + [np.nan], U),
        ([2.0, np.nan] * 5, P),
    ):
        (result,) = judge([criterion], SeriesSet.of([points("x", values)]))
        assert result.status is expected


def test_a_criteria_file_of_version_0_2_0_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text("format_version: 1\ncriteria: {learning: {min_points: 1}, stable_in_own_scale: {min_points: 1}}")
    assert len(load_criteria(path)) == len(BUILT_IN)
