"""Test routes to a goal in LiteDriving-v0 and LiteRoutes-v0."""

import itertools
import math
import shutil

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sb3_visual_td3.envs import driving_env
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv, LiteRoutesEnv
from sb3_visual_td3.envs.observation import COMMANDS
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from tests.towns import TOWNS, needs_carla, needs_towns

ALL = "camera+state+command"


def made(env_id="LiteDriving-v0", **kwargs):
    return gym.make(env_id, **{"maps": ["streets_0"], "route": "random", "observation": ALL, **kwargs})


def drive(env, route, driver=None, seed=0):
    """Drive one route, and return all observations and infos and the last ``terminated`` and ``truncated``."""
    driver = driver or PurePursuitDriver().act
    observation, info = env.reset(seed=seed, options={"route": route})
    observations, infos, terminated, truncated = [observation], [info], False, False
    while not (terminated or truncated):
        observation, _, terminated, truncated, info = env.step(driver(env.unwrapped))
        observations.append(observation)
        infos.append(info)
    return observations, infos, terminated, truncated


def full_left(env):
    return np.array([-1.0, 0.6], np.float32)


def crawl(env):
    """Follow the route at 1 m/s: fast enough not to count as idle, but too slow for the time limit."""
    action = PurePursuitDriver().act(env)
    action[1] = 0.3 if env.vehicle.speed_mps < 1.0 else 0.0
    return action


@pytest.mark.parametrize("route", range(4))
def test_a_route_ends_at_its_goal(route):
    env = made()
    _, infos, terminated, truncated = drive(env, route)
    last = infos[-1]
    assert (terminated, truncated) == (True, False)
    assert (last["termination"], last["is_success"], last["route_completion"]) == ("goal", True, 1.0)
    assert last["collisions"] == 0
    assert 200.0 <= last["route_length_m"] <= 800.0
    assert last["distance_m"] == pytest.approx(last["route_length_m"], abs=1.0)
    assert last["reward_terms"]["safety"] == 0.0, "arriving is no accident"
    before = infos[-2]
    assert (before["termination"], before["is_success"]) == ("", False)
    assert before["route_completion"] < 1.0


def test_a_route_can_be_driven_from_the_state_observation_alone():
    def from_state(env):
        state = env._observation()["state"]
        forward_m, left_m = 20.0 * state[3:5]  # the waypoint 5 m ahead
        curvature = 2.0 * left_m / (forward_m**2 + left_m**2)
        pedal = (5.0 - 15.0 * state[0]) / 1.5
        return np.array([-math.atan(2.9 * curvature) / math.radians(20.0), pedal], np.float32).clip(-1.0, 1.0)

    env = made(route_turns=(2, 8))
    assert [drive(env, route, from_state)[1][-1]["termination"] for route in range(5)] == ["goal"] * 5


def test_leaving_the_route_by_more_than_a_lane_is_an_accident():
    env = made()
    _, infos, terminated, _ = drive(env, 1, full_left)
    assert (terminated, infos[-1]["termination"], infos[-1]["is_success"]) == (True, "off_route", False)
    assert abs(infos[-1]["lateral_offset_m"]) > 3.5
    assert abs(infos[-2]["lateral_offset_m"]) <= 3.5
    assert infos[-1]["reward_terms"]["safety"] <= -10.0


def test_the_time_limit_grows_with_the_length():
    env = made(route_length_m=(40.0, 60.0), route_turns=(0, 0))
    _, infos, terminated, truncated = drive(env, 0, crawl)
    assert (terminated, truncated, infos[-1]["termination"]) == (False, True, "timeout")
    # The limit is 30 s plus the time for the route at half the target speed of 30 km/h, in steps of 0.1 s.
    assert len(infos) - 1 == math.ceil((30.0 + infos[0]["route_length_m"] / (0.5 * 30 / 3.6)) / 0.1)
    long_env = made(route_length_m=(600.0, 800.0))
    _, infos, _, _ = drive(long_env, 0)
    assert infos[-1]["termination"] == "goal"
    assert len(infos) > 500, "the 500 steps of a closed route would have ended it"


def test_a_requested_time_limit_is_kept():
    env = made(max_episode_steps=7)
    *_, truncated = drive(env, 0)
    assert truncated
    assert env.get_wrapper_attr("_max_episode_steps") == 7
    assert made(max_episode_steps=500).spec.max_episode_steps == 500, "the registered number, but asked for"
    assert gym.make(made(max_episode_steps=7).spec).spec.max_episode_steps == 7


def test_only_the_loop_route_has_the_limit_of_500_steps():
    for spec in (gym.make("LiteDriving-v0").spec, gym.make(gym.make("LiteDriving-v0").spec).spec):
        assert spec.max_episode_steps == 500
    assert made().spec.max_episode_steps is None
    assert gym.make(made().spec).spec.max_episode_steps is None


def test_the_seed_or_the_route_option_determines_the_route():
    env = made()
    env.reset(seed=5)
    first = env.unwrapped.vehicle
    env.reset()
    assert env.unwrapped.vehicle[:2] != first[:2], "the next episode has another route"
    env.reset(seed=5)
    assert env.unwrapped.vehicle == first
    lengths = {env.reset(options={"route": 3})[1]["route_length_m"] for _ in range(3)}
    assert len(lengths) == 1


def test_commands_are_seen_before_and_within_each_junction():
    env = made(route_turns=(2, 8), route_length_m=(300.0, 800.0))
    observations, infos, _, _ = drive(env, 2)
    seen = [COMMANDS[int(np.argmax(each["command"][:6]))] for each in observations]
    assert seen == [info["command"] for info in infos]
    assert all(each["command"][:6].sum() == 1.0 for each in observations)
    assert {each["command"].dtype for each in observations} == {np.dtype(np.float32)}
    distances = np.array([each["command"][6] for each in observations])
    assert distances.min() == 0.0
    assert distances.max() == 1.0
    turns = [one for one, two in itertools.pairwise(seen) if one != two and one in {"left", "right"}]
    assert len(turns) >= 2


def test_a_command_to_turn_left_is_followed_by_a_turn_to_the_left():
    env = made(route_turns=(1, 1))
    driver = PurePursuitDriver()
    for route in range(4):
        env.reset(seed=0, options={"route": route})
        yaws, is_over, command = [], False, ""
        while not is_over:
            _, _, terminated, truncated, info = env.step(driver.act(env.unwrapped))
            is_over = terminated or truncated
            if info["command"] in {"left", "right"} and info["command_distance_m"] == 0.0:
                command = info["command"]
                yaws.append(env.unwrapped.vehicle.yaw_rad)
        turned_rad = float(np.unwrap(yaws)[-1] - yaws[0])
        assert abs(turned_rad) > 1.0
        assert command == ("left" if turned_rad > 0.0 else "right")


def test_observations_follow_their_space():
    for kind, keys in (("camera+command", {"camera", "command"}), (ALL, {"camera", "state", "command"})):
        env = made(observation=kind)
        assert set(env.observation_space.spaces) == keys
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space
        check_env(env.unwrapped, skip_render_check=True)


def test_a_saved_route_continues_bit_for_bit():
    env, other = (LiteDrivingEnv(maps=["streets_0"], route="random", observation=ALL) for _ in range(2))
    driver = PurePursuitDriver()
    env.reset(seed=4)
    for _ in range(60):
        env.step(driver.act(env))
    restored = other.set_state(env.get_state())
    for name, value in env._observation().items():
        np.testing.assert_array_equal(restored[name], value)
    for _ in range(60):
        one, two = env.step(driver.act(env)), other.step(driver.act(other))
        np.testing.assert_array_equal(one[0]["camera"], two[0]["camera"])
        assert one[1:] == two[1:]
    closed = LiteDrivingEnv(maps=["streets_0"])
    closed.reset(seed=0)
    with pytest.raises(ValueError, match="make the env with the settings of the saved env"):
        other.set_state({**closed.get_state(), "frames": env.get_state()["frames"]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"route_length_m": (60, 120)}, r"saved on a route of .* m, but the route of this env has .* route_length_m"),
        ({"frame_skip": 5}, "saved with frame_skip=2, but this env has frame_skip=5"),
        ({"dt_s": 0.1}, "saved with dt_s=0.05, but this env has dt_s=0.1"),
        ({"n_walkers": 8}, "saved with n_walkers=3, but this env has n_walkers=8"),
    ],
)
def test_a_state_of_other_settings_is_refused(changed, message):
    kwargs = {"maps": ["streets_0"], "n_walkers": 3}
    saved = LiteRoutesEnv(**kwargs)
    saved.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        LiteRoutesEnv(**{**kwargs, **changed}).set_state(saved.get_state())


def test_a_state_of_an_earlier_version_can_be_loaded_on_a_route():
    env = LiteRoutesEnv(maps=["streets_0"], n_walkers=3)
    env.reset(seed=0)
    state = env.get_state()
    del state["frame_skip"], state["world"]["route_length_m"], state["world"]["tick_s"]
    del state["world"]["street"]["n_walkers"]
    env.set_state(state)
    env.step(np.zeros(2, np.float32))


def state_of_an_earlier_version(env, n_steps):
    env.reset(seed=0)
    for _ in range(n_steps):
        env.step(PurePursuitDriver().act(env))
    state = env.get_state()
    del state["world"]["route_length_m"]
    return state


@pytest.mark.parametrize(("shift_m", "is_same"), [((0.0, 0.0), True), ((0.3, 0.3), True), ((3.0, 0.0), False)])
def test_a_state_of_an_earlier_version_is_refused_if_its_vehicle_is_elsewhere_on_the_route(shift_m, is_same):
    env = LiteRoutesEnv(maps=["streets_0"])
    state = state_of_an_earlier_version(env, 20)
    lane = state["world"]["lane"]
    lane[1], lane[2] = lane[1] + shift_m[0], lane[2] + shift_m[1]
    if is_same:
        env.set_state(state)
        assert env.get_state()["world"]["lane"] == lane
        return
    with pytest.raises(ValueError, match=r"saved .* m along its route .*, but on the route of this env .*; use that"):
        env.set_state(state)


def test_a_state_of_an_earlier_version_is_refused_if_its_route_was_longer():
    state = state_of_an_earlier_version(LiteRoutesEnv(maps=["streets_0"], route_length_m=(300, 400)), 100)
    state["world"]["lane"][0] = 500
    with pytest.raises(ValueError, match=r"earlier version, which found another route; use that version"):
        LiteRoutesEnv(maps=["streets_0"], route_length_m=(60, 120)).set_state(state)


@pytest.mark.carla
@needs_carla
def test_a_state_of_an_earlier_version_on_a_map_file_gives_a_warning(tmp_path, caplog):
    path = tmp_path / "a.xodr"
    path.write_text(to_opendrive(load_map("streets_0")))
    env = LiteRoutesEnv(maps=[str(path)])
    state = state_of_an_earlier_version(env, 1)
    env.set_state(state)
    assert "the rest of its route differently" in caplog.text


def test_a_state_of_an_earlier_version_can_be_loaded_on_the_loop_route():
    env = LiteDrivingEnv(maps=["train_0"])
    env.reset(seed=0)
    state = env.get_state()
    del state["world"]["route_seed"]
    env.set_state(state)
    env.step(np.zeros(2, np.float32))


def test_the_vehicle_drives_from_the_given_start_to_the_given_goal():
    network = load_map("streets_0").network
    first, second = network.road(0).line_m(-1.75, 0.5), network.road(1).line_m(-1.75, 0.5)
    pair = (tuple(first[20]), tuple(second[20]))
    env = made(route=[pair])
    env.reset(seed=0)
    vehicle = env.unwrapped.vehicle
    assert math.dist(vehicle[:2], pair[0]) <= driving_env.MAX_START_OFFSET_M + 0.3
    drive(env, 0)
    vehicle = env.unwrapped.vehicle
    assert math.dist(vehicle[:2], pair[1]) < 2.0


def test_the_route_of_a_route_file_is_driven_to_its_goal(tmp_path):
    line = load_map("streets_0").network.road(0).line_m(-1.75, 0.5)
    places = "".join(f'<position x="{x}" y="{-y}" z="0"/>' for x, y in (line[10], line[80]))
    file = tmp_path / "routes.xml"
    file.write_text(f'<routes><route id="1" town="streets_0"><waypoints>{places}</waypoints></route></routes>')
    env = made(route="file", route_file=file)
    _, infos, _, _ = drive(env, 0)
    assert infos[-1]["termination"] == "goal"
    assert infos[-1]["route_length_m"] == pytest.approx(math.dist(line[10], line[80]), rel=0.1)


def test_all_maps_without_a_route_are_named():
    env = LiteRoutesEnv(route_length_m=(400, 600), route_turns=(0, 0), maps=["streets_0", "streets_1", "streets_2"])
    for seed in range(20):
        env.np_random = np.random.default_rng(seed)
        if env._draw_start(None).map_name != "streets_1":
            break
    message = r"found no route of 400 to 600 m with 0 to 0 turns.*have no such route: \['streets_0', 'streets_2'\]$"
    with pytest.raises(ValueError, match=message):
        env.reset(seed=seed)
    alone = LiteRoutesEnv(route_length_m=(400, 600), route_turns=(0, 0), maps="streets_0")
    with pytest.raises(ValueError, match=r"or choose another map$"):
        alone.reset()


def test_a_heading_in_degrees_is_refused():
    message = r"route\[0\], heading_rad=90\.0: expected a number from -12\.5664 to 12\.5664 rad; .* not degrees"
    with pytest.raises(ValueError, match=message):
        LiteDrivingEnv(route=[((0.0, 0.0, 90.0), (10.0, 0.0))])
    for heading_rad in (-2.0 * math.pi, -6.5, 2.0 * math.pi + 1e-9, math.radians(450.0), 4.0 * math.pi):
        LiteDrivingEnv(route=[((0.0, 0.0, heading_rad), (10.0, 0.0, 3.1))])


def test_commands_need_a_route():
    with pytest.raises(ValueError, match=r"observation='camera\+command' contains the command \(where to turn\), but"):
        made(route="loop", observation="camera+command")


def test_options_are_checked():
    with pytest.raises(ValueError, match="'town': 3"):
        made().reset(options={"town": 3})
    with pytest.raises(ValueError, match=r"options\['route'\]=-1"):
        made().reset(options={"route": -1})
    with pytest.raises(ValueError, match="expected no options"):
        made(route="loop", observation="camera").reset(options={"route": 1})


def test_a_policy_without_commands_gives_one_warning(monkeypatch, caplog):
    monkeypatch.setattr(driving_env, "_warned", set())
    made(observation="camera")
    made(observation="camera+state")
    assert [message for message in caplog.messages if "which way its route takes" in message] == [
        "observation='camera': at a junction the policy does not see which way its route takes; "
        "observation='camera+command' shows it"
    ]


@pytest.mark.parametrize("view", ["front", "chase"])
def test_pictures_show_the_route_ahead(view):
    env = made(render_mode="rgb_array", render_view=view, route_turns=(0, 0), route_length_m=(60.0, 100.0))
    env.reset(seed=1, options={"route": 1})
    with_route = env.render()
    closed = gym.make("LiteDriving-v0", maps=["streets_0"], render_mode="rgb_array", render_view=view)
    closed.reset(seed=1)
    green = np.array((90, 220, 110))
    assert (np.abs(with_route[240:].astype(int) - green).max(axis=2) < 30).sum() > 100
    assert (np.abs(closed.render()[240:420].astype(int) - green).max(axis=2) < 30).sum() == 0


def test_lite_routes_v0_uses_street_maps_and_observes_commands():
    env = gym.make("LiteRoutes-v0")
    assert env.unwrapped.maps == MAP_GROUPS["streets"]
    assert env.unwrapped.has_routes
    assert set(env.observation_space.spaces) == {"camera", "command"}
    held_out = gym.make("LiteRoutes-v0", maps="held_out")
    assert held_out.unwrapped.maps == MAP_GROUPS["streets_held_out"]
    assert isinstance(held_out.unwrapped, LiteRoutesEnv)
    assert not set(held_out.unwrapped.maps) & set(env.unwrapped.maps)


@pytest.mark.carla
@needs_carla
def test_random_routes_on_an_exported_opendrive_map_reach_their_goal(tmp_path):
    file = tmp_path / "streets_0.xodr"
    file.write_text(to_opendrive(load_map("streets_0")))
    env = made(maps=[str(file)], route_turns=(1, 8))
    for route in range(3):
        assert drive(env, route)[1][-1]["termination"] == "goal"


@pytest.mark.carla
@needs_carla
@needs_towns
@pytest.mark.parametrize("town", ["Town01", "Town07", "cubetown", "CulDeSac"])
def test_random_routes_in_towns_reach_their_goal(town):
    turns = (2, 8) if town.startswith("Town") else (0, 8)
    env = made(maps=[str(TOWNS / f"{town}.xodr")], route_turns=turns)
    assert [drive(env, route)[1][-1]["termination"] for route in range(3)] == ["goal"] * 3


@pytest.mark.carla
@needs_carla
@needs_towns
def test_a_log_message_says_that_rising_roads_are_simulated_as_flat(caplog, tmp_path):
    from sb3_visual_td3.envs.road.route_maps import load_route_map

    # A copy has its own name, so that no earlier test has read it.
    load_route_map(shutil.copy(TOWNS / "Town07.xodr", tmp_path))
    assert any("rise by 10 m; they are driven and drawn as if they were flat" in text for text in caplog.messages)


@pytest.mark.carla
@needs_carla
@needs_towns
def test_episodes_on_the_loop_route_of_cubetown_succeed():
    env = gym.make("LiteDriving-v0", maps=[str(TOWNS / "cubetown.xodr")])
    driver = PurePursuitDriver()
    for seed in range(3):
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            _, _, terminated, truncated, info = env.step(driver.act(env.unwrapped))
        assert (truncated, info["is_success"]) == (True, True)
