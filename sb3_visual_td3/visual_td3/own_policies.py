"""Policy classes of the user's own: those that inherit from Stable-Baselines3's, and those that inherit from ours.

A subclass of Stable-Baselines3's ``TD3Policy`` may build any actor, critic and optimizers. VisualTD3 asks no more of it
than TD3 does, and trains it as TD3 does, bit for bit. A subclass of :class:`VisualTD3Policy` has all of VisualTD3, and
must keep what its updates rely on.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_visual_td3.common.types import NETWORKS
from sb3_visual_td3.visual_td3 import losses
from sb3_visual_td3.visual_td3.batches import Batch
from sb3_visual_td3.visual_td3.policies import OURS_FOR_STOCK, VisualActor, VisualCritic, VisualTD3Policy

_OURS = "sb3_visual_td3.visual_td3.policies"
_STOCK_VALUES: Mapping[str, tuple[Any, ...]] = {
    "preset": (None, "td3"),
    "actor_lr": (None,),
    "critic_lr": (None,),
    "actor_cnn_lr": (None,),
    "critic_cnn_lr": (None,),
    "actor_objective": (None, "q1"),
    "pre_tanh_penalty": (None, 0, 0.0),
    "precision": (None, "fp32"),
}
"""Arguments whose work VisualTD3 does inside its own networks, with the values that leave these as they are."""


def is_stock(policy_class: type) -> bool:
    """Tell whether a policy class, which may be the user's own, has Stable-Baselines3's interface and not ours."""
    return not issubclass(policy_class, VisualTD3Policy)


def check_arguments(policy_class: type, arguments: Mapping[str, Any]) -> None:
    """Refuse what a policy of Stable-Baselines3's kind cannot do, before it is built.

    :param policy_class: the class, after Stable-Baselines3's own have been replaced by ours
    :param arguments: the model's, by name
    :raises ValueError: if an argument needs a policy of our kind; it names the class to inherit from
    """
    if not is_stock(policy_class):
        return
    for name, stock in _STOCK_VALUES.items():
        value = arguments.get(name)
        if not any(value is each or (type(value) is type(each) and value == each) for each in stock):
            raise ValueError(
                f"{name}={value!r} needs a policy class that inherits from {_OURS}.VisualTD3Policy, VisualCnnPolicy or "
                f"VisualMultiInputPolicy; {policy_class.__name__} inherits from {policy_class.__mro__[1].__name__} and "
                "trains as with Stable-Baselines3's TD3. Change the class that it inherits from, or leave the "
                "argument out. Optimizers of its own for actor and critic are then actor_lr and critic_lr"
            )


def check_keywords(policy_class: type[BasePolicy], keywords: Iterable[str]) -> None:
    """Refuse what the policy would not know; what a policy of the user's own takes is its own affair.

    :param policy_class: the policy that is about to be built
    :param keywords: the keys of its ``policy_kwargs``
    :raises ValueError: if one of our policies has no such parameter
    """
    if policy_class not in OURS_FOR_STOCK.values():
        return
    parameters = [*inspect.signature(TD3Policy).parameters, *inspect.signature(VisualTD3Policy).parameters]
    known = set(parameters) - {"observation_space", "action_space", "lr_schedule", "args", "kwargs"}
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise ValueError(f"policy_kwargs has no {', '.join(unknown)}: expected some of {', '.join(sorted(known))}")


def check_networks(policy: nn.Module, lr_schedule: Schedule) -> None:
    """Refuse networks and optimizers that the updates cannot train, when a policy has been built.

    :param policy: any policy for TD3
    :param lr_schedule: the model's ``learning_rate``
    :raises ValueError: if a network has no optimizer, or a policy of our kind has networks of another kind
    """
    name = type(policy).__name__
    for network in NETWORKS:
        module = getattr(policy, network, None)
        optimizer = getattr(module, "optimizer", None)
        if not isinstance(module, nn.Module) or not isinstance(optimizer, th.optim.Optimizer):
            raise ValueError(
                f"{name}.{network} is {type(module).__name__} with optimizer={optimizer!r}: expected a network whose "
                "attribute optimizer is a torch optimizer, as TD3Policy._build makes it"
            )
        first_rate = lr_schedule(1.0)
        if isinstance(policy, VisualTD3Policy):
            _check_ours(policy, network)
        own_rates = sorted({float(group["lr"]) for group in optimizer.param_groups} - {float(first_rate)})
        if own_rates:
            warnings.warn(
                f"{name} gives the {network}'s optimizer the learning rate {', '.join(map(str, own_rates))}. As in "
                f"Stable-Baselines3, learning_rate={first_rate} replaces it at the first update. A rate for each "
                f"network: {network}_lr={own_rates[0]}, with a policy class that inherits from {_OURS}.VisualTD3Policy",
                stacklevel=2,
            )


def _check_ours(policy: VisualTD3Policy, network: str) -> None:
    kind = VisualActor if network == "actor" else VisualCritic
    for name in (network, f"{network}_target"):
        module = getattr(policy, name)
        if not isinstance(module, kind):
            raise ValueError(
                f"{type(policy).__name__}.{name} is a {type(module).__name__}: expected a {_OURS}.{kind.__name__}, "
                "whose methods the updates call. Have it inherit from that, or the policy class from "
                "Stable-Baselines3's TD3Policy, which trains as with its TD3"
            )
    if network == "actor" and policy.encoder_is_shared and not policy.actor.borrows_encoder:
        raise ValueError(
            f"{type(policy).__name__}.make_actor gives the actor the critic's encoder as its own: under "
            "encoder='shared' pass borrows_encoder=features_extractor is not None to VisualActor, or use "
            "policy_kwargs={'encoder': 'separate'}"
        )


def next_q_values(model: TD3, batch: Batch, noise: th.Tensor) -> th.Tensor:
    """Score the next actions as TD3 does, by networks of which nothing is known but that they can be called.

    :param model: whose target networks are asked
    :param batch: the transitions
    :param noise: ``(batch, action_dim)`` unclipped noise for the target policy
    :return: ``(batch, n_critics)``
    """
    observations: Any = batch.next_observations
    next_actions = losses.smoothed_actions(model.actor_target(observations), noise, model.target_noise_clip)
    return th.cat(model.critic_target(observations, next_actions), dim=1)


def actor_loss(model: TD3, batch: Batch) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """Score the actor as TD3 does.

    :param model: whose actor is scored by its first critic
    :param batch: the transitions
    :return: the loss, and what observers of the update are shown
    """
    observations: Any = batch.observations
    actions = model.actor(observations)
    policy_q = model.critic.q1_forward(observations, actions)
    loss = -policy_q.mean()
    return loss, {"loss": loss, "actions": actions, "policy_q": policy_q}
