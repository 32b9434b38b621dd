"""How many units of an encoder have stopped to contribute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch as th
from torch import nn

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
