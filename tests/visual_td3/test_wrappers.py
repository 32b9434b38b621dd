"""Test VecNormalize on rewards together with VecFrameStack, in both orders."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import VisualTD3
from tests.image_env import ImageEnv, VectorImageEnv


class OneFrameEnv(gym.Env):
    """Observe one frame with one channel; every pixel of frame t of episode e has the value 10 e + t + 1.

    The pixels of a stack therefore show which frames it contains.
    """

    observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    n_episodes = 0

    def _frame(self):
        return np.full((1, 36, 36), (10 * self.n_episodes + self.n_steps + 1) % 256, np.uint8)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.n_episodes += 1
        self.n_steps = 0
        return self._frame(), {}

    def step(self, action):
        self.n_steps += 1
        return self._frame(), 100.0 * self.n_steps, False, self.n_steps == 7, {}


def normalize(env):
    return VecNormalize(env, norm_obs=False, norm_reward=True, gamma=0.99)


def stack(env):
    return VecFrameStack(env, 4)


ORDERS = {"VecFrameStack outside (rl-zoo's)": (normalize, stack), "VecNormalize outside": (stack, normalize)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("preset", ["td3", "visual"])
def test_the_buffer_holds_the_stacks_seen_and_the_unscaled_rewards(order, preset):
    env = DummyVecEnv([OneFrameEnv])
    for wrapper in ORDERS[order]:
        env = wrapper(env)
    settings = {"buffer_size": 100, "learning_starts": 20, "batch_size": 4, "device": "cpu", "seed": 0}
    model = VisualTD3("CnnPolicy", env, preset=preset, **settings)
    model.learn(30)
    buffer = model.replay_buffer
    assert buffer.observations.shape[2:] == (4, 36, 36)
    seen, then = buffer.observations[:30, 0, :, 0, 0], buffer.next_observations[:30, 0, :, 0, 0]
    first = int(seen[0, 3])
    expected = [[0, 0, 0, first], [0, 0, first, first + 1], [0, first, first + 1, first + 2]]
    assert seen[:3].tolist() == expected
    # The last transition of an episode ends with the episode's last frame, not with the next episode's first frame.
    assert then[6].tolist() == [first + 4, first + 5, first + 6, first + 7]
    assert buffer.rewards[:7, 0].tolist() == [100.0 * n for n in range(1, 8)]
    # The buffer scales the rewards when it samples them.
    assert np.abs(buffer.sample(8, env=model._vec_normalize_env).rewards.numpy()).max() <= 10.0


def test_stock_td3_fails_with_vecnormalize_inside_vecframestack():
    """If this test fails, Stable-Baselines3 has fixed the error, and VisualTD3's own code for it can be removed."""
    model = TD3("CnnPolicy", stack(normalize(DummyVecEnv([OneFrameEnv]))), buffer_size=100, device="cpu")
    with pytest.raises(ValueError, match="broadcast"):
        model.learn(10)


def test_the_buffer_equals_that_of_stock_td3_if_vecnormalize_scales_only_rewards():
    buffers = []
    for cls, kwargs in ((TD3, {}), (VisualTD3, {"preset": "td3"})):
        env = normalize(DummyVecEnv([ImageEnv]))
        model = cls("CnnPolicy", env, buffer_size=60, learning_starts=20, batch_size=4, device="cpu", seed=2, **kwargs)
        buffers.append(model.learn(50).replay_buffer)
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(buffers[0], name), getattr(buffers[1], name))


def test_pixels_that_vecnormalize_scales_are_refused_with_the_fix():
    env = VecNormalize(DummyVecEnv([ImageEnv]))
    with pytest.raises(ValueError, match="norm_obs: false, norm_reward: true"):
        VisualTD3("CnnPolicy", env, buffer_size=10)


def test_vectors_next_to_pixels_may_be_normalised():
    env = VecNormalize(DummyVecEnv([VectorImageEnv]), norm_obs_keys=["state"])
    model = VisualTD3("MultiInputPolicy", env, buffer_size=60, learning_starts=20, batch_size=4, device="cpu")
    model.learn(30)
    assert model._n_updates == 10


class FourDimensionalEnv(ImageEnv):
    observation_space = spaces.Box(0, 255, (4, 36, 36, 3), np.uint8)


def test_a_stack_with_an_axis_of_its_own_is_refused_with_the_fix():
    with pytest.raises(ValueError, match="VecFrameStack"):
        VisualTD3("CnnPolicy", FourDimensionalEnv(), buffer_size=10)


def test_a_discrete_action_space_raises_a_value_error_that_is_also_an_assertion_error():
    for error in (ValueError, AssertionError):
        with pytest.raises(error, match="Discrete"):
            VisualTD3("MlpPolicy", "CartPole-v1", buffer_size=10)


def scale(env):
    return VecNormalize(env, norm_obs=True, norm_reward=True)


def vectors():
    return DummyVecEnv([lambda: gym.make("Pendulum-v1")])


def test_vectors_that_are_scaled_and_then_stacked_are_refused_with_the_fix():
    """The buffer would store single frames from VecNormalize, but the policy needs stacks of four frames."""
    with pytest.raises(
        ValueError, match=r"of shape \(3,\), but the policy sees \(12,\).*Make VecNormalize the outermost wrapper"
    ):
        VisualTD3("MlpPolicy", stack(scale(vectors())), buffer_size=10, device="cpu")


@pytest.mark.parametrize("wrap", [lambda env: scale(stack(env)), lambda env: stack(normalize(env))])
def test_the_recommended_fix_trains(wrap):
    settings = {"buffer_size": 100, "learning_starts": 20, "batch_size": 4, "device": "cpu"}
    model = VisualTD3("MlpPolicy", wrap(vectors()), **settings).learn(30)
    assert model._n_updates == 10
    assert model.replay_buffer.observations.shape[2:] == (12,)
