import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.param_groups import clip_adaptively
from tests.image_env import ImageEnv, VectorImageEnv

ALL = ["actor_cnn", "actor_mlp", "critic_cnn", "critic_mlp"]


def snapshot(model):
    return {name: [p.detach().clone() for p in group] for name, group in model.groups.items()}


def moved(model, before):
    return {
        name
        for name, group in model.groups.items()
        if any(not th.equal(p, q) for p, q in zip(group, before[name], strict=True))
    }


def test_models_have_one_cnn_group_per_encoder_and_one_mlp_group_per_network(make_model):
    assert list(make_model(policy_kwargs={"encoder": "separate"}).groups) == ALL
    assert list(make_model(policy_kwargs={"encoder": "shared"}).groups) == ["actor_mlp", "critic_cnn", "critic_mlp"]
    assert list(make_model("MlpPolicy", "Pendulum-v1").groups) == ["actor_mlp", "critic_mlp"]


def test_every_weight_is_in_exactly_one_group(make_model):
    for encoder in ("separate", "shared"):
        model = make_model(policy_kwargs={"encoder": encoder, "trunk_dim": 16, "layer_norm": True})
        ids = [id(p) for group in model.groups.values() for p in group]
        trained = {id(p) for network in (model.actor, model.critic) for p in network.parameters()}
        assert len(ids) == len(set(ids))
        assert set(ids) == trained


def test_a_trunk_belongs_to_the_heads(make_model):
    model = make_model(policy_kwargs={"encoder": "separate", "trunk_dim": 16})
    trunk = {id(p) for p in model.critic.trunk.parameters()}
    assert trunk <= {id(p) for p in model.groups["critic_mlp"]}


@pytest.mark.parametrize("group", ALL)
def test_a_learning_rate_of_zero_freezes_exactly_its_group(make_model, group):
    rate = f"{group.removesuffix('_mlp')}_lr"
    model = make_model(policy_kwargs={"encoder": "separate"}, **{rate: 0.0})
    before = snapshot(model)
    model.learn(30)
    assert moved(model, before) == set(ALL) - {group}


def test_rates_reach_the_optimizers_and_follow_their_schedules(make_model):
    model = make_model(
        policy_kwargs={"encoder": "separate"}, learning_rate=1e-3, actor_cnn_lr=1e-5, critic_cnn_lr="lin_4e-4"
    )
    model.learn(100)
    actor, critic = model.actor.optimizer.param_groups, model.critic.optimizer.param_groups
    assert [g["lr"] for g in actor] == [1e-5, 1e-3]
    # At the last update no progress remains, so the linear schedule is at 0.
    assert [g["lr"] for g in critic] == [pytest.approx(0.0), 1e-3]
    assert model.learning_rates == {
        "actor_cnn": 1e-5, "actor_mlp": 1e-3, "critic_cnn": pytest.approx(0.0), "critic_mlp": 1e-3
    }  # fmt: skip


RATES = {
    "actor_lr": 1e-5,
    "critic_lr": "lin_4e-4",
    "actor_cnn_lr": "cos_2e-4_1e-4",
    "critic_cnn_lr": lambda p: 3e-4 * p,
}


class AtStep(BaseCallback):
    """Read the optimizers' learning rates after the update of a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step
        self.rates = None

    def _on_step(self):
        return True

    def _on_rollout_start(self):
        if self.num_timesteps == self.step:
            self.rates = rates_in_optimizers(self.model)


def rates_in_optimizers(model):
    groups = (*model.actor.optimizer.param_groups, *model.critic.optimizer.param_groups)
    return dict(zip(ALL, (group["lr"] for group in groups), strict=True))


def test_each_groups_schedule_has_its_own_value_half_way(make_model):
    model = make_model(policy_kwargs={"encoder": "separate"}, **RATES)
    callback = AtStep(50)
    model.learn(100, callback)
    half_way = {"actor_cnn": 1.5e-4, "actor_mlp": 1e-5, "critic_cnn": 1.5e-4, "critic_mlp": 2e-4}
    assert callback.rates == pytest.approx(half_way)
    end = {"actor_cnn": 1e-4, "actor_mlp": 1e-5, "critic_cnn": 0.0, "critic_mlp": 0.0}
    assert rates_in_optimizers(model) == pytest.approx(end)


def test_continued_training_continues_the_schedules(make_model):
    """The second learn() begins with half of the progress remaining, as in Stable-Baselines3."""
    model = make_model(policy_kwargs={"encoder": "separate"}, **RATES)
    model.learn(40)
    callback = AtStep(60)
    model.learn(40, callback, reset_num_timesteps=False)
    assert callback.rates["critic_mlp"] == pytest.approx(1e-4)
    assert callback.rates["actor_mlp"] == 1e-5


def test_no_rate_is_negative_if_the_last_episode_exceeds_the_planned_steps(make_model):
    model = make_model(
        policy_kwargs={"encoder": "separate"},
        learning_rate="lin_1e-3",
        critic_cnn_lr="lin_4e-4_1e-4",
        noise_schedule="lin_0.5",
        train_freq=(1, "episode"),
    )
    model.learn(40)
    assert model.num_timesteps == 51
    assert model._current_progress_remaining < 0
    assert model.learning_rates == {"actor_cnn": 0.0, "actor_mlp": 0.0, "critic_cnn": 1e-4, "critic_mlp": 0.0}
    assert min(rates_in_optimizers(model).values()) == 0.0
    assert model.action_noise.sigma == 0.0


def test_set_parameters_sets_weights_and_moments_but_not_learning_rates(make_model):
    model = make_model(policy_kwargs={"encoder": "separate"}, **RATES)
    model.learn(40)
    other = make_model(policy_kwargs={"encoder": "separate"}, **{**RATES, "actor_lr": 7e-5, "seed": 9})
    other.set_parameters(model.get_parameters())
    for network in ("actor", "critic"):
        ours, theirs = getattr(model, network).optimizer.state_dict(), getattr(other, network).optimizer.state_dict()
        assert ours["state"].keys() == theirs["state"].keys()
        assert all(th.equal(ours["state"][k]["exp_avg_sq"], theirs["state"][k]["exp_avg_sq"]) for k in ours["state"])
    for name, group in model.groups.items():
        assert all(th.equal(p, q) for p, q in zip(group, other.groups[name], strict=True))
    other.learn(30)
    assert rates_in_optimizers(other)["actor_mlp"] == 7e-5
    assert model.learning_rates["actor_mlp"] == 1e-5


def test_rates_survive_saving_and_continued_training(make_model, tmp_path):
    model = make_model(policy_kwargs={"encoder": "separate"}, **RATES)
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu")
    assert rates_in_optimizers(loaded) == rates_in_optimizers(model)
    callback = AtStep(70)
    loaded.learn(60, callback, reset_num_timesteps=False)
    expected = dict(zip(ALL, (1.2061074e-4, 1e-5, 9e-5, 1.2e-4), strict=True))
    assert callback.rates == pytest.approx(expected)
    frozen = VisualTD3.load(tmp_path / "model", env=ImageEnv(), device="cpu", critic_lr=0.0)
    before = snapshot(frozen)
    frozen.learn(30)
    assert moved(frozen, before) == set(ALL) - {"critic_mlp"}


@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_the_camera_belongs_to_the_encoder_and_the_vector_to_the_heads(make_model, encoder):
    """Without a trunk, the first layer of the heads reads the camera's features and the vector."""
    model = make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs={"encoder": encoder, "trunk_dim": None})
    names = ["actor", "critic"] if encoder == "separate" else ["critic"]
    assert [group for group in model.groups if group.endswith("cnn")] == [f"{name}_cnn" for name in names]
    for name in names:
        extractor = getattr(model, name).features_extractor
        cnn = {id(p) for p in extractor.extractors["camera"].parameters()}
        assert {id(p) for p in model.groups[f"{name}_cnn"]} == cnn
        assert not list(extractor.extractors["state"].parameters())
    camera_features = model.critic.features_extractor.extractors["camera"].features_dim
    first_layers = {"actor_mlp": model.actor.mu[0].weight, "critic_mlp": model.critic.q_networks[0][0].weight}
    for group, weight in first_layers.items():
        assert any(p is weight for p in model.groups[group])
        assert weight.shape[1] == camera_features + 3 + (2 if group == "critic_mlp" else 0)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"actor_cnn_lr": 1e-4}, "actor_cnn_lr.*critic_cnn_lr"),
        ({"actor_lr": -1.0}, "actor_lr"),
        ({"critic_lr": "exp_1"}, "critic_lr"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"grad_clip": "unit"}, "grad_clip"),
        ({"max_grad_norm": {"actor_cnn": 1.0}}, "actor_cnn"),
        ({"max_grad_norm": {"world": 1.0}}, "world"),
        ({"max_grad_norm": {"critic": 1.0, "critic_cnn": 1.0}}, "critic_cnn"),
    ],
)
def test_arguments_that_a_shared_encoder_excludes_are_refused(make_model, kwargs, words):
    with pytest.raises(ValueError, match=words):
        make_model(policy_kwargs={"encoder": "shared"}, **kwargs)


def test_an_encoder_rate_for_vector_observations_is_refused(make_model):
    with pytest.raises(ValueError, match="critic_cnn"):
        make_model("MlpPolicy", "Pendulum-v1", critic_cnn_lr=1e-4)


class NormRecorder:
    """Keep the gradient norm of each group before and after clipping."""

    def __init__(self):
        self.before, self.after = [], []

    @staticmethod
    def norms(update):
        return {
            name: float(np.sqrt(sum(float(p.grad.double().pow(2).sum()) for p in group)))
            for name, group in update.groups.items()
        }

    def after_backward(self, update):
        self.before.append(self.norms(update))

    def after_clipping(self, update):
        self.after.append(self.norms(update))

    def after_step(self, update):
        pass


@pytest.mark.parametrize(
    ("max_grad_norm", "units"),
    [
        (1e-3, [({"actor_cnn", "actor_mlp"}, 1e-3), ({"critic_cnn", "critic_mlp"}, 1e-3)]),
        ({"critic": 1e-2}, [({"critic_cnn", "critic_mlp"}, 1e-2)]),
        ({"critic_cnn": 1e-3, "actor_mlp": 1e-4}, [({"critic_cnn"}, 1e-3), ({"actor_mlp"}, 1e-4)]),
    ],
)
def test_gradients_are_clipped_as_requested(make_model, max_grad_norm, units):
    model = make_model(policy_kwargs={"encoder": "separate"}, max_grad_norm=max_grad_norm, preset="td3")
    recorder = NormRecorder()
    model.observers.append(recorder)
    model.learn(30)
    clipped_groups = set().union(*(groups for groups, _ in units))
    for before, after in zip(recorder.before, recorder.after, strict=True):
        for groups, limit in units:
            if groups <= set(after):
                joint = np.sqrt(sum(before[g] ** 2 for g in groups))
                expected = {g: before[g] * min(1.0, limit / (joint + 1e-6)) for g in groups}
                assert {g: after[g] for g in groups} == pytest.approx(expected, rel=1e-4)
        for group in set(after) - clipped_groups:
            assert after[group] == before[group]
    assert any(norm > 1e-3 for norms in recorder.before for norm in norms.values()), "nothing there to clip"


def test_a_changed_lr_schedule_reaches_the_groups_without_a_rate_of_their_own(make_model):
    """Users replace ``model.lr_schedule`` after loading a model."""
    model = make_model(policy_kwargs={"encoder": "separate"}, actor_lr=1e-5)
    model.learn(30)
    model.lr_schedule = lambda _: 0.0
    before = snapshot(model)
    model.train(gradient_steps=2, batch_size=8)
    assert moved(model, before) == {"actor_mlp"}


def test_adaptive_clipping_equals_that_of_a_naive_twin():
    generator = th.Generator().manual_seed(0)
    for shape in [(5, 3), (4, 2, 3, 3), (6,)]:
        parameter = th.nn.Parameter(th.randn(shape, generator=generator))
        parameter.grad = 10 * th.randn(shape, generator=generator) * (th.rand(shape, generator=generator) > 0.5)
        expected = parameter.grad.clone()
        for row in range(shape[0]) if len(shape) > 1 else [slice(None)]:
            weight = max(float(parameter.detach()[row].norm()), 1e-3)
            gradient = float(expected[row].norm())
            if gradient > 0.3 * weight:
                expected[row] *= 0.3 * weight / gradient
        clip_adaptively([parameter], 0.3)
        th.testing.assert_close(parameter.grad, expected)


def test_adaptive_clipping_leaves_small_gradients_and_moves_zero_weights():
    small, zero = th.nn.Parameter(th.ones(2, 2)), th.nn.Parameter(th.zeros(1, 2))
    small.grad, zero.grad = th.full((2, 2), 0.01), th.tensor([[3.0, 4.0]])
    clip_adaptively([small, zero, th.nn.Parameter(th.ones(1))], 0.3)
    assert th.equal(small.grad, th.full((2, 2), 0.01))
    assert float(zero.grad.norm()) == pytest.approx(0.3e-3)


def test_adaptive_clipping_uses_the_factor_0_3_unless_max_grad_norm_is_given(make_model):
    assert make_model(grad_clip="adaptive").describe()["max_grad_norm"] == (0.3, "grad_clip")
    assert make_model(grad_clip="adaptive", max_grad_norm=0.1).describe()["max_grad_norm"] == (0.1, "argument")
    model = make_model(grad_clip="adaptive", max_grad_norm=1e-6)
    recorder = NormRecorder()
    model.observers.append(recorder)
    model.learn(30)
    for before, after in zip(recorder.before, recorder.after, strict=True):
        assert all(after[group] < before[group] for group in after)
