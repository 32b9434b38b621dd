"""Define the parameter groups: parts of actor and critic with their own learning rate, clipping and measurements.

Weights, learning rates and gradient norms are stored and logged by the name of their group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sb3_visual_td3.common.types import Network

if TYPE_CHECKING:
    import torch as th


@dataclass(frozen=True)
class Group:
    """Describe one named parameter group of one network.

    :param name: name of the group, such as ``"actor_cnn"``, which is also a part of logged tags
    :param network: the network whose optimizer updates the group
    :param is_encoder: True for the features extractor; False for the rest of the network (trunk and heads)
    """

    name: str
    network: Network
    is_encoder: bool

    @property
    def short_name(self) -> str:
        """Return the short name of the group: ``"actor"`` for ``actor_mlp``, ``"actor_cnn"`` for ``actor_cnn``.

        The names of arguments such as ``actor_lr`` and ``actor_cnn_lr`` begin with the short name.
        """
        return self.name if self.is_encoder else self.network

    @property
    def rate_argument(self) -> str:
        """Return the argument of VisualTD3 that sets the group's learning rate, such as ``"actor_cnn_lr"``."""
        return f"{self.short_name}_lr"


ACTOR_CNN = Group("actor_cnn", "actor", is_encoder=True)
ACTOR_MLP = Group("actor_mlp", "actor", is_encoder=False)
CRITIC_CNN = Group("critic_cnn", "critic", is_encoder=True)
"""The critics' encoder. An encoder that actor and critic share also belongs to this group, because only the critic's
loss trains the shared encoder."""
CRITIC_MLP = Group("critic_mlp", "critic", is_encoder=False)

GROUPS = (ACTOR_CNN, ACTOR_MLP, CRITIC_CNN, CRITIC_MLP)
"""All groups, in the order of plots and tables. Within a network the encoder comes first, as in ``parameters()``."""
GROUP_NAMES = tuple(group.name for group in GROUPS)
GROUP_OF_NAME = {group.name: group for group in GROUPS}


def groups_of(network: Network) -> tuple[Group, Group]:
    """Return the two groups of weights of a network: its encoder, and the rest of the network."""
    encoder, rest = (group for group in GROUPS if group.network == network)
    return encoder, rest


def checked_weights(weights: Sequence[th.Tensor]) -> list[th.Tensor]:
    """Choose a few weights of a group. If their gradients are finite, all gradients of the group are finite.

    The reason is that a NaN anywhere in the backward pass reaches the biases of the layers before it.

    :param weights: the weights of one group
    :return: the vectors (biases, LayerNorms) that have a gradient; without such a vector, the smallest weight with a
        gradient; an empty list if no weight has a gradient
    """
    moved = [weight for weight in weights if weight.grad is not None]
    vectors = [weight for weight in moved if weight.dim() == 1]
    if vectors or not moved:
        return vectors
    return [min(moved, key=lambda weight: weight.numel())]
