"""The named groups of a stock algorithm's weights, found by module and by the optimizer that steps them."""

from __future__ import annotations

import torch as th
from torch import nn

from sb3_visual_td3.common.types import NETWORKS, Network

Groups = dict[str, list[th.Tensor]]


def stepped_groups(actor: nn.Module, critic: nn.Module) -> dict[Network, Groups]:
    """Sort the weights that each optimizer moves: the features extractor is cnn, the rest is mlp.

    An encoder that Stable-Baselines3 shares (``share_features_extractor``) is trained by the actor's loss alone, so
    it is the actor's, though TD3 lists it in the critic's optimizer too, where it never has a gradient.

    :param actor: with its ``optimizer``
    :param critic: with its ``optimizer``
    :return: by network, by group name; a group without weights is absent
    """
    return {name: _groups(name, module, actor) for name, module in zip(NETWORKS, (actor, critic), strict=True)}


def encoder_is_shared(actor: nn.Module, critic: nn.Module) -> bool | None:
    """:return: whether actor and critic have one encoder; None where there is none to have"""
    encoders = [_encoder(module) for module in (actor, critic)]
    return None if not encoders[0] or not encoders[1] else encoders[0][0] is encoders[1][0]


def _groups(name: Network, module: nn.Module, actor: nn.Module) -> Groups:
    optimizer = module.optimizer
    assert isinstance(optimizer, th.optim.Optimizer)
    encoder = {id(weight) for weight in _encoder(module)}
    borrowed = set() if module is actor else {id(weight) for weight in _encoder(actor)}
    stepped = [weight for group in optimizer.param_groups for weight in group["params"] if id(weight) not in borrowed]
    groups = {
        f"{name}_cnn": [weight for weight in stepped if id(weight) in encoder],
        f"{name}_mlp": [weight for weight in stepped if id(weight) not in encoder],
    }
    return {group: weights for group, weights in groups.items() if weights}


def _encoder(module: nn.Module) -> list[th.Tensor]:
    extractor = module.features_extractor
    assert isinstance(extractor, nn.Module)
    return list(extractor.parameters())
