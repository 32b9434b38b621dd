import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.envs import rewards
from sb3_visual_td3.envs.rewards import RewardWeights

TARGET = 8.0
STEP = 0.1


@pytest.mark.parametrize(
    ("distance_m", "expected"),
    [
        (0.8, 1.0),  # at the target
        (0.4, 0.5),
        (0.0, 0.0),
        (1.2, 0.5),  # 1.5 times the target speed earns as much as half of it
        (1.6, 0.0),
        (2.4, -1.0),
        (8.0, -1.0),
        (-0.4, -0.5),
        (-8.0, -1.0),
    ],
)
def test_progress_is_triangular_about_the_target_speed(distance_m, expected):
    assert rewards.progress_term(distance_m, STEP, TARGET) == pytest.approx(expected)


@pytest.mark.parametrize(("speed", "expected"), [(0.0, 0.0), (1.2, 0.5), (2.4, 1.0), (8.0, 1.0), (16.0, 1.0)])
def test_speed_gate_rises_to_one_at_three_tenths_of_the_target_speed(speed, expected):
    assert rewards.speed_gate(speed, TARGET) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("steer_change", "pedal_change", "gate", "expected"),
    [
        (0.0, 0.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, 0.0),
        (1.0, 0.0, 1.0, 0.5),
        (-1.0, 0.0, 1.0, 0.5),
        (0.0, 2.0, 1.0, 0.5),
        (1.0, 1.0, 1.0, 0.25),
        (2.0, 2.0, 1.0, 0.0),
        (0.4, 0.4, 0.5, 0.35),
    ],
)
def test_smoothness_pays_for_still_controls_while_moving(steer_change, pedal_change, gate, expected):
    assert rewards.smoothness_term(steer_change, pedal_change, gate) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("offset_m", "gate", "expected"),
    [
        (0.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
        (1.75, 1.0, 0.0),
        (-1.75, 1.0, 0.0),
        (0.875, 0.5, 0.25),
        (3.5, 1.0, -1.0),
        (9.0, 1.0, -1.0),
        (9.0, 0.5, -0.5),
    ],
)
def test_lane_centring_reward_falls_from_the_lane_centre_to_beyond_the_edge(offset_m, gate, expected):
    assert rewards.lane_centring_term(offset_m, 3.5, gate) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("speed", "expected"), [(8.0, 1.0), (4.0, 0.0), (12.0, 0.0), (0.0, -1.0), (16.0, -1.0), (40.0, -1.0), (6.0, 0.5)]
)
def test_efficiency_is_one_at_the_target_speed_and_minus_one_at_rest(speed, expected):
    assert rewards.efficiency_term(speed, TARGET) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("is_accident", "n_invasions", "expected"), [(False, 0, 0.0), (True, 0, -10.0), (False, 2, -2.0), (True, 1, -11.0)]
)
def test_safety_costs_ten_per_accident_and_one_per_lane_invasion(is_accident, n_invasions, expected):
    cost = rewards.safety_term(is_accident, n_invasions, RewardWeights())
    assert cost == expected
    assert math.copysign(1.0, cost) == (1.0 if expected == 0.0 else -1.0), "a clean step must not read as -0.0"


@pytest.mark.parametrize(
    "call",
    [
        lambda: rewards.progress_term(1.0, 0.0, TARGET),
        lambda: rewards.progress_term(1.0, STEP, 0.0),
        lambda: rewards.progress_term(1.0, STEP, math.nan),
        lambda: rewards.speed_gate(1.0, -1.0),
        lambda: rewards.efficiency_term(1.0, 0.0),
        lambda: rewards.smoothness_term(0.0, 0.0, 1.5),
        lambda: rewards.lane_centring_term(0.0, 0.0, 1.0),
        lambda: rewards.lane_centring_term(0.0, 3.5, -0.1),
        lambda: rewards.safety_term(False, -1, RewardWeights()),
    ],
)
def test_a_term_refuses_meaningless_arguments(call):
    with pytest.raises(ValueError, match="expected"):
        call()


NUMBER = st.floats(-1e6, 1e6)
SPEED = st.floats(0.0, 1e4)


@settings(max_examples=300)
@given(
    metres=NUMBER,
    speed=SPEED,
    target=st.floats(0.1, 100.0),
    offset=NUMBER,
    steer=st.floats(-2, 2),
    pedal=st.floats(-2, 2),
    n=st.integers(0, 5),
    accident=st.booleans(),
    cost=st.floats(0.0, 100.0),
)
def test_every_term_stays_in_its_range(metres, speed, target, offset, steer, pedal, n, accident, cost):
    gate = rewards.speed_gate(speed, target)
    assert 0.0 <= gate <= 1.0
    assert -1.0 <= rewards.progress_term(metres, STEP, target) <= 1.0
    assert 0.0 <= rewards.smoothness_term(steer, pedal, gate) <= 1.0
    assert -1.0 <= rewards.lane_centring_term(offset, 3.5, gate) <= 1.0
    assert -1.0 <= rewards.efficiency_term(speed, target) <= 1.0
    weights = RewardWeights(accident=cost, lane_invasion=0.5 * cost)
    assert -(weights.accident + n * weights.lane_invasion) <= rewards.safety_term(accident, n, weights) <= 0.0


@pytest.mark.parametrize("reward", ["reckless", None, 3, ["balanced"]])
def test_unknown_weights_are_refused(reward):
    with pytest.raises(ValueError, match=r"reward=.*balanced"):
        rewards.reward_weights(reward)


def test_a_mapping_changes_some_weights_of_the_balanced_set():
    assert rewards.reward_weights({"accident": 1.0}) == RewardWeights(accident=1.0)
    with pytest.raises(ValueError, match=r"crash.*expected only names among .*accident"):
        rewards.reward_weights({"crash": 1.0})


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "much"])
def test_a_weight_is_a_finite_number_of_zero_or_more(value):
    with pytest.raises(ValueError, match="smoothness"):
        RewardWeights(smoothness=value)
