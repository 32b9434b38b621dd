"""Test training in several calls, in several environments, by steps or episodes, on a GPU."""

import pickle

import pytest
import torch as th
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.visual_td3.losses import TargetRange
from tests.image_env import ImageEnv, VectorImageEnv


def snapshot(model):
    return {name: [p.detach().clone() for p in group] for name, group in model.groups.items()}


def assert_all_moved(model, before):
    for name, group in model.groups.items():
        assert any(not th.equal(p, q) for p, q in zip(group, before[name], strict=True)), name
        assert all(th.isfinite(p).all() for p in group), name


def test_continued_training_keeps_the_counters_and_the_buffer(make_model):
    model = make_model(noise_schedule="lin_0.5_0.1")
    model.learn(40)
    moments = model.critic.optimizer.state_dict()["state"][0]["step"].item()
    before = snapshot(model)
    model.learn(40, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates, model.replay_buffer.pos) == (80, 60, 80)
    assert model.critic.optimizer.state_dict()["state"][0]["step"].item() == moments + 40
    assert model.action_noise.sigma == pytest.approx(0.1)
    assert_all_moved(model, before)
    model.learn(40)
    assert (model.num_timesteps, model._n_updates) == (40, 80)


@pytest.mark.parametrize(("policy", "env"), [("CnnPolicy", ImageEnv), ("MultiInputPolicy", VectorImageEnv)])
def test_gradient_steps_minus_1_with_two_environments_makes_one_update_per_timestep(make_model, policy, env):
    model = make_model(policy, DummyVecEnv([env] * 2), gradient_steps=-1)
    before = snapshot(model)
    model.learn(60)
    assert (model.num_timesteps, model._n_updates) == (60, 40)
    assert isinstance(model.action_noise, VectorizedActionNoise)
    # The preset's noise shrinks in each environment.
    assert [noise.sigma for noise in model.action_noise.noises] == pytest.approx([0.1, 0.1])
    assert_all_moved(model, before)


@pytest.mark.parametrize(
    ("train_freq", "gradient_steps", "n_updates"),
    [
        ((4, "step"), 1, 10),  # after the steps 24, 28, ... 60
        ((4, "step"), -1, 40),
        ((1, "episode"), 3, 9),  # episodes end after 17 steps: 34, 51 and 68 come after the warm-up
        ((1, "episode"), -1, 51),
    ],
)
def test_updates_follow_the_requested_steps_or_episodes(make_model, train_freq, gradient_steps, n_updates):
    model = make_model(train_freq=train_freq, gradient_steps=gradient_steps)
    before = snapshot(model)
    model.learn(60)
    assert model._n_updates == n_updates
    assert_all_moved(model, before)


def test_episodes_as_train_freq_are_refused_for_several_environments(make_model):
    with pytest.raises(AssertionError, match=r"train_freq=.*episode.* with 2 environments"):
        make_model(env=DummyVecEnv([ImageEnv] * 2), train_freq=(1, "episode"))


def test_the_target_range_is_saved_as_plain_numbers():
    """A saved CUDA tensor could not be loaded on a machine without a GPU."""
    target_range = TargetRange(True)
    target_range.clamp(th.zeros(2, 1), th.tensor([[-1.0], [2.0]]), 0.9)
    state = target_range.__getstate__()
    assert all(isinstance(value, float | bool | None) for value in state.values())
    copy = pickle.loads(pickle.dumps(target_range))
    assert (copy.limit, float(copy.lower), float(copy.upper)) == (True, pytest.approx(-10.0), pytest.approx(20.0))
    assert copy.clamp(th.tensor([[99.0]]), th.zeros(1, 1), 0.9).item() == pytest.approx(20.0)


@pytest.mark.gpu
@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("policy", "env"), [("CnnPolicy", ImageEnv), ("MultiInputPolicy", VectorImageEnv)])
@pytest.mark.parametrize("encoder", ["separate", "shared"])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_training_on_a_gpu_moves_every_group_and_loads_on_the_cpu(make_model, tmp_path, policy, env, encoder, n_steps):
    model = make_model(
        policy,
        env(),
        device="cuda",
        n_steps=n_steps,
        policy_kwargs={"encoder": encoder},
        critic_cnn_lr="lin_1e-4",
        max_grad_norm=1.0,
    )
    monitor = GradientMonitor(sample_freq=1)
    model.observers.append(monitor)
    before = snapshot(model)
    model.learn(40)
    assert {p.device.type for group in model.groups.values() for p in group} == {"cuda"}
    assert_all_moved(model, before)
    assert monitor.read()
    model.observers.clear()
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=env(), device="cpu")
    assert float(loaded._target_range.upper) == pytest.approx(float(model._target_range.upper))
    loaded.learn(30)


def test_losses_on_a_gpu_are_fetched_only_when_the_log_is_written(make_model, monkeypatch):
    model = make_model()
    model.learn(30)
    expected = {name: model.logger.name_to_value[name] for name in ("train/actor_loss", "train/critic_loss")}
    model.logger.name_to_value.clear()
    # The device is what decides; the tensors may be anywhere.
    monkeypatch.setattr(model, "device", th.device("cuda"))
    losses = {"train/actor_loss": th.tensor([1.0, 3.0]), "train/critic_loss": th.tensor([5.0])}
    model._keep_losses(list(losses["train/actor_loss"]), list(losses["train/critic_loss"]))
    model._keep_losses([], list(losses["train/critic_loss"] + 1.0))
    assert not set(expected) & set(model.logger.name_to_value)
    model._record_losses()
    assert model.logger.name_to_value["train/actor_loss"] == 2.0
    assert model.logger.name_to_value["train/critic_loss"] == 6.0
    model.logger.name_to_value.clear()
    model._record_losses()
    assert not set(expected) & set(model.logger.name_to_value), "once is enough"


def test_losses_on_a_cpu_are_recorded_after_every_training(make_model):
    model = make_model()
    model.learn(30)
    assert model.logger.name_to_value["train/critic_loss"] > 0.0
