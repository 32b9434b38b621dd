"""Log what the vehicle does during training: episodes, speed, and each term of the reward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.saved_state import fill

_OF_EPISODE = {
    "collisions": tags.EPISODE_COLLISIONS,
    "lane_invasions": tags.EPISODE_LANE_INVASIONS,
    "route_completion": tags.EPISODE_ROUTE_COMPLETION,
    "is_success": tags.EPISODE_SUCCESS,
}
"""Logged name of each number that ``info`` reports at the end of an episode."""


class DrivingMetricsCallback(BaseCallback):
    """Log one point per episode, and log speed, rewards and reward terms every ``log_freq`` steps.

    The callback reads ``collisions``, ``lane_invasions``, ``route_completion``, ``is_success``, ``speed_kmh`` and
    ``reward_terms`` from ``info``, and Monitor's ``episode``. A missing key is not logged. ``reward_terms`` maps the
    name of each term of the reward to the number that it added in this step. A term ``comfort`` is logged as
    ``reward/comfort``.

    :param log_freq: environment steps between two points of ``progress/`` and ``reward/``
    :param verbose: verbosity level, as in Stable-Baselines3
    :raises ValueError: if ``log_freq`` is not an integer >= 1
    """

    def __init__(self, log_freq: int = 100, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.log_freq = to_integer("log_freq", log_freq, 1)
        self.n_episodes = 0
        self._last_logged = 0

    def _on_training_start(self) -> None:
        self._writer = EventWriter.of(self)
        self._last_logged = self.num_timesteps
        self._term_sums: defaultdict[str, float] = defaultdict(float)
        self._n_term_steps = 0
        self._episode_steps = np.zeros(self.training_env.num_envs, dtype=int)

    def _on_step(self) -> bool:
        infos: list[dict[str, Any]] = self.locals["infos"]
        self._episode_steps += 1
        for info in infos:
            self._add_terms(info)
            if "episode" in info:
                self._log_episode(info)
        if self.num_timesteps - self._last_logged >= self.log_freq:
            self._log_progress(infos[0])
        # After logging, so that the last step of an episode still shows its full length.
        self._episode_steps[self.locals["dones"]] = 0
        return True

    def get_state(self) -> dict[str, Any]:
        """Return the sums of the current episodes and of the reward terms."""
        return {
            "n_episodes": self.n_episodes,
            "last_logged": self._last_logged,
            "term_sums": {term: float(total) for term, total in self._term_sums.items()},
            "n_term_steps": self._n_term_steps,
            "episode_steps": self._episode_steps,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the sums of the current episodes and reward terms; call this after training has started.

        :param state: the state returned by ``get_state``
        :raises ValueError: if the number of environments differs
        """
        fill(self._episode_steps, state["episode_steps"])
        self.n_episodes = state["n_episodes"]
        self._last_logged = state["last_logged"]
        self._term_sums = defaultdict(float, state["term_sums"])
        self._n_term_steps = state["n_term_steps"]

    def _add_terms(self, info: dict[str, Any]) -> None:
        if "reward_terms" in info:
            self._n_term_steps += 1
            for term, value in info["reward_terms"].items():
                self._term_sums[str(term)] += float(value)

    def _log_episode(self, info: dict[str, Any]) -> None:
        scalars = {tags.EPISODE_REWARD: info["episode"]["r"], tags.EPISODE_LENGTH: info["episode"]["l"]}
        scalars.update({tag: float(info[key]) for key, tag in _OF_EPISODE.items() if info.get(key) is not None})
        self._writer.write(scalars, self.n_episodes)
        self.n_episodes += 1

    def _log_progress(self, info: dict[str, Any]) -> None:
        self._last_logged = self.num_timesteps
        scalars = {tags.PROGRESS_EPISODE_STEPS: float(self._episode_steps[0])}
        if isinstance(self.model, OffPolicyAlgorithm) and self.model.replay_buffer is not None:
            buffer = self.model.replay_buffer
            # SB3 counts rows, each with one transition per environment.
            scalars[tags.PROGRESS_BUFFER_SIZE] = float(buffer.size() * buffer.n_envs)
        if "speed_kmh" in info:
            scalars[tags.PROGRESS_SPEED] = info["speed_kmh"]
        if "reward_terms" in info:
            # This is the sum of the terms and not locals["rewards"], which VecNormalize may have scaled.
            scalars[tags.PROGRESS_REWARD] = sum(info["reward_terms"].values())
        if self._n_term_steps:
            for term, total in self._term_sums.items():
                scalars[tags.reward_term(term)] = total / self._n_term_steps
                # The sums are set to 0 and not removed: a term that no longer occurs has contributed 0.
                self._term_sums[term] = 0.0
            self._n_term_steps = 0
        self._writer.write(scalars, self.num_timesteps)
