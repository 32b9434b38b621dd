"""Measures of the networks on one batch: saturation of the actions, dormant units, distance of the targets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BaseModel
from torch import nn

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import NETWORKS, Network
from sb3_visual_td3.health import quantities

TAU = 0.025
"""A unit counts as dormant at or below this part of its layer's mean activity. The paper shows counts for several
thresholds up to 0.1; this one is between them and 0."""

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Sigmoid)


def dormant_fraction(activations: Sequence[th.Tensor], tau: float = TAU) -> th.Tensor:
    """Fraction of tau-dormant units, over all layers together.

    The score of unit i of a layer with H units is ``s_i = E|h_i| / (1/H sum_k E|h_k|)``; it is tau-dormant where
    ``s_i <= tau``. A unit of a convolution is a channel, whose expectation is over positions as well. In a layer
    that is silent altogether, every unit is dormant.

    :param activations: one tensor per layer, ``(batch, units)`` or ``(batch, channels, height, width)``, after the
        non-linearity
    :param tau: the threshold, >= 0
    :return: a scalar in [0, 1]

    Source: Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", arXiv 2302.12902,
    definition 3.1, equation 1, and definition 3.2.
    """
    n_dormant, n_units = th.zeros((), device=activations[0].device), 0
    for layer in activations:
        activity = layer.detach().float().abs().transpose(0, 1).flatten(start_dim=1).mean(dim=1)
        # s_i <= tau without the division, which a silent layer would make 0/0.
        n_dormant = n_dormant + (activity <= tau * activity.mean()).sum()
        n_units += activity.numel()
    return n_dormant / n_units


@th.no_grad()
def activations_of(module: nn.Module, forward: Callable[[], object]) -> list[th.Tensor]:
    """Run a forward pass and keep what the module's non-linearities give.

    Nothing else is left behind: no gradient, no moved statistic of a normalisation, no random number drawn.

    :param module: the module to watch
    :param forward: runs it
    :return: one tensor for each of its activation modules, in the order of their calls
    """
    seen: list[th.Tensor] = []
    layers = [layer for layer in module.modules() if isinstance(layer, ACTIVATIONS)]
    # Cloned: a layer further on may write into its input in place.
    handles = [layer.register_forward_hook(lambda _l, _i, output: seen.append(output.clone())) for layer in layers]
    try:
        with _evaluating(module):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    trained = [layer for layer in module.modules() if layer.training]
    for layer in trained:
        layer.training = False
    try:
        yield
    finally:
        for layer in trained:
            layer.training = True


SMALL = 1_024
"""Weights of this many numbers and fewer stand for a network when the question is whether it moved."""

Observations = th.Tensor | Mapping[str, th.Tensor]


class NetworkProbe:
    """Measures networks between updates; it changes none of them and draws no random number.

    :param model: a Stable-Baselines3 algorithm with ``actor`` and ``critic``; targets may be missing
    :param n_images: how many observations of a batch the encoder is probed with, >= 1
    """

    def __init__(self, model: OffPolicyAlgorithm, n_images: int = 32) -> None:
        # Networks are looked up afresh each time: loading may replace them.
        self._model = weakref.ref(model)
        self._n_images = n_images
        self._small_before: dict[Network, th.Tensor] = {}

    def targets_moved(self) -> dict[str, th.Tensor]:
        """Say of each target network whether it is another than at the call before.

        Every weight moves together, so a look at the small ones is enough; one that moved by a rounding error is seen.
        The copies of frozen weights have nothing to follow and are not looked at.

        :return: 0 or 1 by tag; from the second call on, where the network is trained
        """
        moved = {}
        for network in NETWORKS:
            online, target = getattr(self._model(), network, None), getattr(self._model(), f"{network}_target", None)
            if not isinstance(target, nn.Module):
                continue
            trained = _copies_of_trained(online, target)
            if not trained:
                continue
            small = th.cat([weight.flatten() for weight in smallest(trained)])
            before = self._small_before.get(network)
            if before is not None and before.shape == small.shape:
                moved[tags.TARGET_MOVED[network]] = (small != before).any().float()
            self._small_before[network] = small
        return moved

    def distances(self) -> dict[str, th.Tensor]:
        """:return: by tag, the L2 distance of each network from its target copy"""
        found = {}
        for network in NETWORKS:
            online, target = getattr(self._model(), network, None), getattr(self._model(), f"{network}_target", None)
            if isinstance(online, nn.Module) and isinstance(target, nn.Module):
                found[tags.TARGET_DISTANCE[network]] = quantities.distance(_weights(online), _weights(target))
        return found

    def dormancy(self, observations: Observations) -> dict[str, th.Tensor]:
        """Probe the critic's encoder.

        :param observations: a batch as the replay buffer gave it
        :return: by tag, the dormant fraction; empty where the encoder has no non-linearity
        """
        critic = getattr(self._model(), "critic", None)
        if not isinstance(critic, BaseModel):
            return {}
        extractor = critic.features_extractor
        some = _first(observations, self._n_images)
        activations = activations_of(extractor, lambda: critic.extract_features(some, extractor))  # type: ignore[arg-type]
        return {tags.ENCODER_DORMANT_FRACTION: dormant_fraction(activations)} if activations else {}

    def get_state(self) -> dict[str, Any]:
        """:return: what the target networks looked like at the last call, as plain data"""
        return {name: small.cpu().numpy() for name, small in self._small_before.items()}

    def set_state(self, state: Mapping[str, Any], device: th.device | str = "cpu") -> None:
        """Go on from where ``get_state`` was called.

        :param state: as returned there
        :param device: where the networks are
        """
        self._small_before = {
            name: th.from_numpy(np.array(state[name])).to(device) for name in NETWORKS if name in state
        }


def smallest(weights: Sequence[th.Tensor]) -> list[th.Tensor]:
    """:return: the weights of ``SMALL`` numbers at most (biases, output layers), or the smallest there is"""
    small = [weight for weight in weights if weight.numel() <= SMALL]
    return small or [min(weights, key=th.Tensor.numel)]


def _copies_of_trained(online: object, target: nn.Module) -> list[th.Tensor]:
    """:return: the weights of a target copy whose originals are trained"""
    copies = _weights(target)
    originals = list(online.parameters()) if isinstance(online, nn.Module) else []
    if len(originals) != len(copies):
        return copies
    return [copy for copy, original in zip(copies, originals, strict=True) if original.requires_grad]


def _weights(module: nn.Module) -> list[th.Tensor]:
    return [parameter.detach() for parameter in module.parameters()]


def _first(observations: Observations, n: int) -> Observations:
    if isinstance(observations, Mapping):
        return {key: value[:n] for key, value in observations.items()}
    return observations[:n]
