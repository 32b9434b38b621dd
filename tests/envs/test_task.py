import json
import math
from dataclasses import fields

import numpy as np
import pytest

from sb3_visual_td3.common.tags import REWARD_TERMS
from sb3_visual_td3.envs.backend import BodySize, LaneMark, VehicleState
from sb3_visual_td3.envs.rewards import REWARD_SETS, RewardWeights
from sb3_visual_td3.envs.task import DrivingTask, TaskSettings, wheel_reach_m

BODY = BodySize(length_m=4.4, width_m=1.8, wheelbase_m=2.9)
MARKS = (LaneMark(-1.75, "solid"), LaneMark(1.75, "broken"), LaneMark(5.25, "solid"))
STEADY = VehicleState(0.0, 0.0, 0.0, 8.0, 0.0, 0.0, 0.0, 3.5, 5.25, -1.75, MARKS, 500.0)


def begun_task(**settings):
    task = DrivingTask(TaskSettings(target_speed_mps=8.0, **settings), BODY)
    task.reset(STEADY)
    return task


def test_wheel_reach_equals_values_computed_by_hand_for_three_heading_errors():
    assert wheel_reach_m(0.0, BODY) == pytest.approx(0.9)
    assert wheel_reach_m(-math.pi / 2, BODY) == pytest.approx(1.45)
    # The front left wheel of a car turned by 30 degrees: 1.45 sin 30 + 0.9 cos 30.
    assert wheel_reach_m(math.pi / 6, BODY) == pytest.approx(0.725 + 0.9 * math.sqrt(3.0) / 2.0)


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


def test_fifty_idle_steps_in_a_row_are_an_accident_if_requested():
    task = begun_task(idle_ending="terminated")
    idle, moving = STEADY._replace(speed_mps=0.49), STEADY._replace(speed_mps=0.5)
    outcomes = [task.advance(state, 0.0, 0.0) for state in [idle] * 49 + [moving] + [idle] * 49]
    assert not any(outcome.terminated for outcome in outcomes)
    last = task.advance(idle, 0.0, 0.0)
    assert last.terminated
    assert task.termination == "idle"
    assert last.reward_terms["safety"] == -10.0


@pytest.mark.parametrize(("goal_ending", "is_terminated"), [("terminated", True), ("truncated", False)])
def test_the_goal_ends_a_route_as_requested_and_is_never_an_accident(goal_ending, is_terminated):
    task = begun_task(goal_ending=goal_ending)
    outcome = task.advance(STEADY._replace(has_goal=True, distance_m=50.0, route_length_m=50.0), 0.0, 0.0)
    assert (outcome.terminated, outcome.truncated) == (is_terminated, not is_terminated)
    assert task.termination == "goal"
    assert task.info("map")["is_success"]
    assert outcome.reward_terms["safety"] == 0.0


def test_a_crossed_lane_mark_is_counted_again_only_after_a_return_across_its_middle():
    task = begun_task()
    # The body's edge lies 0.9 m from its centre, the mark's middle at 1.75 m, its far edge at 1.85 m.
    offsets = [0.8, 0.94, 0.96, 1.2, 0.94, 0.86, 0.96, 0.84, 0.96, -0.94, -0.84, -0.96]
    counts = []
    for offset in offsets:
        task.advance(STEADY._replace(lateral_offset_m=offset), 0.0, 0.0)
        counts.append(task.n_lane_invasions)
    assert counts == [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]


def test_only_the_step_that_crosses_a_lane_mark_is_penalized():
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
def test_success_requires_half_the_target_speed_over_the_whole_episode(distance_m, is_success):
    task = begun_task()
    assert "is_success" not in task.info("map")
    for step in range(1, 11):  # one second: half the target speed is four metres
        outcome = task.advance(STEADY._replace(distance_m=distance_m * step / 10), 0.0, 0.0)
    assert not outcome.terminated
    assert task.info("map")["termination"] == ""
    assert task.info("map")["is_success"] is is_success


def test_an_accident_is_never_a_success():
    task = begun_task()
    outcome = task.advance(STEADY._replace(lateral_offset_m=-3.0, distance_m=0.8), 0.0, 0.0)
    assert outcome.terminated
    assert task.info("map")["is_success"] is False


def test_reset_clears_the_counters():
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
def test_settings_refuse_meaningless_values(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TaskSettings(**settings)


def test_settings_refuse_an_unknown_key():
    with pytest.raises(TypeError, match="max_speed"):
        TaskSettings(max_speed=3.0)


# Marks, by the wheel


def crossed_at(task, *offsets, heading_rad=0.0):
    crossed = []
    for offset in offsets:
        task.advance(STEADY._replace(lateral_offset_m=offset, heading_error_rad=heading_rad), 0.0, 0.0)
        crossed.append(task.info("map")["lane_marks_crossed"])
    return crossed


def test_each_mark_is_named_by_its_kind_in_the_step_that_crosses_it():
    task = begun_task()
    assert crossed_at(task, 0.0, 1.2, 1.5, 4.6, 0.0, -1.0) == [[], ["broken"], [], ["solid"], [], ["solid"]]
    assert task.n_lane_invasions == 3


def test_one_step_may_cross_two_marks():
    task = begun_task()
    assert crossed_at(task, 5.0) == [["broken", "solid"]]
    assert task.n_lane_invasions == 2


def test_a_lane_mark_is_crossed_by_a_wheel_and_not_by_the_bumper():
    # Turned by 30 degrees the front wheel stands 1.504 m from the middle, the bumper's corner 1.879 m.
    assert crossed_at(begun_task(), 0.34, heading_rad=math.pi / 6) == [[]]
    assert crossed_at(begun_task(), 0.35, heading_rad=math.pi / 6) == [["broken"]]


def test_marks_that_begin_beneath_the_car_do_not_count():
    task = begun_task()
    across = STEADY._replace(lateral_offset_m=1.2)
    task.advance(across._replace(marks=()), 0.0, 0.0)
    task.advance(across, 0.0, 0.0)
    assert task.n_lane_invasions == 0
    assert crossed_at(task, 0.0, 1.2) == [[], ["broken"]]


# What ends an episode, and how it pays


def test_a_collision_takes_precedence_over_other_endings():
    task = begun_task()
    outcome = task.advance(STEADY._replace(has_collided=True, lateral_offset_m=-9.0), 0.0, 0.0)
    assert (outcome.terminated, task.termination, task.n_collisions) == (True, "collision", 1)
    assert outcome.reward_terms["safety"] <= -10.0


def test_idling_may_be_truncated_without_a_penalty():
    task = begun_task(max_idle_steps=2)
    idle = STEADY._replace(speed_mps=0.0)
    assert not task.advance(idle, 0.0, 0.0).truncated
    outcome = task.advance(idle, 0.0, 0.0)
    assert (outcome.terminated, outcome.truncated, task.termination) == (False, True, "idle")
    assert outcome.reward_terms["safety"] == 0.0
    assert task.info("map")["is_success"] is False


def test_route_completion_is_distance_over_route_length_clipped_to_0_and_1():
    task = begun_task()
    for distance_m, completion in ((-5.0, 0.0), (125.0, 0.25), (500.0, 1.0), (800.0, 1.0)):
        task.advance(STEADY._replace(distance_m=distance_m), 0.0, 0.0)
        assert task.info("map")["route_completion"] == completion


def test_the_scale_multiplies_every_term():
    plain, scaled = begun_task(), begun_task(reward_scale=0.1)
    state = STEADY._replace(lateral_offset_m=1.2, distance_m=0.5)
    one, other = plain.advance(state, 0.3, 0.1), scaled.advance(state, 0.3, 0.1)
    assert other.reward == pytest.approx(0.1 * one.reward)
    assert other.reward_terms == pytest.approx({name: 0.1 * term for name, term in one.reward_terms.items()})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("balanced", {"progress": 0.6, "smoothness": 0.2, "lane_centring": 0.1, "efficiency": 0.1, "safety": 0.0}),
        ("progress_heavy", {"progress": 0.95, "smoothness": 0.025, "lane_centring": 0.0, "efficiency": 0.025}),
    ],
)
def test_a_perfect_step_earns_the_weights_of_the_named_set(name, expected):
    weights = REWARD_SETS[name]
    terms = begun_task(weights=weights).advance(STEADY._replace(distance_m=0.8), 0.0, 0.0).reward_terms
    assert {term: terms[term] for term in expected} == pytest.approx(expected)
    assert math.copysign(1.0, terms["safety"]) == 1.0, "a clean step must not read as -0.0"
    assert weights.accident == 10.0


def test_reward_terms_match_the_names_and_the_order_in_common_tags():
    assert tuple(begun_task().advance(STEADY, 0.0, 0.0).reward_terms) == REWARD_TERMS


def test_an_accident_costs_its_weight():
    task = begun_task(weights=RewardWeights(accident=7.0))
    assert task.advance(STEADY._replace(has_collided=True), 0.0, 0.0).reward_terms["safety"] == -7.0


def test_waiting_behind_a_car_is_not_idling_until_it_lasts_too_long():
    task = begun_task(step_s=0.1, max_wait_s=20.0)
    waiting = STEADY._replace(speed_mps=0.0, has_goal=True, route_length_m=400.0, vehicle_ahead_m=19.9)
    # 200 steps of waiting, and then 50 of idling.
    for step in range(249):
        outcome = task.advance(waiting, 0.0, 0.0)
        assert (outcome.terminated, outcome.truncated) == (False, False), step
    assert task.advance(waiting, 0.0, 0.0).truncated
    assert task.termination == "idle"
    task.reset(STEADY)
    for _ in range(100):
        task.advance(waiting, 0.0, 0.0)
    task.advance(waiting._replace(speed_mps=1.0), 0.0, 0.0)
    for _ in range(200):
        assert not task.advance(waiting, 0.0, 0.0).truncated, "after driving on, the vehicle may wait again"


def test_a_car_far_ahead_is_no_reason_to_stand_still():
    task = begun_task()
    idle = STEADY._replace(speed_mps=0.0, vehicle_ahead_m=20.1)
    for _ in range(49):
        assert not task.advance(idle, 0.0, 0.0).truncated
    assert task.advance(idle, 0.0, 0.0).truncated


def test_a_term_without_weight_is_never_minus_zero():
    task = begun_task(weights=RewardWeights(**{weight.name: 0.0 for weight in fields(RewardWeights)}))
    outcome = task.advance(STEADY._replace(distance_m=-0.8, lateral_offset_m=2.5), -1.0, 1.0)
    assert {name: math.copysign(1.0, term) for name, term in outcome.reward_terms.items()} == dict.fromkeys(
        REWARD_TERMS, 1.0
    )


def test_a_restored_episode_continues_with_the_same_reward_terms():
    """Every weight is 1, so that an error in the restored state of any term changes the reward."""
    weights = RewardWeights(**{weight.name: 1.0 for weight in fields(RewardWeights)})
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (40, 2))
    states = [
        STEADY._replace(
            distance_m=0.7 * i, lateral_offset_m=float(offset_m), speed_mps=float(speed_mps), n_red_lights=i // 9
        )
        for i, (offset_m, speed_mps) in enumerate(
            zip(rng.uniform(-1.5, 1.5, 41), rng.uniform(0.0, 9.0, 41), strict=True)
        )
    ]
    task = begun_task(weights=weights)
    task.reset(states[0])
    for at in range(len(actions)):
        restored = begun_task(weights=weights)
        restored.set_state(json.loads(json.dumps(task.get_state())), states[at])
        steer, pedal = map(float, actions[at])
        expected = task.advance(states[at + 1], steer, pedal)
        assert restored.advance(states[at + 1], steer, pedal) == expected, at
        assert restored.get_state() == task.get_state(), at
