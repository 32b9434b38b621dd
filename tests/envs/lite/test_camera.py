import math

import numpy as np
import pytest

from sb3_visual_td3.envs.backend import CAMERA_AHEAD_M, CAMERA_HEIGHT_M
from sb3_visual_td3.envs.lite.camera import PICTURE_BANDS, Camera
from sb3_visual_td3.envs.road.ground import TEXEL_M, Ground
from sb3_visual_td3.envs.road.maps import LiteMap, load_map

SIDE = 84
HORIZON = 42
FOCAL = 42.0
MARK, LAND = 250, 50


def painted_scene(paint) -> LiteMap:
    """Return a dark plain of 120 x 120 m around the origin, which is bright where ``paint(x_m, y_m)`` is true."""
    metres = (np.arange(1200) + 0.5) * TEXEL_M - 60.0
    x, y = np.meshgrid(metres, metres)
    raster = np.where(paint(x, y), MARK, LAND).astype(np.uint8)
    levels = [raster]
    for _ in range(3):
        fine = levels[-1].astype(np.float64)
        levels.append((0.25 * (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2])).astype(np.uint8))
    ground = Ground(tuple(levels), levels[2], -60.0, -60.0, LAND)
    return LiteMap("painted", load_map("train_0").track, ground, np.full((240, 2048), 180, np.uint8))


def naive_ground(scene: LiteMap, x_m, y_m, yaw_rad, n_samples=16) -> np.ndarray:
    """Draw the lower half of the frame from the finest ground raster, with ``n_samples`` ** 2 rays per pixel."""
    sub = (np.arange(SIDE * n_samples) + 0.5) / n_samples
    right, down = np.meshgrid(sub - SIDE / 2, sub[: HORIZON * n_samples])
    forward = CAMERA_AHEAD_M + CAMERA_HEIGHT_M * FOCAL / down
    left = -CAMERA_HEIGHT_M * right / down
    x = x_m + forward * math.cos(yaw_rad) - left * math.sin(yaw_rad)
    y = y_m + forward * math.sin(yaw_rad) + left * math.cos(yaw_rad)
    column, row = ((x + 60.0) / TEXEL_M).astype(int), ((y + 60.0) / TEXEL_M).astype(int)
    inside = (column >= 0) & (column < 1200) & (row >= 0) & (row < 1200)
    seen = np.full(x.shape, float(LAND))
    seen[inside] = scene.ground.levels[0][row[inside], column[inside]]
    return seen.reshape(HORIZON, n_samples, SIDE, n_samples).mean(axis=(1, 3))


@pytest.mark.parametrize("pose", [(0.0, 0.0, 0.0), (-20.0, 3.0, 0.3), (10.0, -15.0, 2.4), (5.0, 5.0, -1.2)])
def test_the_ground_equals_that_of_a_naive_ray_caster(pose):
    scene = painted_scene(lambda x, y: (np.sin(x / 3.0) + np.sin(y / 4.0)) > 0.3)
    frame = Camera(SIDE, SIDE).draw(scene, *pose).astype(float)[HORIZON:]
    naive = naive_ground(scene, *pose)
    assert np.abs(frame - naive)[4:].mean() < 4.0
    assert np.abs(frame - naive)[:4].mean() < 25.0, "the farthest rows are blurred, not wrong"
    assert np.abs(frame - naive[:, ::-1])[4:].mean() > 8.0, "a mirrored picture would not pass"


def test_a_spot_appears_where_the_pinhole_model_puts_it():
    # The spot is 8 m ahead of the camera and 2 m to the left. It appears 1.5 * 42 / 8 rows below the middle, and
    # 2 * 42 / 8 columns left of it.
    scene = painted_scene(lambda x, y: np.hypot(x - 10.0, y - 2.0) < 0.4)
    frame = Camera(SIDE, SIDE).draw(scene, 0.0, 0.0, 0.0).astype(float)[HORIZON:] - LAND
    rows, columns = np.mgrid[:HORIZON, :SIDE] + 0.5
    assert (frame * columns).sum() / frame.sum() == pytest.approx(42.0 - 10.5, abs=0.3)
    assert (frame * rows).sum() / frame.sum() == pytest.approx(7.875, abs=0.3)


def test_turning_left_moves_the_panorama_to_the_right():
    scene = load_map("train_0")
    camera = Camera(SIDE, SIDE)
    before = camera.draw(scene, 0.0, 0.0, 0.0)[HORIZON - 12 : HORIZON].astype(float)
    after = camera.draw(scene, 0.0, 0.0, 5.0 / FOCAL)[HORIZON - 12 : HORIZON].astype(float)
    middle = slice(32, 52)  # where five columns cover nearly the same angle
    errors = {s: np.abs(np.roll(after, s, axis=1)[:, middle] - before[:, middle]).mean() for s in range(-8, 9)}
    assert min(errors, key=errors.__getitem__) in (-5, -4)


def test_a_whole_turn_shows_the_same_again():
    scene = load_map("train_0")
    camera = Camera(SIDE, SIDE)
    x, y, heading = scene.track.pose_at(40, 0.0)
    once, again = (camera.draw(scene, x, y, heading + turn).astype(int) for turn in (0.0, 2.0 * math.pi))
    assert np.abs(once - again).max() <= 1


def pixels_of(points_m, x_m, y_m, yaw_rad):
    """Return the rows and columns of the ground points that a pinhole camera sees 1.6 to 12 m ahead."""
    dx, dy = (points_m - (x_m, y_m)).T
    forward = dx * math.cos(yaw_rad) + dy * math.sin(yaw_rad) - CAMERA_AHEAD_M
    left = dy * math.cos(yaw_rad) - dx * math.sin(yaw_rad)
    near = (forward > 1.6) & (forward < 12.0)
    rows = HORIZON + np.floor(CAMERA_HEIGHT_M * FOCAL / forward[near]).astype(int)
    columns = np.floor(SIDE / 2 - left[near] * FOCAL / forward[near]).astype(int)
    inside = (columns >= 1) & (columns < SIDE - 1) & (rows < SIDE)
    return rows[inside], columns[inside]


@pytest.mark.parametrize("name", ["train_0", "train_3", "train_6", "held_out_1"])
def test_the_right_lane_line_appears_unbroken_at_its_projected_pixels(name):
    scene = load_map(name)
    camera, line = Camera(SIDE, SIDE), scene.track.offset_line_m(-1.75)
    for index in range(0, len(scene.track.points_m), 37):
        pose = scene.track.pose_at(index, 0.0)
        frame = camera.draw(scene, *pose).astype(int)
        rows, columns = pixels_of(line, *pose)
        assert len(rows) >= 5
        seen = np.max([frame[rows, columns + step] for step in (-1, 0, 1)], axis=0)
        assert seen.min() > 80 + 40, f"the line is lost at point {index}: asphalt is darker than 80"


def test_a_large_picture_shows_the_same_scene():
    scene = load_map("train_2")
    pose = scene.track.pose_at(100, 0.0)
    small = Camera(SIDE, SIDE).draw(scene, *pose).astype(float)
    large = Camera(420, 420, PICTURE_BANDS).draw(scene, *pose).astype(float)
    shrunk = large.reshape(SIDE, 5, SIDE, 5).mean(axis=(1, 3))
    assert np.abs(small - shrunk).mean() < 5.0


def test_the_mask_of_the_road_covers_what_lies_before_the_car():
    scene = load_map("train_2")
    mask = Camera(SIDE, SIDE).paved(scene, *scene.track.pose_at(100, 0.0), level=2)
    assert (mask[:HORIZON] == 0).all()
    assert (mask[-20:, 30:54] == 255).all()
    assert (mask[-1, -1], mask[HORIZON + 10, -1]) == (255, 0)


def test_each_frame_is_a_new_array():
    scene, camera = load_map("train_0"), Camera(SIDE, SIDE)
    first = camera.draw(scene, 0.0, 0.0, 0.0)
    kept = first.copy()
    camera.draw(scene, 5.0, 5.0, 1.0)
    np.testing.assert_array_equal(first, kept)


def test_lane_marks_lie_at_the_road_edges_and_not_in_the_middle_of_lanes():
    scene = load_map("train_4")
    to_texel = scene.ground.from_world(0)
    on, beside = [], []
    for index in range(0, len(scene.track.points_m), 20):
        for offset, grey in ((-1.75, on), (5.25, on), (0.0, beside), (3.5, beside)):
            x, y, _ = scene.track.pose_at(index, offset)
            column, row, _ = (to_texel @ (x, y, 1.0)).round().astype(int)
            grey.append(int(scene.ground.levels[0][row, column]))
    assert min(on) > max(beside) + 60
