import math

import pytest
import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import NetworkUpdate
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.visual_td3.param_groups import clip_adaptively
from tests.image_env import ImageEnv


class NaiveMonitor:
    """Measure every update with plain Python numbers."""

    def __init__(self):
        self.norms, self.rewards, self.saturation = [], [], []

    def after_backward(self, update):
        norms = {
            name: math.sqrt(sum(float((p.grad.double() ** 2).sum()) for p in group))
            for name, group in update.groups.items()
        }
        self.norms.append((update.network, norms))
        if update.network == "critic":
            self.rewards.append(update.values["rewards"].flatten().tolist())

    def after_clipping(self, update):
        pass

    def after_step(self, update):
        if update.network == "actor":
            self.saturation.append(float((update.values["actions"].abs() > 0.98).float().mean()))


def means(naive, sampled):
    """Return the mean gradient norm of each group over the sampled updates of its network."""
    counts = {"actor": 0, "critic": 0}
    values = {}
    for network, norms in naive.norms:
        if sampled(network, counts[network]):
            for group, norm in norms.items():
                values.setdefault(group, []).append(norm)
        counts[network] += 1
    return {group: sum(v) / len(v) for group, v in values.items()}


@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_norms_and_rewards_equal_those_of_a_naive_twin(make_model, encoder):
    model = make_model(policy_kwargs={"encoder": encoder}, max_grad_norm=1e-4, scale_rewards=False)
    monitor, naive = GradientMonitor(sample_freq=1), NaiveMonitor()
    model.observers += [monitor, naive]
    model.learn(40)
    read = monitor.read()
    for group, mean in means(naive, lambda *_: True).items():
        assert read[tags.GRADIENT_NORM[group]] == pytest.approx(mean, rel=1e-4)
        assert read[tags.GRADIENT_NORM_CLIPPED[group]] <= 1.01e-4
        assert read[tags.CLIP_FRACTION[group]] == 1.0
        assert 0 < read[tags.UPDATE_RATIO[group]] < 1
    rewards = [r for batch in naive.rewards for r in batch]
    assert read[tags.REWARD_MIN] == pytest.approx(min(rewards))
    assert read[tags.REWARD_MAX] == pytest.approx(max(rewards))
    assert read[tags.Q_BOUND] == pytest.approx(max(map(abs, rewards)) / 0.01, rel=1e-3)
    assert read[tags.ACTION_SATURATION] == pytest.approx(sum(naive.saturation) / len(naive.saturation))
    assert read[tags.Q_GAP] == pytest.approx(read[tags.POLICY_Q_VALUE] - read[tags.Q1_VALUE])
    assert (tags.GRADIENT_NORM["actor_cnn"] in read) == (encoder == "separate")


class ClipCounter(NaiveMonitor):
    """Compare every number of every gradient before and after clipping."""

    def __init__(self):
        super().__init__()
        self.clipped = {}

    def after_backward(self, update):
        super().after_backward(update)
        self.before = {name: [p.grad.numpy().copy() for p in group] for name, group in update.groups.items()}

    def after_clipping(self, update):
        for name, group in update.groups.items():
            pairs = zip(group, self.before[name], strict=True)
            self.clipped.setdefault(name, []).append(any((p.grad.numpy() != old).any() for p, old in pairs))


@pytest.mark.parametrize("grad_clip", ["norm", "adaptive"])
def test_the_clip_fraction_is_the_share_of_updates_that_clipping_changed(make_model, grad_clip):
    settings = {"policy_kwargs": {"encoder": "separate"}, "preset": "td3", "grad_clip": grad_clip}
    free = make_model(**settings, max_grad_norm=1e9)
    naive = NaiveMonitor()
    free.observers.append(naive)
    free.learn(60)
    norms = sorted(norms["critic_mlp"] for network, norms in naive.norms if network == "critic")
    # At first, about half of the norms are above the median. Clipping then changes the later norms.
    limit = norms[len(norms) // 2] if grad_clip == "norm" else 0.02
    model = make_model(**settings, max_grad_norm={"critic_mlp": limit})
    monitor, counter = GradientMonitor(sample_freq=1), ClipCounter()
    model.observers += [monitor, counter]
    model.learn(60)
    read = monitor.read()
    for group, clipped in counter.clipped.items():
        assert read[tags.CLIP_FRACTION[group]] == pytest.approx(sum(clipped) / len(clipped)), group
    assert read[tags.CLIP_FRACTION["critic_cnn"]] == read[tags.CLIP_FRACTION["actor_mlp"]] == 0.0
    assert 0.0 < read[tags.CLIP_FRACTION["critic_mlp"]] <= 1.0


def test_one_small_clipped_unit_counts_although_the_norm_hides_it():
    """Adaptive clipping scales each unit separately: here it clips a gradient of 4e-4, but not gradients of 1."""
    large, small = th.nn.Parameter(th.full((2, 2), 100.0)), th.nn.Parameter(th.zeros(1))
    group = [large, small]
    monitor = GradientMonitor(sample_freq=1)
    update = NetworkUpdate("actor", 1, {"actor_mlp": group}, {})
    large.grad, small.grad = th.ones(2, 2), th.full((1,), 4e-4)
    monitor.after_backward(update)
    clip_adaptively(group, 0.3)
    assert float(small.grad) == pytest.approx(3e-4)
    monitor.after_clipping(update)
    read = monitor.read()
    assert read[tags.CLIP_FRACTION["actor_mlp"]] == 1.0
    assert read[tags.GRADIENT_NORM_CLIPPED["actor_mlp"]] == pytest.approx(read[tags.GRADIENT_NORM["actor_mlp"]])


def test_only_every_tenth_update_is_measured(make_model):
    model = make_model()
    monitor, naive = GradientMonitor(sample_freq=10), NaiveMonitor()
    model.observers += [monitor, naive]
    model.learn(61)  # 41 updates of the critics, 20 of the actor
    read = monitor.read()
    expected = means(naive, lambda network, n: n % (10 if network == "critic" else 5) == 0)
    for group, mean in expected.items():
        assert read[tags.GRADIENT_NORM[group]] == pytest.approx(mean, rel=1e-4)


def test_watching_changes_no_weight(make_model):
    plain = make_model()
    plain.learn(40)
    watched = make_model()
    watched.observers.append(GradientMonitor(sample_freq=1))
    watched.learn(40)
    for a, b in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert th.equal(a, b)


def test_each_read_starts_a_new_window(make_model):
    model = make_model(env=ImageEnv())
    monitor = GradientMonitor(sample_freq=1)
    model.observers.append(monitor)
    model.learn(30)
    assert monitor.read()
    assert monitor.read() == {}
    assert monitor.n_updates == 0
