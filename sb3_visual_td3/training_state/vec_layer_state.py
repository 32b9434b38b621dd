"""Describe the layers (VecEnv wrappers) around the environments of a training run, and read and set their state.

A user's wrapper with state needs ``get_state()`` and ``set_state()``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_visual_td3.common.saved_state import fill
from sb3_visual_td3.common.types import HasState
from sb3_visual_td3.training_state.plain_data import as_given, as_plain, observation_from, observation_state

_NORMALIZE_SETTINGS = (
    "training",
    "norm_obs",
    "norm_reward",
    "clip_obs",
    "clip_reward",
    "gamma",
    "epsilon",
    "norm_obs_keys",
)
_OF_EVERY_LAYER = {
    "venv",
    "class_attributes",
    "num_envs",
    "observation_space",
    "action_space",
    "reset_infos",
    "_seeds",
    "_options",
    "render_mode",
    "metadata",
}
"""Attributes that VecEnvWrapper itself has. A wrapper with more attributes may have state."""
_WITHOUT_STATE = (VecTransposeImage, VecCheckNan, VecExtractDictObs)
_KNOWN = (VecNormalize, VecFrameStack, VecMonitor, *_WITHOUT_STATE)


def layers_of(env: VecEnv) -> list[VecEnvWrapper]:
    """Return the VecEnv wrappers around the environments, outermost first.

    :param env: a VecEnv, with or without wrappers
    """
    layers = []
    while isinstance(env, VecEnvWrapper):
        layers.append(env)
        env = env.venv
    return layers


def describe_layer(layer: VecEnvWrapper) -> str:
    """Return the class of a VecEnv wrapper and the settings that influence the results.

    :param layer: a VecEnv wrapper
    :return: a description such as ``VecFrameStack(n_stack=4)``
    """
    settings: dict[str, Any] = {}
    if isinstance(layer, VecNormalize):
        settings = {name: getattr(layer, name) for name in _NORMALIZE_SETTINGS}
    elif isinstance(layer, VecFrameStack):
        settings = {"n_stack": layer.stacked_obs.n_stack}
    elif isinstance(layer, VecExtractDictObs):
        settings = {"key": layer.key}
    elif isinstance(layer, VecTransposeImage):
        settings = {"skip": layer.skip}
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    return f"{type(layer).__name__}({given})"


def layers_not_restored(env: VecEnv) -> list[str]:
    """Return the classes of wrappers that may have state but have no ``get_state()`` and ``set_state()``.

    :param env: a VecEnv with its wrappers
    :return: class names, outermost first
    """
    return [type(layer).__name__ for layer in layers_of(env) if not _is_understood(layer)]


def _is_understood(layer: VecEnvWrapper) -> bool:
    if type(layer) in _KNOWN or class_has_state(type(layer)):
        return True
    return not (set(vars(layer)) - _OF_EVERY_LAYER)


def class_has_state(cls: type) -> bool:
    """Return whether a class has both methods of :class:`~sb3_visual_td3.common.types.HasState`.

    The class is checked, not the object, because a wrapper forwards unknown attributes to what it wraps.

    :param cls: class of an environment or of a wrapper
    """
    return issubclass(cls, HasState)


def layer_state(layer: VecEnv) -> Any:
    """Read the state of a VecEnv wrapper.

    :param layer: a VecEnv wrapper
    :return: plain data; None if the wrapper has no state
    """
    if class_has_state(type(layer)):
        return as_plain(layer.get_state(), type(layer).__name__)  # type: ignore[attr-defined]
    if isinstance(layer, VecNormalize):
        return _normalize_state(layer)
    if isinstance(layer, VecFrameStack):
        return _stack_state(layer.stacked_obs)
    if isinstance(layer, VecMonitor):
        return {
            "episode_returns": layer.episode_returns.copy(),
            "episode_lengths": layer.episode_lengths.copy(),
            "episode_count": layer.episode_count,
            # Save the elapsed time instead of the start time: the time between interruption and resumption must not
            # count.
            "elapsed_s": time.time() - layer.t_start,
        }
    return None


def set_layer_state(layer: VecEnv, state: Any) -> None:
    """Set the state of a VecEnv wrapper.

    :param layer: a wrapper with the same class and settings as the saved one
    :param state: result of :func:`layer_state`; None changes nothing
    """
    if state is None:
        return
    if class_has_state(type(layer)):
        layer.set_state(as_given(state))  # type: ignore[attr-defined]
    elif isinstance(layer, VecNormalize):
        _set_normalize_state(layer, state)
    elif isinstance(layer, VecFrameStack):
        _set_stack_state(layer.stacked_obs, state)
    elif isinstance(layer, VecMonitor):
        layer.episode_returns = np.array(state["episode_returns"])
        layer.episode_lengths = np.array(state["episode_lengths"])
        layer.episode_count = state["episode_count"]
        layer.t_start = time.time() - state["elapsed_s"]


def _normalize_state(layer: VecNormalize) -> dict[str, Any]:
    # With norm_obs=False there is no obs_rms, and getattr() would return that of an inner wrapper. So vars() is used.
    own = vars(layer)
    statistics = own.get("obs_rms")
    obs_rms: dict[str, Any] | None = None
    if isinstance(statistics, dict):
        obs_rms = {"keys": {key: _moments(each) for key, each in statistics.items()}}
    elif statistics is not None:
        obs_rms = _moments(statistics)
    return {
        "obs_rms": obs_rms,
        "ret_rms": _moments(layer.ret_rms),
        "returns": layer.returns.copy(),
        "old_obs": observation_state(own.get("old_obs")),
        "old_reward": layer.old_reward.copy(),
    }


def _set_normalize_state(layer: VecNormalize, state: Mapping[str, Any]) -> None:
    statistics: Any = vars(layer).get("obs_rms")
    obs_rms = state["obs_rms"]
    if obs_rms is not None and "keys" in obs_rms:
        for key, moments in obs_rms["keys"].items():
            _set_moments(statistics[key], moments)
    elif obs_rms is not None:
        _set_moments(statistics, obs_rms)
    _set_moments(layer.ret_rms, state["ret_rms"])
    layer.returns = np.array(state["returns"])
    if state["old_obs"] is not None:
        layer.old_obs = observation_from(state["old_obs"])
    layer.old_reward = np.array(state["old_reward"])


def _moments(statistics: RunningMeanStd) -> dict[str, Any]:
    return {"mean": np.array(statistics.mean), "var": np.array(statistics.var), "count": float(statistics.count)}


def _set_moments(statistics: RunningMeanStd, state: Mapping[str, Any]) -> None:
    statistics.mean, statistics.var = np.array(state["mean"]), np.array(state["var"])
    statistics.count = state["count"]


def _stack_state(stack: StackedObservations[Any]) -> dict[str, Any]:
    if "sub_stacked_observations" in vars(stack):
        return {"keys": {key: _stack_state(each) for key, each in stack.sub_stacked_observations.items()}}
    return {"stacked": stack.stacked_obs.copy()}


def _set_stack_state(stack: StackedObservations[Any], state: Mapping[str, Any]) -> None:
    if "keys" in state:
        for key, each in state["keys"].items():
            _set_stack_state(stack.sub_stacked_observations[key], each)
        return
    # A new array is needed, because the current one may be the model's last observation, which is restored separately.
    stacked = np.empty(stack.stacked_obs.shape, stack.stacked_obs.dtype)
    fill(stacked, state["stacked"])
    stack.stacked_obs = stacked
