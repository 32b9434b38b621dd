"""One action for weights that can choose none."""

from __future__ import annotations

import torch as th
from torch import nn


class StandIn:
    """Sets all weights to zero until they are put back, so that an action is finite.

    Stable-Baselines3 ends a training after a step. The environment is not to be handed a NaN for it, and policies with
    a distribution (SAC) would raise an error instead of acting.

    :param policy: the policy whose weights are not finite
    """

    def __init__(self, policy: nn.Module) -> None:
        tensors = [tensor for tensor in policy.state_dict().values() if tensor.is_floating_point()]
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]
        with th.no_grad():
            for tensor in tensors:
                tensor.zero_()

    def put_back(self) -> None:
        """Give the policy its own weights again; nothing more happens at the next call."""
        with th.no_grad():
            for tensor, kept in self._kept:
                tensor.copy_(kept)
        self._kept.clear()
