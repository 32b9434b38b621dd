"""What the emulator's cameras draw, without any client."""

import cv2
import numpy as np
import pytest

from sb3_visual_td3.envs.carla.convert import Pose
from sb3_visual_td3.envs.carla_emulator.actors import Actor, Vehicle, carried
from sb3_visual_td3.envs.carla_emulator.cameras import image_message
from sb3_visual_td3.envs.carla_emulator.free_camera import CAR, FAR_M, ROAD, ROAD_LINE, SKY, CarBox, FreeCamera
from sb3_visual_td3.envs.carla_emulator.records import Transform
from sb3_visual_td3.envs.lite.camera import CAMERA_AHEAD_M, CAMERA_HEIGHT_M, PICTURE_BANDS, Camera
from sb3_visual_td3.envs.lite.collision import OrientedBox
from sb3_visual_td3.envs.lite.maps import load_map
from sb3_visual_td3.envs.lite.tint import tinted


@pytest.fixture(scope="module")
def scene():
    return load_map("train_0")


def vehicle(scene, ahead=0, number=1):
    pose = Pose(*scene.track.pose_at(ahead, 0.0))
    return Vehicle(number, [0, "vehicle.tesla.model3", [["color", 5, "255,75,60"]]], Transform.of_pose(pose))


def camera(parent, kind="rgb", size=(84, 84), place=None):
    width, height = size
    attributes = [["image_size_x", 2, str(width)], ["image_size_y", 2, str(height)], ["fov", 3, "90"]]
    place = place or Transform(CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M)
    return Actor(9, [0, f"sensor.camera.{kind}", attributes], place, parent, 9)


def image(sensor, scene, vehicles):
    body = image_message(sensor, scene, None, vehicles, 0)
    width, height = np.frombuffer(body[:8], np.uint32)
    return np.frombuffer(body[12:], np.uint8).reshape(height, width, 4)


@pytest.mark.parametrize("size", [(84, 84), (320, 240)])
def test_the_usual_camera_sees_what_the_embedded_world_sees(scene, size):
    width, height = size
    car = vehicle(scene)
    seen = cv2.cvtColor(image(camera(car, size=size), scene, [car]), cv2.COLOR_BGRA2GRAY)
    lite = Camera(height, width) if height == 84 else Camera(height, width, PICTURE_BANDS)
    assert np.abs(seen.astype(int) - lite.draw(scene, *car.pose)).mean() < 0.5


def test_the_free_camera_agrees_with_the_usual_one(scene):
    car = vehicle(scene)
    usual = image(camera(car), scene, [car]).astype(int)
    free = image(camera(car, place=Transform(CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M, 0.001)), scene, [car]).astype(int)
    assert np.abs(usual - free)[..., :3].mean() < 6.0
    assert (free[..., 3] == 255).all()


def test_depth_is_the_height_of_the_camera_over_the_rows_below_the_horizon(scene):
    car = vehicle(scene)
    blue, green, red, _ = np.moveaxis(image(camera(car, "depth"), scene, [car]).astype(float), -1, 0)
    depth_m = (red + green * 256 + blue * 65_536) / (256**3 - 1) * FAR_M
    assert depth_m[:42].min() == FAR_M
    for row in (60, 83):
        assert depth_m[row, 42] == pytest.approx(CAMERA_HEIGHT_M * 42.0 / (row + 0.5 - 42.0), rel=1e-3)


def test_a_car_ahead_is_nearer_than_the_road_and_has_its_own_tag(scene):
    car, other = vehicle(scene), vehicle(scene, ahead=24, number=2)
    tags = image(camera(car, "semantic_segmentation"), scene, [car, other])[..., 2]
    assert set(np.unique(tags)) >= {ROAD, ROAD_LINE, SKY, CAR}
    assert tags[0, 0] == SKY
    empty = FreeCamera(84, 84, 90.0).depth_m(carried(car.world_place, Transform(2.0, 0.0, 1.5)), [])
    box = CarBox(other.box, 1.45, 100)
    full = FreeCamera(84, 84, 90.0).depth_m(carried(car.world_place, Transform(2.0, 0.0, 1.5)), [box])
    assert (full <= empty).all()
    assert 5.0 < full[tags == CAR].min() < 10.0


def test_from_above_north_is_where_it_should_be(scene):
    """A camera that looks straight down sees a car east of it to the right of its middle when it faces north."""
    box = CarBox(OrientedBox(5.0, 0.0, 0.0, 4.4, 1.8), 1.45, 255)
    above = Transform(0.0, 0.0, 20.0, -90.0, -90.0)  # CARLA: yaw -90 faces -y, which is north
    picture = FreeCamera(100, 100, 90.0).kinds(scene, above, [box])
    rows, columns = np.nonzero(picture == CAR)
    assert abs(rows.mean() - 49.5) < 3.0
    assert columns.mean() == pytest.approx(49.5 + 50.0 * 5.0 / 19.0, abs=3.0)


def test_what_is_carried_turns_with_its_carrier():
    place = carried(Transform(10.0, 0.0, 0.0, 0.0, 90.0), Transform(2.0, 1.0, 1.5, -5.0, 10.0))
    assert place == pytest.approx((9.0, 2.0, 1.5, -5.0, 100.0, 0.0))


def test_tinting_keeps_the_grey():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for paved in (np.zeros_like(grey), np.full_like(grey, 255)):
        back = cv2.cvtColor(tinted(grey, paved, 8), cv2.COLOR_RGB2GRAY).astype(int)
        dark = grey < 210  # brighter, and blue is cut off
        assert np.abs(back - grey)[dark].max() <= 1
