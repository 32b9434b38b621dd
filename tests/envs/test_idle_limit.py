"""Tests of the wrapper that ends training episodes in which the agent gets no reward."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from sb3_visual_td3 import PolicyEvalCallback
from sb3_visual_td3.callbacks.evaluation import lift_idle_limits
from sb3_visual_td3.envs.idle_limit import IdleLimit


class RewardsEnv(gym.Env):
    """Give one reward of a list in each step; the episode terminates with the last reward."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, rewards):
        self.rewards = rewards
        self.n_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.n_steps += 1
        is_last = self.n_steps == len(self.rewards)
        return np.zeros(1, np.float32), self.rewards[self.n_steps - 1], is_last, False, {"speed": float(self.n_steps)}


def drive(env):
    """Play an episode and return the number of its steps and the result of its last step."""
    env.reset(seed=0)
    for n_steps in range(1, 100):
        step = env.step(np.zeros(1, np.float32))
        if step[2] or step[3]:
            return n_steps, step
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize(
    ("rewards", "n_steps"),
    [
        ([-0.1] * 20, 5),
        ([0.0] * 20, 5),
        ([-0.1, -0.1, -0.1, -0.1, 3.0] + [-0.1] * 20, 10),  # a reward in the last permitted step
        ([3.0] * 12 + [-0.1] * 20, 17),
    ],
)
def test_an_episode_is_truncated_after_steps_without_a_positive_reward(rewards, n_steps):
    env = IdleLimit(RewardsEnv(rewards), max_idle_steps=5)
    for _ in range(2):  # the second episode counts from 0
        made, (_, _, terminated, truncated, _) = drive(env)
        assert (made, terminated, truncated) == (n_steps, False, True)


def test_an_episode_that_terminates_at_the_limit_is_not_truncated():
    made, (_, _, terminated, truncated, _) = drive(IdleLimit(RewardsEnv([-1.0] * 5), max_idle_steps=5))
    assert (made, terminated, truncated) == (5, True, False)


def test_the_monitor_inside_records_the_truncated_episode(tmp_path):
    monitor = Monitor(
        RewardsEnv([2.0, -0.5] + [-0.1] * 20), str(tmp_path), allow_early_resets=False, info_keywords=("speed",)
    )
    env = IdleLimit(monitor, max_idle_steps=4)
    for _ in range(2):  # the Monitor permits the reset, because it knows that the episode is over
        _, (*_, info) = drive(env)
        assert (info["episode"]["r"], info["episode"]["l"]) == (pytest.approx(1.2), 5)
    env.close()
    assert monitor.get_episode_rewards() == pytest.approx([1.2, 1.2])
    assert monitor.get_episode_lengths() == [5, 5]
    assert len(monitor.get_episode_times()) == 2
    results = load_results(str(tmp_path))
    assert results["r"].tolist() == pytest.approx([1.2, 1.2])
    assert results["speed"].tolist() == [5.0, 5.0]


def test_an_episode_that_the_monitor_has_recorded_is_not_recorded_again():
    monitor = Monitor(RewardsEnv([-0.1] * 4))
    drive(IdleLimit(monitor, max_idle_steps=4))
    assert monitor.get_episode_lengths() == [4]


def test_a_truncated_episode_bootstraps_and_is_logged_in_a_vecenv():
    env = DummyVecEnv([lambda: IdleLimit(Monitor(RewardsEnv([-0.1] * 20)), max_idle_steps=3)])
    env.reset()
    for _ in range(3):
        _, _, dones, infos = env.step(np.zeros((1, 1), np.float32))
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"]
    assert infos[0]["episode"]["l"] == 3


@pytest.mark.parametrize("vec_env", [DummyVecEnv, SubprocVecEnv])
def test_an_evaluation_lifts_the_limit(vec_env):
    def make():
        return gym.wrappers.TimeLimit(IdleLimit(Monitor(RewardsEnv([-0.1] * 20)), max_idle_steps=3), 50)

    env = VecNormalize(VecMonitor(vec_env([make] * 2)), norm_obs=False)
    lift_idle_limits(env)
    env.reset()
    for _ in range(20):
        _, _, dones, infos = env.step(np.zeros((2, 1), np.float32))
    env.close()
    assert dones.all()
    assert infos[0]["episode"]["l"] == 20


def test_all_limits_around_an_environment_are_lifted():
    env = DummyVecEnv([lambda: IdleLimit(Monitor(IdleLimit(RewardsEnv([-0.1] * 20), 3)), 4)])
    lift_idle_limits(env)
    assert drive(env.envs[0])[0] == 20


class OwnLimitEnv(RewardsEnv):
    """Imitate an environment of another package that has its own attribute ``max_idle_steps``."""

    max_idle_steps = 5


def test_an_attribute_of_another_environment_is_left_alone():
    env = DummyVecEnv([lambda: Monitor(OwnLimitEnv([-0.1] * 20))])
    lift_idle_limits(env)
    assert env.get_attr("max_idle_steps") == [5]


def test_an_evaluation_callback_plays_whole_episodes_in_an_environment_that_is_wrapped_as_in_training():
    def make():
        return IdleLimit(Monitor(RewardsEnv([-0.1] * 20)), max_idle_steps=3)

    callback = PolicyEvalCallback(DummyVecEnv([make]), eval_freq=40, n_eval_episodes=1, verbose=0)
    training_env = DummyVecEnv([make])
    model = SAC("MlpPolicy", training_env, learning_starts=1000, policy_kwargs={"net_arch": [4]}, device="cpu")
    model.learn(40, callback)
    assert callback.last_mean_reward == pytest.approx(-2.0)
    assert training_env.get_attr("max_idle_steps") == [3]


def test_two_monitors_inside_record_the_truncated_episode():
    inner = Monitor(RewardsEnv([-0.1] * 20), allow_early_resets=False)
    env = IdleLimit(Monitor(inner), max_idle_steps=3)
    for _ in range(2):
        drive(env)
    assert inner.get_episode_lengths() == [3, 3]


@pytest.mark.parametrize("value", [0, -1, 2.5, "many", True])
def test_a_limit_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"max_idle_steps=.*expected an integer >= 1 .steps., or None"):
        IdleLimit(RewardsEnv([1.0]), max_idle_steps=value)
