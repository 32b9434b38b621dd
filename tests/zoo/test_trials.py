"""Test the hyperparameters that a search draws, and their conversion to arguments of VisualTD3."""

import gymnasium as gym
import optuna
import pytest
import yaml

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.zoo.trials import convert_visual_td3_params, sample_visual_td3_params, with_sampled
from tests.image_env import ImageEnv, VectorImageEnv

OF_AN_ENCODER = {"critic_cnn_lr", "actor_cnn_lr", "random_shift"}


def drawn(n_trials, seed=0, **facts):
    """Yield random draws: the hyperparameters that the sampler returns, and the values that the study stores."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(n_trials):
        trial = study.ask()
        yield sample_visual_td3_params(trial, 2, 1, facts), trial.params


def fixed(params, **facts):
    """Return the hyperparameters that the sampler returns for given values of a study."""
    return sample_visual_td3_params(optuna.trial.FixedTrial(params), 2, 1, facts)


POLICIES = [("CnnPolicy", ImageEnv, 90), ("MultiInputPolicy", VectorImageEnv, 60)]


@pytest.mark.parametrize(("policy", "env", "n_draws"), POLICIES)
def test_every_draw_builds_the_requested_model(policy, env, n_draws):
    env = env()
    encoders = set()
    for sampled, params in drawn(n_draws, seed=n_draws):
        model = VisualTD3(policy, env, buffer_size=10, device="cpu", **fixed(params))
        encoders.add(params["encoder"])
        assert model.encoder_is_shared == (params["encoder"] == "shared")
        assert ("actor_cnn_lr" in sampled) == (not model.encoder_is_shared)
        assert model.learning_rates["critic_cnn"] == params["critic_cnn_lr"]
        assert model.settings.random_shift == params["random_shift"]
        assert model.settings.policy_kwargs["trunk_dim"] == params["trunk_dim"]
        assert model.action_noise.sigma == pytest.approx(params["noise_start"])
        assert model.replay_buffer.n_steps == params["n_steps"]
    assert encoders == {"shared", "separate"}


def test_a_draw_for_vector_observations_names_no_encoder():
    env = gym.make("Pendulum-v1")
    for sampled, _ in drawn(50, has_encoder=False):
        assert not OF_AN_ENCODER & sampled.keys()
        assert sampled["policy_kwargs"].keys() == {"layer_norm", "net_arch"}
        model = VisualTD3("MlpPolicy", env, buffer_size=10, device="cpu", **sampled)
        assert model.encoder_is_shared is None


@pytest.mark.parametrize("has_encoder", [True, False])
def test_the_converter_returns_the_trained_hyperparameters_as_plain_data(has_encoder):
    for sampled, params in drawn(40, has_encoder=has_encoder):
        assert convert_visual_td3_params(params) == sampled
        assert yaml.safe_load(yaml.safe_dump(sampled)) == sampled, "to the last bit"


def test_the_hyperparameters_of_a_draw_are_the_ones_computed_by_hand():
    params = {
        "one_minus_gamma": 0.015625,
        "tau": 0.01,
        "actor_lr": 1e-4,
        "critic_lr": 2e-4,
        "grad_clip": "adaptive",
        "max_grad_ratio": 0.5,
        "noise_start": 0.5,
        "noise_end_fraction": 0.25,
        "actor_objective": "min",
        "pre_tanh_penalty": 1e-3,
        "target_q_clamp": False,
        "critic_loss": "huber",
        "layer_norm": True,
        "n_steps": 3,
        "batch_size_pow": 7,
        "critic_cnn_lr": 3e-4,
        "encoder": "shared",
        "trunk_dim": None,
        "random_shift": 4,
    }
    assert fixed(params) == {
        "gamma": 0.984375,
        "tau": 0.01,
        "actor_lr": 1e-4,
        "critic_lr": 2e-4,
        "critic_cnn_lr": 3e-4,
        "grad_clip": "adaptive",
        "max_grad_norm": 0.5,
        "noise_schedule": "lin_0.5_0.125",
        "actor_objective": "min",
        "pre_tanh_penalty": 1e-3,
        "target_q_clamp": False,
        "critic_loss": "huber",
        "n_steps": 3,
        "batch_size": 128,
        "random_shift": 4,
        "policy_kwargs": {"encoder": "shared", "trunk_dim": None, "layer_norm": True},
    }


def test_no_n_step_returns_are_drawn_for_a_buffer_that_the_file_chooses():
    sampled, params = next(drawn(1, has_n_steps=False))
    assert "n_steps" not in {*sampled, *params}


def test_a_trial_that_ended_while_drawing_is_rejected():
    with pytest.raises(ValueError, match="has no value for noise_start"):
        convert_visual_td3_params({"tau": 0.01, "one_minus_gamma": 0.1})


def test_drawn_values_replace_those_of_the_file():
    of_file = {
        "policy": "CnnPolicy",
        "actor_cnn_lr": 1e-5,
        "noise_type": "normal",
        "noise_std": 0.1,
        "batch_size": 7,
        "learning_starts": 9,
        "policy_kwargs": {"encoder": "separate", "share_features_extractor": True, "net_arch": [8]},
    }
    sampled = {"batch_size": 64, "noise_schedule": "lin_0.5_0.1", "policy_kwargs": {"encoder": "shared"}}
    before = {**of_file, "policy_kwargs": dict(of_file["policy_kwargs"])}
    assert with_sampled(of_file, sampled) == {
        "policy": "CnnPolicy",
        "batch_size": 64,
        "learning_starts": 9,
        "noise_schedule": "lin_0.5_0.1",
        "policy_kwargs": {"encoder": "shared", "net_arch": [8]},
    }
    assert of_file == before


def test_networks_that_read_different_observations_keep_their_encoders():
    of_file = {"policy_kwargs": {"encoder": "separate", "critic_keys": ["state"], "vectors_skip_trunk": True}}
    drawn = {"critic_cnn_lr": 2e-4, "critic_lr": 1e-3, "policy_kwargs": {"encoder": "shared", "trunk_dim": None}}
    assert with_sampled(of_file, drawn) == {
        "learning_rate": 2e-4,
        "critic_lr": 1e-3,
        "policy_kwargs": {
            "encoder": "separate",
            "critic_keys": ["state"],
            "trunk_dim": None,
            "vectors_skip_trunk": False,
        },
    }


def test_python_code_in_the_file_is_not_merged():
    with pytest.raises(ValueError, match="YAML mapping"):
        with_sampled({"policy_kwargs": "dict(net_arch=[8])"}, {"policy_kwargs": {}})
