"""Test the contrast and the change of camera frames, and the monitor that measures them."""

import numpy as np
import pytest
import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.health.camera_monitor import CameraMonitor, frame_change, frame_std


def random_frames(seed, n=3, channels=4):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, 6, 5), dtype=np.uint8)


def test_std_and_change_equal_loops_over_pixels():
    new, old = random_frames(0), random_frames(1)
    stds = [np.mean([np.std(new[i, c].astype(float)) for c in range(4)]) for i in range(3)]
    assert float(frame_std(th.as_tensor(new))) == pytest.approx(min(stds), rel=1e-6)
    changes = [abs(int(a) - int(b)) for a, b in zip(new.ravel(), old.ravel(), strict=True)]
    assert float(frame_change(th.as_tensor(new), th.as_tensor(old))) == pytest.approx(np.mean(changes), rel=1e-6)
    assert float(frame_change(th.as_tensor(old), th.as_tensor(new))) == pytest.approx(np.mean(changes), rel=1e-6)


def test_frozen_frames_have_a_change_of_0_and_uniform_frames_a_deviation_of_0():
    frames = th.as_tensor(random_frames(0))
    assert float(frame_change(frames, frames)) == 0.0
    fading = th.arange(3, dtype=th.uint8).view(3, 1, 1, 1).expand(3, 4, 6, 5)
    assert float(frame_std(fading)) == 0.0, "frames of one colour each, though not of the same one"


def test_each_point_is_the_mean_of_ten_consecutive_frame_changes():
    camera = CameraMonitor(sample_freq=10)
    shown = [random_frames(seed, n=1) for seed in range(21)]
    for step, frame in enumerate(shown):
        camera.see(frame, n_updates=100 + step)
    changes = [np.abs(a.astype(int) - b).mean() for a, b in zip(shown[1:], shown[:-1], strict=True)]
    points = camera.read_points()
    assert [n for n, _ in points[tags.FRAME_CHANGE]] == [110, 120]
    expected = [np.mean(changes[:10]), np.mean(changes[10:])]
    assert [value for _, value in points[tags.FRAME_CHANGE]] == pytest.approx(expected)
    assert camera.read()[tags.FRAME_CHANGE] == pytest.approx(np.mean(expected))
    assert camera.read_points() == camera.read() == {}


def test_restoring_the_camera_monitor_at_any_step_does_not_change_its_points():
    """Three of the 40 observations are frames of another shape, and three are vectors without a frame."""
    shown = [random_frames(seed, n=1, channels=1 if 5 <= seed < 8 else 4) for seed in range(40)]
    shown[20:23] = [np.zeros((1, 3))] * 3
    changes, expected, previous = [], [], None
    for step, frame in enumerate(shown):
        if previous is not None and frame.ndim == 4 and frame.shape == previous.shape:
            changes.append(np.abs(frame.astype(int) - previous).mean())
        previous = frame
        if len(changes) == 10:
            expected.append((step, pytest.approx(np.mean(changes), rel=1e-6)))
            changes = []
    for moments in (set(), {3, 4, 5, 9, 10, 21, 33}, set(range(40))):
        camera, points = CameraMonitor(sample_freq=10), []
        for step, frame in enumerate(shown):
            camera.see(frame, n_updates=step)
            points += camera.read_points().get(tags.FRAME_CHANGE, [])
            if step in moments:
                state, camera = camera.get_state(), CameraMonitor(sample_freq=10)
                camera.set_state(state)
        assert points == expected


def test_a_change_is_seen_even_if_the_environment_reuses_its_array():
    camera, buffer = CameraMonitor(sample_freq=1), np.zeros((1, 1, 4, 4), np.uint8)
    for value in (0, 9):
        buffer[:] = value
        camera.see(buffer, 0)
    assert camera.read()[tags.FRAME_CHANGE] == 9.0


@pytest.mark.parametrize("n_working", [0, 1, 3])
def test_a_covered_lens_is_seen_although_those_of_other_environments_work(n_working):
    camera, covered = CameraMonitor(sample_freq=2), np.full((1, 4, 6, 5), 7, np.uint8)
    for step in range(12):
        camera.see(np.concatenate([covered, random_frames(step, n=n_working)]), step)
    assert camera.read()[tags.FRAME_STD] == 0.0


def test_a_car_that_stands_still_is_no_frozen_camera_if_another_one_drives():
    """A car may wait at red lights for hundreds of steps."""
    camera, still = CameraMonitor(sample_freq=10), random_frames(0, n=1)
    for step in range(400):
        camera.see(np.concatenate([still, random_frames(step, n=1)]), step)
    points = camera.read_points()
    assert min(value for _, value in points[tags.FRAME_CHANGE]) > 10
    assert min(value for _, value in points[tags.FRAME_STD]) > 10


def test_one_frozen_camera_of_two_is_seen_and_vectors_are_ignored():
    camera, frozen = CameraMonitor(sample_freq=1), random_frames(0, n=1)
    for step in range(3):
        camera.see({"left": random_frames(step, n=1), "right": frozen, "state": np.full((1, 3), step)}, step)
    assert camera.read()[tags.FRAME_CHANGE] == 0.0
    for step in range(3):
        camera.see(np.full((1, 3), step), step)
    assert camera.read() == {}
