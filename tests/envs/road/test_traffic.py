import math
from dataclasses import replace

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import BodySize, Control, Start
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.lite.world import LiteWorld
from sb3_visual_td3.envs.observation import to_vehicle_frame
from sb3_visual_td3.envs.road.collision import boxes_overlap
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.traffic import (
    Ego,
    IdmSettings,
    Traffic,
    TrafficSettings,
    idm_acceleration_mps2,
    lane_lines,
)

BODY = BodySize(4.4, 1.8, 2.9)
IDM = IdmSettings()
TRACK = load_map("train_0").track
AWAY = Ego(0, 30.0, 0.0)
"""An ego vehicle that is in none of the lanes."""


# The model: a = 1.5, b = 2, T = 1.5, s0 = 2, so 2 sqrt(a b) = 2 sqrt 3


@pytest.mark.parametrize(
    ("speed", "desired", "gap", "approach", "expected"),
    [
        (0.0, 8.0, math.inf, 0.0, 1.5),  # no car ahead, at rest
        (8.0, 8.0, math.inf, 0.0, 0.0),  # no car ahead, at the desired speed
        (4.0, 8.0, math.inf, 0.0, 1.5 * (1 - 1 / 16)),
        (0.0, 8.0, 2.0, 0.0, 0.0),  # standing in a queue
        (0.0, 8.0, 4.0, 0.0, 1.5 * (1 - 0.25)),
        (4.0, 8.0, 16.0, 0.0, 1.5 * (1 - 1 / 16 - 0.25)),  # s* = 2 + 6 = 8
        (4.0, 8.0, 20.0, math.sqrt(3.0), 1.5 * (1 - 1 / 16 - 0.25)),  # s* = 2 + 6 + 4 / 2 = 10
        (4.0, 8.0, 4.0, -1e9, 1.5 * (1 - 1 / 16 - 0.25)),  # a leader that flees never makes s* less than s0
        (8.0, 8.0, 0.5, 8.0, -8.0),  # no more than the brakes can do
        (8.0, 8.0, -1.0, 0.0, -8.0),
    ],
)
def test_acceleration_equals_hand_computed_values(speed, desired, gap, approach, expected):
    assert idm_acceleration_mps2(speed, desired, gap, approach, IDM) == pytest.approx(expected)


def test_a_following_car_settles_at_the_equilibrium_gap_of_the_model():
    speed, desired, gap = 3.0, 8.0, 40.0
    for _ in range(5_000):  # behind a leader that holds 5 m/s
        change = idm_acceleration_mps2(speed, desired, gap, speed - 5.0, IDM) * 0.05
        gap += (5.0 - speed - 0.5 * change) * 0.05
        speed += change
    assert speed == pytest.approx(5.0, abs=1e-3)
    assert gap == pytest.approx((2.0 + 1.5 * 5.0) / math.sqrt(1 - (5 / 8) ** 4), rel=1e-3)


# The cars of a lane


def driven(n_cars, seed, seconds, ego=AWAY):
    traffic = Traffic(TrafficSettings(n_cars=n_cars), BODY)
    traffic.reset(TRACK, 100, seed)
    for _ in range(round(seconds / 0.1)):
        traffic.advance(0.1, ego)
    return traffic


def gaps_m(traffic, lane):
    cars = [car for car in traffic.cars if car.lane == lane]
    lap_m = lane_lines(TRACK)[lane].length_m
    return [(b.along_m - a.along_m) % lap_m - 4.4 for a, b in zip(cars, cars[1:] + cars[:1], strict=True) if a is not b]


@pytest.mark.parametrize("n_cars", [0, 1, 2, 7, 20])
def test_the_requested_cars_start_in_both_directions_and_not_near_the_ego(n_cars):
    for seed in range(20):
        traffic = driven(n_cars, seed, 0.0)
        lanes = [car.lane for car in traffic.cars]
        assert len(lanes) == n_cars
        assert abs(lanes.count(0) - lanes.count(1)) <= 1
        for lane, line in enumerate(lane_lines(TRACK)[: n_cars and 2]):
            apart = [
                abs(math.remainder(car.along_m - line.along_at(100), line.length_m))
                for car in traffic.cars
                if car.lane == lane
            ]
            assert min(apart, default=99.0) >= 20.0
        assert min((gap for lane in (0, 1) for gap in gaps_m(traffic, lane)), default=99.0) >= 1.9


def test_one_car_may_come_from_either_side():
    assert {driven(1, seed, 0.0).cars[0].lane for seed in range(20)} == {0, 1}


def test_a_seed_gives_one_traffic_and_another_seed_another():
    assert driven(10, 3, 20.0).get_state() == driven(10, 3, 20.0).get_state()
    assert driven(10, 3, 0.0).get_state() != driven(10, 4, 0.0).get_state()


@pytest.mark.parametrize("n_cars", [2, 10, 20])
def test_cars_never_touch_each_other_and_reach_a_common_pace(n_cars):
    traffic = driven(n_cars, 1, 0.0)
    for _ in range(1_500):
        traffic.advance(0.1, AWAY)
        assert min((gap for lane in (0, 1) for gap in gaps_m(traffic, lane)), default=99.0) > 1.0
    for one, box in enumerate(traffic.boxes):
        assert not any(boxes_overlap(box, other) for other in traffic.boxes[one + 1 :])
    assert min(car.speed_mps for car in traffic.cars) > 2.0


def test_cars_keep_to_the_middle_of_their_lane_and_face_where_they_go():
    traffic = driven(10, 2, 30.0)
    for car, box in zip(traffic.cars, traffic.boxes, strict=True):
        near = int(np.argmin(((TRACK.points_m - (box.x_m, box.y_m)) ** 2).sum(axis=1)))
        place = TRACK.locate(box.x_m, box.y_m, near)
        assert place.lateral_offset_m == pytest.approx(3.5 * car.lane, abs=0.05)
        turn = math.remainder(box.yaw_rad - place.heading_rad - math.pi * car.lane, 2.0 * math.pi)
        assert abs(turn) < 0.05


def test_a_car_stops_behind_an_ego_vehicle_that_blocks_its_lane():
    for lane, offset_m in ((0, 0.0), (1, 3.5)):
        traffic = driven(10, 5, 120.0, Ego(300, offset_m, 0.0))
        line = lane_lines(TRACK)[lane]
        behind = min((line.along_at(300) - car.along_m) % line.length_m for car in traffic.cars if car.lane == lane)
        assert 4.4 + 1.0 < behind < 4.4 + 3.5
        assert max(car.speed_mps for car in traffic.cars if car.lane == lane) < 0.2
        assert min(car.speed_mps for car in traffic.cars if car.lane != lane) > 2.0, "the other lane flows"


@pytest.mark.parametrize(("lane_width_m", "is_blocked"), [(3.5, False), (6.0, True)])
def test_the_lane_width_decides_what_blocks_a_lane(lane_width_m, is_blocked):
    track = replace(TRACK, lane_width_m=lane_width_m)
    traffic = Traffic(TrafficSettings(n_cars=4), BODY)
    traffic.reset(track, 100, 5)
    for _ in range(1_500):
        traffic.advance(0.1, Ego(300, 3.0, 0.0))
    assert (max(car.speed_mps for car in traffic.cars if car.lane == 0) < 0.2) is is_blocked


# In the environment


def test_driving_into_a_car_ends_the_episode_as_a_collision():
    world = LiteWorld(traffic=TrafficSettings(n_cars=20))
    state = world.reset(Start("train_0", 0.3, 3.5, 0.0, 8.0, scene_seed=1))  # in the oncoming lane
    assert not state.has_collided
    for _ in range(300):
        left = to_vehicle_frame(state, *world.waypoints_m([6.0])[0])[1] + 3.5
        state = world.step(Control(-max(-1.0, min(1.0, 0.3 * left)), 0.7, 0.0), 2)
        if state.has_collided:
            break
    assert state.has_collided
    ego = world.cars[0]._replace(x_m=state.x_m, y_m=state.y_m, yaw_rad=state.yaw_rad)
    assert any(boxes_overlap(ego, car) for car in world.cars)


def test_a_collision_terminates_the_episode_and_costs_at_least_ten():
    env = LiteDrivingEnv(maps=["train_0"], n_cars=20)
    env.reset(seed=0)
    state = env.get_state()
    box = env._backend.cars[0]
    state["world"]["motion"][:3] = [box.x_m, box.y_m, box.yaw_rad]
    env.set_state(state)
    _, _, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (terminated, truncated) == (True, False)
    assert (info["termination"], info["collisions"], info["is_success"]) == ("collision", 1, False)
    assert info["reward_terms"]["safety"] <= -10.0


def test_zero_cars_leave_the_random_stream_unchanged():
    with_none, with_some = LiteDrivingEnv(n_cars=0), LiteDrivingEnv(n_cars=3)
    infos = [env.reset(seed=4)[1] for env in (with_none, with_some)]
    assert infos[0] == infos[1], "the first start is drawn before the traffic"
    with_none.np_random.integers(2**32)
    assert with_none.np_random.random() == with_some.np_random.random()


@pytest.mark.parametrize("n_cars", [-1, 21, 2.5, True, "many"])
def test_a_wrong_number_of_cars_is_refused(n_cars):
    with pytest.raises(ValueError, match=r"n_cars=.*expected"):
        LiteDrivingEnv(n_cars=n_cars)


def test_too_many_cars_for_a_short_road_are_refused():
    with pytest.raises(ValueError, match="take fewer cars or a longer road"):
        Traffic(TrafficSettings(n_cars=20, length_m=20.0, clear_m=380.0), BODY).reset(TRACK, 0, 0)
