"""Test that a user's policy class trains as in Stable-Baselines3, or that the error names the class to inherit from."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.td3.policies import Actor, CnnPolicy, MultiInputPolicy, TD3Policy
from torch import nn

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, VisualTD3
from sb3_visual_td3.visual_td3 import checks
from sb3_visual_td3.visual_td3.policies import (
    VisualActor,
    VisualCnnPolicy,
    VisualCritic,
    VisualMultiInputPolicy,
    VisualTD3Policy,
)
from tests.image_env import ImageEnv, VectorImageEnv

SETTINGS = {"buffer_size": 100, "learning_starts": 12, "batch_size": 8, "seed": 3, "device": "cpu"}
NET = {"net_arch": [16]}


class VectorEnv(ImageEnv):
    observation_space = spaces.Box(-1, 1, (6,), np.float32)

    def _image(self):
        return self.np_random.uniform(-1, 1, 6).astype(np.float32)


def heads_of(critic):
    return [parameter for q_network in critic.q_networks for parameter in q_network.parameters()]


def with_optimizers(policy):
    """Replace the optimizers of actor and critic, as many scripts do after ``super()._build``."""
    policy.actor.optimizer = th.optim.Adam(policy.actor.parameters(), lr=1e-5)
    policy.critic.optimizer = th.optim.SGD(policy.critic.parameters(), lr=1e-2, momentum=0.5)


class OwnOptimizers(TD3Policy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        with_optimizers(self)


class OwnOptimizersCnn(CnnPolicy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        with_optimizers(self)


class GroupedOptimizer(CnnPolicy):
    """Put the critic's encoder and heads into parameter groups with different settings."""

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        encoder = list(self.critic.features_extractor.parameters())
        heads = heads_of(self.critic)
        groups = [{"params": encoder, "weight_decay": 0.1}, {"params": heads}]
        self.critic.optimizer = th.optim.AdamW(groups, lr=lr_schedule(1))


class HeadsOnly(CnnPolicy):
    """Leave the encoder out of the critic's optimizer."""

    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.critic.optimizer = th.optim.Adam(heads_of(self.critic), lr=lr_schedule(1))


class SteadyActor(Actor):
    def forward(self, obs):
        return 0.5 * super().forward(obs)


class OwnActor(TD3Policy):
    def make_actor(self, features_extractor=None):
        return SteadyActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)


class SmallExtractor(BaseFeaturesExtractor):
    def __init__(self, space, features_dim=8):
        super().__init__(space, features_dim)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(space.shape)), features_dim), nn.ReLU())

    def forward(self, observations):
        return self.layers(observations)


class OwnExtractor(CnnPolicy):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "features_extractor_class": SmallExtractor})


class Plain(CnnPolicy):
    pass


class PlainDict(MultiInputPolicy):
    pass


CASES = [
    (OwnOptimizers, VectorEnv, {}),
    (OwnOptimizersCnn, ImageEnv, {}),
    (GroupedOptimizer, ImageEnv, {}),
    (HeadsOnly, ImageEnv, {}),
    (OwnActor, VectorEnv, {}),
    (OwnExtractor, ImageEnv, {}),
    (Plain, ImageEnv, {"share_features_extractor": True}),
    (Plain, ImageEnv, {"features_extractor_class": NatureCNN, "features_extractor_kwargs": {"features_dim": 8}}),
    (PlainDict, VectorImageEnv, {}),
    (PlainDict, VectorImageEnv, {"share_features_extractor": True}),
]


def made(algorithm, policy, env, policy_kwargs, **kwargs):
    return algorithm(policy, env(), policy_kwargs={**NET, **policy_kwargs}, **{**SETTINGS, **kwargs})


def assert_same_weights(one, other):
    for a, b in zip(one.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


@pytest.mark.filterwarnings("ignore:.*gives the:UserWarning")
@pytest.mark.parametrize(("policy", "env", "policy_kwargs"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_subclass_of_stable_baselines3s_policy_trains_bit_for_bit_as_with_its_td3(policy, env, policy_kwargs):
    stock = made(TD3, policy, env, policy_kwargs).learn(24)
    ours = made(VisualTD3, policy, env, policy_kwargs).learn(24)
    assert type(ours.policy) is policy
    assert ours.describe()["preset"].value == "td3"
    assert_same_weights(stock, ours)


@pytest.mark.parametrize(("policy", "env"), [(Plain, ImageEnv), (HeadsOnly, ImageEnv), (PlainDict, VectorImageEnv)])
def test_a_model_with_a_users_policy_is_saved_loaded_and_watched(policy, env, tmp_path):
    model = made(VisualTD3, policy, env, {}).learn(24, callback=[GradientNormCallback(), ExplosionAlertCallback()])
    assert model.num_timesteps == 24
    model.save(tmp_path / "model")
    loaded, stock = (cls.load(tmp_path / "model", env=env(), device="cpu") for cls in (VisualTD3, TD3))
    assert_same_weights(loaded, model)
    for each in (loaded, stock):
        each.set_random_seed(5)
        each.learn(24)
    assert_same_weights(loaded, stock)


def test_a_subclass_of_sb3s_policy_trains_with_n_steps_random_shift_and_huber_loss(make_model):
    model = make_model(Plain, n_steps=3, random_shift=4, max_grad_norm={"actor": 1.0}, critic_loss="huber")
    model.learn(30)
    assert model.replay_buffer.n_steps == 3
    assert set(model.groups) == {"actor_cnn", "actor_mlp", "critic_cnn", "critic_mlp"}


@pytest.mark.parametrize(
    "arguments",
    [
        {"preset": "visual"},
        {"actor_lr": 1e-4},
        {"critic_cnn_lr": "lin_1e-4"},
        {"actor_objective": "min"},
        {"pre_tanh_penalty": 1e-3},
        {"precision": "bf16"},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_the_error_for_unsupported_arguments_names_the_policy_class_to_inherit_from(make_model, arguments):
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"{name}=.*Plain.*inherit from sb3_visual_td3.*VisualTD3Policy") as caught:
        make_model(Plain, **arguments)
    assert "actor_lr and critic_lr" in str(caught.value)


def test_a_warning_names_the_argument_for_a_learning_rate_that_sb3_overwrites(make_model):
    with pytest.warns(UserWarning, match=r"the actor's optimizer the learning rate 1e-05.*actor_lr=1e-05"):
        make_model(OwnOptimizersCnn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_model(HeadsOnly)


class OursWithOptimizers(VisualCnnPolicy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        for network in (self.actor, self.critic):
            network.optimizer = th.optim.AdamW(network.parameters(), lr=lr_schedule(1))


class OursWithActor(VisualCnnPolicy):
    def make_actor(self, features_extractor=None):
        actor = super().make_actor(features_extractor)
        actor.__class__ = type("Renamed", (VisualActor,), {})
        return actor


@pytest.mark.parametrize("encoder", ["shared", "separate"])
@pytest.mark.parametrize("policy", [OursWithOptimizers, OursWithActor])
def test_a_subclass_of_visual_cnn_policy_may_replace_the_optimizers_or_the_actor(make_model, tmp_path, policy, encoder):
    model = make_model(policy, actor_lr=1e-4, policy_kwargs={"encoder": encoder}).learn(30)
    assert model.actor.optimizer.param_groups[-1]["lr"] == 1e-4
    own = {id(p) for p in model.critic.parameters()}
    in_actor = [p for group in model.actor.optimizer.param_groups for p in group["params"]]
    assert not own & {id(p) for p in in_actor}
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu").learn(30)
    assert loaded.actor.optimizer.param_groups[-1]["lr"] == 1e-4


class AliasedTD3(VisualTD3):
    policy_aliases = {**VisualTD3.policy_aliases, "Mine": OursWithOptimizers, "Stock": Plain}  # noqa: RUF012


@pytest.mark.parametrize(("name", "preset"), [("Mine", "visual"), ("Stock", "td3"), ("CnnPolicy", "visual")])
def test_a_policy_may_have_an_alias(name, preset):
    model = AliasedTD3(name, ImageEnv(), **SETTINGS)
    assert model.describe()["preset"].value == preset
    model.learn(20)


class StockActorInOurs(VisualTD3Policy):
    def make_actor(self, features_extractor=None):
        return Actor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)


class ScaledActor(VisualActor):
    def forward(self, obs):
        return 0.1 * super().forward(obs)


class ScaledAct(VisualActor):
    def act(self, features):
        return 0.1 * super().act(features)


class ShiftedCritic(VisualCritic):
    def forward(self, obs, actions):
        return tuple(100.0 + q_values for q_values in super().forward(obs, actions))


class CroppingCritic(VisualCritic):
    def extract_features(self, obs, features_extractor):
        return super().extract_features(obs[..., :48], features_extractor)


def with_network(kind):
    """Return a policy class whose networks have a class of the user."""

    class WithNetwork(VisualCnnPolicy):
        def make_actor(self, features_extractor=None):
            actor = super().make_actor(features_extractor)
            if issubclass(kind, VisualActor):
                actor.__class__ = kind
            return actor

        def make_critic(self, features_extractor=None):
            critic = super().make_critic(features_extractor)
            if issubclass(kind, VisualCritic):
                critic.__class__ = kind
            return critic

    return WithNetwork


class ScaledPreTanh(VisualActor):
    def pre_tanh(self, features):
        return 0.1 * super().pre_tanh(features)


class ShiftedScore(VisualCritic):
    def score(self, features, actions, first_only=False):
        return tuple(100.0 + q_values for q_values in super().score(features, actions, first_only))


class StoringActor(VisualActor):
    def forward(self, obs):
        self.last = super().forward(obs)
        return self.last


@pytest.mark.parametrize("kind", [StoringActor, ShiftedCritic])
def test_a_model_whose_network_overrides_a_method_in_vain_is_loaded_and_training_it_warns(tmp_path, kind):
    """Version 0.3.0 trained and saved such models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "check_overrides", lambda policy, only_warn=False: None)
        VisualTD3(with_network(kind), ImageEnv(), **SETTINGS).save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu")
        loaded.predict(loaded.env.reset())
    with pytest.warns(UserWarning, match=rf"{kind.__name__} overrides forward\(\)"):
        loaded.learn(20)
    assert loaded._n_updates > 0


@pytest.mark.parametrize("kind", [ScaledPreTanh, ShiftedScore])
def test_methods_that_the_updates_call_may_be_overridden(make_model, kind):
    model = make_model(with_network(kind)).learn(30)
    assert model._n_updates == 10


class LeakingActor(VisualCnnPolicy):
    def make_actor(self, features_extractor=None):
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        return VisualActor(**kwargs, trunk_dim=self.trunk_dim).to(self.device)


class HalfAnOptimizer(VisualCnnPolicy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        self.critic.optimizer = th.optim.Adam(heads_of(self.critic), lr=1e-3)


class NoOptimizer(TD3Policy):
    def _build(self, lr_schedule):
        super()._build(lr_schedule)
        del self.actor.optimizer


@pytest.mark.parametrize(
    ("policy", "env", "words"),
    [
        (StockActorInOurs, VectorEnv, "StockActorInOurs.actor is of type Actor: expected .*VisualActor"),
        (
            LeakingActor,
            ImageEnv,
            "LeakingActor.make_actor creates an actor that would train its encoder.*borrows_encoder",
        ),
        (with_network(ScaledActor), ImageEnv, r"ScaledActor overrides forward\(\).* override encode\(\) or pre_tanh"),
        (with_network(ScaledAct), ImageEnv, r"ScaledAct overrides act\(\)"),
        (with_network(ShiftedCritic), ImageEnv, r"ShiftedCritic overrides forward\(\).*encode\(\) or score\(\)"),
        (with_network(CroppingCritic), ImageEnv, r"CroppingCritic overrides extract_features\(\)"),
        (HalfAnOptimizer, ImageEnv, "HalfAnOptimizer: the critic's optimizer lacks .* trainable weights"),
        (NoOptimizer, VectorEnv, "NoOptimizer.actor .*optimizer=None: expected"),
    ],
)
def test_networks_that_the_updates_cannot_train_are_refused_at_construction(policy, env, words):
    with pytest.raises(ValueError, match=words):
        VisualTD3(policy, env(), **SETTINGS)


def test_a_subclass_of_visual_multi_input_policy_uses_the_visual_preset_and_trains(make_model):
    class Mine(VisualMultiInputPolicy):
        pass

    model = make_model(Mine, VectorImageEnv())
    assert model.describe()["preset"].value == "visual"
    model.learn(24)


def test_a_users_policy_trains_as_in_sb3_with_action_bounds_other_than_1(make_model):
    """Pendulum's action bounds are not [-1, 1]. The actions must be scaled as in Stable-Baselines3."""
    stock, ours = (cls(OwnActor, gym.make("Pendulum-v1"), **SETTINGS).learn(20) for cls in (TD3, VisualTD3))
    assert_same_weights(stock, ours)
