"""Test NStepDictReplayBuffer against a simple implementation and against Stable-Baselines3's buffers."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer

SPACE = spaces.Dict({"camera": spaces.Box(0, 255, (1, 2, 2), np.uint8), "state": spaces.Box(-9, 9, (3,), np.float32)})
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)
GAMMA = 0.9


class NaiveBuffer:
    """Each environment's transitions in a list, oldest first; every return is summed step by step."""

    def __init__(self, buffer_size, n_envs, n_steps):
        self.capacity = max(buffer_size // n_envs, 1)
        self.n_steps = n_steps
        self.transitions = [[] for _ in range(n_envs)]

    def add(self, env, transition):
        self.transitions[env] = [*self.transitions[env], transition][-self.capacity :]

    def sample(self, env, age):
        """Return the n-step sample that starts at index ``age``, counted from the oldest transition."""
        first = self.transitions[env][age]
        reward, discount = 0.0, 1.0
        for step in self.transitions[env][age : age + self.n_steps]:
            reward += discount * step["reward"]
            discount *= GAMMA
            last = step
            if step["terminated"] or step["truncated"]:
                break
        return first, last, reward, discount


def transition_of(number, terminated, truncated, reward):
    """Every value that is stored tells which transition it belongs to."""
    return {
        "obs": {"camera": np.full((1, 2, 2), number % 256, np.uint8), "state": np.full(3, number, np.float32)},
        "next_obs": {
            "camera": np.full((1, 2, 2), (number + 100) % 256, np.uint8),
            "state": np.full(3, number + 0.5, np.float32),
        },
        "action": np.array([number, -number], np.float32),
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated and not terminated,
    }


def add_to(buffer, step, keys=("camera", "state")):
    """Add one transition of each environment; with a single key, the observations are an array and not a dict."""

    def stacked(name):
        parts = {key: np.stack([each[name][key] for each in step]) for key in keys}
        return parts if len(keys) > 1 else parts[keys[0]]

    buffer.add(
        stacked("obs"),
        stacked("next_obs"),
        np.stack([each["action"] for each in step]),
        np.array([each["reward"] for each in step]),
        np.array([each["terminated"] or each["truncated"] for each in step]),
        [{"TimeLimit.truncated": each["truncated"]} for each in step],
    )


def samples_at(buffer, row, env, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(np.random, "randint", lambda *_, size=None, **__: np.full(size, env))
        return buffer._get_samples(np.array([row]))


OUTCOME = st.tuples(st.sampled_from(["goes on"] * 3 + ["terminated", "truncated"]), st.integers(-5, 5))


@settings(max_examples=150)
@given(data=st.data(), n_envs=st.integers(1, 3), n_steps=st.integers(1, 5), buffer_size=st.integers(3, 14))
def test_every_sample_equals_that_of_the_naive_reference_buffer(data, n_envs, n_steps, buffer_size):
    buffer = NStepDictReplayBuffer(buffer_size, SPACE, ACTIONS, "cpu", n_envs, n_steps=n_steps, gamma=GAMMA)
    naive = NaiveBuffer(buffer_size, n_envs, n_steps)
    outcomes = data.draw(st.lists(st.tuples(*[OUTCOME] * n_envs), min_size=1, max_size=30))
    for time, row in enumerate(outcomes):
        step = [
            transition_of(time * n_envs + env, end == "terminated", end == "truncated", reward)
            for env, (end, reward) in enumerate(row)
        ]
        add_to(buffer, step)
        for env in range(n_envs):
            naive.add(env, step[env])
    with pytest.MonkeyPatch.context() as patch:
        for env in range(n_envs):
            for age in range(buffer.size()):
                oldest = buffer.pos if buffer.full else 0
                found = samples_at(buffer, (oldest + age) % buffer.buffer_size, env, patch)
                first, last, reward, discount = naive.sample(env, age)
                for key in SPACE:
                    np.testing.assert_array_equal(found.observations[key][0], first["obs"][key])
                    np.testing.assert_array_equal(found.next_observations[key][0], last["next_obs"][key])
                    assert found.observations[key].numpy().dtype == SPACE[key].dtype
                np.testing.assert_array_equal(found.actions[0], first["action"])
                assert found.rewards.item() == pytest.approx(reward, abs=1e-5)
                assert found.dones.item() == float(last["terminated"])
                assert found.discounts.item() == pytest.approx(discount, rel=1e-6)
                assert found.rewards.shape == found.dones.shape == found.discounts.shape == (1, 1)


def random_steps(n, n_envs, seed=0):
    generator = np.random.default_rng(seed)
    return [
        [
            transition_of(n_envs * i + env, generator.random() < 0.1, generator.random() < 0.1, generator.normal())
            for env in range(n_envs)
        ]
        for i in range(n)
    ]


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("n_added", [7, 20, 33])
def test_batches_equal_those_of_sb3s_n_step_replay_buffer_for_each_dict_key(n_envs, n_added):
    ours = NStepDictReplayBuffer(20 * n_envs, SPACE, ACTIONS, "cpu", n_envs, n_steps=3, gamma=GAMMA)
    boxes = {
        key: NStepReplayBuffer(20 * n_envs, SPACE[key], ACTIONS, "cpu", n_envs, n_steps=3, gamma=GAMMA) for key in SPACE
    }
    for step in random_steps(n_added, n_envs):
        add_to(ours, step)
        for key, box in boxes.items():
            add_to(box, step, keys=(key,))
    for key, box in boxes.items():
        np.random.seed(1)
        found = ours.sample(64)
        np.random.seed(1)
        expected = box.sample(64)
        assert th.equal(found.observations[key], expected.observations)
        assert th.equal(found.next_observations[key], expected.next_observations)
        for name in ("actions", "dones", "rewards", "discounts"):
            assert th.equal(getattr(found, name), getattr(expected, name)), name


def test_one_step_samples_equal_those_of_sb3s_dict_replay_buffer():
    ours = NStepDictReplayBuffer(20, SPACE, ACTIONS, "cpu", n_steps=1, gamma=GAMMA)
    stock = DictReplayBuffer(20, SPACE, ACTIONS, "cpu")
    for step in random_steps(27, 1):
        add_to(ours, step)
        add_to(stock, step)
    np.random.seed(1)
    found = ours.sample(64)
    np.random.seed(1)
    expected = stock.sample(64)
    for key in SPACE:
        assert th.equal(found.observations[key], expected.observations[key])
        assert th.equal(found.next_observations[key], expected.next_observations[key])
    assert th.equal(found.dones, expected.dones)
    assert th.equal(found.rewards, expected.rewards)
    assert (found.discounts == GAMMA).all()


class VectorsEnv(gym.Env):
    observation_space = SPACE
    action_space = ACTIONS

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return SPACE.sample(), {}

    def step(self, action):
        return SPACE.sample(), float(self.np_random.normal(3.0, 2.0)), False, False, {}


def test_observations_and_each_reward_are_normalised_when_they_are_sampled(monkeypatch):
    """VecNormalize normalises each reward before the n-step sum, and only the observations in ``norm_obs_keys``."""
    env = VecNormalize(DummyVecEnv([VectorsEnv]), norm_obs_keys=["state"], clip_reward=1e6)
    env.reset()
    for _ in range(20):
        env.step(np.zeros((1, 2), np.float32))
    buffer = NStepDictReplayBuffer(20, SPACE, ACTIONS, "cpu", n_steps=3, gamma=GAMMA)
    steps = [transition_of(i, False, False, float(i + 1)) for i in range(5)]
    for step in steps:
        add_to(buffer, [step])
    monkeypatch.setattr(np.random, "randint", lambda *_, size=None, **__: np.zeros(size, int))
    found = buffer._get_samples(np.array([1]), env)
    scale = np.sqrt(env.ret_rms.var + env.epsilon)
    assert scale > 1.5
    assert found.rewards.item() == pytest.approx((2 + GAMMA * 3 + GAMMA**2 * 4) / scale, rel=1e-5)
    rms = env.obs_rms["state"]
    for part, then in ((found.observations, 1.0), (found.next_observations, 3.5)):
        expected = np.clip((then - rms.mean) / np.sqrt(rms.var + env.epsilon), -env.clip_obs, env.clip_obs)
        np.testing.assert_allclose(part["state"][0], expected, rtol=1e-4)
    np.testing.assert_array_equal(found.observations["camera"][0], steps[1]["obs"]["camera"])


def test_sampling_changes_nothing_and_returns_copies():
    """Stable-Baselines3 marks the newest transition as truncated while it samples, and restores it afterwards."""
    buffer = NStepDictReplayBuffer(10, SPACE, ACTIONS, "cpu", n_steps=3, gamma=GAMMA)
    for step in random_steps(13, 1):
        add_to(buffer, step)
    before = pickle.dumps(buffer)
    samples = buffer.sample(16)
    for part in (*samples.observations.values(), *samples.next_observations.values()):
        part.zero_()
    assert pickle.dumps(buffer) == before


def test_an_unpickled_buffer_gives_the_same_samples_and_accepts_transitions():
    buffer = NStepDictReplayBuffer(10, SPACE, ACTIONS, "cpu", n_steps=3, gamma=GAMMA)
    steps = random_steps(20, 1)
    for step in steps[:8]:
        add_to(buffer, step)
    copy = pickle.loads(pickle.dumps(buffer))
    for step in steps[8:]:
        add_to(buffer, step)
        add_to(copy, step)
    np.random.seed(0)
    one = buffer.sample(32)
    np.random.seed(0)
    other = copy.sample(32)
    assert th.equal(one.rewards, other.rewards)
    assert th.equal(one.next_observations["state"], other.next_observations["state"])


def test_box_observations_and_optimize_memory_usage_are_refused():
    with pytest.raises(AssertionError, match="Dict"):
        NStepDictReplayBuffer(10, SPACE["state"], ACTIONS, "cpu")
    with pytest.raises(AssertionError, match="optimize_memory_usage"):
        NStepDictReplayBuffer(10, SPACE, ACTIONS, "cpu", optimize_memory_usage=True)
