"""Tests that a run resumed from a snapshot equals an uninterrupted run, bit for bit."""

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from sb3_contrib import QRDQN, TQC, CrossQ
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.envs.idle_limit import IdleLimit
from tests.training_state.small_envs import (
    ColourImageEnv,
    DictEnv,
    DiscreteEnv,
    Momentum,
    StatefulEnv,
    StatefulImageEnv,
)
from tests.training_state.snapshots import Trace, assert_goes_on

SMALL = {"buffer_size": 200, "learning_starts": 12, "batch_size": 4, "device": "cpu"}
NET = {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 8}}


class NegativeRewards(StatefulImageEnv):
    """Replaces the rewards of StatefulImageEnv with negative rewards."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, -1.0 - abs(reward), terminated, truncated, info


def wrapped(env_class, limit=6):
    return Monitor(TimeLimit(env_class(), limit))


def test_visual_td3_on_lite_driving_with_vecnormalize_resumes_exactly(tmp_path):
    def make(seed):
        env = make_vec_env("LiteDriving-v0", seed=seed, env_kwargs={"n_cars": 2, "weather": "random"})
        return VisualTD3(
            "CnnPolicy", VecNormalize(env, norm_obs=False), seed=seed, policy_kwargs={"trunk_dim": 8}, **SMALL
        )

    assert_goes_on(make, tmp_path, at=22, until=40)


def test_visual_td3_with_correlated_noise_in_two_environments_resumes_exactly(tmp_path):
    def make(seed):
        env = DummyVecEnv([lambda: wrapped(StatefulImageEnv)] * 2)
        env.seed(seed)
        return VisualTD3("CnnPolicy", env, seed=seed, noise_correlation=0.9, policy_kwargs=NET, **SMALL)

    # The snapshot lies in the middle of an episode.
    assert_goes_on(make, tmp_path, at=32)


def test_td3_with_two_environments_in_subproc_vec_env_resumes_exactly(tmp_path):
    def make(seed):
        env = make_vec_env(
            "LiteDriving-v0", n_envs=2, seed=seed, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"}
        )
        noise = OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.3 * np.ones(2))
        return TD3("CnnPolicy", env, seed=seed, action_noise=noise, policy_kwargs=NET, **SMALL)

    assert_goes_on(make, tmp_path, at=22, until=36)


@pytest.mark.parametrize("env_class", [StatefulImageEnv, ColourImageEnv, DictEnv])
@pytest.mark.parametrize("inner", ["normalize", "stack"])
@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor`")
def test_frame_stacking_and_normalization_in_either_order_resume_exactly(env_class, inner, tmp_path):
    is_dict = env_class is DictEnv

    def make(seed):
        env = VecTransposeImage(VecCheckNan(DummyVecEnv([lambda: wrapped(env_class)] * 2)))
        env.seed(seed)
        settings = {"policy_kwargs": {"net_arch": [8]} if is_dict else NET, **SMALL}
        policy = "MultiInputPolicy" if is_dict else "CnnPolicy"
        if inner == "normalize":  # Stable-Baselines3's own algorithms store what is not stacked
            env = VecFrameStack(VecMonitor(VecNormalize(env, norm_obs=False)), 3)
            return VisualTD3(policy, env, seed=seed, preset="td3", **settings)
        normalised = {"norm_obs_keys": ["state"]} if is_dict else {"norm_obs": False}
        env = VecNormalize(VecMonitor(VecFrameStack(env, 3)), **normalised)
        return TD3(policy, env, seed=seed, **settings)

    assert_goes_on(make, tmp_path)


@pytest.mark.parametrize("settings", [{}, {"use_sde": True, "sde_sample_freq": 3}, {"ent_coef": 0.2}], ids=str)
def test_sac_with_normalized_vector_observations_resumes_exactly(settings, tmp_path):
    def make(seed):
        env = VecNormalize(DummyVecEnv([lambda: wrapped(StatefulEnv)] * 2))
        env.seed(seed)
        return SAC("MlpPolicy", env, seed=seed, train_freq=2, policy_kwargs={"net_arch": [8]}, **settings, **SMALL)

    assert_goes_on(make, tmp_path)


@pytest.mark.parametrize("algorithm", [DQN, QRDQN, TQC, CrossQ])
def test_dqn_qrdqn_tqc_and_crossq_resume_exactly(algorithm, tmp_path):
    is_discrete = algorithm in {DQN, QRDQN}

    def make(seed):
        env = DummyVecEnv([lambda: wrapped(DiscreteEnv if is_discrete else StatefulEnv)])
        env.seed(seed)
        more = {"target_update_interval": 7, "exploration_fraction": 0.9} if is_discrete else {}
        return algorithm("MlpPolicy", env, seed=seed, policy_kwargs={"net_arch": [8]}, **more, **SMALL)

    assert_goes_on(make, tmp_path)


def test_a_run_with_an_idle_limit_resumes_exactly(tmp_path):
    def make(seed):
        env = DummyVecEnv([lambda: IdleLimit(wrapped(NegativeRewards, limit=100), max_idle_steps=7)])
        env.seed(seed)
        return VisualTD3("CnnPolicy", env, seed=seed, policy_kwargs=NET, **SMALL)

    # The snapshot lies between two ends, at 28 and 35 steps.
    assert_goes_on(make, tmp_path, at=32)


def test_another_idle_limit_is_refused(tmp_path):
    limits = iter([7, 3])

    def make(seed):
        limit = next(limits)
        env = DummyVecEnv([lambda: IdleLimit(wrapped(NegativeRewards, limit=100), max_idle_steps=limit)])
        env.seed(seed)
        return VisualTD3("CnnPolicy", env, seed=seed, policy_kwargs=NET, **SMALL)

    with pytest.raises(ValueError, match="max_idle_steps: the snapshot has 7, the environment here 3"):
        assert_goes_on(make, tmp_path, at=32)


def test_a_run_with_a_stateful_user_wrapper_resumes_exactly(tmp_path):
    def make(seed):
        env = DummyVecEnv([lambda: Momentum(wrapped(StatefulEnv))])
        env.seed(seed)
        noise = NormalActionNoise(np.zeros(2), 0.1 * np.ones(2))
        return TD3("MlpPolicy", env, seed=seed, action_noise=noise, policy_kwargs={"net_arch": [8]}, **SMALL)

    assert_goes_on(make, tmp_path, at=31)


def test_sac_with_transposed_images_resumes_exactly(tmp_path):
    def make(seed):
        env = DummyVecEnv([lambda: wrapped(ColourImageEnv)])
        env.seed(seed)
        model = SAC("CnnPolicy", env, seed=seed, policy_kwargs=NET, **SMALL)
        assert isinstance(model.get_env(), VecTransposeImage)
        return model

    assert_goes_on(make, tmp_path)


def test_taking_a_snapshot_changes_nothing(tmp_path):
    def make(seed):
        env = VecNormalize(DummyVecEnv([lambda: wrapped(StatefulEnv)]))
        env.seed(seed)
        return SAC("MlpPolicy", env, seed=seed, policy_kwargs={"net_arch": [8]}, **SMALL)

    _, with_snapshot = assert_goes_on(make, tmp_path)
    trace = Trace()
    make(seed=3).learn(60, trace, log_interval=1)
    assert trace.steps == with_snapshot.steps
