"""Traffic lights in CarlaDriving-v0, through the genuine client, on the emulator."""

import gymnasium as gym
import pytest

import sb3_visual_td3  # noqa: F401  registers the environments
from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from sb3_visual_td3.envs.drivers import PurePursuitDriver

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla
ROUTES = {"route": "random", "route_turns": (2, 8), "observation": "camera+command"}


class Blind(PurePursuitDriver):
    """A driver who does not see the lights."""

    def act(self, env):
        street = env._backend._street
        env._backend._state = env.vehicle._replace(stop_ahead_m=float("inf"))
        action = super().act(env)
        assert street.is_on
        return action


@pytest.fixture(scope="module")
def env():
    with EmulatorProcess("streets_0", "--traffic-lights") as emulator:
        env = gym.make("CarlaDriving-v0", port=emulator.port, timeout_s=60.0, traffic_lights=True, **ROUTES)
        yield env.unwrapped
        env.close()


def drive(env, driver, route):
    infos = [env.reset(seed=route, options={"route": route})[1]]
    ends = [False, False]
    while not any(ends):
        _, _, *ends, info = env.step(driver.act(env))
        infos.append(info)
    return infos


def test_a_driver_who_stops_runs_no_red_light(env):
    n_waiting = 0
    for route in range(2):
        infos = drive(env, PurePursuitDriver(), route)
        assert infos[-1]["termination"] == "goal"
        # A vehicle that starts right before a line may be too fast to stop there.
        assert not any(info["red_light"] for info in infos[1:] if info["distance_m"] > 40.0)
        n_waiting += sum(info["speed_mps"] < 0.1 for info in infos)
    assert n_waiting > 30


def test_red_lights_that_are_run_are_counted(env):
    n_red = 0
    for route in range(3):
        infos = drive(env, Blind(), route)
        assert infos[-1]["termination"] == "goal"
        assert sum(info["red_light"] for info in infos) == infos[-1]["red_lights"]
        n_red += infos[-1]["red_lights"]
    assert n_red >= 2
