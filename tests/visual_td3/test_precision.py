"""Test that the fast update equals the plain update within the precision of its dtype."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.precision import Arithmetic, has_fast_bf16
from tests.image_env import ImageEnv, VectorImageEnv

ALL_OFF = {
    "random_shift": 0,
    "actor_objective": "q1",
    "pre_tanh_penalty": 0.0,
    "target_q_clamp": False,
    "scale_rewards": False,
    "max_grad_norm": {},
}
"""These arguments switch off what the visual preset adds to TD3's update."""
CPU = th.device("cpu")


class Gradients:
    """Keep the flattened gradients of each update by parameter group."""

    def __init__(self):
        self.caught = {}

    def after_backward(self, update):
        for name, group in update.groups.items():
            self.caught.setdefault(name, []).append(th.cat([p.grad.flatten() for p in group]))

    def after_clipping(self, update):
        pass

    def after_step(self, update):
        pass


def plain_and_fast(make_model, precision, policy="CnnPolicy", env=ImageEnv, lr=1e-3, **policy_kwargs):
    """Train a plain and a fast model from the same weights on the same batches; return them with their gradients."""
    kwargs = {"policy_kwargs": {"encoder": "separate", "trunk_dim": None, "net_arch": [32], **policy_kwargs}}
    plain = make_model(policy, env(), preset="td3", learning_starts=100, learning_rate=lr, **kwargs)
    kwargs.update(ALL_OFF, preset="visual", precision=precision)
    fast = make_model(policy, env(), learning_starts=100, learning_rate=lr, **kwargs)
    plain.learn(60)
    fast.learn(60)
    fast.replay_buffer = plain.replay_buffer
    made = []
    for model in (plain, fast):
        gradients = Gradients()
        model.observers.append(gradients)
        th.manual_seed(5)
        np.random.seed(5)
        model.train(2, 16)
        made.append((model, gradients.caught))
    return made


CASES = [
    ("CnnPolicy", ImageEnv, {}),
    ("CnnPolicy", ImageEnv, {"encoder": "shared"}),
    ("CnnPolicy", ImageEnv, {"encoder": "shared", "trunk_dim": 16, "layer_norm": True}),
    ("CnnPolicy", ImageEnv, {"encoder_arch": "drq", "trunk_dim": 16}),
    ("MultiInputPolicy", VectorImageEnv, {}),
]


@pytest.mark.parametrize(("policy", "env", "policy_kwargs"), CASES)
def test_the_fast_fp32_update_equals_that_of_the_td3_preset_up_to_rounding(make_model, policy, env, policy_kwargs):
    (plain, expected), (fast, found) = plain_and_fast(make_model, "fp32", policy, env, **policy_kwargs)
    assert plain._arithmetic.is_exact
    assert not fast._arithmetic.is_exact
    assert set(found) == set(expected)
    for group, gradients in expected.items():
        error = (found[group][0] - gradients[0]).norm() / gradients[0].norm()
        assert error < 1e-5, group
    # Adam's first steps have the size of the learning rate, however small the gradient is. A rounding error can change
    # the sign of a tiny gradient, so a weight may differ by two learning rates per update. Over all weights the
    # difference must be small.
    learning_rate, n_updates = 1e-3, 2
    for network in ("critic", "actor"):
        one, two = (th.cat([w.detach().flatten() for w in getattr(m, network).parameters()]) for m in (plain, fast))
        assert (one - two).abs().max() <= 2 * learning_rate * n_updates
        assert (one - two).norm() <= 0.02 * learning_rate * one.numel() ** 0.5
    assert fast.logger.name_to_value["train/critic_loss"] == pytest.approx(
        plain.logger.name_to_value["train/critic_loss"], rel=1e-4
    )


@pytest.mark.parametrize(("policy", "env", "policy_kwargs"), CASES)
def test_bf16_gradients_have_the_direction_of_float32_gradients(make_model, policy, env, policy_kwargs):
    (_, expected), (fast, found) = plain_and_fast(make_model, "bf16", policy, env, lr=0.0, **policy_kwargs)
    assert fast._arithmetic.dtype == th.bfloat16
    for group, gradients in expected.items():
        assert not th.equal(found[group][0], gradients[0]), "bfloat16 was not used"
        assert th.cosine_similarity(found[group][0], gradients[0], dim=0) > 0.99, group


def test_bf16_leaves_weights_moments_losses_and_actions_in_float32(make_model):
    model = make_model(precision="bf16")
    model.learn(40)
    assert all(p.dtype == p.grad.dtype == th.float32 for p in model.actor.parameters())
    moments = [v for state in model.critic.optimizer.state.values() for v in state.values()]
    assert all(value.dtype == th.float32 for value in moments)
    batch = model._sample(4)
    assert batch.observations.observations.dtype == th.bfloat16
    assert model.update_critic(batch).dtype == model.update_actor(batch).dtype == th.float32
    action, _ = model.predict(ImageEnv.observation_space.sample())
    assert action.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("policy_kwargs", [{"encoder": "separate", "trunk_dim": None}, {"encoder": "shared"}])
def test_losses_after_two_hundred_bf16_updates_are_those_of_float32(policy_kwargs):
    kwargs = {"buffer_size": 1_000, "learning_starts": 1_001, "learning_rate": 1e-4, "seed": 0, "device": "cpu"}
    kwargs["policy_kwargs"] = {"trunk_dim": 50, "net_arch": [400, 300], **policy_kwargs}
    lost = {}
    buffer = None
    for name, arm in {"plain": {"preset": "td3"}, "bf16": {"precision": "bf16", **ALL_OFF}}.items():
        model = VisualTD3("CnnPolicy", gym.make("LiteDriving-v0", image_size=48), **arm, **kwargs)
        model.learn(1_000)
        buffer = model.replay_buffer = buffer or model.replay_buffer
        th.manual_seed(0)
        np.random.seed(0)
        lost[name] = []
        for _ in range(200):
            model.train(1, 32)
            lost[name].append(model.logger.name_to_value["train/critic_loss"])
    assert np.median(lost["bf16"]) == pytest.approx(np.median(lost["plain"]), rel=0.05)
    assert lost["bf16"] != lost["plain"]


def test_auto_chooses_by_the_machine(monkeypatch):
    for capabilities, expected in (
        ({"avx512_bf16": True, "amx_bf16": False}, th.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, th.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False}, th.float32),
        ({}, th.float32),
    ):
        monkeypatch.setattr(th.cpu, "get_capabilities", lambda found=capabilities: found)
        assert has_fast_bf16(CPU) is (expected == th.bfloat16)
        assert Arithmetic("auto", CPU, is_stock=False).dtype == expected
        assert Arithmetic("bf16", CPU, is_stock=False).dtype == th.bfloat16
        assert Arithmetic("fp32", CPU, is_stock=False).dtype == th.float32


@pytest.mark.parametrize(
    ("kwargs", "is_exact"),
    [
        ({"preset": "td3"}, True),
        ({"preset": "td3", "precision": "fp32"}, True),
        ({"preset": "td3", "precision": "bf16"}, False),
        ({"preset": "visual", "precision": "fp32"}, False),
        ({}, False),
    ],
)
def test_only_the_td3_preset_in_fp32_requires_exactness(make_model, kwargs, is_exact):
    model = make_model(**kwargs)
    assert model._arithmetic.is_exact is is_exact
    assert bool(model.actor.optimizer.param_groups[0]["fused"]) is not is_exact
    assert model.describe()["precision"].value == kwargs.get("precision", "fp32" if is_exact else "auto")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision='fp16': expected one of 'fp32', 'bf16', 'auto'"):
        VisualTD3("CnnPolicy", ImageEnv(), precision="fp16", buffer_size=10)


class BrighterNature(NatureCNN):
    """Compute other features than its parent class NatureCNN."""

    def forward(self, observations):
        return super().forward(observations + 1.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_subclass_of_a_known_extractor_keeps_its_own_forward(make_model, precision):
    model = make_model(precision=precision, policy_kwargs={"encoder_arch": BrighterNature, "trunk_dim": None})
    images = th.randint(0, 256, (3, *ImageEnv.observation_space.shape), dtype=th.uint8)
    with th.no_grad(), model._arithmetic.autocast():
        features = model.critic.encode(model._prepare(images)).float()
    expected = model.critic.encode(images)
    assert (features - expected).norm() < 0.02 * expected.norm()


class StandardisedConv2d(th.nn.Conv2d):
    """Standardise the weights in each forward pass."""

    def forward(self, images):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True)
        return th.nn.functional.conv2d(images, (self.weight - mean) / (deviation + 1e-5), self.bias, self.stride)


class PlainNet(th.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, images):
        return self.layers(images)


class OwnLayers(NatureCNN):
    """Replace some layers of NatureCNN, and keep its forward."""

    def __init__(self, observation_space, change):
        super().__init__(observation_space, 16)
        first = self.cnn[0]
        if change == "batch norm first":
            self.cnn = th.nn.Sequential(th.nn.BatchNorm2d(first.in_channels), *self.cnn)
        elif change == "no Sequential":
            self.cnn = PlainNet(self.cnn)
        elif change == "tanh":
            self.cnn = th.nn.Sequential(first, th.nn.Tanh(), *self.cnn[1:])
        elif change == "spectral norm":
            self.cnn[0] = th.nn.utils.spectral_norm(first)
        else:
            self.cnn[0] = StandardisedConv2d(first.in_channels, first.out_channels, 8, 4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("change", ["batch norm first", "no Sequential", "tanh", "spectral norm", "own convolution"])
def test_a_known_extractor_with_other_layers_trains_the_function_that_predict_uses(make_model, precision, change):
    kwargs = {"features_extractor_class": OwnLayers, "features_extractor_kwargs": {"change": change}}
    model = make_model(precision=precision, policy_kwargs={**kwargs, "trunk_dim": None})
    before = [weight.clone() for weight in model.critic.features_extractor.parameters()]
    model.learn(25)
    after = list(model.critic.features_extractor.parameters())
    assert not any(th.equal(*pair) for pair in zip(before, after, strict=True))
    images = th.randint(0, 256, (3, *ImageEnv.observation_space.shape), dtype=th.uint8)
    model.policy.set_training_mode(False)
    with th.no_grad(), model._arithmetic.autocast():
        features = model.critic.encode(model._prepare(images)).float()
    expected = model.critic.encode(images)
    assert (features - expected).norm() < 0.02 * expected.norm()


class ViewingExtractor(BaseFeaturesExtractor):
    """Fail on images that are not contiguous, as a user's extractor may."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 16)
        self.linear = th.nn.Linear(int(np.prod(observation_space.shape)), 16)

    def forward(self, observations):
        return self.linear(observations.view(len(observations), -1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_users_extractor_gets_contiguous_images(make_model, precision):
    model = make_model(precision=precision, policy_kwargs={"encoder_arch": ViewingExtractor})
    model.learn(25)
    assert model._n_updates == 5


def test_a_loaded_optimizer_keeps_the_fused_setting_of_the_loading_model(make_model, tmp_path):
    fast = make_model(policy_kwargs={"encoder": "separate", "trunk_dim": None}, max_grad_norm={})
    fast.learn(30)
    fast.save(tmp_path / "fast")
    exact = VisualTD3.load(tmp_path / "fast", env=ImageEnv(), device="cpu", custom_objects={"preset": "td3"})
    assert exact._arithmetic.is_exact
    assert not exact.actor.optimizer.param_groups[0]["fused"]
    exact.learn(30)
    exact.save(tmp_path / "exact")
    again = VisualTD3.load(tmp_path / "exact", env=ImageEnv(), device="cpu", custom_objects={"preset": "visual"})
    assert again.actor.optimizer.param_groups[0]["fused"]
    for one, two in zip(exact.actor.optimizer.state.values(), again.actor.optimizer.state.values(), strict=True):
        assert all(th.equal(one[key], two[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
    again.learn(30)
    assert again._n_updates > exact._n_updates


PAGE_FAULTS = """
import resource, sys
import torch as th
from sb3_visual_td3.visual_td3.precision import keep_freed_memory
th.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    th.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
def test_kept_memory_causes_no_repeated_page_faults():
    faults = {}
    for way in ("keep", "give back"):
        done = subprocess.run([sys.executable, "-c", PAGE_FAULTS, way], capture_output=True, text=True, check=True)
        faults[way] = int(done.stdout)
    assert faults["keep"] < 0.2 * faults["give back"]
