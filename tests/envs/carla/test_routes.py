"""Test routes to a goal in CarlaDriving-v0, with CARLA's own client and the emulator."""

import math

import gymnasium as gym
import numpy as np
import pytest

from sb3_visual_td3.envs.drivers import PurePursuitDriver
from tests.envs.carla.conftest import EMULATOR
from tests.towns import TOWNS

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla
ROUTES = {"route": "random", "route_turns": (2, 8), "observation": "camera+state+command"}


@pytest.mark.parametrize("name", ["streets_0", "streets_held_out_1"])
def test_vehicle_stays_within_5_cm_of_lite_driving_on_the_same_route(make_env, name):
    lite = gym.make("LiteDriving-v0", maps=[name], **ROUTES).unwrapped
    env = make_env(maps=[name], **ROUTES).unwrapped
    drive_both(lite, env)


@pytest.fixture
def town_env():
    """Create CarlaDriving-v0 with its own emulator, which serves Town02."""
    if not TOWNS.is_dir():
        pytest.skip("no towns beside the project")
    env = gym.make("CarlaDriving-v0", command=f"{EMULATOR} --maps {TOWNS}", town="Town02", timeout_s=60.0, **ROUTES)
    yield env.unwrapped
    env.close()


@pytest.mark.slow
def test_vehicle_in_a_town_from_a_file_stays_within_5_cm_of_lite_driving(town_env):
    lite = gym.make("LiteDriving-v0", maps=[str(TOWNS / "Town02.xodr")], **ROUTES).unwrapped
    drive_both(lite, town_env)


@pytest.mark.slow
def test_camera_frames_in_a_town_from_a_file_match_lite_driving(town_env):
    # The server always draws the traffic lights of its map. Their phases differ from those of LiteDriving-v0, so the
    # driver must ignore them.
    lite = gym.make("LiteDriving-v0", maps=[str(TOWNS / "Town02.xodr")], traffic_lights=True, **ROUTES).unwrapped
    env, driver = town_env, PurePursuitDriver()
    expected, _ = lite.reset(seed=3, options={"route": 3})
    seen, _ = env.reset(seed=3, options={"route": 3})
    for _ in range(200):
        assert np.abs(seen["camera"].astype(float) - expected["camera"]).mean() < 0.5
        action = driver.act(env)
        expected, *_ = lite.step(action)
        seen, *_ = env.step(action)
    assert math.dist(env.vehicle[:2], lite.vehicle[:2]) < 0.05
    assert env.vehicle.speed_mps > 3.0


def drive_both(lite, env):
    """Drive one route to its goal in both environments, and compare the environments in each step."""
    lite_driver, driver = PurePursuitDriver(), PurePursuitDriver()
    expected, lite_info = lite.reset(seed=3, options={"route": 3})
    seen, info = env.reset(seed=3, options={"route": 3})
    assert info.keys() == lite_info.keys()
    is_over, lite_is_over = False, False
    while not (is_over or lite_is_over):
        # The command changes at a point of the route, and one environment may pass this point a step earlier.
        assert seen["command"][:6] @ expected["command"][:6] == 1.0 or info["command_distance_m"] > 48.0
        assert math.dist(env.vehicle[:2], lite.vehicle[:2]) < 0.05
        expected, _, *lite_ends, lite_info = lite.step(lite_driver.act(lite))
        seen, _, *ends, info = env.step(driver.act(env))
        is_over, lite_is_over = any(ends), any(lite_ends)
    assert (info["termination"], info["is_success"], info["route_completion"]) == ("goal", True, 1.0)
    assert lite_info["termination"] == "goal"


def test_a_given_route_on_the_map_loaded_by_the_server_reaches_its_goal(make_env):
    from sb3_visual_td3.envs.road.maps import load_map

    line = load_map("train_0").network.road(0).line_m(-1.75, 0.5)
    env = make_env(route=[(tuple(line[10]), tuple(line[60]))], observation="camera+command").unwrapped
    _, info = env.reset(seed=0)
    assert info["map"] == "train_0"
    assert info["route_length_m"] == pytest.approx(25.0, abs=1.0)
    driver = PurePursuitDriver()
    ends = [False, False]
    while not any(ends):
        _, _, *ends, info = env.step(driver.act(env))
    assert info["termination"] == "goal"
    assert math.dist(env.vehicle[:2], line[60]) < 2.0


def test_the_time_limit_of_a_route_replaces_the_500_steps(make_env):
    assert make_env(**ROUTES).spec.max_episode_steps is None
    assert make_env().spec.max_episode_steps == 500


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"route": "random", "n_walkers": 51}, "n_walkers=51"),
        ({"route": "random", "spawn": 3}, "spawn=3: expected spawn='route'"),
        ({"route": [((0, 0), (1, 1))], "spawn": "points"}, "spawn='points': expected spawn='route'"),
        ({"observation": "camera+command"}, r"contains the command \(where to turn\), but a closed route"),
        ({"route": "somewhere"}, "route='somewhere'"),
    ],
)
def test_bad_arguments_say_what_is_expected(arguments, words):
    with pytest.raises(ValueError, match=words):
        gym.make("CarlaDriving-v0", **arguments)


def test_pictures_show_the_route(make_env):
    env = make_env(**ROUTES, render_mode="rgb_array", render_view="chase", maps=["streets_0"])
    env.reset(seed=1, options={"route": 1})
    env.step(np.zeros(2, np.float32))
    green = np.array((90, 220, 110))
    assert (np.abs(env.render()[240:].astype(int) - green).max(axis=2) < 30).sum() > 50
