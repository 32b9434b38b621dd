"""The scale of the rewards: what is measured, when it is used, and that the unit of the rewards does not matter."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_visual_td3 import GradientNormCallback, VisualTD3
from sb3_visual_td3.common import tags
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.reward_monitor import RewardMonitor
from sb3_visual_td3.visual_td3.losses import RewardScale, TargetRange
from tests.image_env import ImageEnv
from tests.killed_runs import scalars_of_run


def weights(model):
    return th.cat([weight.detach().flatten() for weight in model.policy.parameters()])


class KeepsRewards:
    """An observer that keeps the rewards of each batch."""

    def __init__(self):
        self.of_batches = []

    def after_backward(self, update):
        if update.network == "critic":
            self.of_batches.append(update.values["rewards"].clone())

    def after_clipping(self, update):
        pass

    def after_step(self, update):
        pass


def test_the_divisor_is_the_mean_magnitude_of_the_finite_rewards():
    scale = RewardScale()
    assert scale.is_empty
    assert scale.divisor == 1.0
    scale.add(np.zeros(3))
    assert scale.divisor == 1.0, "rewards of 0 have no scale"
    scale.add(np.array([[-6.0, 2.0], [np.nan, np.inf]], np.float32))
    assert scale.divisor == pytest.approx(8.0 / 5)
    copy = RewardScale()
    copy.set_state(scale.get_state())
    assert copy.divisor == scale.divisor


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])  # powers of two change no digit
def test_the_unit_of_the_rewards_does_not_matter(make_model, unit):
    settings = {"preset": "visual", "n_steps": 3}
    plain = make_model(**settings).learn(60)
    scaled = make_model(env=ImageEnv(reward_scale=unit), **settings).learn(60)
    assert scaled.reward_divisor == unit * plain.reward_divisor
    assert th.equal(weights(scaled), weights(plain))
    off = make_model(env=ImageEnv(reward_scale=unit), scale_rewards=False, **settings).learn(60)
    assert not th.equal(weights(off), weights(plain))


def test_batches_have_the_rewards_of_the_buffer_divided_by_their_mean_magnitude(make_model):
    model = make_model(env=ImageEnv(reward_scale=50.0)).learn(40)
    kept = KeepsRewards()
    model.observers.append(kept)
    model.train(20, 64)
    rewards = th.cat(kept.of_batches)
    assert float(rewards.abs().mean()) == pytest.approx(1.0, rel=0.1)
    stored = model.replay_buffer.rewards[: model.replay_buffer.size()]
    assert model.reward_divisor == pytest.approx(np.abs(stored).mean(), rel=1e-6)


class FailsOnce(ImageEnv):
    """At its tenth step, the simulator fails: the reward of this step is not real."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.n_steps != 10:
            return observation, reward, terminated, truncated, info
        return observation, 1e6, False, True, {"invalid_transition": True}


def test_the_divisor_ignores_the_reward_of_a_failed_simulator_step(make_model):
    assert make_model(env=FailsOnce()).learn(40).reward_divisor < 10.0


def test_rewards_that_vec_normalize_scales_are_not_scaled_again(make_model):
    env = VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False)
    model = make_model(env=env).learn(40)
    assert model.reward_divisor == 1.0
    assert model.reward_is_normalized
    without = make_model(env=VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False), scale_rewards=False).learn(40)
    assert th.equal(weights(model), weights(without))


def test_a_vec_normalize_for_observations_alone_leaves_the_rewards_to_the_model(make_model):
    env = VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False, norm_reward=False)
    assert make_model(env=env).learn(40).reward_divisor != 1.0


def test_the_td3_preset_does_not_scale_rewards(make_model):
    model = make_model(preset="td3", env=ImageEnv(reward_scale=50.0)).learn(40)
    assert (model.reward_divisor, model.reward_is_normalized) == (1.0, False)
    assert model.describe()["scale_rewards"] == (False, "td3")


def test_the_scale_is_saved_with_the_model(make_model, tmp_path):
    model = make_model().learn(40)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv())
    assert loaded.reward_divisor == model.reward_divisor != 1.0
    assert loaded.describe()["scale_rewards"] == (True, "visual")


def test_a_new_model_finds_the_scale_of_a_loaded_replay_buffer(make_model, tmp_path):
    model = make_model(env=ImageEnv(reward_scale=50.0)).learn(40)
    model.save_replay_buffer(tmp_path / "buffer")
    new = make_model(env=ImageEnv(reward_scale=50.0))
    new.set_logger(model.logger)
    new.load_replay_buffer(tmp_path / "buffer")
    new.train(1, 8)
    assert new.reward_divisor == pytest.approx(model.reward_divisor, rel=1e-6)


@pytest.mark.parametrize("learning_starts", [0, 20])
def test_a_training_on_a_loaded_buffer_begins_with_its_scale(make_model, tmp_path, learning_starts):
    model = make_model(env=ImageEnv(reward_scale=50.0)).learn(40)
    model.save_replay_buffer(tmp_path / "buffer")
    new = make_model(env=ImageEnv(reward_scale=1e-6), learning_starts=learning_starts)
    new.load_replay_buffer(tmp_path / "buffer")
    kept = KeepsRewards()
    new.observers.append(kept)
    new.learn(30)
    assert float(th.cat(kept.of_batches).abs().max()) < 10.0


def test_the_divisor_includes_rewards_stored_before_vec_normalize_was_removed(make_model):
    model = make_model(env=VecNormalize(DummyVecEnv([lambda: ImageEnv(reward_scale=50.0)]), norm_obs=False)).learn(40)
    model.set_env(ImageEnv(reward_scale=1e-6))
    kept = KeepsRewards()
    model.observers.append(kept)
    model.learn(40)
    assert float(th.cat(kept.of_batches).abs().max()) < 10.0


def test_the_target_range_is_reset_when_vec_normalize_no_longer_scales_the_rewards(make_model, tmp_path):
    model = make_model(env=VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False), target_q_clamp=True).learn(40)
    assert float(model._target_range.upper) > 0.0
    model.set_env(VecNormalize(DummyVecEnv([ImageEnv]), norm_obs=False))
    model.learn(5)
    assert float(model._target_range.upper) > 0.0
    model.save(tmp_path / "model")
    for other in (model, VisualTD3.load(tmp_path / "model", env=ImageEnv())):
        other.set_env(ImageEnv())
        other.learn(5)
        assert float(other._target_range.upper) == 0.0


def test_a_replay_buffer_without_a_rewards_array_leaves_the_divisor_at_1(make_model):
    model = make_model()
    model.replay_buffer = SimpleNamespace(size=lambda: 5)
    model._measure_stored_rewards()
    assert model.reward_divisor == 1.0


class ListOfRewards(DummyVecEnv):
    """Returns the rewards as a list, as some vectorized environments do."""

    def step_wait(self):
        observations, rewards, dones, infos = super().step_wait()
        return observations, rewards.tolist(), dones, infos


def test_rewards_may_come_as_a_list(make_model):
    model = make_model(env=ListOfRewards([ImageEnv])).learn(40, callback=GradientNormCallback())
    assert model.reward_divisor == make_model(env=ImageEnv()).learn(40).reward_divisor


def test_the_range_of_the_targets_keeps_its_meaning_when_the_divisor_changes():
    clamped = TargetRange(True)
    rewards, targets = th.tensor([[100.0]]), th.tensor([[1e9]])
    # The first reward was 0.01, so a reward of 1 is 100 after division: a return of 1 / (1 - 0.9) is the limit.
    assert float(clamped.clamp(targets, rewards, 0.9, 0.01)) == pytest.approx(1_000.0)
    # Later rewards are larger: with the divisor 1, the limit is 10.
    assert float(clamped.clamp(targets, rewards / 100, 0.9, 1.0)) == pytest.approx(10.0)


@pytest.mark.parametrize("discounts", [0.9, th.tensor([[0.9]])])
def test_a_fixed_limit_of_the_targets_is_in_the_unit_of_the_rewards(discounts):
    targets = TargetRange(5.0).clamp(th.tensor([[1e9]]), th.ones(1, 1), discounts, 50.0)
    assert float(targets) == pytest.approx(0.1)


def test_a_script_without_callbacks_logs_the_divisor(make_model, tmp_path):
    model = make_model(env=ImageEnv(reward_scale=50.0), tensorboard_log=str(tmp_path))
    model.learn(40, log_interval=1)
    _, last = scalars_of_run(tmp_path)[tags.REWARD_DIVISOR][-1]
    assert last == pytest.approx(model.reward_divisor, rel=0.2)
    unscaled = make_model(env=ImageEnv(), scale_rewards=False, tensorboard_log=str(tmp_path / "unscaled"))
    unscaled.learn(40, log_interval=1)
    assert tags.REWARD_DIVISOR not in scalars_of_run(tmp_path / "unscaled")


def test_the_logged_bound_of_q_follows_the_divisor(make_model):
    monitor = GradientMonitor()
    model = make_model(env=ImageEnv(reward_scale=50.0))
    model.observers.append(monitor)
    model._reward_scale.add(np.array([0.5]))  # the first reward is small, so the first batches are scaled up
    model.learn(40)
    largest = float(np.abs(model.replay_buffer.rewards).max())
    expected = largest / model.reward_divisor / (1.0 - model.gamma)
    assert monitor.read()[tags.Q_BOUND] <= expected * 1.01


def test_overlap_measures_the_same_rewards(make_model):
    models = [
        make_model(env=SubprocVecEnv([ImageEnv]), preset="visual", overlap=overlap).learn(40)
        for overlap in (False, True)
    ]
    assert models[0].reward_divisor == pytest.approx(models[1].reward_divisor, rel=0.2)
    for model in models:
        stored = model.replay_buffer.rewards[: model.replay_buffer.size()]
        assert model.reward_divisor == pytest.approx(np.abs(stored).mean(), rel=1e-6)
        model.env.close()


def test_a_rollback_restores_the_scale(make_model):
    model = make_model().learn(40)
    state, before = model.get_state(), model.reward_divisor
    model._reward_scale.add(np.array([1e9]))
    assert model.reward_divisor > before
    model.roll_back(state)
    assert model.reward_divisor == before


def test_alerts_see_the_rewards_as_the_critics_do(make_model, monkeypatch):
    seen = []
    monkeypatch.setattr(RewardMonitor, "see", lambda monitor, rewards, n_updates: seen.append(rewards))
    make_model(env=ImageEnv(reward_scale=1e6)).learn(60, callback=GradientNormCallback())
    assert float(np.abs(seen[20:]).max()) < 10.0


@pytest.mark.parametrize("value", ["yes", 1, 0.5])
def test_only_true_and_false_are_accepted(make_model, value):
    with pytest.raises(ValueError, match=r"scale_rewards=.*: expected True or False"):
        make_model(scale_rewards=value)
