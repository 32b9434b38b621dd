import importlib.util
import math
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from stable_baselines3.common.env_checker import check_env as check_sb3_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_visual_td3.common.tags import REWARD_TERMS
from sb3_visual_td3.envs import LITE_DRIVING_ID, register_envs
from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.road.maps import MAP_GROUPS, load_map
from sb3_visual_td3.envs.road.opendrive_writing import to_opendrive
from tests.envs.episodes import drive_episode, hold

AHEAD = np.array([0.0, 0.5], np.float32)
STEP_INFO = {
    "reward_terms": dict,
    "collisions": int,
    "lane_invasions": int,
    "lane_marks_crossed": list,
    "speed_mps": float,
    "speed_kmh": float,
    "distance_m": float,
    "route_completion": float,
    "lateral_offset_m": float,
    "heading_error_rad": float,
    "map": str,
    "termination": str,
}


def made(**kwargs):
    register_envs()
    return gym.make(LITE_DRIVING_ID, **kwargs)


def make_for_worker():
    return made(maps=["train_0"])


def random_actions(n, pedal_bias=0.0):
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (n, 2))
    actions[:, 1] += pedal_bias
    return actions.astype(np.float32)


def rollout(env, seed, actions):
    observation, info = env.reset(seed=seed)
    trace = [(observation, info)]
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        trace.append((observation, reward, terminated, truncated, info))
        if terminated or truncated:
            trace.append(env.reset())
    return trace


def assert_same(one, two):
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
        assert first[1:] == second[1:]


# The contract with gymnasium and Stable-Baselines3


VARIANTS = [
    {},
    {"n_cars": 10},
    {"observation": "camera+state"},
    {"grayscale": False, "weather": "random", "noise_std": 2.0, "blur": 0.5},
    {"reward": "progress_heavy", "reward_scale": 0.1, "render_view": "chase"},
]


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_gymnasiums_checker_passes(kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_gymnasium_env(made(render_mode="rgb_array", **kwargs).unwrapped)


@pytest.mark.parametrize("kwargs", VARIANTS, ids=str)
def test_stable_baselines3s_checker_passes(kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_sb3_env(made(**kwargs))


def test_registering_twice_changes_nothing():
    register_envs()
    spec = gym.registry[LITE_DRIVING_ID]
    register_envs()
    assert gym.registry[LITE_DRIVING_ID] is spec
    assert spec.max_episode_steps == 500


def test_registration_loads_neither_a_world_nor_the_image_library():
    code = "import sys, sb3_visual_td3.envs as r; r.register_envs(); print('cv2' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_default_spaces_are_a_grey_stack_and_two_controls():
    env = made()
    assert env.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert env.action_space == gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert env.get_wrapper_attr("frame_stack") == 4
    assert isinstance(env.unwrapped, DrivingEnv)


def test_an_environment_runs_in_a_subprocess():
    vec_env = SubprocVecEnv([make_for_worker])
    try:
        vec_env.seed(3)
        observations = vec_env.reset()
        assert vec_env.get_attr("frame_stack") == [4]
        _, rewards, _, infos = vec_env.step(AHEAD[None])
    finally:
        vec_env.close()
    env = make_for_worker()
    observation, _ = env.reset(seed=3)
    _, reward, _, _, info = env.step(AHEAD)
    np.testing.assert_array_equal(observations[0], observation)
    assert rewards[0] == pytest.approx(reward, rel=1e-6)
    assert infos[0]["distance_m"] == info["distance_m"]


def test_a_pickled_environment_continues_like_the_original(env):
    env.reset(seed=5)
    twin = pickle.loads(pickle.dumps(env))
    for action in random_actions(5):
        assert_same([env.step(action)], [twin.step(action)])


# Determinism


def test_same_seed_and_actions_give_the_same_everything():
    actions = random_actions(300, 0.4)
    assert_same(rollout(LiteDrivingEnv(), 7, actions), rollout(LiteDrivingEnv(), 7, actions))


def test_another_seed_gives_another_start(env):
    starts = {env.reset(seed=seed)[1]["lateral_offset_m"] for seed in range(10)}
    assert len(starts) == 10


def test_two_environments_share_no_random_state():
    actions = random_actions(60, 0.4)
    alone = rollout(LiteDrivingEnv(), 7, actions)
    first, second = LiteDrivingEnv(), LiteDrivingEnv()
    np.random.seed(0)
    trace, _ = [first.reset(seed=7)], second.reset(seed=8)
    for action in actions:
        trace.append(first.step(action))
        second.step(-action)
        np.random.random()
        if trace[-1][2] or trace[-1][3]:
            trace.append(first.reset())
            second.reset()
    assert_same(alone, trace)


def test_reset_without_a_seed_continues_the_random_stream():
    one, two = LiteDrivingEnv(), LiteDrivingEnv()
    starts = [[env.reset(seed=1)[1], env.reset()[1], env.reset()[1]] for env in (one, two)]
    assert starts[0] == starts[1]
    assert len({info["lateral_offset_m"] for info in starts[0]}) == 3


def test_starts_cover_maps_offsets_and_speeds():
    env = LiteDrivingEnv(maps="held_out")
    env.reset(seed=0)
    infos = [env.reset()[1] for _ in range(200)]
    assert {info["map"] for info in infos} == set(MAP_GROUPS["held_out"])
    offsets = [info["lateral_offset_m"] for info in infos]
    headings = [info["heading_error_rad"] for info in infos]
    speeds = [info["speed_mps"] for info in infos]
    assert (min(offsets), max(offsets)) == pytest.approx((-0.4, 0.4), abs=0.05)
    assert (min(headings), max(headings)) == pytest.approx((-0.06, 0.06), abs=0.01)
    assert (min(speeds), max(speeds)) == pytest.approx((0.0, 30 / 3.6), abs=0.5)
    assert 0.0 <= min(speeds) <= max(speeds) <= 30 / 3.6


# Observations


def test_reset_fills_the_stack_with_the_first_frame(env):
    observation, _ = env.reset(seed=0)
    for frame in observation[1:]:
        np.testing.assert_array_equal(frame, observation[0])


def test_frames_move_from_the_newest_place_to_the_oldest(env):
    before, _ = env.reset(seed=0)
    for _ in range(8):
        after = env.step(AHEAD)[0]
        np.testing.assert_array_equal(after[:-1], before[1:])
        assert (after[-1] != before[-1]).mean() > 0.02, "driving changes the picture"
        before = after


def test_the_stack_never_crosses_an_episode(env):
    env.reset(seed=0)
    for _ in range(3):
        env.step(AHEAD)
    observation, _ = env.reset()
    assert (observation == observation[0]).all()


def test_arrays_returned_earlier_never_change_and_may_be_written_to(env):
    observation, _ = env.reset(seed=0)
    kept = [observation]
    copies = [observation.copy()]
    for _ in range(10):
        kept.append(env.step(AHEAD)[0])
        copies.append(kept[-1].copy())
    env.reset()
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    observation, _ = env.reset(seed=0)
    observation[:] = 0
    assert env.step(AHEAD)[0][:-1].min() > 0, "what a user writes does not come back"


@pytest.mark.parametrize(("frame_stack", "image_size"), [(1, 84), (2, 64), (4, 96)])
def test_depth_and_size_of_the_stack_are_as_requested(frame_stack, image_size):
    env = LiteDrivingEnv(frame_stack=frame_stack, image_size=image_size, maps=["train_0"])
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (frame_stack, image_size, image_size)
    assert env.observation_space.contains(env.step(AHEAD)[0])


# Rewards, infos and ends


def test_every_step_has_the_complete_info(env):
    _, info = env.reset(seed=0)
    assert {name: type(value) for name, value in info.items()} == {
        name: kind for name, kind in STEP_INFO.items() if name != "reward_terms"
    }
    for action in random_actions(40, 0.5):
        _, reward, terminated, truncated, info = env.step(action)
        assert {name: type(value) for name, value in info.items() if name != "is_success"} == STEP_INFO
        assert type(info["is_success"]) is bool
        assert terminated == bool(info["termination"])
        assert not truncated, "the time limit is gymnasium's"
        assert tuple(info["reward_terms"]) == REWARD_TERMS
        assert all(type(value) is float for value in info["reward_terms"].values())
        assert reward == sum(info["reward_terms"].values())
        assert type(reward) is float
        assert info["speed_kmh"] == pytest.approx(3.6 * info["speed_mps"])
        assert pickle.loads(pickle.dumps(info)) == info
        if terminated or truncated:
            env.reset()


def test_gymnasium_applies_the_time_limit_that_make_was_given():
    env = made(maps=["train_0"], max_episode_steps=7)
    env.reset(seed=0)
    steps = [env.step(AHEAD) for _ in range(7)]
    assert [step[2:4] for step in steps] == [(False, False)] * 6 + [(False, True)]
    assert steps[-1][4]["termination"] == ""
    assert made().spec.max_episode_steps == 500


def test_full_lock_leaves_the_road_and_counts_as_a_collision(env):
    for steer in (1.0, -1.0):
        episode = drive_episode(env, hold(steer, 0.6), seed=0)
        assert episode.last_info["termination"] == "off_road"
        assert episode.last_info["collisions"] == 1
        assert episode.last_info["lane_invasions"] >= 1
        assert episode.last_info["is_success"] is False
        assert math.copysign(1.0, episode.last_info["lateral_offset_m"]) == -steer, "steering right leaves it right"


def test_actions_outside_the_box_are_clipped():
    traces = []
    for factor in (1.0, 5.0):
        env = LiteDrivingEnv(maps=["train_0"])
        env.reset(seed=0)
        traces.append([env.step(factor * np.array([0.0, 1.0], np.float32)) for _ in range(5)])
    assert_same(*traces)


@pytest.mark.parametrize(
    "action", [[math.nan, 0.0], [0.0, math.inf], [0.0], [0.0, 0.0, 0.0], 0.0, [[0.0, 0.0]]], ids=str
)
def test_an_invalid_action_is_refused(env, action):
    env.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step(np.array(action, np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frame_stack", 0),
        ("frame_stack", 2.5),
        ("frame_stack", True),
        ("frame_skip", 0),
        ("frame_skip", "two"),
        ("dt_s", 0.0),
        ("dt_s", math.nan),
        ("image_size", 85),
        ("image_size", 8),
        ("maps", "mars"),
        ("maps", []),
        ("maps", ["train_0", "mars"]),
        ("maps", ["train_0", "train_0"]),
        ("maps", [["train_0"]]),
        ("maps", 3),
        ("render_mode", "ansi"),
        ("target_speed_mps", 0.0),
        ("target_speed_mps", -3.0),
        ("target_speed_mps", math.inf),
        ("target_speed_mps", "fast"),
        ("observation", "lidar"),
        ("reward", "reckless"),
        ("reward_scale", 0.0),
        ("reward_scale", math.nan),
        ("render_view", "top"),
        ("idle_ending", "done"),
        ("goal_ending", "done"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name}=.*expected.*"):
        LiteDrivingEnv(**{name: value})


def test_an_unknown_reset_option_is_refused(env):
    with pytest.raises(ValueError, match="town"):
        env.reset(seed=0, options={"town": 3})


def test_a_single_map_may_be_given_as_a_string():
    assert LiteDrivingEnv(maps="held_out_1").reset(seed=0)[1]["map"] == "held_out_1"


# Pictures for people


def test_render_draws_a_large_picture_and_does_not_change_the_episode():
    plain, drawn = LiteDrivingEnv(maps=["train_0"]), LiteDrivingEnv(maps=["train_0"], render_mode="rgb_array")
    plain.reset(seed=2), drawn.reset(seed=2)
    for action in random_actions(5):
        picture = drawn.render()
        assert (picture.shape, picture.dtype) == ((480, 640, 3), np.uint8)
        assert_same([plain.step(action)], [drawn.step(action)])
    assert (picture != drawn.render()).mean() > 0.1


def test_render_without_a_mode_warns_and_draws_nothing(env):
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="rgb_array"):
        assert env.render() is None


def test_frames_per_second_follow_the_length_of_a_step():
    assert LiteDrivingEnv().metadata["render_fps"] == 10
    assert LiteDrivingEnv(frame_skip=1, dt_s=0.04).metadata["render_fps"] == 25
    assert LiteDrivingEnv.metadata["render_fps"] == 10


def test_the_chase_view_shows_the_ego_vehicle():
    pictures = []
    for view in ("front", "chase"):
        env = LiteDrivingEnv(maps=["train_0"], render_mode="rgb_array", render_view=view)
        env.reset(seed=2)
        pictures.append(env.render().astype(int))
    assert (pictures[0] != pictures[1]).mean() > 0.2
    red, _, blue = pictures[1][330:400, 290:350].transpose(2, 0, 1)
    assert (blue > red + 60).mean() > 0.3, "the own car is blue"


def test_a_window_shows_every_step_and_does_not_change_the_episode(monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    plain = LiteDrivingEnv(maps=["train_0"])
    shown = LiteDrivingEnv(maps=["train_0"], render_mode="human", dt_s=0.05, frame_skip=2)
    shown.metadata["render_fps"] = 1000
    plain.reset(seed=2), shown.reset(seed=2)
    for _ in range(3):
        assert_same([plain.step(AHEAD)], [shown.step(AHEAD)])
    assert shown.render() is None
    screen = pygame.surfarray.array3d(pygame.display.get_surface())
    assert screen.shape == (640, 480, 3)
    assert screen.std() > 10.0
    shown.close()
    assert pygame.display.get_surface() is None


def test_a_window_without_pygame_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ImportError, match=r"needs pygame: pip install .*pygame-ce"):
        LiteDrivingEnv(render_mode="human")


def test_a_missing_map_file_is_refused_when_the_environment_is_made(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        made(maps=str(tmp_path / "town.xodr"))


@pytest.mark.carla
@pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="the extra carla is not installed")
def test_a_users_own_opendrive_file_can_be_driven_on(tmp_path):
    town = tmp_path / "town.xodr"
    town.write_text(to_opendrive(load_map("junction_0")))
    env = made(maps=str(town))
    env.reset(seed=0)
    for _ in range(5):
        _, _, terminated, _, info = env.step(AHEAD)
        assert not terminated
    assert info["map"] == str(town)
    assert info["distance_m"] > 0
