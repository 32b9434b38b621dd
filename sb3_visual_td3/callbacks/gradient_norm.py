"""Log gradient norms, losses and Q-values, and statistics of the weights, the policy, the encoder and the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.callbacks.watching import unwatch, watch
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.schedules import noise_std
from sb3_visual_td3.health.quantities import is_frozen


class GradientNormCallback(BaseCallback):
    """Log gradient norms, losses, Q-values, and statistics of weights, policy, encoder and images.

    For VisualTD3, the norms are measured before clipping. For the algorithms of Stable-Baselines3 (TD3, SAC, DDPG) and
    sb3-contrib (TQC, CrossQ), they are measured when the optimizer steps, after any clipping by the algorithm. The flag
    ``gradients/seen_by_optimizer`` is 1 for these algorithms, and 0 for VisualTD3.

    :param sample_freq: gradient updates between two measurements
    :param log_freq: environment steps between two points in the event file
    :param verbose: verbosity level, as in Stable-Baselines3
    :raises ValueError: if a frequency is not an integer >= 1, or, at the start of the training, if the model cannot be
        watched
    """

    def __init__(self, sample_freq: int = 10, log_freq: int = 100, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.sample_freq = to_integer("sample_freq", sample_freq, 1)
        self.log_freq = to_integer("log_freq", log_freq, 1)
        self._last_logged = 0

    def _on_training_start(self) -> None:
        self._writer = EventWriter.of(self)
        self._last_logged = self.num_timesteps
        self._watch = watch(self, self.sample_freq, "means")

    def _on_rollout_start(self) -> None:
        self._watch.reattach()

    def _on_step(self) -> bool:
        self._watch.see(self.locals, self.num_timesteps)
        if self.num_timesteps - self._last_logged >= self.log_freq:
            self._log()
        return True

    def _on_training_end(self) -> None:
        if self._watch.monitor.n_updates and self.num_timesteps > self._last_logged:
            self._log()
        unwatch(self, self._watch, "means")

    def get_state(self) -> dict[str, Any]:
        """Return the measurements since the last logged point."""
        return {"last_logged": self._last_logged, "watch": self._watch.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the measurements since the last logged point; call this after training has started.

        :param state: the state returned by ``get_state``
        """
        self._last_logged = state["last_logged"]
        self._watch.set_state(state["watch"])

    def _log(self) -> None:
        self._last_logged = self.num_timesteps
        scalars = {**self._watch.read(), **self._agent_state()}
        self._writer.write(scalars, self.num_timesteps)

    def _agent_state(self) -> dict[str, float]:
        model, sb3_model = self._watch.model, self.model
        assert isinstance(sb3_model, OffPolicyAlgorithm)
        buffer = sb3_model.replay_buffer
        state = {
            tags.TOTAL_ITERATIONS: float(self._watch.n_updates),
            tags.IS_TRAINING: float(self._watch.n_updates > 0),
            tags.REWARD_IS_NORMALIZED: float(model.reward_is_normalized),
            tags.REWARD_DIVISOR: model.reward_divisor,
            tags.EXPLORATION_NOISE: noise_std(sb3_model.action_noise) or 0.0,
        }
        if buffer is not None:
            state[tags.BUFFER_UTILIZATION] = buffer.size() / buffer.buffer_size
        state[tags.HAS_ENCODER] = float(model.encoder_is_shared is not None)
        if model.encoder_is_shared is not None:
            state[tags.ENCODER_IS_SHARED] = float(model.encoder_is_shared)
        for group, rate in model.learning_rates.items():
            state[tags.GROUP_LR[group]] = rate
        for group, parameters in model.groups.items():
            state[tags.GROUP_FROZEN[group]] = float(is_frozen(parameters))
            state[tags.PARAM_MEAN[group]], state[tags.PARAM_STD[group]] = weight_moments(parameters)
        return state


def weight_moments(parameters: Sequence[th.Tensor]) -> tuple[float, float]:
    """Return the mean and the standard deviation of all weights of a group together.

    :param parameters: tensors of any shapes
    """
    # The sums are in float64, because the squares of large weights, and sums of many of them, overflow in float32.
    flat = th.cat([parameter.detach().flatten() for parameter in parameters]).double()
    mean, std = th.stack([flat.mean(), flat.std(correction=0)]).tolist()
    return mean, std
