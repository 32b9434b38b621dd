"""Tests that a restored environment continues in the middle of its episodes.

If this is not possible, new episodes begin, and one line gives the reason.
"""

import re
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import FrameStackObservation, TimeLimit
from stable_baselines3 import TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_visual_td3.training_state.env_state import env_state, parse_names, set_env_state, why_not_exact
from sb3_visual_td3.training_state.vec_layer_state import layers_not_restored
from tests.training_state.small_envs import ForgetfulEnv, Momentum, StatefulEnv, StatefulImageEnv
from tests.training_state.snapshots import GoOn, Snapshot, digest, through_json

VEC_ENVS = {
    "here": DummyVecEnv,
    "elsewhere": lambda fns: SubprocVecEnv(fns, start_method="fork"),
}


def steps(env, n, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        actions = rng.uniform(-1, 1, (env.num_envs, *env.action_space.shape)).astype(np.float32)
        observations, rewards, dones, infos = env.step(actions)
        yield (
            digest(observations),
            rewards.tolist(),
            dones.tolist(),
            [info.get("episode", {}).get("r") for info in infos],
        )


@pytest.mark.parametrize("where", VEC_ENVS)
def test_lite_driving_continues_after_a_round_trip_through_text(where):
    def make(seed):
        return make_vec_env("LiteDriving-v0", 2, seed=seed, vec_env_cls=VEC_ENVS[where], env_kwargs={"n_cars": 3})

    env, other = make(1), make(2)
    assert why_not_exact(env) is None
    env.reset()
    list(steps(env, 20))
    state = through_json(env_state(env))
    expected = list(steps(env, 60, seed=1))
    other.reset()
    assert set_env_state(other, state) is None
    assert list(steps(other, 60, seed=1)) == expected
    for each in (env, other):
        each.close()


class Doubled(gym.Wrapper):
    """This wrapper has no ``get_state``, so the package must assume that it holds a state."""

    last = None


def in_a_box(env):
    return DummyVecEnv([lambda: env])


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        (lambda: Monitor(TimeLimit(StatefulEnv(), 5)), None),
        (lambda: Momentum(Doubled(TimeLimit(StatefulEnv(), 5))), None),  # Momentum must save the state inside
        (lambda: gym.wrappers.RescaleAction(Monitor(StatefulEnv()), -2.0, 2.0), None),
        (lambda: Monitor(ForgetfulEnv()), r"ForgetfulEnv has no get_state\(\)/set_state\(\)"),
        (lambda: Monitor(gym.make("Pendulum-v1")), r"PendulumEnv has no get_state\(\)/set_state\(\)"),
        (
            lambda: FrameStackObservation(StatefulEnv(), 2),
            "FrameStackObservation may hold state of the current episode",
        ),
        (lambda: Doubled(Momentum(StatefulEnv())), "Doubled may hold state of the current episode"),
        (
            lambda: TimeLimit(TimeLimit(StatefulEnv(), 5), 6),
            r"two wrappers around .* have the same counters as \w*TimeLimit",
        ),
    ],
)
@pytest.mark.parametrize("where", VEC_ENVS)
def test_the_reason_why_episodes_cannot_continue_is_one_line(env, reason, where):
    venv = VEC_ENVS[where]([env])
    if reason is None:
        assert why_not_exact(VecNormalize(venv)) is None
    else:
        assert re.match(reason, why_not_exact(VecNormalize(venv)))
    venv.close()


def test_a_wrapper_known_only_to_the_worker_process_is_named():
    def make():
        class Local(Momentum):
            pass

        return Local(StatefulEnv())

    venv = VEC_ENVS["elsewhere"]([make])
    assert (
        why_not_exact(venv) == "the wrapper Local is not imported in this process: import its class before the training"
    )
    venv.close()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("<Monitor<TimeLimit<LiteDrivingEnv<LiteDriving-v0>>>>", ["Monitor", "TimeLimit", "LiteDrivingEnv"]),
        ("<Monitor<MyEnv instance>>", ["Monitor", "MyEnv"]),
        ("<MyEnv instance>", ["MyEnv"]),
        ("<OrderEnforcing<AtariEnv<ALE/Pong-v5>>>", ["OrderEnforcing", "AtariEnv"]),
        ("<TimeLimit<MonitorMyEnv>>", None),  # MyEnv has a __str__ of its own
        ("<Monitor<TimeLimit<MyEnv(3)>>>", None),
        ("<MonitorMyEnv with <angles>>", None),
        ("car", None),
    ],
)
def test_wrappers_are_parsed_from_str_of_the_environment(text, names):
    assert parse_names(text) == names


class SilentVecEnv(SubprocVecEnv):
    """Imitates a user's VecEnv whose ``env_method``, ``get_attr`` and ``has_attr`` raise NotImplementedError."""

    def env_method(self, *args, **kwargs):
        raise NotImplementedError

    get_attr = has_attr = env_method

    def __init__(self, env):
        self.inner = env
        self.num_envs, self.observation_space, self.action_space = 1, env.observation_space, env.action_space

    def reset(self):
        return self.inner.reset()


def test_a_vecenv_that_hides_its_wrappers_begins_new_episodes():
    env = SilentVecEnv(in_a_box(StatefulEnv()))
    env.reset()
    assert why_not_exact(env) == "SilentVecEnv does not show the wrappers around its environments"
    state = through_json(env_state(env))
    assert state["why_not_exact"] == why_not_exact(env)
    assert set_env_state(env, state).shape == (1, 3)


class UnplainEnv(StatefulEnv):
    def get_state(self):
        return {**super().get_state(), "seen": {1, 2}}


def test_a_state_that_is_not_plain_data_is_named_and_new_episodes_begin():
    env = in_a_box(UnplainEnv())
    env.reset()
    assert why_not_exact(env) is None, "only a call of get_state() shows the problem"
    state = through_json(env_state(env))
    assert state["why_not_exact"].startswith("the state of UnplainEnv.seen is of type set")
    assert set_env_state(env, state) is not None


def normalised(env_class, n_envs=1, limit=6, where="here", **kwargs):
    fns = [lambda: Monitor(TimeLimit(env_class(), limit), **kwargs)] * n_envs
    return VecNormalize(VEC_ENVS[where](fns))


@pytest.mark.parametrize("where", VEC_ENVS)
@pytest.mark.parametrize("allow_early_resets", [True, False])
def test_if_new_episodes_begin_statistics_counters_and_generators_are_still_restored(where, allow_early_resets):
    env, other = (normalised(ForgetfulEnv, 2, where=where, allow_early_resets=allow_early_resets) for _ in range(2))
    env.seed(1)
    env.reset()
    list(steps(env, 16))
    state = through_json(env_state(env))
    assert state["why_not_exact"] == "ForgetfulEnv has no get_state()/set_state()"
    other.seed(2)
    other.reset()
    first = set_env_state(other, state)
    assert other.returns.tolist() == [0.0, 0.0]
    # The statistics continue, and include the first observations of the new episodes.
    assert other.obs_rms.count == env.obs_rms.count + 2
    np.testing.assert_array_equal(first, other.normalize_obs(other.old_obs))
    assert other.ret_rms.count == env.ret_rms.count
    assert other.get_attr("total_steps") == [16, 16]
    assert other.get_attr("episode_lengths") == env.get_attr("episode_lengths") == [[6, 6], [6, 6]]
    assert other.get_attr("_elapsed_steps") == [0, 0]
    assert other.get_attr("rewards") == [[], []]
    # The random stream continues as well, so that the first episodes of the run are not repeated.
    env.env_method("set_wrapper_attr", "needs_reset", True)
    np.testing.assert_array_equal(env.venv.reset(), other.old_obs)
    for each in (env, other):
        each.close()


def test_a_model_begins_new_episodes_with_fresh_noise(tmp_path):
    def make(seed):
        env = normalised(ForgetfulEnv)
        env.seed(seed)
        noise = OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))
        return TD3("MlpPolicy", env, seed=seed, action_noise=noise, learning_starts=5, buffer_size=100, batch_size=4)

    model = make(1)
    snapshot = Snapshot(20, tmp_path / "model.zip")
    model.learn(24, snapshot)
    other = make(2)
    go_on = GoOn(snapshot)
    other.learn(20, go_on)  # no step is left
    assert go_on.first_observation is other._last_obs
    assert other.num_timesteps == 20
    assert other.action_noise.noise_prev.tolist() == [0, 0]
    np.testing.assert_array_equal(other._last_original_obs, other.get_env().old_obs)
    assert other._last_episode_starts.tolist() == [True]


class Sampling(StatefulEnv):
    """Each instance has its own action space."""

    def __init__(self):
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)


def test_vecnormalize_and_the_generators_of_spaces_are_restored():
    env, other = (normalised(Sampling, 2) for _ in range(2))
    for number, each in enumerate([env, other]):
        for index, space in enumerate(each.get_attr("action_space")):
            space.seed(10 * number + index)
        each.seed(number)
        each.reset()
    list(steps(env, 4))
    assert set_env_state(other, through_json(env_state(env))) is None
    np.testing.assert_array_equal(other.get_original_obs(), env.get_original_obs())
    np.testing.assert_array_equal(other.get_original_reward(), env.get_original_reward())
    for mine, theirs in zip(env.get_attr("action_space"), other.get_attr("action_space"), strict=True):
        assert mine.sample().tolist() == theirs.sample().tolist()


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
def test_elapsed_time_continues(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    env, other = (VecMonitor(normalised(StatefulEnv)) for _ in range(2))
    env.reset()
    other.reset()
    env.t_start -= 100
    env.env_method("set_wrapper_attr", "t_start", time.time() - 50)
    set_env_state(other, through_json(env_state(env)))
    assert time.time() - other.t_start == 100
    assert time.time() - other.get_attr("t_start")[0] == 50


class Counting(VecEnvWrapper):
    """Imitates a user's VecEnv wrapper that counts steps."""

    n_steps = 0

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        self.n_steps += 1
        return self.venv.step_wait()


class Handing(Counting):
    def get_state(self):
        return {"n_steps": self.n_steps}

    def set_state(self, state):
        self.n_steps = state["n_steps"]


def test_wrappers_of_the_user_hand_over_their_state_or_are_named():
    env, other = (Handing(VecFrameStack(Handing(in_a_box(StatefulEnv())), 2)) for _ in range(2))
    env.reset()
    other.reset()
    list(steps(env, 3))
    assert layers_not_restored(env) == []
    set_env_state(other, through_json(env_state(env)))
    assert (other.n_steps, other.venv.venv.n_steps) == (3, 3)
    nameless = Counting(Handing(in_a_box(StatefulEnv())))
    assert layers_not_restored(nameless) == [], "the wrapper has no attribute of its own yet"
    nameless.reset()
    list(steps(nameless, 1))
    assert layers_not_restored(nameless) == ["Counting"]


def settings(limit=6, n_envs=1, env_class=StatefulEnv, gamma=0.99, stack=None):
    env = DummyVecEnv([lambda: Monitor(TimeLimit(env_class(), limit))] * n_envs)
    env = VecNormalize(env, gamma=gamma, norm_obs=False)
    return VecFrameStack(env, stack) if stack else env


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"env_class": StatefulImageEnv},
            r"observation_space: the snapshot has Box\(3,\) float32 from -1.0 to 1.0, the environment here "
            r"Box\(36, 36, 1\) uint8 from 0 to 255; .*: create the environment with the settings of the snapshot",
        ),
        ({"n_envs": 2}, "number of environments: the snapshot has 1, the environment here 2"),
        ({"limit": 7}, "max_episode_steps: the snapshot has 6, the environment here 7"),
        ({"gamma": 0.9}, "layers: .*gamma=0.99.*gamma=0.9"),
        (
            {"stack": 2},
            r"layers: the snapshot has VecNormalize\(.*\), the environment here VecFrameStack\(n_stack=2\) of",
        ),
        (
            {"env_class": ForgetfulEnv},
            "wrappers: the snapshot has Monitor of .*TimeLimit of StatefulEnv, the env",
        ),
    ],
    ids=str,
)
def test_an_environment_with_other_settings_is_refused_before_anything_changes(change, text):
    env, other = settings(), settings(**change)
    env.reset()
    other.reset()
    list(steps(env, 3))
    before = through_json(env_state(other))["layers"][0]
    with pytest.raises(ValueError, match=text):
        set_env_state(other, through_json(env_state(env)))
    after = through_json(env_state(other))["layers"][0]
    assert repr(before.get("ret_rms")) == repr(after.get("ret_rms"))
    assert other.get_attr("total_steps") == [0] * other.num_envs


class Fussy(StatefulEnv):
    def set_state(self, state):
        raise ValueError("not mine")


def test_a_worker_process_that_dies_while_restoring_its_state_raises_an_error(capfd):
    env = VEC_ENVS["elsewhere"]([Fussy])
    env.reset()
    with pytest.raises(ValueError, match="worker process died while its environment restored its state"):
        set_env_state(env, through_json(env_state(env)))
    assert "not mine" in capfd.readouterr().err


@pytest.mark.parametrize("change", [(1, 2), (3, 2)])
def test_an_error_for_another_number_of_environments_names_no_other_difference(change):
    env, other = (settings(n_envs=n) for n in change)
    env.reset()
    other.reset()
    with pytest.raises(ValueError, match="number of environments") as caught:
        set_env_state(other, through_json(env_state(env)))
    assert "wrappers" not in str(caught.value)
    assert "max_episode_steps" not in str(caught.value)


def test_the_error_names_the_number_of_environments_and_max_episode_steps_if_both_differ():
    env, other = settings(), settings(n_envs=2, limit=7)
    env.reset()
    other.reset()
    with pytest.raises(ValueError, match=r"number of environments.*max_episode_steps: the snapshot has 6, the env.* 7"):
        set_env_state(other, through_json(env_state(env)))
