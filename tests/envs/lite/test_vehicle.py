import math

import pytest

from sb3_visual_td3.envs.backend import Control
from sb3_visual_td3.envs.lite.vehicle import Motion, VehicleSettings, advance

DT = 0.05
SETTINGS = VehicleSettings()
COAST = Control(0.0, 0.0, 0.0)


def at(speed_mps=0.0, wheel_rad=0.0):
    return Motion(0.0, 0.0, 0.0, speed_mps, wheel_rad)


def hold(motion, control, n_ticks, settings=SETTINGS):
    for _ in range(n_ticks):
        motion = advance(motion, control, DT, settings)
    return motion


def test_full_throttle_ends_at_twelve_metres_per_second():
    assert hold(at(), Control(0.0, 1.0, 0.0), 2000).speed_mps == pytest.approx(12.0, abs=1e-6)


def test_half_throttle_ends_at_six_metres_per_second():
    assert hold(at(), Control(0.0, 0.5, 0.0), 2000).speed_mps == pytest.approx(6.0, abs=1e-6)


def test_one_tick_of_throttle_or_brake_gives_the_expected_speed():
    assert hold(at(), Control(0.0, 1.0, 0.0), 1).speed_mps == pytest.approx(3.0 * DT)
    assert hold(at(8.0), Control(0.0, 0.0, 1.0), 1).speed_mps == pytest.approx(8.0 - (7.0 + 0.25 * 8.0) * DT)


def test_braking_distance_is_that_of_the_differential_equation():
    # v' = -7 - v/4: it stands after t = 4 ln((v0 + 28) / 28), having rolled 4 v0 - 28 t.
    t = 4.0 * math.log(40.0 / 28.0)
    stopped = hold(at(12.0), Control(0.0, 0.0, 1.0), round(2.0 / DT))
    assert stopped.speed_mps == 0.0
    assert stopped.x_m == pytest.approx(48.0 - 28.0 * t, abs=0.5 * 12.0 * DT + 0.05)


def test_a_car_never_rolls_backwards():
    assert hold(at(1.0), Control(0.0, 0.0, 1.0), 100)[:4] == hold(at(1.0), Control(0.0, 0.0, 1.0), 200)[:4]


def test_steering_right_turns_right_and_left_mirrors_it():
    right, left = (hold(at(5.0), Control(steer, 0.4, 0.0), 20) for steer in (1.0, -1.0))
    assert right.yaw_rad < -0.1, "yaw counts to the left"
    assert right.y_m < -0.1
    assert left.yaw_rad == pytest.approx(-right.yaw_rad)
    assert (left.x_m, left.y_m) == pytest.approx((right.x_m, -right.y_m))


def test_wheels_follow_with_a_lag_of_a_tenth_of_a_second():
    assert hold(at(), Control(-1.0, 0.0, 0.0), 2).wheel_rad == pytest.approx(math.radians(20.0) * (1 - math.exp(-1.0)))
    assert hold(at(), Control(-1.0, 0.0, 0.0), 100).wheel_rad == pytest.approx(math.radians(20.0))


def test_turn_radius_is_that_of_the_bicycle_model():
    wheel = math.radians(20.0)
    frictionless = VehicleSettings(drag_per_s=1e-6)
    speed, ticks = 2.0, 400
    turned = hold(at(speed, wheel), Control(-1.0, 0.0, 0.0), ticks, frictionless)
    radius = speed * ticks * DT / turned.yaw_rad
    rear_axle_m = 2.9 / math.tan(wheel)
    assert rear_axle_m == pytest.approx(7.968, abs=1e-3)
    assert radius == pytest.approx(math.hypot(rear_axle_m, 1.45), rel=1e-3)


def test_tyres_carry_no_more_than_seven_metres_per_second_squared():
    wheel = math.radians(20.0)
    before = at(12.0, wheel)
    after = advance(before, Control(-1.0, 1.0, 0.0), DT, SETTINGS)
    lateral = after.speed_mps * after.yaw_rad / DT
    assert 6.9 < lateral <= 7.0


def test_coasting_straight_stays_straight():
    rolled = hold(at(8.0), COAST, 200)
    assert (rolled.y_m, rolled.yaw_rad) == (0.0, 0.0)
    assert rolled.x_m == pytest.approx(8.0 / 0.25 * (1 - math.exp(-2.5)), rel=0.02)


@pytest.mark.parametrize("setting", ["wheelbase_m", "drag_per_s", "max_wheel_rad", "steering_lag_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, "fast"])
def test_settings_refuse_values_that_are_not_positive(setting, value):
    with pytest.raises(ValueError, match=setting):
        VehicleSettings(**{setting: value})
