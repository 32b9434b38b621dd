"""Other cars and pedestrians on routes in CarlaDriving-v0, through the genuine client, on the emulator."""

import math

import gymnasium as gym
import numpy as np
import pytest

import sb3_visual_td3  # noqa: F401  registers the environments
from sb3_visual_td3.envs.carla_emulator.process import EmulatorProcess
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.road.lane_graph import NO_JUNCTION

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla
BUSY = {"route": "random", "route_length_m": (150.0, 250.0), "n_cars": 12, "n_walkers": 20, "maps": ["streets_0"]}
BUSY["observation"] = "camera+command"


class Blind(PurePursuitDriver):
    """A driver who sees neither pedestrians nor cars."""

    def act(self, env):
        env._backend._state = env.vehicle._replace(stop_ahead_m=math.inf, vehicle_ahead_m=math.inf)
        return super().act(env)


@pytest.fixture(scope="module")
def env():
    with EmulatorProcess("streets_0") as emulator:
        env = gym.make("CarlaDriving-v0", port=emulator.port, timeout_s=60.0, **BUSY)
        yield env.unwrapped
        env.close()


def actors(env, kind):
    """Return x and y of the server's actors of a kind, without the driven vehicle, in the task's coordinates."""
    world = env._backend._connection.world
    found = [each for each in world.get_actors().filter(kind) if each.attributes.get("role_name") != "hero"]
    snapshot = world.get_snapshot()
    places = [snapshot.find(each.id).get_transform().location for each in found]
    return [(place.x, -place.y) for place in places]


def assert_same_places(found, expected, within_m):
    assert len(found) == len(expected)
    for x, y in expected:
        assert min(math.dist((x, y), place) for place in found) < within_m


def test_cars_and_pedestrians_are_at_the_same_places_as_in_lite_driving(env):
    lite, driver = gym.make("LiteDriving-v0", **BUSY).unwrapped, PurePursuitDriver()
    lite.reset(seed=3)
    env.reset(seed=3)
    n_crossing = 0
    for _ in range(150):
        action = driver.act(env)
        lite.step(action)
        env.step(action)
        assert math.dist(env.vehicle[:2], lite.vehicle[:2]) < 0.05
        walkers = lite._backend._street.walker_places()
        n_crossing += len(lite._backend._street.walkers_on_road())
    assert n_crossing > 100
    assert_same_places(actors(env, "vehicle.*"), [box[:2] for box in lite._backend._traffic.boxes], 1.0)
    assert_same_places(actors(env, "walker.*"), walkers, 0.3)


def test_a_driver_who_yields_reaches_the_goal_and_a_blind_one_has_accidents(env):
    assert drive(env, PurePursuitDriver(), 0)["termination"] == "goal"
    kinds = set()
    for seed in range(10, 20):
        info = drive(env, Blind(), seed)
        if info["termination"] == "collision":
            kinds.add(info["collision"])
            penalty = 10.0 if info["collision"] == "walker" else 0.0
            assert info["reward_terms"]["safety"] == -10.0 - penalty
            assert info["collisions"] == 1
        if kinds == {"vehicle", "walker"}:
            break
    assert kinds == {"vehicle", "walker"}


def drive(env, driver, seed):
    """Return the last info of an episode."""
    env.reset(seed=seed)
    ends = [False, False]
    while not any(ends):
        _, _, *ends, info = env.step(driver.act(env))
        assert "red_light" not in info
    return info


def test_cars_stop_at_red_lights_of_the_server():
    with EmulatorProcess("streets_0", "--traffic-lights") as emulator:
        arguments = {**BUSY, "n_walkers": 0, "traffic_lights": True}
        env = gym.make("CarlaDriving-v0", port=emulator.port, timeout_s=60.0, **arguments).unwrapped
        env.reset(seed=1)
        world = env._backend
        cars, graph = world._cars.traffic.cars, world._graph(world._connection)
        n_entered, n_stopped = 0, 0
        for _ in range(300):
            before = [(car.path[0], car.speed_mps, world._is_closed(car.path[0], car.path)) for car in cars]
            env.step(np.array([0.0, -1.0], np.float32))
            for car, (segment, speed_mps, is_red) in zip(cars, before, strict=True):
                if car.path[0] != segment and graph.segments[car.path[0]].junction != NO_JUNCTION:
                    n_entered += 1
                    assert not is_red or speed_mps > 2.0
                n_stopped += is_red and speed_mps < 0.1
        env.close()
    assert n_entered > 3
    assert n_stopped > 50


def test_hitting_a_prop_on_the_road_is_a_layout_collision(env):
    import carla

    env.reset(seed=2)
    world = env._backend._connection.world
    (place,) = env.waypoints_m([12.0])
    blueprint = world.get_blueprint_library().find("static.prop.container")
    prop = world.spawn_actor(blueprint, carla.Transform(carla.Location(place[0], -place[1], 0.0)))
    ends = [False, False]
    while not any(ends):
        _, _, *ends, info = env.step(Blind().act(env))
    prop.destroy()
    assert (info["termination"], info["collision"]) == ("collision", "layout")


def test_start_and_goal_are_spawn_points_on_request(env):
    env.reset(seed=1)  # an environment has no server before its first reset
    port = env._backend.server.address.port
    other = gym.make("CarlaDriving-v0", port=port, timeout_s=60.0, shares_server=True, spawn="points", **BUSY).unwrapped
    try:
        other.reset(seed=1)
        points = other._backend._spawn_points
        for seed in range(3):
            other.reset(seed=seed)
            path = other._backend._track
            (goal,) = path.waypoints_from(path.locate(*path.points_m[0], 0), [path.length_m])
            for place in (path.points_m[0], goal):
                assert min(math.dist(place, point[:2]) for point in points) < 0.8
            assert 150.0 <= path.length_m <= 250.0
    finally:
        other.close()
