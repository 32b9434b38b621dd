"""Extract the actor for use without Stable-Baselines3, as TorchScript, ONNX or a plain torch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_visual_td3.common.pictures import parts_of
from sb3_visual_td3.visual_td3.averaging import copy_of_actor


class ExportableActor(nn.Module):
    """Do what ``model.predict`` does with a batch of observations, as one torch module; see :func:`exportable_actor`.

    Call it with one tensor for each of :attr:`input_names`, in this order: images ``(batch, channels, height, width)``
    uint8, vectors ``(batch, size)`` float32. It returns ``(batch, *action_shape)`` float32 within the bounds of the
    environment's actions.

    :param actor: the network; it is not copied
    :param observation_space: the policy's observation space
    :param action_space: the environment's action space
    :param normalizer: the VecNormalize that scales observations before the policy sees them; None if they are raw
    :param keys: the keys of a Dict observation that the actor reads; None for all
    """

    def __init__(
        self,
        actor: nn.Module,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        normalizer: VecNormalize | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.actor = actor
        self.input_names = [name for name in parts_of(observation_space) if keys is None or name in keys]
        self._is_dict = isinstance(observation_space, spaces.Dict)
        self._action_shape = tuple(action_space.shape)
        self.low: th.Tensor
        self.high: th.Tensor
        self.register_buffer("low", th.as_tensor(action_space.low, dtype=th.float32))
        self.register_buffer("high", th.as_tensor(action_space.high, dtype=th.float32))
        self._scales: dict[str, tuple[str, str]] = {}
        if normalizer is not None and normalizer.norm_obs:
            self._clip_obs = float(normalizer.clip_obs)
            self._keep_statistics(normalizer)

    def _keep_statistics(self, normalizer: VecNormalize) -> None:
        statistics: Any = normalizer.obs_rms
        if not isinstance(statistics, dict):
            statistics = {self.input_names[0]: statistics}
        for number, (key, each) in enumerate(statistics.items()):
            names = f"mean_{number}", f"std_{number}"
            std = np.sqrt(each.var + normalizer.epsilon)
            for name, values in zip(names, (each.mean, std), strict=True):
                self.register_buffer(name, th.as_tensor(values, dtype=th.float32))
            self._scales[key] = names

    def forward(self, *observations: th.Tensor) -> th.Tensor:
        """Return the actions for a batch of observations, ``(batch, *action_shape)``, in the environment's range."""
        parts = {key: self._scaled(key, part) for key, part in zip(self.input_names, observations, strict=True)}
        scaled: th.Tensor = self.actor(parts if self._is_dict else parts[self.input_names[0]])
        scaled = scaled.reshape(-1, *self._action_shape)
        # The policy's actions are within [-1, 1]; Stable-Baselines3's predict() scales them in the same way.
        actions: th.Tensor = self.low + 0.5 * (scaled + 1.0) * (self.high - self.low)
        return actions

    def _scaled(self, key: str, part: th.Tensor) -> th.Tensor:
        """Return a part of the observation as VecNormalize passes it to the policy."""
        if key not in self._scales:
            return part
        mean, std = (getattr(self, name) for name in self._scales[key])
        return th.clamp((part - mean) / std, -self._clip_obs, self._clip_obs)


def exportable_actor(model: BaseAlgorithm, normalizer: VecNormalize | None = None) -> ExportableActor:
    """Return a model's actor as a torch module from observations to the environment's actions.

    The module includes VecNormalize's statistics. It is a copy on the CPU, in evaluation mode, without gradients::

        actor = exportable_actor(VisualTD3.load("model"))
        scripted = torch.jit.trace(actor, torch.zeros(1, 4, 84, 84, dtype=torch.uint8))
        torch.onnx.export(actor, (torch.zeros(1, 4, 84, 84, dtype=torch.uint8),), "actor.onnx", dynamo=False)

    :param model: a VisualTD3, or Stable-Baselines3's TD3 or DDPG
    :param normalizer: the VecNormalize that scaled observations in training; None takes the model's own
    :raises ValueError: if the model has no deterministic actor for a Box of actions
    """
    actor = getattr(model.policy, "averaged_actor", None)  # what predict() uses, if there is one
    if actor is None:
        actor = getattr(model, "actor", None)
    if not isinstance(actor, nn.Module) or not getattr(actor, "squash_output", False) or hasattr(actor, "log_std"):
        raise ValueError(
            f"{type(model).__name__} has no deterministic actor for continuous actions: expected VisualTD3, TD3 or DDPG"
        )
    assert isinstance(model.action_space, spaces.Box)
    normalizer = model.get_vec_normalize_env() if normalizer is None else normalizer
    keys = getattr(model.policy, "actor_keys", None)
    module = ExportableActor(copy_of_actor(actor), model.observation_space, model.action_space, normalizer, keys)
    return module.cpu().eval().requires_grad_(False)
