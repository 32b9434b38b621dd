"""Distinguish the arguments that the user requested from the values that are derived from them.

The attributes that Stable-Baselines3 saves do not show which values were derived. Without this module, a new ``gamma``
in ``load()`` would not reach the replay buffer.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3 import TD3
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_visual_td3.buffers.frame_replay_buffer import FrameReplayBuffer
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.common.errors import InvalidSettingError
from sb3_visual_td3.common.numbers import to_float, to_integer
from sb3_visual_td3.visual_td3.exploration import is_scheduled
from sb3_visual_td3.visual_td3.policies import OURS_FOR_STOCK

REQUESTED_AT_LOAD = "_requested_at_load"
"""Name under which ``load()`` passes its keyword arguments to the model."""
_REQUESTED = "_asked_for"
"""Name of the attribute with the user's arguments. Saved models contain this name, so it must not change."""
_REPLACED = ("replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage")
_DERIVED_CLASSES = (FrameReplayBuffer, NStepDictReplayBuffer, NStepReplayBuffer, DictReplayBuffer, ReplayBuffer)

_INTEGERS: dict[str, int | None] = {
    "buffer_size": 1,
    "learning_starts": None,
    "batch_size": 1,
    "gradient_steps": None,
    "n_steps": 1,
    "policy_delay": 1,
    "_stats_window_size": 1,
}
"""Arguments that are integers, and their smallest valid value; None for no minimum."""
_NUMBERS: dict[str, tuple[float, float]] = {
    "tau": (0.0, 1.0),
    "gamma": (0.0, 1.0),
    "target_policy_noise": (0.0, float("inf")),
    "target_noise_clip": (0.0, float("inf")),
}
"""Arguments that are finite numbers, and their range."""


def restore_requested(model: TD3) -> frozenset[str] | None:
    """Restore the user's arguments in a loaded model, in which derived values have replaced them.

    Arguments of ``load()`` take precedence over saved arguments.

    :param model: the model, whose attributes are changed
    :return: the names of ``load()``'s arguments; None for a new model
    :raises ValueError: if ``load()`` has an unknown or contradictory argument
    """
    at_load: dict[str, Any] | None = vars(model).pop(REQUESTED_AT_LOAD, None)
    requested: dict[str, Any] | None = vars(model).pop(_REQUESTED, None)
    known = vars(model).pop("_names_before_load", frozenset())
    if at_load is None:
        requested = {"policy_kwargs": dict(model.policy_kwargs)}
    else:
        _check_names(model, at_load, known)
        requested = requested or _guess_requested(model, at_load)
        model.replay_buffer_kwargs = model.replay_buffer_kwargs or {}  # load() may have been given None
        requested["frame_stack"] = model.replay_buffer_kwargs.get("frame_stack")
        _undo_setup(model, requested, at_load)
    requested["is_loaded"] = at_load is not None
    vars(model)[_REQUESTED] = requested
    if is_scheduled(model.action_noise):
        model.action_noise = None  # it is derived from noise_schedule
    return None if at_load is None else frozenset(at_load)


def record_requested(model: TD3) -> None:
    """Record the user's arguments before derived values replace them, so that a saved model contains them.

    :param model: the model, after :func:`restore_requested` and :func:`convert_numbers`
    """
    requested = vars(model)[_REQUESTED]
    for name in (*_REPLACED, "gamma", "n_steps"):
        requested[name] = getattr(model, name)
    requested["replay_buffer_kwargs"] = dict(model.replay_buffer_kwargs)


def requested_policy_kwargs(model: TD3) -> dict[str, Any] | None:
    """Return the ``policy_kwargs`` that the user gave when a loaded model was created; None for a new model."""
    requested = vars(model)[_REQUESTED]
    given: dict[str, Any] = requested["policy_kwargs"]
    return given if requested["is_loaded"] else None


def requests_frame_stack(model: OffPolicyAlgorithm) -> bool:
    """Return whether the user's ``replay_buffer_kwargs`` contain ``frame_stack``."""
    return "frame_stack" in vars(model)[_REQUESTED]["replay_buffer_kwargs"]


def frame_stack_before(model: OffPolicyAlgorithm) -> int | None:
    """Return the frame stack that a loaded model was trained on; None for a new model, or if it is unknown."""
    depth: int | None = vars(model).get(_REQUESTED, {}).get("frame_stack")
    return depth


def convert_numbers(model: TD3) -> None:
    """Convert the model's settings from numpy and torch numbers to Python's own.

    :param model: the model, whose attributes are changed
    :raises ValueError: if a setting is not a number, or out of range
    """
    own = vars(model)
    for name, minimum in _INTEGERS.items():
        if own[name] != float("inf"):  # learning_starts=inf means never
            own[name] = to_integer(name.removeprefix("_"), own[name], minimum)
    for name, (lowest, highest) in _NUMBERS.items():
        own[name] = to_float(name, own[name], lowest, highest)
    if model.seed is not None:
        model.seed = to_integer("seed", model.seed, 0)
    own["train_freq"] = _parse_train_freq(model.train_freq)
    kwargs = model.replay_buffer_kwargs = dict(model.replay_buffer_kwargs)
    for name in kwargs.keys() & {"n_steps", "frame_stack"}:
        kwargs[name] = to_integer(f"replay_buffer_kwargs: {name}", kwargs[name], 1)
    if "gamma" in kwargs:
        kwargs["gamma"] = to_float("replay_buffer_kwargs: gamma", kwargs["gamma"], 0.0, 1.0)


def check_train_freq(model: TD3) -> None:
    """Refuse a ``train_freq`` in episodes if there are several environments.

    :param model: the model; a user may have set its ``train_freq`` to a number, which is converted
    :raises InvalidSettingError: if ``train_freq`` is in episodes, and there are several environments
    :raises ValueError: if ``train_freq`` is invalid
    """
    train_freq = vars(model)["train_freq"] = _parse_train_freq(model.train_freq)
    if train_freq.unit is TrainFrequencyUnit.EPISODE and model.n_envs > 1:
        raise InvalidSettingError(
            f"train_freq=({train_freq.frequency}, 'episode') with {model.n_envs} environments, whose episodes end at "
            "different steps: expected a number of steps, such as train_freq=1"
        )


def _parse_train_freq(value: Any) -> TrainFreq:
    """Return ``train_freq`` as Stable-Baselines3 takes it."""
    number, unit = value, "step"
    if isinstance(value, tuple | list) and len(value) == 2:
        number, unit = value
    if isinstance(unit, TrainFrequencyUnit):
        unit = unit.value
    expected = "an integer >= 1 (steps), or (an integer, 'step' or 'episode')"
    if isinstance(number, str) or unit not in [each.value for each in TrainFrequencyUnit]:
        raise ValueError(f"train_freq={value!r}: expected {expected}")
    return TrainFreq(to_integer("train_freq", number, 1, expected), TrainFrequencyUnit(unit))


def _check_names(model: TD3, at_load: Mapping[str, Any], known: frozenset[str]) -> None:
    """Refuse unknown arguments of ``load()``, which Stable-Baselines3 would silently store as attributes."""
    parameters = {name for cls in type(model).__mro__ for name in inspect.signature(cls).parameters}
    for name in at_load:
        if name not in parameters | known:
            close = difflib.get_close_matches(name, sorted(parameters), n=1)
            suggestion = f": did you mean {close[0]}?" if close else ""
            raise ValueError(
                f"load() was given {name}={at_load[name]!r}: {type(model).__name__} has no such argument{suggestion}"
            )


def _undo_setup(model: TD3, requested: dict[str, Any], at_load: Mapping[str, Any]) -> None:
    """Restore the user's arguments that ``_setup_model`` replaced before the model was saved.

    :param at_load: the arguments of ``load()``, which are kept
    """
    for name in _REPLACED:
        if name not in at_load:
            vars(model)[name] = requested[name]
    if "replay_buffer_kwargs" not in at_load:
        # replay_buffer_kwargs may also hold gamma and n_steps. A new value for the model must not contradict them.
        for name in at_load.keys() & {"gamma", "n_steps"}:
            if model.replay_buffer_kwargs.get(name, at_load[name]) != at_load[name]:
                raise ValueError(
                    f"load() was given {name}={at_load[name]!r}, but the saved model has "
                    f"replay_buffer_kwargs={requested['replay_buffer_kwargs']!r}: expected the same {name} for model "
                    f"and replay buffer. Pass replay_buffer_kwargs with {name}={at_load[name]!r} to load() too"
                )
    if "stats_window_size" in at_load:
        # Stable-Baselines3 stores the size as _stats_window_size. The saved windows have the old size, so they are
        # dropped.
        model._stats_window_size = vars(model).pop("stats_window_size")
        model.ep_info_buffer = model.ep_success_buffer = None
    if "policy_kwargs" in at_load and at_load["policy_kwargs"] not in (requested["policy_kwargs"], model.policy_kwargs):
        raise ValueError(
            "The specified policy kwargs do not equal the stored policy kwargs. "
            f"Stored kwargs: {requested['policy_kwargs']}, specified kwargs: {at_load['policy_kwargs']}"
        )
    if "policy" in at_load:
        policy = at_load["policy"]
        if isinstance(policy, str):
            policy = model._get_policy_from_name(policy)
        if OURS_FOR_STOCK.get(policy, policy) is not OURS_FOR_STOCK.get(model.policy_class, model.policy_class):
            raise ValueError(
                f"load() was given policy={at_load['policy']!r}, but the model was saved with "
                f"{model.policy_class.__name__}, and its weights fit only that policy: make a new model"
            )
    if (requested["gamma"], requested["n_steps"]) != (model.gamma, model.n_steps):
        # The range of possible returns depends on the discount: it is found again from the rewards to come.
        vars(model).pop("_target_range", None)


def _guess_requested(model: TD3, at_load: Mapping[str, Any]) -> dict[str, Any]:
    """Guess which arguments the user gave to a model that an earlier version or Stable-Baselines3 saved.

    If the model may have chosen the replay buffer class by default, the class counts as not given.
    """
    cls, kwargs = model.replay_buffer_class, dict(model.replay_buffer_kwargs or {})
    gamma, n_steps = kwargs.get("gamma", model.gamma), kwargs.get("n_steps", model.n_steps)
    if cls in _DERIVED_CLASSES:
        for name in ("gamma", "n_steps"):
            if name in kwargs and (name in at_load or kwargs[name] == getattr(model, name)):
                del kwargs[name]
        kwargs.pop("frame_stack", None)  # found again in the environment, or by frame_stack_before()
        # The preset "td3" never chooses a FrameReplayBuffer, so with this preset the user has chosen it.
        is_chosen = cls is FrameReplayBuffer and getattr(model, "preset", None) == "td3"
        if not is_chosen:
            cls = None
    return {
        "replay_buffer_class": cls,
        "replay_buffer_kwargs": kwargs,
        "optimize_memory_usage": model.optimize_memory_usage,
        "policy_kwargs": dict(model.policy_kwargs),
        "gamma": gamma,
        "n_steps": n_steps,
    }
