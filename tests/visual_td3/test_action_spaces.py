"""VisualTD3 trains on every action space that stock TD3 supports, and refuses bounds that cannot be scaled."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise
from tests.image_env import ImageEnv

SETTINGS = {"buffer_size": 60, "learning_starts": 8, "batch_size": 8, "device": "cpu", "seed": 0}
F16, F32, F64 = np.float16, np.float32, np.float64
LARGEST = {dtype: np.finfo(dtype).max for dtype in (F16, F32, F64)}


class ActionEnv(ImageEnv):
    """Keeps the actions that it was sent."""

    def __init__(self, action_space):
        super().__init__()
        self.action_space, self.actions = action_space, []

    def step(self, action):
        self.actions.append(np.array(action))
        return super().step(np.zeros(2))


class VectorEnv(gym.Env):
    observation_space = spaces.Box(-1, 1, (3,), F32)

    def __init__(self, action_space):
        self.action_space, self.actions = action_space, []

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, F32), {}

    def step(self, action):
        self.actions.append(np.array(action))
        return np.ones(3, F32), 0.0, len(self.actions) % 5 == 0, False, {}


TRAINABLE = {
    "two axes": spaces.Box(-1, 1, (2, 3), F32),
    "three axes": spaces.Box(-2, 1, (2, 1, 3), F32),
    "no axis": spaces.Box(-1, 1, (), F32),
    "float16": spaces.Box(-1, 1, (2,), F16),
    "float16, two axes": spaces.Box(-1, 3, (2, 2), F16),
    "float64": spaces.Box(-1, 1, (2,), F64),
    "wide": spaces.Box(-1e38, 1e38, (2,), F32),
    "beyond float32": spaces.Box(-1e300, 1e300, (2,), F64),
    "narrow": spaces.Box(0, 1e-30, (2,), F32),
    "each its own": spaces.Box(np.array([-1, 0], F32), np.array([1, 9], F32)),
}


@pytest.mark.parametrize("space", TRAINABLE.values(), ids=TRAINABLE)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_action_space_that_can_be_scaled_trains(space, precision):
    env = ActionEnv(space)
    model = VisualTD3("CnnPolicy", env, precision=precision, policy_kwargs={"net_arch": [16]}, **SETTINGS)
    model.learn(14)
    assert model._n_updates == 6
    assert {action.shape for action in env.actions} == {space.shape}
    assert all(np.isfinite(action).all() for action in env.actions)
    assert all(bool(th.isfinite(weight).all()) for weight in model.policy.parameters())
    # Bounds are met but for the rounding of a float16.
    slack = 1e-3 * (space.high - space.low)
    assert all((space.low - slack <= action).all() and (action <= space.high + slack).all() for action in env.actions)


@pytest.mark.parametrize("name", ["two axes", "no axis", "float16", "float64", "each its own"])
def test_under_the_td3_preset_actions_equal_those_of_stock_td3(name):
    sent = []
    for cls, kwargs in ((TD3, {}), (VisualTD3, {"preset": "td3"})):
        env = VectorEnv(TRAINABLE[name])
        cls("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, **kwargs, **SETTINGS).learn(20)
        sent.append(np.array(env.actions))
    np.testing.assert_array_equal(*sent)


class GreyActionEnv(ActionEnv):
    """Always show the same image, so that actions differ by the exploration noise alone."""

    def _image(self):
        return np.full(self.observation_space.shape, 128, np.uint8)


@pytest.mark.parametrize("correlation", [0.0, 0.85])
def test_each_environment_has_its_own_exploration_noise_with_two_axes(correlation):
    envs = [GreyActionEnv(TRAINABLE["two axes"]) for _ in range(2)]
    vec_env = DummyVecEnv([lambda: envs[0], lambda: envs[1]])
    settings = {**SETTINGS, "noise_correlation": correlation, "policy_kwargs": {"net_arch": [16]}}
    VisualTD3("CnnPolicy", vec_env, **settings).learn(24)
    # The policy acts from step 8 on, that is from the fifth action of each environment on.
    first, second = (np.array(env.actions[4:]) for env in envs)
    assert first.shape == second.shape == (8, 2, 3)
    assert not np.isclose(first, second).all(axis=(1, 2)).any()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        *[(spaces.Box(-high, high, (2,), dtype), "not finite in") for dtype, high in LARGEST.items()],
        (
            spaces.Box(np.array([-1, -LARGEST[F32]], F32), np.array([1, LARGEST[F32]], F32)),
            r"action\[1\] has the bounds",
        ),
        (spaces.Box(np.array([-1, 0.5], F32), np.array([1, 0.5], F32)), r"action\[1\] .* low=0.5 and high=0.5"),
        (spaces.Box(np.zeros((2, 2), F32), np.array([[1, 1], [0, 1]], F32)), r"action\[1, 0\] .* low=0.0 and high=0.0"),
        (spaces.Box(-1, 1, (2,), np.int32), r"int32\): expected a floating-point"),
        (spaces.Box(0, 255, (2,), np.uint8), r"uint8\): expected a floating-point"),
        (spaces.Box(-1, 1, (2,), np.int64), r"int64\): expected a floating-point"),
        (spaces.Box(-np.inf, 1, (2,), F32), "finite lower and upper bound"),
    ],
)
@pytest.mark.parametrize("preset", [None, "td3"])
def test_bounds_that_cannot_be_scaled_are_refused_by_name(space, words, preset):
    with pytest.raises(ValueError, match=words):
        VisualTD3("CnnPolicy", ActionEnv(space), preset=preset, **SETTINGS)


def test_noise_that_an_earlier_version_saved_is_used():
    noise = ScheduledActionNoise.__new__(ScheduledActionNoise)
    noise.__dict__.update({"action_dim": 2, "sigma": 0.5})
    np.random.seed(0)
    drawn = noise()
    np.random.seed(0)
    np.testing.assert_array_equal(drawn, ScheduledActionNoise((2,), 0.5)())
