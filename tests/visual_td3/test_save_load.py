import warnings

import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC
from stable_baselines3 import DDPG, PPO, SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.checks import check_saved_by
from tests.image_env import ImageEnv


@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_a_saved_model_acts_and_continues_as_before(make_model, tmp_path, encoder):
    model = make_model(policy_kwargs={"encoder": encoder, "trunk_dim": 16}, critic_cnn_lr="lin_1e-4", max_grad_norm=1.0)
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu")

    observation = ImageEnv().observation_space.sample()
    np.testing.assert_array_equal(model.predict(observation)[0], loaded.predict(observation)[0])
    assert {k: v for k, v in loaded.describe().items() if not k.startswith("policy_kwargs")} == {
        k: v for k, v in model.describe().items() if not k.startswith("policy_kwargs")
    }
    assert loaded._target_range.upper == model._target_range.upper > 0
    loaded.learn(30)
    assert loaded.critic.optimizer.param_groups[0]["lr"] < 1e-4


def test_a_training_that_continues_without_vec_normalize_is_a_warning(make_model, tmp_path):
    def normalized():
        return VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False)

    model = make_model(env=normalized())
    model.learn(5)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu")
    with pytest.warns(UserWarning, match="trained with VecNormalize, and this environment has none"):
        loaded.learn(5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        VisualTD3.load(tmp_path / "model", env=normalized(), device="cpu").learn(5)
        make_model().learn(5)


def test_a_model_loads_without_an_environment_to_be_watched(make_model, tmp_path):
    make_model().save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", device="cpu", buffer_size=1)
    action, _ = loaded.predict(np.zeros((4, 36, 36), np.uint8))
    assert action.shape == (2,)


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [(SAC, "was saved by SAC"), (TQC, "was saved by TQC"), (PPO, "was saved by another on-policy algorithm")],
)
def test_a_model_of_another_algorithm_is_refused(tmp_path, algorithm, words):
    path = tmp_path / "model.zip"
    algorithm("MlpPolicy", "Pendulum-v1", device="cpu").save(path)
    with pytest.raises(ValueError, match=f"{words}, expected VisualTD3 or TD3"):
        VisualTD3.load(path)
    with open(path, "rb") as file, pytest.raises(ValueError, match=words):
        VisualTD3.load(file)
    check_saved_by(path, algorithm)
    with pytest.raises(ValueError, match="expected DDPG or TD3"):
        check_saved_by(path, DDPG)


@pytest.mark.parametrize("algorithm", [TD3, DDPG])
def test_a_model_of_td3_or_ddpg_loads_from_a_path_or_a_file(tmp_path, algorithm):
    algorithm("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=10).save(tmp_path / "model")
    VisualTD3.load(tmp_path / "model", device="cpu")
    with open(tmp_path / "model.zip", "rb") as file:
        VisualTD3.load(file, device="cpu")


def stock_td3(**kwargs):
    settings = {"buffer_size": 100, "learning_starts": 20, "batch_size": 8, "device": "cpu", "seed": 1}
    return TD3("CnnPolicy", ImageEnv(), **settings, **kwargs).learn(40)


def assert_learn_on_alike(one, other):
    """Assert that two models have equal weights after the same further training."""
    for model in (one, other):
        model.set_env(ImageEnv())
        model.set_random_seed(5)
        model.learn(40)
    for a, b in zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


@pytest.mark.parametrize("kwargs", [{}, {"policy_kwargs": {"share_features_extractor": True}}])
def test_a_stock_checkpoint_loads_and_continues_bit_for_bit(tmp_path, kwargs):
    stock = stock_td3(**kwargs)
    stock.save(tmp_path / "stock")
    ours = VisualTD3.load(tmp_path / "stock", device="cpu")
    assert ours.describe()["preset"].value == "td3"
    assert_learn_on_alike(TD3.load(tmp_path / "stock", device="cpu"), ours)


def test_a_model_of_ours_without_extras_loads_into_stock_td3(make_model, tmp_path):
    ours = make_model(preset="td3")
    ours.learn(40)
    ours.save(tmp_path / "ours")
    stock = TD3.load(tmp_path / "ours", device="cpu")
    assert type(stock) is TD3
    assert_learn_on_alike(VisualTD3.load(tmp_path / "ours", device="cpu"), stock)


def test_an_optimizer_of_other_networks_is_refused(make_model):
    small, large = make_model("MlpPolicy", "Pendulum-v1"), make_model()
    with pytest.raises(ValueError, match="the networks differ"):
        large.critic.optimizer.load_state_dict(small.critic.optimizer.state_dict())


def test_target_networks_and_optimizer_state_survive(make_model, tmp_path):
    model = make_model()
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", device="cpu")
    for a, b in zip(model.policy.state_dict().values(), loaded.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)
    saved, found = model.critic.optimizer.state_dict(), loaded.critic.optimizer.state_dict()
    assert saved["state"].keys() == found["state"].keys()
    assert all(th.equal(saved["state"][k]["exp_avg"], found["state"][k]["exp_avg"]) for k in saved["state"])
