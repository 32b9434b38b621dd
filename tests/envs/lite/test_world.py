import copy
import math
import pickle

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import Control, Start
from sb3_visual_td3.envs.lite.world import LiteWorld

AHEAD = Control(0.0, 0.5, 0.0)


def placed(**start):
    world = LiteWorld()
    values = {
        "map_name": "train_0",
        "position": 0.3,
        "lateral_offset_m": 0.0,
        "heading_error_rad": 0.0,
        "speed_mps": 8.0,
    }
    return world, world.reset(Start(**{**values, **start}))


def test_a_reset_puts_the_car_where_the_start_says():
    _, state = placed(lateral_offset_m=0.4, heading_error_rad=-0.05, speed_mps=5.0)
    assert state.lateral_offset_m == pytest.approx(0.4, abs=1e-6)
    assert state.heading_error_rad == pytest.approx(-0.05, abs=1e-6)
    assert (state.speed_mps, state.distance_m) == (5.0, 0.0)
    assert (state.road_right_m, state.road_left_m, state.lane_width_m) == (-1.75, 5.25, 3.5)


def test_a_pickle_does_not_grow_with_the_maps_and_continues_alike():
    world, _ = placed()
    for name in ("junction_0", "train_1", "train_0"):
        world.reset(Start(name, 0.3, 0.0, 0.0, 8.0))
    pickled, fresh = pickle.dumps(world), pickle.dumps(placed()[0])
    assert len(pickled) == pytest.approx(len(fresh), rel=0.01)
    for twin in (pickle.loads(pickled), copy.deepcopy(world)):
        assert twin.step(AHEAD, 1) == pickle.loads(pickled).step(AHEAD, 1)
        assert twin.camera_frame().shape == world.camera_frame().shape
        assert twin.reset(Start("junction_0", 0.3, 0.0, 0.0, 8.0)).distance_m == 0.0
    assert world.step(AHEAD, 1) == pickle.loads(pickled).step(AHEAD, 1)


@pytest.mark.parametrize("position", [0.0, 0.25, 0.999])
def test_distance_m_equals_the_length_of_the_path_driven(position):
    world, _ = placed(position=position)
    before = world.reset(Start("train_0", position, 0.0, 0.0, 8.0))
    rolled = 0.0
    for _ in range(10):
        after = world.step(Control(0.0, 2.0 / 3.0, 0.0), 1)
        rolled += math.hypot(after.x_m - before.x_m, after.y_m - before.y_m)
        before = after
    assert after.distance_m == pytest.approx(rolled, rel=0.02), "also across the lane's first point"


def test_driving_against_the_lane_counts_backwards():
    world, _ = placed(heading_error_rad=math.pi, lateral_offset_m=2.0)
    assert world.step(AHEAD, 10).distance_m < -3.0


def test_steering_right_turns_the_view_and_the_car_to_the_right():
    world, _ = placed()
    before = world.camera_frame()[30:42].astype(float)
    state = world.step(Control(1.0, 0.5, 0.0), 5)
    after = world.camera_frame()[30:42].astype(float)
    assert state.heading_error_rad < 0.0
    errors = {s: np.abs(np.roll(after, s, axis=1)[:, 30:54] - before[:, 30:54]).mean() for s in range(-8, 9)}
    assert min(errors, key=errors.__getitem__) > 0, "what was in the middle now stands further to the left"
    assert world.step(Control(1.0, 0.5, 0.0), 10).lateral_offset_m < -0.3


def test_two_worlds_do_the_same_for_the_same_start_and_controls():
    frames = []
    for _ in range(2):
        world, _ = placed()
        states = [world.step(Control(0.1 * math.sin(i), 0.4, 0.0), 2) for i in range(30)]
        frames.append((states, world.camera_frame()))
    assert frames[0][0] == frames[1][0]
    np.testing.assert_array_equal(frames[0][1], frames[1][1])


def test_one_step_of_many_ticks_equals_many_steps_of_one_tick():
    (one, _), (many, _) = placed(), placed()
    for _ in range(6):
        by_one = many.step(AHEAD, 1)
    assert one.step(AHEAD, 6)[:4] == by_one[:4]


def test_the_picture_depends_on_where_the_car_is_in_its_lane():
    views = []
    for offset in (-1.0, 0.0, 1.0):
        world, _ = placed(lateral_offset_m=offset)
        row = world.camera_frame()[42 + 24].astype(float)
        views.append(int(np.argmax(row[42:])) + 42 if row[42:].max() > 150 else 84)
    assert views == sorted(views), "further left, the line on the right is seen further right"
    assert views[0] + 10 < views[1]


def test_a_rendered_picture_is_in_colour_and_has_the_requested_size():
    world, _ = placed()
    picture = world.picture(120, 160)
    assert picture.shape == (120, 160, 3)
    sky, verge = picture[5, 80].astype(int), picture[75, 158].astype(int)
    assert sky[2] > sky[0], "the sky is blue"
    assert verge[1] > verge[2], "the land is green"


@pytest.mark.parametrize(
    "arguments",
    [
        {"tick_s": 0.0},
        {"tick_s": math.nan},
        {"tick_s": "fast"},
        {"tick_s": True},
    ],
)
def test_a_world_refuses_invalid_settings(arguments):
    with pytest.raises(ValueError, match="expected"):
        LiteWorld(**arguments)


def test_an_unknown_map_is_refused():
    with pytest.raises(ValueError, match="nowhere"):
        placed(map_name="nowhere")
