import math

import numpy as np
import pytest

from sb3_visual_td3.envs.lite.car_painter import PAINTS, Lens, paint_cars
from sb3_visual_td3.envs.lite.weather import Sky
from sb3_visual_td3.envs.road.collision import OrientedBox

LENS = Lens(84, 84, 2.0, 1.5)
RED, WHITE, DARK = 0, 2, 3


def painted(cars, pose=(0.0, 0.0, 0.0), lens=LENS, colour=True, sky=None):
    frame = np.full((lens.height, lens.width, 3) if colour else (lens.height, lens.width), 120, np.uint8)
    boxes = [OrientedBox(x, y, yaw, 4.4, 1.8) for x, y, yaw, _ in cars]
    paint_cars(frame, boxes, [paint for *_, paint in cars], pose, lens, sky)
    return frame.astype(int)


def touched(frame):
    return (np.abs(frame - 120).reshape(*frame.shape[:2], -1) > 12).any(axis=2)


@pytest.mark.parametrize(("ahead", "left"), [(12.0, 0.0), (20.0, 3.5), (20.0, -5.0), (40.0, 0.0)])
def test_a_car_covers_the_pixels_of_its_corners(ahead, left):
    rows, columns = np.nonzero(touched(painted([(ahead, left, 0.0, RED)])))
    depths, sides = np.array([ahead - 2.2 - 2.0, ahead + 2.2 - 2.0]), np.array([left - 0.9, left + 0.9])
    seen = 42.0 - 42.0 * sides[:, None] / depths[None]
    assert columns.min() == pytest.approx(seen.min(), abs=2.3)
    assert columns.max() + 1 == pytest.approx(seen.max(), abs=2.3)
    assert rows.max() + 1 == pytest.approx(42.0 + 42.0 * 1.5 / depths[0], abs=2.0)
    assert rows.min() == pytest.approx(42.0 + 42.0 * 0.05 / depths[1], abs=1.5)


def test_a_car_looks_the_same_when_car_and_camera_are_moved_together():
    straight = painted([(15.0, 1.0, 0.3, RED)])
    turn = 2.1
    cos, sin = math.cos(turn), math.sin(turn)
    there = (5.0 + 15.0 * cos - sin, -7.0 + 15.0 * sin + cos, 0.3 + turn, RED)
    assert np.abs(painted([there], pose=(5.0, -7.0, turn)) - straight).max() <= 60
    assert (np.abs(painted([there], pose=(5.0, -7.0, turn)) - straight) > 5).mean() < 0.01


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_car_hides_the_farther_whatever_their_order(order):
    near, far = (9.0, 0.0, 0.0, DARK), (16.0, 2.0, 0.0, WHITE)
    alone, both = painted([near]), painted([near, far][::order])
    hidden = touched(alone)
    assert (np.abs(both - alone)[hidden] > 60).any(axis=1).mean() < 0.12, "but for its soft edge"
    assert (np.abs(both - alone) > 60).any(), "beside it the other is seen"


def test_cars_behind_or_far_away_are_not_drawn():
    assert not touched(painted([(-8.0, 0.0, 0.0, RED), (200.0, 0.0, 0.0, RED), (10.0, 60.0, 0.0, RED)])).any()


@pytest.mark.parametrize("x", np.linspace(-2.0, 6.0, 33))
def test_a_car_on_the_left_is_drawn_as_far_as_visible(x):
    columns = np.nonzero(touched(painted([(x, 3.5, math.pi, WHITE)])))[1]
    # The shadow is 0.1 m larger than the car on each side. Its corner nearest to the picture's middle is x + 0.3 m
    # ahead of the camera and 2.5 m to the left. The picture is 90 degrees wide, so this corner is in view if x > 2.2.
    if x < 2.2:
        assert len(columns) == 0
    else:
        assert columns.min() == 0
        assert columns.max() == pytest.approx(42.0 - 42.0 * 2.5 / (x + 0.3), abs=1.0)


def test_in_the_fog_a_car_fades_and_at_night_its_lights_shine():
    fog = Sky(1.0, 0.0, 0.5, 120.0, 1.0, 0.0, 0)
    assert np.abs(painted([(20.0, 0.0, 0.0, DARK)], sky=fog) - 120).max() < 12
    night = Sky(0.05, 0.0, 0.0, 0.0, 0.1, 0.0, 0)
    dark = painted([(25.0, 0.0, 0.0, WHITE)], sky=night)
    car = dark[touched(dark)]
    assert car[:, 0].max() > 150, "rear lights are red"
    assert np.median(car) < 70


def test_a_grey_car_has_the_brightness_of_its_colour():
    colour, grey = (painted([(9.0, 0.0, 0.0, WHITE)], colour=c) for c in (True, False))
    np.testing.assert_allclose(colour @ [0.299, 0.587, 0.114], grey, atol=3)
    assert len(PAINTS) == 6


@pytest.mark.parametrize("paint", range(len(PAINTS)))
@pytest.mark.parametrize("ahead", [8.0, 14.0, 22.0])
def test_a_car_ahead_stands_out_from_asphalt_in_grey(paint, ahead):
    frame = np.full((84, 84), 62, np.uint8)
    paint_cars(frame, [OrientedBox(ahead, 0.0, 0.0, 4.4, 1.8)], [paint], (0.0, 0.0, 0.0), LENS)
    assert (np.abs(frame.astype(int) - 62) > 20).sum() > 0.4 * (frame != 62).sum()
