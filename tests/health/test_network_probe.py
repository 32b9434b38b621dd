"""Test the measures of dormant units, target distances, and targets that do not move."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.utils import polyak_update
from torch import nn

from sb3_visual_td3.common import tags
from sb3_visual_td3.health.gradient_monitor import GradientMonitor
from sb3_visual_td3.health.network_probe import NetworkProbe, activations_of, dormant_fraction, smallest


def naive_dormant_fraction(layers, tau):
    n_dormant = n_units = 0
    for layer in layers:
        scores = []
        for unit in range(layer.shape[1]):
            values = [abs(float(v)) for v in layer[:, unit].reshape(-1)]
            scores.append(sum(values) / len(values))
        mean = sum(scores) / len(scores)
        n_dormant += sum(1 for score in scores if mean == 0 or score / mean <= tau)
        n_units += len(scores)
    return n_dormant / n_units


@pytest.mark.parametrize("tau", [0.0, 0.025, 0.5, 1.0])
def test_dormancy_equals_its_definition_written_with_loops(tau):
    generator = th.Generator().manual_seed(0)
    convolution = th.relu(th.randn(5, 6, 3, 3, generator=generator) - 1.0)
    convolution[:, 2] = 0.0
    dense = th.tanh(th.randn(5, 7, generator=generator))
    dense[:, 3] *= 1e-4
    layers = [convolution, dense, th.zeros(5, 4)]
    assert float(dormant_fraction(layers, tau)) == pytest.approx(naive_dormant_fraction(layers, tau))


def test_one_silent_unit_in_four_gives_a_quarter_whatever_the_scale_of_the_layer():
    layer = th.tensor([[1.0, 2.0, 3.0, 0.0]])
    assert float(dormant_fraction([layer])) == float(dormant_fraction([1e-9 * layer])) == 0.25


def test_probing_leaves_statistics_modes_and_random_numbers_as_they_were():
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.ReLU(inplace=True))
    module[1].eval()
    modes = [layer.training for layer in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = th.get_rng_state()
    seen = activations_of(module, lambda: module(th.ones(4, 2, 8, 8)))
    assert [tuple(layer.shape) for layer in seen] == [(4, 3, 6, 6)] * 2
    assert not any(layer.requires_grad for layer in seen)
    assert modes == [layer.training for layer in module.modules()]
    assert all(th.equal(value, before[name]) for name, value in module.state_dict().items())
    assert th.equal(random_state, th.get_rng_state())
    assert not any(layer._forward_hooks for layer in module)


def test_an_in_place_layer_does_not_change_recorded_activations():
    module = nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True))
    first, second = activations_of(module, lambda: module(th.tensor([[-1.0, 1.0]])))
    assert first.tolist() == [[pytest.approx(-0.7616, abs=1e-4), pytest.approx(0.7616, abs=1e-4)]]
    assert second[0, 0] == 0.0


@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_the_probe_of_a_model_equals_a_computation_by_hand(make_model, encoder):
    model = make_model(policy_kwargs={"encoder": encoder})
    model.learn(40)
    probe = NetworkProbe(model, n_images=8)
    for network, distance in zip(("actor", "critic"), probe.distances().values(), strict=True):
        online, target = getattr(model, network), getattr(model, f"{network}_target")
        squares = [
            ((a.double() - b.double()) ** 2).sum().item()
            for a, b in zip(online.parameters(), target.parameters(), strict=True)
        ]
        assert float(distance) == pytest.approx(np.sqrt(sum(squares)), rel=1e-4)
    observations = model.replay_buffer.sample(16).observations
    layers, maps = [], observations[:8].float() / 255
    for layer in model.critic.features_extractor.cnn:
        maps = layer(maps).detach()
        if isinstance(layer, nn.ReLU):
            layers.append(maps)
    (dormant,) = probe.dormancy(observations).values()
    assert float(dormant) == pytest.approx(naive_dormant_fraction(layers, 0.025))


def test_targets_moved_detects_a_small_polyak_update_but_no_change_of_online_weights(make_model):
    model = make_model()
    probe = NetworkProbe(model)
    assert probe.targets_moved() == {}, "the first look has nothing to compare with"
    with th.no_grad():
        next(model.critic.parameters()).add_(1.0)
    assert float(probe.targets_moved()[tags.TARGET_MOVED["critic"]]) == 0.0
    with th.no_grad():
        for weight in model.critic.parameters():
            weight.add_(1e-3)
    polyak_update(model.critic.parameters(), model.critic_target.parameters(), 0.005)
    moved = probe.targets_moved()
    assert float(moved[tags.TARGET_MOVED["critic"]]) == 1.0
    assert float(moved[tags.TARGET_MOVED["actor"]]) == 0.0


def test_smallest_returns_the_small_tensors_or_else_the_smallest_one():
    large, larger = th.zeros(2_000), th.zeros(3_000)
    assert smallest([larger, large]) == [large]
    bias = th.zeros(5)
    assert [w.numel() for w in smallest([larger, bias])] == [5]


class Frozen:
    """Imitate ``NetworkProbe`` with fixed values, and record the calls."""

    def __init__(self):
        self.calls = []

    def targets_moved(self):
        self.calls.append("moved")
        return {tags.TARGET_MOVED["critic"]: th.tensor(0.0)}

    def distances(self):
        self.calls.append("distance")
        return {tags.TARGET_DISTANCE["critic"]: th.tensor(2.0)}

    def dormancy(self, observations):
        self.calls.append("dormancy")
        return {tags.ENCODER_DORMANT_FRACTION: th.tensor(0.5)}


def test_the_monitor_takes_expensive_measures_once_per_window(make_model):
    model, monitor = make_model(), GradientMonitor(sample_freq=10)
    monitor.probe = Frozen()
    model.observers.append(monitor)
    model.learn(61)  # five of the updates 1 to 41 are measured
    read = monitor.read()
    assert monitor.probe.calls.count("moved") == 5
    assert monitor.probe.calls.count("distance") == 1
    assert (read[tags.TARGET_MOVED["critic"]], read[tags.TARGET_DISTANCE["critic"]]) == (0.0, 2.0)


class WithoutTargets(Frozen):
    """Imitate the probe of an algorithm that has no target networks, such as CrossQ."""

    def targets_moved(self):
        return {}

    def distances(self):
        return {}


def test_without_target_networks_dormancy_is_also_measured_once_per_window(make_model):
    model, monitor = make_model(), GradientMonitor(sample_freq=10)
    monitor.probe = WithoutTargets()
    model.observers.append(monitor)
    model.learn(61)
    restored = GradientMonitor(sample_freq=10)
    restored.probe = monitor.probe
    restored.probe.get_state = dict
    restored.probe.set_state = lambda state, device: None
    restored.set_state(monitor.get_state())
    model.observers[:] = [restored]
    model.learn(61, reset_num_timesteps=False)
    assert monitor.probe.calls.count("dormancy") == 1
    restored.read()
    model.learn(61, reset_num_timesteps=False)
    assert monitor.probe.calls.count("dormancy") == 2


def test_probing_a_bf16_model_gives_values_and_changes_no_weight(make_model):
    plain = make_model(precision="bf16")
    plain.learn(40)
    watched = make_model(precision="bf16")
    monitor = GradientMonitor(sample_freq=1)
    monitor.probe = NetworkProbe(watched)
    watched.observers.append(monitor)
    watched.learn(40)
    frames = th.as_tensor(watched.replay_buffer.sample(4).observations)
    assert 0.0 <= float(monitor.probe.dormancy(frames)[tags.ENCODER_DORMANT_FRACTION]) < 1.0
    read = monitor.read()
    assert read[tags.TARGET_DISTANCE["critic"]] > 0.0
    assert read[tags.TARGET_MOVED["critic"]] > 0.0
    for a, b in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert th.equal(a, b)
