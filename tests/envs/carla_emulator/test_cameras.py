"""The images of the emulator's cameras, without a client."""

import tracemalloc

import cv2
import numpy as np
import pytest

from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M
from sb3_visual_td3.envs.carla_emulator.actors import Actor, Vehicle, Walker, attached_transform
from sb3_visual_td3.envs.carla_emulator.cameras import image_message
from sb3_visual_td3.envs.carla_emulator.free_camera import FAR_M, ROAD, ROAD_LINE, SKY, FreeCamera, axes_of
from sb3_visual_td3.envs.carla_emulator.protocol import Transform
from sb3_visual_td3.envs.carla_emulator.simulation import CLEAR_NOON, sky_of
from sb3_visual_td3.envs.lite.camera import PICTURE_BANDS, Camera, tint
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.shapes import Pose

CAR, PEDESTRIAN = 14, 12


@pytest.fixture(scope="module")
def scene():
    return load_map("train_0")


def vehicle(scene, ahead=0, actor_id=1):
    pose = Pose(*scene.track.pose_at(ahead, 0.0))
    return Vehicle(actor_id, [0, "vehicle.tesla.model3", [["color", 5, "255,75,60"]]], Transform.from_pose(pose))


def camera(parent, kind="rgb", size=(84, 84), transform=None):
    width, height = size
    attributes = [["image_size_x", 2, str(width)], ["image_size_y", 2, str(height)], ["fov", 3, "90"]]
    transform = transform or Transform(CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M)
    return Actor(9, [0, f"sensor.camera.{kind}", attributes], transform, parent, 9)


def image(sensor, scene, vehicles):
    body = image_message(sensor, scene, None, vehicles, 0)
    width, height = np.frombuffer(body[:8], np.uint32)
    return np.frombuffer(body[12:], np.uint8).reshape(height, width, 4)


@pytest.mark.parametrize("size", [(84, 84), (320, 240)])
def test_camera_at_the_usual_mount_equals_the_lite_camera(scene, size):
    width, height = size
    car = vehicle(scene)
    seen = cv2.cvtColor(image(camera(car, size=size), scene, [car]), cv2.COLOR_BGRA2GRAY)
    lite = Camera(height, width) if height == 84 else Camera(height, width, PICTURE_BANDS)
    assert np.abs(seen.astype(int) - lite.draw(scene, *car.pose)).mean() < 0.5


@pytest.mark.parametrize("ahead", [0, 300, 600, 900])
def test_free_camera_agrees_with_the_lite_camera_in_every_direction(scene, ahead):
    car = vehicle(scene, ahead)
    lite = image(camera(car, size=(240, 240)), scene, [car]).astype(int)
    tilted = Transform(CAMERA_AHEAD_M, 0.0, CAMERA_HEIGHT_M, 0.001)
    free = image(camera(car, size=(240, 240), transform=tilted), scene, [car]).astype(int)
    difference = np.abs(lite - free)[..., :3]
    assert difference[:118].mean() < 1.0  # a square image: in others the lite camera squeezes the panorama
    assert difference[122:].mean() < 1.5
    assert (free[..., 3] == 255).all()


def test_depth_follows_from_camera_height_and_rows_below_the_horizon(scene):
    car = vehicle(scene)
    depth_m = metres(image(camera(car, "depth"), scene, [car]))
    assert depth_m[:42].min() == FAR_M
    for row in (60, 83):
        assert depth_m[row, 42] == pytest.approx(CAMERA_HEIGHT_M * 42.0 / (row + 0.5 - 42.0), rel=1e-3)


def metres(picture):
    blue, green, red, _ = np.moveaxis(picture.astype(float), -1, 0)
    return (red + green * 256 + blue * 65_536) / (256**3 - 1) * FAR_M


def test_car_ahead_appears_in_tags_and_depth(scene):
    car, other = vehicle(scene), vehicle(scene, ahead=24, actor_id=2)
    tags = image(camera(car, "semantic_segmentation"), scene, [car, other])[..., 2]
    assert set(np.unique(tags)) >= {ROAD, ROAD_LINE, SKY, CAR}
    assert tags[0, 0] == SKY
    empty = metres(image(camera(car, "depth"), scene, [car]))
    full = metres(image(camera(car, "depth"), scene, [car, other]))
    assert (full <= empty).all()
    assert (full < empty)[tags == CAR].mean() > 0.9
    assert (full == empty)[tags != CAR].mean() > 0.99
    # 24 points half a metre apart, less the camera's mount and half a car. The road bends a little.
    assert full[tags == CAR].min() == pytest.approx(12.0 - 2.0 - 2.2, abs=0.2)


def test_depth_varies_along_the_side_of_a_car(scene):
    """Measure the depth along a car's side that is parallel to the viewing direction."""
    carrier = vehicle(scene)
    beside = Vehicle(2, carrier.description, attached_transform(carrier.world_transform, Transform(9.0, -3.0)))
    depth, tags = (
        image(camera(carrier, kind, size=(320, 240)), scene, [beside]) for kind in ("depth", "semantic_segmentation")
    )
    on_car = metres(depth)[145][tags[145, :, 2] == CAR]
    assert on_car.min() == pytest.approx(9.0 - beside.extent_m[0] - 2.0, abs=0.05)
    # This row looks 25.5 pixels down, where it meets the body's lower edge, 0.2 m above the ground.
    assert on_car.max() == pytest.approx((1.5 - 0.2) * 160.0 / 25.5, abs=0.15)


def test_camera_from_above_has_east_on_the_right_when_facing_north(scene):
    """Look straight down, facing north: a car in the east appears to the right of the middle."""
    below = vehicle(scene).world_transform
    east = Vehicle(2, [0, "vehicle.tesla.model3", []], Transform(below.x + 5.0, below.y))
    above = Transform(below.x, below.y, 20.0, -90.0, -90.0)  # CARLA: yaw -90 faces -y, which is north
    sensor = camera(None, "semantic_segmentation", size=(100, 100), transform=above)
    rows, columns = np.nonzero(image(sensor, scene, [east])[..., 2] == CAR)
    assert abs(rows.mean() - 49.5) < 3.0
    assert columns.mean() == pytest.approx(49.5 + 50.0 * 5.0 / 19.0, abs=3.0)


@pytest.mark.parametrize(("pitch", "roll"), [(-20.0, 0.0), (10.0, 0.0), (-5.0, 30.0), (-89.0, 0.0)])
def test_ground_depth_equals_ray_plane_intersection(scene, pitch, roll):
    """Compare depths with plain trigonometry for single pixels: a naive twin."""
    eye = Transform(0.0, 0.0, 3.0, pitch, 40.0, roll)
    depth = metres(image(camera(None, "depth", size=(80, 60), transform=eye), scene, []))
    forward, right, up = axes_of(eye)
    for row, column in ((5, 5), (30, 40), (59, 79), (50, 3), (0, 79)):
        ray = forward + (column + 0.5 - 40.0) / 40.0 * right - (row + 0.5 - 30.0) / 40.0 * up
        expected = min(FAR_M, 3.0 / -ray[2]) if ray[2] < 0.0 else FAR_M
        assert depth[row, column] == pytest.approx(expected, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(("roll", "bytes_per_pixel"), [(0.0, 40), (30.0, 60)])
def test_camera_needs_little_memory_for_each_pixel(roll, bytes_per_pixel):
    tracemalloc.start()
    try:
        FreeCamera(480, 640, 90.0, 2.4, -5.0, roll)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < bytes_per_pixel * 480 * 640


@pytest.mark.parametrize("at", [Transform(2.0, 0.0, 1.5), Transform(-5.5, 0.0, 2.8, -15.0)])
def test_night_darkens_every_camera(scene, at):
    car = vehicle(scene)
    noon, night = (
        np.frombuffer(image_message(camera(car, transform=at), scene, sky, [car], 0)[12:], np.uint8).mean()
        for sky in (None, sky_of([*CLEAR_NOON[:5], -30.0, *CLEAR_NOON[6:]]))
    )
    assert night < 0.7 * noon


def test_walkers_appear_in_images(scene):
    car = vehicle(scene)
    pedestrian = Walker(
        3, [0, "walker.pedestrian.0001", []], attached_transform(car.world_transform, Transform(8.0, 1.0))
    )
    tags = image(camera(car, "semantic_segmentation"), scene, [car, pedestrian])[..., 2]
    rows, columns = np.nonzero(tags == PEDESTRIAN)
    assert columns.min() > 42  # to the right
    assert (np.ptp(rows) + 1) / 42.0 * 6.0 == pytest.approx(1.86, abs=0.2)
    assert (image(camera(car), scene, [car, pedestrian]) != image(camera(car), scene, [car])).any()


def test_attached_object_turns_with_its_carrier():
    transform = attached_transform(Transform(10.0, 0.0, 0.0, 0.0, 90.0), Transform(2.0, 1.0, 1.5, -5.0, 10.0))
    assert transform == pytest.approx((9.0, 2.0, 1.5, -5.0, 100.0, 0.0))


def test_tinting_keeps_the_grey_level():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for paved in (np.zeros_like(grey), np.full_like(grey, 255)):
        back = cv2.cvtColor(tint(grey, paved, 8), cv2.COLOR_RGB2GRAY).astype(int)
        dark = grey < 210  # in brighter pixels the blue channel saturates
        assert np.abs(back - grey)[dark].max() <= 1
