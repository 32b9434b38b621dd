"""A model beyond its weights: counters, books, the observation to act on, and what only its algorithm knows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.common.types import HasState
from sb3_visual_td3.training_state.action_noise_state import action_noise_state, set_action_noise_state
from sb3_visual_td3.training_state.observation_state import observation_from, observation_state
from sb3_visual_td3.training_state.plain_data import as_given, as_plain, is_number, plain_part, require_alike
from sb3_visual_td3.training_state.sde_state import sde_state, set_sde_state
from sb3_visual_td3.training_state.space_state import set_space_random_state, space_random_state

_COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_n_calls",  # DQN and QR-DQN, as the next
    "exploration_rate",
)
_FRACTIONS = ("_current_progress_remaining", "exploration_rate")


def model_state(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """Read what a model remembers beyond its weights, optimizers and replay buffer.

    To be called before the logger and the replay buffer are read: a model may have something left to write there.

    :param model: at the start of a rollout
    :return: plain data
    """
    extras = as_plain(model.get_state(), type(model).__name__) if isinstance(model, HasState) else None
    own = vars(model)
    return {
        "extras": extras,
        "counters": {name: as_plain(own[name], name) for name in _COUNTERS if name in own},
        "elapsed_ns": time.time_ns() - int(model.start_time),
        "ep_info_buffer": [plain_part(info) for info in model.ep_info_buffer or ()],
        "ep_success_buffer": as_plain(list(model.ep_success_buffer or ()), "ep_success_buffer"),
        "last_obs": observation_state(model._last_obs),
        "last_original_obs": observation_state(model._last_original_obs),
        "last_episode_starts": as_plain(model._last_episode_starts, "_last_episode_starts"),
        "action_noise": action_noise_state(model.action_noise),
        "action_space": space_random_state(model.action_space),
        "sde": sde_state(model),
        # Neither Stable-Baselines3's file nor a rebuilt policy knows what was frozen in the meantime.
        "frozen": [name for name, weight in model.policy.named_parameters() if not weight.requires_grad],
    }


def set_model_state(
    model: OffPolicyAlgorithm, state: Mapping[str, Any], first_observation: VecEnvObs | None = None
) -> None:
    """Go on from where :func:`model_state` was called.

    :param model: made alike, after ``_setup_learn`` and before its first rollout
    :param state: as returned there
    :param first_observation: what :func:`~sb3_visual_td3.training_state.env_state.set_env_state` returned: where new
        episodes begin, they begin with this, and with action noise as at an episode's start
    :raises ValueError: if it is the state of another model
    """
    counters = {name: _counter(name, value) for name, value in as_given(state["counters"]).items()}
    infos, successes = as_given(state["ep_info_buffer"]), as_given(state["ep_success_buffer"])
    for info in infos:
        if not {"r", "l"} <= info.keys() or not all(is_number(info[key]) for key in ("r", "l")):
            raise ValueError(f"{info!r} is not what Monitor says of an episode")
    if first_observation is None:
        require_alike(observation_state(model._last_obs), state["last_obs"], "the last observation")
        require_alike(model._last_episode_starts, state["last_episode_starts"], "the starts of episodes")
    set_action_noise_state(model.action_noise, state["action_noise"])
    vars(model).update({name: value for name, value in counters.items() if name in vars(model)})
    model.start_time = time.time_ns() - int(state["elapsed_ns"])
    model.ep_info_buffer = deque(infos, maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(successes, maxlen=model._stats_window_size)
    if first_observation is None:
        model._last_obs = observation_from(state["last_obs"])
        model._last_original_obs = observation_from(state["last_original_obs"])
        model._last_episode_starts = as_given(state["last_episode_starts"])
    else:
        _begin_with(model, first_observation)
    set_space_random_state(model.action_space, state["action_space"])
    set_sde_state(model, state["sde"])
    if "frozen" in state:  # older states do not say
        for name, weight in model.policy.named_parameters():
            weight.requires_grad_(name not in state["frozen"])
    if isinstance(model, HasState) and state["extras"] is not None:
        model.set_state(as_given(state["extras"]))


def _counter(name: str, value: Any) -> Any:
    """:return: a counter, if it is one and can be its value"""
    # What remains of training falls below 0 with the last rollout, which may be longer than what is left.
    is_too_small = is_number(value) and value < 0 and name != "_current_progress_remaining"
    if name not in _COUNTERS or not is_number(value) or is_too_small:
        raise ValueError(f"the counter {name} is {value!r}: expected a number from 0 on")
    if name not in _FRACTIONS and not float(value).is_integer():
        raise ValueError(f"the counter {name} is {value!r}: expected a whole number")
    return value


def _begin_with(model: OffPolicyAlgorithm, observation: VecEnvObs) -> None:
    """Do what Stable-Baselines3 does when it has reset the environment."""
    model._last_obs = observation  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    if model.action_noise is not None:
        model.action_noise.reset()
