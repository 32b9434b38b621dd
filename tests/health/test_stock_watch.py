"""Test StockWatch on TD3, SAC, DDPG, TQC and CrossQ."""

import math

import pytest
import torch as th
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import DDPG, DQN, SAC, TD3

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import WatchedModel
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.network_probe import NetworkProbe
from sb3_visual_td3.health.stock_watch import StockWatch, attach
from tests.image_env import ImageEnv

PIXELS, VECTORS = "CnnPolicy", "MlpPolicy"
CASES = [(SAC, PIXELS), (TD3, PIXELS), (TQC, VECTORS), (DDPG, VECTORS), (CrossQ, VECTORS)]
IDS = [cls.__name__ for cls, _ in CASES]


def make(cls, policy, **kwargs):
    env = ImageEnv() if policy == PIXELS else "Pendulum-v1"
    settings = {"buffer_size": 300, "learning_starts": 20, "batch_size": 8, "seed": 0, "device": "cpu"}
    return cls(policy, env, **{**settings, **kwargs})


class ByHand:
    """Compute the gradient norms of encoder and head before each optimizer step, with plain Python numbers."""

    def __init__(self, model):
        self.norms = {}
        for network in ("actor", "critic"):
            getattr(model, network).optimizer.register_step_pre_hook(self._hook(network, getattr(model, network)))

    def _hook(self, network, module):
        def read(*_):
            for kind in ("cnn", "mlp"):
                squares = [
                    float((weight.grad.double() ** 2).sum())
                    for name, weight in module.named_parameters()
                    if weight.grad is not None and name.startswith("features_extractor") == (kind == "cnn")
                ]
                if squares:
                    self.norms.setdefault(f"{network}_{kind}", []).append(math.sqrt(sum(squares)))

        return read


@pytest.mark.parametrize(("cls", "policy"), CASES, ids=IDS)
def test_norms_equal_those_read_from_the_gradients_by_hand(cls, policy):
    model = make(cls, policy)
    by_hand, monitor = ByHand(model), GradientMonitor(sample_freq=1)
    attach(model, monitor)
    model.learn(40)
    read = monitor.read()
    groups = {"actor_mlp", "critic_mlp"} | ({"actor_cnn", "critic_cnn"} if policy == PIXELS else set())
    assert set(by_hand.norms) == groups
    for group in groups:
        norms = by_hand.norms[group]
        assert read[tags.GRADIENT_NORM[group]] == pytest.approx(sum(norms) / len(norms), rel=1e-5), group
        assert 0.0 < read[tags.GRADIENT_NORM[group]] < math.inf
        assert 0.0 < read[tags.UPDATE_RATIO[group]] < 1.0
    assert {tag for tag in read if tag in tags.GRADIENT_NORM.values()} == {tags.GRADIENT_NORM[g] for g in groups}
    assert read[tags.SEEN_BY_OPTIMIZER] == 1.0


@pytest.mark.parametrize(("cls", "policy"), CASES, ids=IDS)
def test_values_that_stock_algorithms_do_not_expose_are_absent_and_others_are_present(cls, policy):
    model = make(cls, policy)
    monitor = GradientMonitor(sample_freq=1)
    monitor.probe = NetworkProbe(model)
    attach(model, monitor)
    model.learn(40)
    read = monitor.read()
    hidden = {tags.CRITIC_LOSS, tags.ACTOR_LOSS, tags.TARGET_Q_MEAN, tags.REWARD_MAX, tags.Q_BOUND}
    hidden |= {*tags.GRADIENT_NORM_CLIPPED.values(), *tags.CLIP_FRACTION.values()}
    assert not hidden & set(read)
    seen = {tags.Q1_VALUE, tags.POLICY_Q_VALUE, tags.Q_GAP, tags.ACTION_SATURATION, tags.ACTION_STD_MIN}
    assert seen <= set(read)
    assert (tags.Q2_VALUE in read) == (cls is not DDPG)
    assert (tags.TARGET_DISTANCE["critic"] in read) == (cls is not CrossQ)
    assert (tags.ENCODER_DORMANT_FRACTION in read) == (policy == PIXELS)
    assert all(math.isfinite(value) for value in read.values())


class Spy:
    """Record the calls and the updates that an observer gets."""

    def __init__(self):
        self.calls, self.updates = [], []

    def after_backward(self, update):
        self.calls.append((update.network, update.n_updates, "backward"))

    def after_clipping(self, update):
        self.calls.append((update.network, update.n_updates, "clipping"))

    def after_step(self, update):
        self.calls.append((update.network, update.n_updates, "step"))
        self.updates.append(update)


def test_td3_and_visual_td3_show_the_same_values_in_the_same_training():
    """With the preset td3, VisualTD3 trains exactly like stock TD3."""
    seen, expected = Spy(), Spy()
    stock = make(TD3, PIXELS)
    attach(stock, seen)
    stock.learn(30)
    ours = make(VisualTD3, PIXELS, preset="td3")
    ours.observers.append(expected)
    ours.learn(30)
    assert seen.calls == expected.calls
    for update, twin in zip(seen.updates, expected.updates, strict=True):
        for key, value in update.values.items():
            assert th.equal(value, twin.values[key]), (update.network, key)
        assert update.groups.keys() == twin.groups.keys()
        for group, weights in update.groups.items():
            assert [w.shape for w in weights] == [w.shape for w in twin.groups[group]]
    assert set(seen.updates[-1].values) | set(seen.updates[-2].values) == {
        "q_values",
        "policy_q",
        "pre_tanh",
        "actions",
    }


def test_sacs_values_are_those_of_its_networks_before_the_step():
    """With a learning rate of 0, the test can compute the same values after the training."""
    model = make(SAC, PIXELS, learning_rate=0.0)
    spy = Spy()
    attach(model, spy)
    model.learn(22)
    critic_update, actor_update = spy.updates[-2:]
    mean, _, _ = model.actor.get_action_dist_params(actor_update.observations)
    assert th.equal(actor_update.values["pre_tanh"], mean.detach())
    assert th.equal(actor_update.values["actions"], th.tanh(mean).detach())
    assert critic_update.values["q_values"].shape == (8, 2)
    assert critic_update.values["q_values"].requires_grad is False


def calls_of_critic(model):
    """Return a list that gets observations and output of every forward pass of the critic."""
    calls = []
    model.critic.register_forward_hook(lambda _module, args, output: calls.append((args[0], output)))
    return calls


def updates_of(spy, network):
    return [update for update in spy.updates if update.network == network]


def test_crossqs_q_values_are_those_of_the_current_observations(monkeypatch):
    model = make(CrossQ, VECTORS)
    spy, calls, batches = Spy(), calls_of_critic(model), []
    attach(model, spy)
    sample = model.replay_buffer.sample

    def sampled(*args, **kwargs):
        batches.append(sample(*args, **kwargs))
        return batches[-1]

    monkeypatch.setattr(model.replay_buffer, "sample", sampled)
    model.learn(24)
    # The critic gets observations and next observations in one batch. The actor's batches have observations only.
    joint = [call for call in calls if len(call[0]) == 16]
    for update, (observations, q_values), batch in zip(updates_of(spy, "critic"), joint, batches, strict=True):
        assert th.equal(observations[:8], batch.observations)
        assert th.equal(update.values["q_values"], th.cat(q_values, dim=1)[:8])
    of_actor = [call for call in calls if len(call[0]) == 8]
    for update, (_, q_values) in zip(updates_of(spy, "actor"), of_actor, strict=True):
        assert th.equal(update.values["policy_q"], q_values[0])


def test_tqcs_q_values_are_means_over_the_quantiles():
    model = make(TQC, VECTORS)
    spy, calls = Spy(), calls_of_critic(model)
    attach(model, spy)
    model.learn(24)
    # In each update, the critic first runs for its own loss and then for the actor's.
    quantiles = [output for _, output in calls]
    assert {output.shape for output in quantiles} == {(8, 2, 25)}
    for update, output in zip(updates_of(spy, "critic"), quantiles[::2], strict=True):
        th.testing.assert_close(update.values["q_values"], output.mean(dim=2))
    for update, output in zip(updates_of(spy, "actor"), quantiles[1::2], strict=True):
        th.testing.assert_close(update.values["policy_q"], output[:, :1].mean(dim=2))


def test_the_actors_updates_are_shown_and_those_of_other_optimizers_are_not():
    td3, sac = make(TD3, PIXELS, policy_delay=2), make(SAC, PIXELS, train_freq=4, gradient_steps=4)
    spies = []
    for model in (td3, sac):
        spies.append(Spy())
        attach(model, spies[-1])
        model.learn(28)
    steps = [[(network, n) for network, n, at in spy.calls if at == "step"] for spy in spies]
    assert [n for network, n in steps[0] if network == "critic"] == list(range(1, 9))
    assert [n for network, n in steps[0] if network == "actor"] == [2, 4, 6, 8]
    assert steps[1] == [(network, n) for n in range(1, 9) for network in ("critic", "actor")]


@pytest.mark.parametrize(("cls", "policy"), CASES, ids=IDS)
def test_watching_changes_no_weight(cls, policy):
    plain = make(cls, policy)
    plain.learn(36)
    watched = make(cls, policy)
    monitor = GradientMonitor(sample_freq=1, keep_points=True)
    monitor.probe = NetworkProbe(watched)
    attach(watched, monitor)
    watched.learn(36)
    assert monitor.read()
    for a, b in zip(plain.policy.state_dict().values(), watched.policy.state_dict().values(), strict=True):
        assert th.equal(a, b)


def test_an_encoder_that_sb3_shares_does_not_count_as_shared_in_visual_td3_either():
    kwargs = {"share_features_extractor": True}
    model = VisualTD3("CnnPolicy", ImageEnv(), preset="td3", policy_kwargs=kwargs, device="cpu", buffer_size=100)
    assert model.encoder_is_shared is False


@pytest.mark.parametrize("cls", [TD3, SAC])
def test_an_encoder_that_sb3_shares_belongs_to_the_actor(cls):
    model = make(cls, PIXELS, policy_kwargs={"share_features_extractor": True})
    by_hand, monitor = ByHand(model), GradientMonitor(sample_freq=1)
    watch = attach(model, monitor)
    model.learn(30)
    assert watch.encoder_is_shared is False, "only an encoder that the critic's loss trains counts as shared"
    assert set(watch.groups) == {"actor_cnn", "actor_mlp", "critic_mlp"}
    read = monitor.read()
    assert tags.GRADIENT_NORM["critic_cnn"] not in read
    norms = by_hand.norms["actor_cnn"]
    assert read[tags.GRADIENT_NORM["actor_cnn"]] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert read[tags.GRADIENT_NORM["actor_cnn"]] > 0.0


def count_steps(model, spy, n_steps):
    before = len(spy.updates)
    model.learn(n_steps, reset_num_timesteps=False)
    return len(spy.updates) - before


def test_after_set_parameters_every_update_is_shown_once_with_or_without_attaching_again(tmp_path):
    model = make(SAC, VECTORS)
    spy = Spy()
    watch = attach(model, spy)
    model.learn(30)
    model.save(tmp_path / "model")
    model.set_parameters(tmp_path / "model")
    assert watch.is_attached
    assert count_steps(model, spy, 5) == 10
    watch.attach()
    watch.attach()
    assert count_steps(model, spy, 5) == 10
    n_updates = [u.n_updates for u in spy.updates if u.network == "critic"]
    assert n_updates == list(range(1, len(n_updates) + 1))


def test_attaching_again_finds_replaced_networks():
    model = make(SAC, VECTORS)
    spy = Spy()
    watch = attach(model, spy)
    model.learn(25)
    model._setup_model()
    assert not watch.is_attached
    assert count_steps(model, spy, 5) == 0
    watch.attach()
    assert watch.is_attached
    assert count_steps(model, spy, 5) == 10


def test_detaching_removes_every_hook_and_a_model_saved_while_attached_loads(tmp_path):
    model = make(SAC, PIXELS)
    spy = Spy()
    watch = attach(model, spy)
    model.learn(25)
    model.save(tmp_path / "model")
    watch.detach()
    assert not watch.is_attached
    assert count_steps(model, spy, 3) == 0
    for network in (model.actor, model.critic):
        assert not network.optimizer._optimizer_step_pre_hooks
        assert not network.optimizer._optimizer_step_post_hooks
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    loaded = SAC.load(tmp_path / "model", env=ImageEnv())
    assert attach(loaded).is_attached


def test_stock_watch_implements_watched_model_with_the_values_of_the_model():
    model = make(SAC, PIXELS, learning_rate=2e-4)
    watch = StockWatch(model)
    assert isinstance(watch, WatchedModel)
    assert watch.reward_is_normalized is False
    assert watch.encoder_is_shared is False
    assert StockWatch(make(SAC, VECTORS)).encoder_is_shared is None
    assert watch.learning_rates == dict.fromkeys(("actor_cnn", "actor_mlp", "critic_cnn", "critic_mlp"), 2e-4)
    assert watch.describe()["batch_size"] == (8, "SAC")


def test_an_algorithm_without_actor_and_critic_is_refused():
    with pytest.raises(ValueError, match=r"DQN has no actor or no critic, or one of them lacks an optimizer.*expected"):
        attach(DQN("MlpPolicy", "CartPole-v1"))
