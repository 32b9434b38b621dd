"""Frozen weights are not trained, and are not reported as a fault.

Weights are frozen by the features extractor, before the training or during it. A group of weights, such as the actor's
encoder, is logged as frozen if none of its weights is trained.
"""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, VisualTD3
from sb3_visual_td3.common import tags
from sb3_visual_td3.training_state.model_state import model_state, set_model_state
from tests.image_env import ImageEnv, VectorImageEnv

SETTINGS = {"buffer_size": 100, "learning_starts": 8, "batch_size": 8, "device": "cpu", "seed": 0}


class FrozenNature(NatureCNN):
    """Its convolutions are not trained, its dense layer is."""

    def __init__(self, space, features_dim=64, all_of_it=False):
        super().__init__(space, features_dim)
        for weight in (self if all_of_it else self.cnn).parameters():
            weight.requires_grad_(False)


def extractor(**kwargs):
    return {"features_extractor_class": FrozenNature, "features_extractor_kwargs": kwargs, "net_arch": [16]}


def weights_of(model):
    return {name: weight.detach().clone() for name, weight in model.policy.named_parameters()}


@pytest.mark.parametrize("preset", ["td3", "visual"])
@pytest.mark.parametrize("policy_kwargs", [extractor(), extractor(all_of_it=True)], ids=["convolutions", "all"])
@pytest.mark.parametrize("kwargs", [{}, {"precision": "bf16"}, {"grad_clip": "adaptive"}])
def test_a_frozen_extractor_trains_the_rest(preset, policy_kwargs, kwargs):
    model = VisualTD3("CnnPolicy", ImageEnv(), preset=preset, policy_kwargs=policy_kwargs, **kwargs, **SETTINGS)
    before = weights_of(model)
    model.learn(14)
    after = dict(model.policy.named_parameters())
    for name, weight in before.items():
        if "target" in name or "features_extractor.linear" in name:
            continue
        rests = "features_extractor" in name
        assert th.equal(weight, after[name]) is rests, name


def test_the_stock_preset_with_a_frozen_extractor_is_stock_td3_to_the_bit():
    models = []
    for cls, kwargs in ((TD3, {}), (VisualTD3, {"preset": "td3"})):
        models.append(cls("CnnPolicy", ImageEnv(), policy_kwargs=extractor(), **kwargs, **SETTINGS).learn(16))
    for one, two in zip(*(model.policy.parameters() for model in models), strict=True):
        assert th.equal(one, two)


def trained_networks(model):
    return [*model.actor.parameters(), *model.critic.parameters()]


class FreezeAt(BaseCallback):
    def __init__(self, step, freeze, trained=False):
        super().__init__()
        self.step, self.freeze, self.trained = step, freeze, trained

    def _on_step(self):
        if self.num_timesteps == self.step:
            for weight in self.freeze(self.model):
                weight.requires_grad_(self.trained)
        return True


GROUPS = {
    "the critic's encoder": (lambda model: model.critic.features_extractor.parameters(), {"critic_cnn"}),
    "the critic": (lambda model: model.critic.parameters(), {"critic_cnn", "critic_mlp"}),
    "the actor": (lambda model: model.actor.parameters(), {"actor_mlp"}),
    "biases": (lambda model: [w for w in trained_networks(model) if w.dim() == 1], set()),
    "everything": (trained_networks, {"critic_cnn", "critic_mlp", "actor_mlp"}),
}


@pytest.mark.parametrize(("freeze", "groups"), GROUPS.values(), ids=GROUPS)
def test_weights_frozen_during_training_stop_and_are_logged_as_frozen(freeze, groups, monkeypatch):
    written, alerts = [], []
    monkeypatch.setattr(
        "sb3_visual_td3.callbacks.gradient_norm.EventWriter.write",
        lambda self, points, step: written.append((step, dict(points))),
    )
    alert = ExplosionAlertCallback(check_freq=5, sample_freq=1, verbose=0)
    alert._announce = alerts.append
    model = VisualTD3("CnnPolicy", ImageEnv(), policy_kwargs={"net_arch": [16]}, **SETTINGS)
    kept = {}

    class Remember(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 20:
                kept.update({id(weight): weight.detach().clone() for weight in freeze(self.model)})
            return True

    callbacks = [FreezeAt(20, freeze), Remember(), GradientNormCallback(sample_freq=1, log_freq=5), alert]
    model.learn(60, callback=callbacks)
    assert model.num_timesteps == 60
    assert all(th.equal(kept[id(weight)], weight) for weight in freeze(model))
    _, last = next(entry for entry in reversed(written) if tags.GROUP_FROZEN["critic_mlp"] in entry[1])
    for group in ("critic_cnn", "critic_mlp", "actor_mlp"):
        assert last[tags.GROUP_FROZEN[group]] == float(group in groups)
        for by_group in (tags.GRADIENT_NORM, tags.GRADIENT_NORM_CLIPPED, tags.CLIP_FRACTION, tags.UPDATE_RATIO):
            assert (by_group[group] in last) is (group not in groups)
    if "critic_mlp" in groups:
        assert tags.TARGET_MOVED["critic"] not in last
    faults = {"encoder_frozen", "vanishing_actor_gradient", "stale_target_network", "non_finite"}
    assert {each.rule for each in alerts} & faults == set()


def test_weights_that_are_unfrozen_move_and_are_logged_as_trained(monkeypatch):
    written = []
    monkeypatch.setattr(
        "sb3_visual_td3.callbacks.gradient_norm.EventWriter.write", lambda self, points, step: written.append(points)
    )
    freeze, _ = GROUPS["the actor"]
    model = VisualTD3("CnnPolicy", ImageEnv(), policy_kwargs={"net_arch": [16]}, **SETTINGS)
    callbacks = [FreezeAt(15, freeze), FreezeAt(25, freeze, trained=True)]
    model.learn(40, callback=[*callbacks, GradientNormCallback(sample_freq=1, log_freq=10)])
    assert [points[tags.GROUP_FROZEN["actor_mlp"]] for points in written][-3:] == [1.0, 0.0, 0.0]
    assert written[-1][tags.UPDATE_RATIO["actor_mlp"]] > 0


@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_stock_td3_with_frozen_weights_is_watched_in_the_same_way(policy, monkeypatch):
    written = []
    monkeypatch.setattr(
        "sb3_visual_td3.callbacks.gradient_norm.EventWriter.write", lambda self, points, step: written.append(points)
    )
    env = ImageEnv() if policy == "CnnPolicy" else VectorImageEnv()
    model = TD3(policy, env, policy_kwargs={"net_arch": [16]}, **SETTINGS)
    for weight in [*model.critic.features_extractor.parameters(), *model.actor.parameters()]:
        weight.requires_grad_(False)
    model.learn(25, callback=[GradientNormCallback(sample_freq=1, log_freq=10), ExplosionAlertCallback(verbose=0)])
    last = next(points for points in reversed(written) if tags.GROUP_FROZEN["critic_mlp"] in points)
    frozen = {group for group, tag in tags.GROUP_FROZEN.items() if last.get(tag)}
    assert frozen == {"critic_cnn", "actor_cnn", "actor_mlp"}
    assert {group for group, tag in tags.GRADIENT_NORM.items() if tag in last} == {"critic_mlp"}
    assert tags.ACTION_SATURATION in last, "a frozen actor still acts"


def test_a_snapshots_state_records_the_frozen_weights():
    model = VisualTD3("CnnPolicy", ImageEnv(), policy_kwargs={"net_arch": [16]}, **SETTINGS).learn(10)
    assert model_state(model)["frozen"] == []
    for weight in model.critic.features_extractor.parameters():
        weight.requires_grad_(False)
    frozen = model_state(model)["frozen"]
    assert "critic.features_extractor.cnn.0.weight" in frozen
    assert all(name.startswith("critic.features_extractor") for name in frozen)


def test_a_resumed_run_keeps_its_weights_frozen():
    model, again = (VisualTD3("CnnPolicy", ImageEnv(), policy_kwargs={"net_arch": [16]}, **SETTINGS) for _ in "12")
    again.learn(10)
    for weight in model.learn(10).actor.parameters():
        weight.requires_grad_(False)
    set_model_state(again, model_state(model))
    assert not any(weight.requires_grad for weight in again.actor.parameters())
    assert all(weight.requires_grad for weight in again.critic.parameters())
    older = {key: value for key, value in model_state(model).items() if key != "frozen"}
    set_model_state(again, older)
    assert not any(weight.requires_grad for weight in again.actor.parameters()), "an older state changes nothing"


def test_a_saved_model_with_a_frozen_extractor_loads_and_continues(tmp_path):
    model = VisualTD3("CnnPolicy", ImageEnv(), policy_kwargs=extractor(), **SETTINGS).learn(12)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu")
    before = loaded.critic.features_extractor.cnn[0].weight.clone()
    loaded.learn(12)
    assert loaded._n_updates > model._n_updates
    assert th.equal(before, loaded.critic.features_extractor.cnn[0].weight)
    assert np.isfinite(loaded.predict(ImageEnv.observation_space.sample())[0]).all()
