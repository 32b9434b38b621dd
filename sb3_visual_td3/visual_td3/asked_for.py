"""What the user asked for, kept apart from what follows from it.

Setting a model up replaces arguments by what they mean: ``replay_buffer_class=None`` becomes a class, ``gamma`` and
``n_steps`` are handed to the replay buffer, ``noise_schedule`` becomes an action noise. Stable-Baselines3 saves a model
by its attributes, so without this module a loaded model would take what was derived for what the user had chosen, and
``load(..., gamma=0.9)`` would leave the old discount in the replay buffer.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3 import TD3
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_visual_td3.buffers.frame_replay_buffer import FrameReplayBuffer
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.common.errors import InvalidSettingError
from sb3_visual_td3.common.numbers import to_float, to_integer
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise
from sb3_visual_td3.visual_td3.policies import OURS_FOR_STOCK

AT_LOAD = "_asked_at_load"
"""Name under which ``load()`` hands its keyword arguments to the model that is about to be set up."""
_KEPT = "_asked_for"
"""Attribute that keeps, and saves, what was asked for where setting up replaces it."""
_REPLACED = ("replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage")
_DERIVED_CLASSES = (FrameReplayBuffer, NStepDictReplayBuffer, NStepReplayBuffer, DictReplayBuffer, ReplayBuffer)

_COUNTS: dict[str, int | None] = {
    "buffer_size": 1,
    "learning_starts": None,
    "batch_size": 1,
    "gradient_steps": None,
    "n_steps": 1,
    "policy_delay": 1,
    "_stats_window_size": 1,
}
"""Arguments that are whole numbers, and the smallest that makes sense."""
_NUMBERS: dict[str, tuple[float, float]] = {
    "tau": (0.0, 1.0),
    "gamma": (0.0, 1.0),
    "target_policy_noise": (0.0, float("inf")),
    "target_noise_clip": (0.0, float("inf")),
}
"""Arguments that are finite numbers, and their range."""


def settle(model: TD3) -> frozenset[str] | None:
    """Put back what was asked for, and make plain numbers of the numbers; the first thing when a model is set up.

    After a construction the attributes are the arguments. After a load they are what was saved, which ``load()``'s own
    arguments have replaced in part.

    :param model: its attributes are changed
    :return: the names of ``load()``'s arguments; None for a new model, whose arguments were all given
    :raises ValueError: if a number is out of its range, ``load()`` was given an argument that does not exist, or one
        that contradicts what was chosen when the model was made
    """
    at_load: dict[str, Any] | None = vars(model).pop(AT_LOAD, None)
    kept: dict[str, Any] | None = vars(model).pop(_KEPT, None)
    known = vars(model).pop("_names_before_load", frozenset())
    if at_load is None:
        kept = {"policy_kwargs": dict(model.policy_kwargs)}
    else:
        _check_names(model, at_load, known)
        kept = kept or _guessed(model, at_load)
        kept["frame_stack"] = model.replay_buffer_kwargs.get("frame_stack")
        _put_back(model, kept, at_load)
    kept["is_loaded"] = at_load is not None
    settle_numbers(model)
    kept.update({name: getattr(model, name) for name in (*_REPLACED, "gamma", "n_steps")})
    kept["replay_buffer_kwargs"] = dict(model.replay_buffer_kwargs)
    vars(model)[_KEPT] = kept
    model.action_noise = noise_for(model.action_noise, model.n_envs)
    if _is_scheduled(model.action_noise):
        model.action_noise = None  # it follows from noise_schedule
    last_obs: Any = model._last_obs
    parts = list(last_obs.values()) if isinstance(last_obs, Mapping) else [last_obs]
    if last_obs is not None and len(parts[0]) != model.n_envs:
        model._last_obs = None  # of another number of environments: training begins with a reset
    return None if at_load is None else frozenset(at_load)


def policy_kwargs_asked_for(model: TD3) -> dict[str, Any] | None:
    """Return the policy's keywords that the user gave when a loaded model was made; None for a new model."""
    kept = vars(model)[_KEPT]
    given: dict[str, Any] = kept["policy_kwargs"]
    return given if kept["is_loaded"] else None


def frame_stack_before(model: OffPolicyAlgorithm) -> int | None:
    """Return the depth of the stacks that a loaded model was trained on; None for a new one, or where it is unknown."""
    depth: int | None = vars(model).get(_KEPT, {}).get("frame_stack")
    return depth


def noise_for(noise: ActionNoise | None, n_envs: int) -> ActionNoise | None:
    """Return a noise for another number of environments.

    Stable-Baselines3 replaces a model's noise by one for each environment when training starts, and saves these.

    :param noise: the model's; None where it has none
    :param n_envs: how many environments there are
    :return: the same noise where it fits, otherwise one made from the same base noise
    """
    if not isinstance(noise, VectorizedActionNoise) or noise.n_envs == n_envs:
        return noise
    return noise.base_noise if n_envs == 1 else VectorizedActionNoise(noise.base_noise, n_envs)


def _is_scheduled(noise: ActionNoise | None) -> bool:
    return isinstance(noise.base_noise if isinstance(noise, VectorizedActionNoise) else noise, ScheduledActionNoise)


def settle_numbers(model: TD3) -> None:
    """Replace the model's numbers by Python's own, wherever that is exact.

    :param model: its attributes are changed
    :raises ValueError: if one is not a number, or out of its range
    """
    own = vars(model)
    for name, minimum in _COUNTS.items():
        if own[name] != float("inf"):  # learning_starts=inf is a way to say never
            own[name] = to_integer(name.removeprefix("_"), own[name], minimum)
    for name, (lowest, highest) in _NUMBERS.items():
        own[name] = to_float(name, own[name], lowest, highest)
    if model.seed is not None:
        model.seed = to_integer("seed", model.seed, 0)
    own["train_freq"] = _train_freq(model.train_freq, model.n_envs)
    kwargs = model.replay_buffer_kwargs = dict(model.replay_buffer_kwargs)
    for name in kwargs.keys() & {"n_steps", "frame_stack"}:
        kwargs[name] = to_integer(f"replay_buffer_kwargs: {name}", kwargs[name], 1)
    if "gamma" in kwargs:
        kwargs["gamma"] = to_float("replay_buffer_kwargs: gamma", kwargs["gamma"], 0.0, 1.0)


def _train_freq(value: Any, n_envs: int) -> Any:
    """:return: how often to train, as Stable-Baselines3 takes it: ``(n, unit)``, a list from a yml file included"""
    number, unit = value if isinstance(value, tuple | list) and len(value) == 2 else (value, "step")
    units = [each.value for each in TrainFrequencyUnit]
    if isinstance(unit, TrainFrequencyUnit):
        unit = unit.value
    expected = "a whole number >= 1 of steps, or (a whole number, 'step' or 'episode')"
    if isinstance(number, str) or unit not in units:
        raise ValueError(f"train_freq={value!r}: expected {expected}")
    if unit == "episode" and n_envs > 1:
        raise InvalidSettingError(
            f"train_freq={value!r} with {n_envs} environments, whose episodes end at different steps: expected a "
            "number of steps, such as train_freq=1"
        )
    return TrainFreq(to_integer("train_freq", number, 1, expected), TrainFrequencyUnit(unit))


def _check_names(model: TD3, at_load: Mapping[str, Any], known: frozenset[str]) -> None:
    """:raises ValueError: if ``load()`` was given what no model has, which Stable-Baselines3 takes in silence"""
    parameters = {name for cls in type(model).__mro__ for name in inspect.signature(cls).parameters}
    for name in at_load:
        if name not in parameters | known:
            close = difflib.get_close_matches(name, sorted(parameters), n=1)
            meant = f": did you mean {close[0]}?" if close else ""
            raise ValueError(f"load() was given {name}={at_load[name]!r}, which {type(model).__name__} has not{meant}")


def _put_back(model: TD3, kept: dict[str, Any], at_load: Mapping[str, Any]) -> None:
    """Undo what setting the saved model up had replaced, except where ``load()`` was asked for something else."""
    for name in _REPLACED:
        if name not in at_load:
            vars(model)[name] = kept[name]
    model.replay_buffer_kwargs = model.replay_buffer_kwargs or {}
    for name in at_load.keys() & {"gamma", "n_steps"} if "replay_buffer_kwargs" not in at_load else ():
        chosen = model.replay_buffer_kwargs.get(name, at_load[name])
        if chosen != at_load[name]:
            raise ValueError(
                f"{name}={at_load[name]!r} was asked for at load, but the model was made with "
                f"replay_buffer_kwargs={kept['replay_buffer_kwargs']!r}: give replay_buffer_kwargs at load too"
            )
    if "stats_window_size" in at_load:
        # Stable-Baselines3 keeps it under another name, and the windows themselves are saved.
        model._stats_window_size = vars(model).pop("stats_window_size")
        model.ep_info_buffer = model.ep_success_buffer = None
    if "policy_kwargs" in at_load and at_load["policy_kwargs"] not in (kept["policy_kwargs"], model.policy_kwargs):
        raise ValueError(
            "The specified policy kwargs do not equal the stored policy kwargs. "
            f"Stored kwargs: {kept['policy_kwargs']}, specified kwargs: {at_load['policy_kwargs']}"
        )
    if "policy" in at_load:
        asked = at_load["policy"]
        asked = model._get_policy_from_name(asked) if isinstance(asked, str) else asked
        if OURS_FOR_STOCK.get(asked, asked) is not OURS_FOR_STOCK.get(model.policy_class, model.policy_class):
            raise ValueError(
                f"policy={at_load['policy']!r} was asked for at load, but the model was saved with "
                f"{model.policy_class.__name__}, and its weights fit no other: make a new model"
            )
    _forget_the_range(model, kept)


def _forget_the_range(model: TD3, kept: Mapping[str, Any]) -> None:
    """Have the range of possible returns found again where it was another discount's."""
    as_it_was = (kept["gamma"], kept["n_steps"])
    if as_it_was != (model.gamma, model.n_steps):
        vars(model).pop("_target_range", None)


def _guessed(model: TD3, at_load: Mapping[str, Any]) -> dict[str, Any]:
    """Tell what was asked for from what an earlier version, or Stable-Baselines3, saved: the derived values alone.

    A class that it would have chosen by itself counts as chosen by itself.
    """
    cls, kwargs = model.replay_buffer_class, dict(model.replay_buffer_kwargs or {})
    gamma, n_steps = kwargs.get("gamma", model.gamma), kwargs.get("n_steps", model.n_steps)
    if cls in _DERIVED_CLASSES:
        for name in ("gamma", "n_steps"):
            if name in kwargs and (name in at_load or kwargs[name] == getattr(model, name)):
                del kwargs[name]
        kwargs.pop("frame_stack", None)  # found again, or as frame_stack_before() says
        is_told = cls is FrameReplayBuffer and getattr(model, "preset", None) == "td3"
        cls = cls if is_told else None
    return {
        "replay_buffer_class": cls,
        "replay_buffer_kwargs": kwargs,
        "optimize_memory_usage": model.optimize_memory_usage,
        "policy_kwargs": dict(model.policy_kwargs),
        "gamma": gamma,
        "n_steps": n_steps,
    }
