"""Measure properties of the networks, such as the share of dormant units and the distance of the target networks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
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
"""A unit is dormant if its activity is at most this fraction of its layer's mean activity; for the source see
:func:`dormant_fraction`."""

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Sigmoid)


def dormant_fraction(activations: Sequence[th.Tensor], tau: float = TAU) -> th.Tensor:
    """Return the fraction of tau-dormant units, over all layers together.

    Unit i of a layer with H units is tau-dormant if ``E|h_i| / (1/H sum_k E|h_k|) <= tau``. E is the mean over the
    batch. In a convolution, a unit is a channel, and E is also the mean over the positions. In a layer without
    activity, every unit is dormant.

    :param activations: one tensor per layer, ``(batch, units)`` or ``(batch, channels, height, width)``, after the
        non-linearity
    :param tau: threshold, >= 0
    :return: a scalar in [0, 1]

    Source: Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning", arXiv 2302.12902,
    definitions 3.1 and 3.2.
    """
    n_dormant, n_units = th.zeros((), device=activations[0].device), 0
    for layer in activations:
        activity = layer.detach().float().abs().transpose(0, 1).flatten(start_dim=1).mean(dim=1)
        # activity, (units,): the mean over the batch and, for convolutions, over positions. The threshold is multiplied
        # by the layer's mean, because a division by this mean would be 0/0 in a layer without activity.
        n_dormant = n_dormant + (activity <= tau * activity.mean()).sum()
        n_units += activity.numel()
    return n_dormant / n_units


@th.no_grad()
def activations_of(module: nn.Module, forward: Callable[[], object]) -> list[th.Tensor]:
    """Run a forward pass without side effects and return the outputs of the module's non-linearities.

    :param module: the module to observe
    :param forward: function that runs the module
    :return: one tensor per non-linearity, in the order of the calls
    """
    seen: list[th.Tensor] = []
    layers = [layer for layer in module.modules() if isinstance(layer, ACTIVATIONS)]
    # Cloned, because a later layer may write into its input in place.
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
"""Weight tensors with at most this many elements are compared with their earlier values, to find out whether a network
has changed."""

Observations = th.Tensor | Mapping[str, th.Tensor]


class NetworkProbe:
    """Measure networks between updates, without changing them and without drawing random numbers.

    :param model: an algorithm with ``actor`` and ``critic``; target networks may be missing
    :param n_images: ``dormancy`` runs the encoder on at most this many observations of its batch, >= 1
    """

    def __init__(self, model: OffPolicyAlgorithm, n_images: int = 32) -> None:
        # The networks are looked up in the model at each use, because loading may replace them.
        self._model = weakref.ref(model)
        self._n_images = n_images
        self._small_before: dict[Network, th.Tensor] = {}

    def targets_moved(self) -> dict[str, th.Tensor]:
        """Return whether the weights of each target network have changed since the last call.

        Copies of frozen weights are left out.

        :return: 0 or 1 by tag; empty at the first call
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
        """Return the L2 distance of each network from its target copy, by tag."""
        found = {}
        for network in NETWORKS:
            online, target = getattr(self._model(), network, None), getattr(self._model(), f"{network}_target", None)
            if isinstance(online, nn.Module) and isinstance(target, nn.Module):
                found[tags.TARGET_DISTANCE[network]] = quantities.distance(_weights(online), _weights(target))
        return found

    def dormancy(self, observations: Observations) -> dict[str, th.Tensor]:
        """Measure the dormant units of the critic's encoder, or of the actor's if the critic reads no pictures.

        :param observations: a batch from the replay buffer
        :return: the dormant fraction by tag; empty if no encoder has a non-linearity
        """
        some = _first(observations, self._n_images)
        for name in ("critic", "actor"):
            network = getattr(self._model(), name, None)
            if not isinstance(network, BaseModel):
                continue
            extractor = network.features_extractor
            activations = activations_of(extractor, partial(network.extract_features, some, extractor))  # type: ignore[arg-type]
            if activations:
                return {tags.ENCODER_DORMANT_FRACTION: dormant_fraction(activations)}
        return {}

    def get_state(self) -> dict[str, Any]:
        """Return for each network the target weights that :meth:`targets_moved` stored for its next call."""
        return {name: small.cpu().numpy() for name, small in self._small_before.items()}

    def set_state(self, state: Mapping[str, Any], device: th.device | str = "cpu") -> None:
        """Restore the target weights that :meth:`targets_moved` stored for its next call.

        :param state: result of ``get_state``
        :param device: device of the networks
        """
        self._small_before = {
            name: th.from_numpy(np.array(state[name])).to(device) for name in NETWORKS if name in state
        }


def smallest(weights: Sequence[th.Tensor]) -> list[th.Tensor]:
    """Return the tensors with at most ``SMALL`` numbers, such as biases; if all tensors are larger, the smallest."""
    small = [weight for weight in weights if weight.numel() <= SMALL]
    return small or [min(weights, key=th.Tensor.numel)]


def _copies_of_trained(online: object, target: nn.Module) -> list[th.Tensor]:
    """Return those weights of a target network whose originals are trained."""
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
