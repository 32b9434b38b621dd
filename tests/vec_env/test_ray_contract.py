"""Tests that RayVecEnv is a complete VecEnv, and that its results equal those of SubprocVecEnv."""

import math
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3.vec_env import RayVecEnv, ray_vec_env
from tests.vec_env.envs import BrokenEnv, CountEnv, SpaceEnv, make_drive

pytestmark = pytest.mark.ray
BOX = spaces.Box(0.0, 1.0, (2,), np.float32)
SPACES = {
    "discrete": spaces.Discrete(2),
    "multidiscrete": spaces.MultiDiscrete([2, 3]),
    "multibinary": spaces.MultiBinary(3),
    "box": BOX,
    "image": spaces.Box(0, 255, (200, 200, 3), np.uint8),  # Ray's calls return this size through its object store
}
SPACES["dict"] = spaces.Dict(SPACES)
SPACES["tuple"] = spaces.Tuple(tuple(SPACES[name] for name in ("discrete", "box", "image")))


def leaves(observations):
    if isinstance(observations, dict):
        return list(observations.values())
    return list(observations) if isinstance(observations, tuple) else [observations]


def same(left, right):
    """Return whether two answers are equal, including the dtypes of their arrays."""
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple | list):
        return len(left) == len(right) and all(same(*pair) for pair in zip(left, right, strict=True))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    return left == right


@pytest.mark.parametrize(("name", "direct"), [*((name, True) for name in SPACES), ("tuple", False), ("dict", False)])
def test_reset_and_step_return_exactly_what_subproc_vec_env_returns_for_every_space(name, direct, make_vec):
    space = SPACES[name]
    ours = make_vec([partial(SpaceEnv, space) for _ in range(2)], direct=direct)
    stock = SubprocVecEnv([partial(SpaceEnv, space) for _ in range(2)])
    try:
        for env in (ours, stock):
            env.seed(5)
            env.set_options([{"a": 1}, {}])
        assert same(ours.reset(), stock.reset())
        assert same(list(ours.reset_infos), list(stock.reset_infos))
        assert ours.reset_infos[0] == {"seed": 5, "options": {"a": 1}}
        space.seed(0)
        for _ in range(9):
            actions = (
                np.array([0, 0]) if isinstance(space, spaces.Dict | spaces.Tuple) else np.stack([space.sample()] * 2)
            )
            answers = [[*env.step(actions)] for env in (ours, stock)]
            answers[1][3] = list(answers[1][3])
            assert same(*answers)
            assert same(list(ours.reset_infos), list(stock.reset_infos))
            assert all(array.flags.writeable and array.flags.owndata for array in leaves(answers[0][0]))
    finally:
        stock.close()


@pytest.mark.parametrize("direct", [True, False])
def test_a_drive_equals_that_of_subproc_vec_env_bit_for_bit(direct, make_vec):
    ours, stock = make_vec([make_drive, make_drive], direct=direct), SubprocVecEnv([make_drive, make_drive])
    ours.seed(3)
    stock.seed(3)
    assert same(ours.reset(), stock.reset())
    random, n_episodes = np.random.default_rng(0), 0
    for _ in range(400):
        actions = random.uniform(-1, 1, (2, 2)).astype(np.float32)
        (*left, infos), (*right, other_infos) = ours.step(actions), stock.step(actions)
        assert same(left, right)
        n_episodes += int(left[2].sum())
        for info, other in zip(infos, other_infos, strict=True):
            assert info.keys() == other.keys()
            if "terminal_observation" in info:
                assert same(info["terminal_observation"], other["terminal_observation"])
                assert info["terminal_observation"].flags.writeable
            assert info["TimeLimit.truncated"] == other["TimeLimit.truncated"]
    stock.close()
    assert n_episodes >= 1


@pytest.mark.parametrize("wrapper", [None, VecNormalize, partial(VecFrameStack, n_stack=2)])
def test_attributes_and_methods_are_reached_through_wrappers(wrapper, make_vec):
    env = make_vec([partial(SpaceEnv, BOX) for _ in range(3)])
    env = env if wrapper is None else wrapper(env)
    assert env.get_attr("steps_made") == [0, 0, 0]
    for index in range(3):
        assert env.set_attr("steps_made", index, indices=index) is None
    assert env.get_attr("steps_made") == [0, 1, 2]
    assert env.get_attr("steps_made", indices=[0, -1]) == [0, 2]
    assert np.array_equal(env.render(), env.render(mode="rgb_array"))
    assert env.render().max() == 2
    with pytest.warns(UserWarning, match="mode"):
        env.render(mode="something else")
    assert [each.shape for each in env.env_method("ones", 1, n_columns=2)] == [(1, 2)] * 3
    assert [each.shape for each in env.env_method("ones", 3, indices=[0, 2])] == [(3, 1)] * 2
    assert env.has_attr("steps_made")
    assert not env.has_attr("wings")
    env.reset()
    assert env.get_attr("steps_made") == [0, 0, 0]


def test_actions_and_observations_are_writeable_on_both_sides(make_vec):
    env = make_vec([CountEnv, partial(SpaceEnv, CountEnv().observation_space, None)])
    assert env.env_method("add_to", np.zeros(200_000), indices=1)[0].sum() == 200_000
    env.env_method("add_to", np.zeros(3), indices=1)[0][:] = 7
    env.reset()
    info = env.step(np.zeros((2, 1), np.float32))[3][1]
    info["log"] += 1


def test_the_info_has_the_last_observation_and_the_kind_of_ending(make_vec):
    env = make_vec([partial(CountEnv, 3), partial(CountEnv, 4, truncates=True)])
    env.reset()
    for n in (1, 2, 3, 4):
        observations, rewards, dones, infos = env.step(np.full((2, 1), 0.5, np.float32))
        assert rewards.tolist() == [0.5, 0.5]
        assert dones.tolist() == [n == 3, n == 4]
        if n >= 3:
            assert infos[n - 3]["terminal_observation"][0] == n
            assert infos[n - 3]["TimeLimit.truncated"] == (n == 4)
            assert observations[n - 3][0] == 0
        assert "terminal_observation" not in infos[1 if n < 4 else 0]


def test_seeds_and_options_apply_to_the_next_reset_only(make_vec):
    env = make_vec([CountEnv, CountEnv])
    assert env.seed(7) == [7, 8]
    env.set_options({"town": 1})
    env.reset()
    assert [info["seed"] for info in env.reset_infos] == [7, 8]
    assert [info["options"] for info in env.reset_infos] == [{"town": 1}] * 2
    env.reset()
    assert [info["seed"] for info in env.reset_infos] == [None, None]
    assert [info["options"] for info in env.reset_infos] == [None, None]


def test_a_wrapper_is_recognised(make_vec):
    env = make_vec([CountEnv, lambda: Monitor(CountEnv())])
    assert env.env_is_wrapped(Monitor) == [False, True]
    assert env.env_is_wrapped(Monitor, indices=1) == [True]


def test_a_step_is_pending_until_step_wait_and_a_reset_drops_it(make_vec):
    env = make_vec([CountEnv])
    env.reset()
    env.step_async(np.zeros((1, 1), np.float32))
    assert env.reset()[0][0] == 0
    assert env.step(np.zeros((1, 1), np.float32))[0][0][0] == 1


def test_returned_observations_share_no_memory(make_vec):
    env = make_vec([CountEnv])
    first = env.reset()
    env.step(np.zeros((1, 1), np.float32))
    assert first[0][0] == 0


@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_the_render_mode_is_that_of_the_environments(render_mode, make_vec):
    env = make_vec([partial(SpaceEnv, BOX, render_mode)])
    assert env.render_mode == render_mode
    assert env.metadata == {"render_modes": ["human", "rgb_array"] if render_mode else []}


def test_an_environment_without_a_render_mode_warns(make_vec):
    env = make_vec([partial(SpaceEnv, BOX, None)])
    with pytest.warns(UserWarning, match="render_mode=None"):
        assert env.get_images() == [None]


@pytest.mark.parametrize("direct", [True, False])
def test_an_exception_of_an_environment_is_raised_at_the_learner(direct, make_vec):
    with pytest.raises(ValueError, match=r"^there is no such town$"):
        make_vec([BrokenEnv])
    env = make_vec([CountEnv, CountEnv], direct=direct)
    env.reset()
    env.set_attr("mood", "wrong", indices=1)
    with pytest.raises(ValueError, match=r"^the gearbox is gone$"):
        env.step(np.zeros((2, 1), np.float32))
    with pytest.raises(AttributeError, match="wings"):
        env.get_attr("wings")
    assert env.n_rebuilds == 0


def test_an_environment_without_torch_runs_without_torch(make_vec):
    class ModulesEnv(CountEnv):
        def has(self, name):
            return name in sys.modules

    env = make_vec([ModulesEnv])
    env.reset()
    env.step(np.zeros((1, 1), np.float32))
    assert env.env_method("has", "gymnasium") == [True]
    assert env.env_method("has", "torch") == [False]


def test_a_local_environment_class_can_be_sent(make_vec):
    class LocalEnv(CountEnv):
        pass

    env = make_vec([lambda: gym.wrappers.TimeLimit(LocalEnv(), 2)])
    env.reset()
    env.step(np.zeros((1, 1), np.float32))
    assert env.step(np.zeros((1, 1), np.float32))[3][0]["TimeLimit.truncated"]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"num_cpus": -1}, "num_cpus=-1"),
        ({"num_gpus": -0.5}, "num_gpus=-0.5"),
        ({"resources": {"carla": -1}}, "carla=-1"),
        ({"placement": "near"}, "placement='near'"),
        ({"num_cpus": True}, "num_cpus=True: expected a finite number >= 0"),
        ({"num_cpus": "many"}, "num_cpus='many'"),
        ({"patience_s": 0}, "patience_s=0"),
        ({"deadline_s": 0}, "deadline_s=0"),
        ({"deadline_s": 5, "patience_s": 2}, "deadline_s=5"),
    ],
)
def test_an_invalid_argument_is_named(kwargs, text):
    with pytest.raises(ValueError, match=text):
        RayVecEnv([CountEnv], **kwargs)


@pytest.mark.parametrize("direct", [True, False])
def test_the_patience_may_be_infinite(direct, make_vec, monkeypatch):
    monkeypatch.setattr(ray_vec_env, "_WARN_AFTER_S", 0.0)  # so that the long wait for room begins at once
    env = make_vec([CountEnv], direct=direct, patience_s=math.inf)
    env.reset()
    env.step(np.zeros((1, 1), np.float32))
    assert env.n_rebuilds == 0


def test_no_environments_are_refused():
    with pytest.raises(ValueError, match=r"env_fns=\[\]"):
        RayVecEnv([])


def test_a_request_beyond_the_cluster_is_refused(ray_runs):
    with pytest.raises(ValueError, match=r"1 of 1 environments could not be placed.*GPU 64.*GPU 0"):
        RayVecEnv([CountEnv], num_gpus=64, patience_s=1)


def test_closing_twice_changes_nothing(make_vec):
    env = make_vec([CountEnv])
    env.close()
    env.close()
