"""Catches what a stock algorithm's networks compute on their way to a loss, by forward hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch as th
from torch import nn

Observations = th.Tensor | Mapping[str, th.Tensor]


class ForwardTaps:
    """Keeps the last Q-values and pre-tanh actions that a gradient can flow from, detached.

    Forward passes without a gradient (acting, targets) leave nothing. What is kept is a reference: nothing is
    copied, computed or moved.

    :param actor: an actor of Stable-Baselines3 or sb3-contrib
    :param critic: a critic with ``q_networks``
    :param is_joint: whether the critic sees the next observations in the same batch, behind the others (CrossQ)
    """

    def __init__(self, actor: nn.Module, critic: nn.Module, is_joint: bool) -> None:
        self._is_joint = is_joint
        self._q_values: dict[int, th.Tensor] = {}
        self._pre_tanh: th.Tensor | None = None
        self.observations: Observations | None = None
        """Of the critic's last batch."""
        self._handles = [_last_linear(actor).register_forward_hook(self._keep_pre_tanh)]
        self._handles.append(critic.register_forward_pre_hook(self._keep_observations, with_kwargs=True))
        q_networks = critic.q_networks
        assert isinstance(q_networks, list | nn.ModuleList)
        for index, q_network in enumerate(q_networks):
            self._handles.append(q_network.register_forward_hook(self._keeping_q_values(index)))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def critic_values(self) -> dict[str, th.Tensor]:
        """Hand over the Q-values of the pairs that the critic's loss was made of, and forget them.

        :return: ``q_values`` (batch, n_critics), means over quantiles; empty where none were caught
        """
        caught, self._q_values = self._q_values, {}
        if not caught:
            return {}
        q_values = th.stack([caught[index].mean(dim=1) for index in sorted(caught)], dim=1)
        return {"q_values": q_values[: len(q_values) // 2] if self._is_joint else q_values}

    def actor_values(self) -> dict[str, th.Tensor]:
        """Hand over what the actor's loss was made of, and forget it.

        :return: ``policy_q`` (batch, 1) of the first critic, ``pre_tanh`` and ``actions`` (batch, action_dim); of a
            policy with a distribution, those of its mean
        """
        values = {}
        if 0 in self._q_values:
            values["policy_q"] = self._q_values[0].mean(dim=1, keepdim=True)
        if self._pre_tanh is not None:
            values["pre_tanh"] = self._pre_tanh
            values["actions"] = th.tanh(self._pre_tanh)
        self._q_values, self._pre_tanh = {}, None
        return values

    def _keep_pre_tanh(self, _module: nn.Module, _inputs: object, output: th.Tensor) -> None:
        if th.is_grad_enabled():  # not whether the output has a gradient: a frozen actor's has none
            self._pre_tanh = output.detach()

    def _keep_observations(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if th.is_grad_enabled():
            self.observations = args[0] if args else kwargs.get("obs")

    def _keeping_q_values(self, index: int) -> Any:
        def keep(_module: nn.Module, _inputs: object, output: th.Tensor) -> None:
            if output.requires_grad:
                self._q_values[index] = output.detach()

        return keep


def _last_linear(actor: nn.Module) -> nn.Module:
    """:return: the layer whose output the tanh squashes"""
    mu = actor.mu
    assert isinstance(mu, nn.Module)
    # TD3's head ends in its tanh; SAC's distribution applies it. A limit on gSDE's mean belongs to the mean.
    return mu[-2] if isinstance(mu, nn.Sequential) and isinstance(mu[-1], nn.Tanh) else mu
