import math

import pytest

from sb3_visual_td3.envs.backend import BodySize, VehicleState
from sb3_visual_td3.envs.task import DrivingTask, TaskSettings, overhang_m

BODY = BodySize(length_m=4.4, width_m=1.8)
STEADY = VehicleState(0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 3.5, 5.25, -1.75)


def begun_task(**settings):
    task = DrivingTask(TaskSettings(target_speed_mps=8.0, **settings), BODY)
    task.reset(STEADY)
    return task


def test_overhang_of_a_straight_and_of_a_turned_car():
    assert overhang_m(STEADY, BODY) == pytest.approx(0.9 - 1.75)
    assert overhang_m(STEADY._replace(lateral_offset_m=-1.0), BODY) == pytest.approx(1.0 + 0.9 - 1.75)
    assert overhang_m(STEADY._replace(heading_error_rad=-math.pi / 2), BODY) == pytest.approx(2.2 - 1.75)


def test_a_perfect_step_earns_exactly_one():
    outcome = begun_task().advance(STEADY._replace(distance_m=0.8), 0.0, 0.0)
    assert outcome.reward == pytest.approx(1.0)
    assert not outcome.terminated


def test_smoothness_compares_with_the_action_before():
    task = begun_task()
    assert task.advance(STEADY, 1.0, 0.0).reward_terms["smoothness"] == pytest.approx(0.1)
    assert task.advance(STEADY, 1.0, 0.0).reward_terms["smoothness"] == pytest.approx(0.2)
    assert task.advance(STEADY, -1.0, 0.0).reward_terms["smoothness"] == pytest.approx(0.0)


def test_progress_counts_the_metres_of_the_step_not_of_the_episode():
    task = begun_task()
    for metres in (0.8, 1.6, 2.4):
        assert task.advance(STEADY._replace(distance_m=metres), 0.0, 0.0).reward_terms["progress"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("offset_m", "termination"),
    [(-2.04, ""), (-2.06, "off_road"), (5.54, ""), (5.56, "off_road"), (0.0, "")],
)
def test_the_road_ends_three_tenths_of_a_metre_beyond_its_outer_lines(offset_m, termination):
    task = begun_task()
    outcome = task.advance(STEADY._replace(lateral_offset_m=offset_m), 0.0, 0.0)
    assert task.termination == termination
    assert outcome.terminated == bool(termination)
    assert task.n_collisions == int(bool(termination))
    assert (outcome.reward_terms["safety"] <= -10.0) == bool(termination)


@pytest.mark.parametrize(
    ("heading_rad", "termination"), [(1.57, ""), (1.58, "wrong_way"), (-1.57, ""), (-1.58, "wrong_way")]
)
def test_turning_by_more_than_a_right_angle_is_the_wrong_way_and_no_collision(heading_rad, termination):
    task = begun_task()
    outcome = task.advance(STEADY._replace(heading_error_rad=heading_rad), 0.0, 0.0)
    assert task.termination == termination
    assert outcome.terminated == bool(termination)
    assert task.n_collisions == 0


def test_fifty_idle_steps_in_a_row_end_the_episode():
    task = begun_task()
    idle, moving = STEADY._replace(speed_mps=0.49), STEADY._replace(speed_mps=0.5)
    outcomes = [task.advance(state, 0.0, 0.0) for state in [idle] * 49 + [moving] + [idle] * 49]
    assert not any(outcome.terminated for outcome in outcomes)
    last = task.advance(idle, 0.0, 0.0)
    assert last.terminated
    assert task.termination == "idle"
    assert last.reward_terms["safety"] == -10.0


def test_a_mark_counts_once_until_the_body_is_back_inside():
    task = begun_task()
    # The body's edge lies 0.9 m from its centre, the mark's middle at 1.75 m, its far edge at 1.85 m.
    offsets = [0.8, 0.94, 0.96, 1.2, 0.94, 0.86, 0.96, 0.84, 0.96, -0.94, -0.84, -0.96]
    counts = []
    for offset in offsets:
        task.advance(STEADY._replace(lateral_offset_m=offset), 0.0, 0.0)
        counts.append(task.n_lane_invasions)
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]


def test_only_the_step_that_crosses_a_mark_pays_for_it():
    task = begun_task()
    across = STEADY._replace(lateral_offset_m=1.2)
    assert task.advance(across, 0.0, 0.0).reward_terms["safety"] == -1.0
    assert task.advance(across, 0.0, 0.0).reward_terms["safety"] == 0.0


def test_a_car_that_starts_across_a_mark_has_not_crossed_it():
    task = DrivingTask(TaskSettings(), BODY)
    across = STEADY._replace(lateral_offset_m=1.2)
    task.reset(across)
    task.advance(across, 0.0, 0.0)
    assert task.n_lane_invasions == 0


@pytest.mark.parametrize(("distance_m", "is_success"), [(3.99, False), (4.01, True), (0.6, False), (-8.0, False)])
def test_success_asks_for_half_the_target_speed_over_the_whole_episode(distance_m, is_success):
    task = begun_task()
    assert "is_success" not in task.info("map")
    for step in range(1, 11):  # one second: half the target speed is four metres
        outcome = task.advance(STEADY._replace(distance_m=distance_m * step / 10), 0.0, 0.0)
    assert not outcome.terminated
    assert task.info("map")["termination"] == ""
    assert task.info("map")["is_success"] is is_success


def test_an_accident_is_no_success_however_fast_the_drive_was():
    task = begun_task()
    outcome = task.advance(STEADY._replace(lateral_offset_m=-3.0, distance_m=0.8), 0.0, 0.0)
    assert outcome.terminated
    assert task.info("map")["is_success"] is False


def test_reset_clears_the_books():
    task = begun_task()
    task.advance(STEADY._replace(lateral_offset_m=-3.0), 1.0, 1.0)
    task.reset(STEADY)
    assert (task.n_steps, task.n_collisions, task.n_lane_invasions, task.termination) == (0, 0, 0, "")
    assert task.advance(STEADY, 0.0, 0.0).reward_terms["smoothness"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_idle_steps": -1},
        {"target_speed_mps": 0.0},
        {"target_speed_mps": math.inf},
        {"step_s": math.nan},
        {"roadside_m": -0.1},
        {"success_speed_fraction": 1.5},
    ],
)
def test_settings_refuse_what_has_no_meaning(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TaskSettings(**settings)


def test_settings_refuse_an_unknown_key():
    with pytest.raises(TypeError, match="max_speed"):
        TaskSettings(max_speed=3.0)
