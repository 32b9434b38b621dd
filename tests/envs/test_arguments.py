"""Test that environment settings accept numbers in any notation, and store Python numbers."""

import numpy as np
import pytest

from sb3_visual_td3.envs.carla.settings import CameraMount, ServerSettings
from sb3_visual_td3.envs.carla.spawning import check_spawn
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv, LiteRoutesEnv


def test_lite_driving_accepts_numpy_numbers_and_whole_floats():
    usual = {
        "frame_stack": 2.0,
        "frame_skip": np.int64(2),
        "n_cars": np.array(1),
        "image_size": "4.8e1",
        "target_speed_mps": "8e0",
    }
    env = LiteDrivingEnv(**usual, reward_scale=np.float32(0.5), noise_std=1)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (2, 48, 48)
    assert (env.frame_stack, type(env.frame_stack)) == (2, int)
    assert (env.settings.target_speed_mps, env.settings.reward_scale) == (8.0, 0.5)
    env.step(np.zeros(2, np.float32))
    env.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("frame_stack", 2.5),
        ("frame_stack", True),
        ("n_cars", "one"),
        ("n_cars", "1.5"),
        ("image_size", np.nan),
        ("target_speed_mps", True),
    ],
)
def test_an_invalid_number_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*: expected a"):
        LiteDrivingEnv(**{setting: value})


def test_an_array_in_place_of_a_name_is_refused_by_name():
    names = np.array(["train_0", "train_1"])
    with pytest.raises(ValueError, match=r"route=array.*: expected 'loop'"):
        LiteRoutesEnv(route=names)
    with pytest.raises(ValueError, match=r"maps=\[array.*: expected one of the groups"):
        LiteDrivingEnv(maps=[names])


@pytest.mark.parametrize(
    ("port", "ports"),
    [
        (2000, (2000,)),
        ("2000", (2000,)),
        (np.int64(2000), (2000,)),
        (2000.0, (2000,)),
        (["2000", 2004], (2000, 2004)),
        ((2000,), (2000,)),
    ],
)
def test_a_port_may_be_text_or_a_list(port, ports):
    settings = ServerSettings(port=port, timeout_s=5, patience_s=60)
    assert settings.ports == ports
    assert all(type(each) is int for each in settings.ports)
    assert settings.timeout_s == 5.0


@pytest.mark.parametrize("port", ["", "2,000", "http", True, 0, 70_000, [], [2000, "x"], 2000.5])
def test_an_invalid_port_is_refused(port):
    with pytest.raises(ValueError, match="port="):
        ServerSettings(port=port)


def test_a_camera_mount_and_a_spawn_point_accept_numpy_numbers():
    camera = CameraMount(image_size=np.int64(64), width=128.0, fov_deg=90, position_m=[1, 0, np.float32(2)])
    assert (camera.image_size, camera.width, camera.fov_deg, camera.position_m) == (64, 128, 90.0, (1.0, 0.0, 2.0))
    assert (check_spawn("3"), check_spawn(np.int64(3)), check_spawn("route")) == (3, 3, "route")
    with pytest.raises(ValueError, match="spawn='nowhere': expected 'route'"):
        check_spawn("nowhere")
