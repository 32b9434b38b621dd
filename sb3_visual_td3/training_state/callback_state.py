"""Read and restore the state of callbacks, such as counters, best rewards and evaluation environments.

:data:`ATTRIBUTES` lists the attributes that hold the state of Stable-Baselines3's and rl-zoo's callbacks. Other
callbacks need ``get_state()`` and ``set_state()``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.common.moved_modules import present_class_path
from sb3_visual_td3.common.types import HasState
from sb3_visual_td3.training_state.plain_data import class_path, map_leaves

EnvState = Callable[[VecEnv], Any]
SetEnvState = Callable[[VecEnv, Any], object]
Key = tuple[str, int]
"""Key of a callback: the import path of its class, and its number among the callbacks of this class."""

_SB3 = {
    "CallbackList": (),
    "CheckpointCallback": (),
    "ConvertCallback": (),
    "EvalCallback": (
        "best_mean_reward",
        "last_mean_reward",
        "evaluations_results",
        "evaluations_timesteps",
        "evaluations_length",
        "evaluations_successes",
        "_is_success_buffer",
    ),
    "EventCallback": (),
    "EveryNTimesteps": ("last_time_trigger",),
    "LogEveryNTimesteps": (),
    "ProgressBarCallback": (),
    "StopTrainingOnMaxEpisodes": ("n_episodes",),
    "StopTrainingOnNoModelImprovement": ("last_best_mean_reward", "no_improvement_evals"),
    "StopTrainingOnRewardThreshold": (),
}
_ZOO = {
    "RawStatisticsCallback": ("_timesteps_counter",),
    "SaveVecNormalizeCallback": (),
    "TrialEvalCallback": ("eval_idx", "is_pruned"),
}
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    **{f"stable_baselines3.common.callbacks.{name}": attributes for name, attributes in _SB3.items()},
    **{f"rl_zoo3.callbacks.{name}": attributes for name, attributes in _ZOO.items()},
}
"""Attributes that change while a callback of Stable-Baselines3 or rl-zoo works, by class. A subclass also has the
attributes of its parents."""


def callbacks_in(root: BaseCallback) -> list[BaseCallback]:
    """Return every callback of a training run once; a callback comes before the callbacks that it holds.

    :param root: the callback of ``learn()``
    """
    return list(_numbered(root).values())


def stoppers_in(root: BaseCallback) -> list[BaseCallback]:
    """Return the callbacks that have ended a training run; such a callback has ``has_ended_training = True``.

    :param root: the callback of ``learn()``
    """
    return [callback for callback in callbacks_in(root) if getattr(callback, "has_ended_training", False) is True]


def callbacks_state(root: BaseCallback, env_state: EnvState | None = None) -> dict[str, Any]:
    """Read the state of every callback of a training run.

    :param root: the callback of ``learn()``
    :param env_state: function that reads the state of an evaluation's environments; None leaves this state out
    """
    records = []
    for (path, number), callback in _numbered(root).items():
        record: dict[str, Any] = {
            "class": path,
            "number": number,
            "n_calls": int(callback.n_calls),
            "num_timesteps": int(callback.num_timesteps),
            "attributes": {
                name: map_leaves(getattr(callback, name), _python_number) for name in _attributes_of(callback)
            },
        }
        holder = _state_holder(callback)
        if holder is not None:
            record["state"] = holder.get_state()
        eval_env = _eval_env(callback)
        if eval_env is not None and env_state is not None:
            record["eval_env"] = env_state(eval_env)
        records.append(record)
    return {"callbacks": records}


def set_callbacks_state(
    root: BaseCallback, state: Mapping[str, Any], set_env_state: SetEnvState | None = None
) -> list[str]:
    """Set the state of every callback; call this after the start of training, which resets callbacks.

    :param root: the callback of ``learn()``
    :param state: result of :func:`callbacks_state`
    :param set_env_state: function that sets the state of an evaluation's environments; None leaves them as they are
    :return: a message for each callback without a saved state, and for each state without a callback
    """
    kept: dict[Key, Mapping[str, Any]] = {
        (present_class_path(record["class"]), record["number"]): record for record in state["callbacks"]
    }
    lines = []
    for key, callback in _numbered(root).items():
        record = kept.pop(key, None)
        if record is not None:
            _set_one(callback, record, set_env_state)
        elif not isinstance(callback, CallbackList | ProgressBarCallback):
            lines.append(f"{_name(key)} has no state in the snapshot: it starts from the beginning")
    # learn() adds these two itself, depending on its arguments, so they need no message.
    added_by_learn = {class_path(cls) for cls in (CallbackList, ProgressBarCallback)}
    lines += [f"{_name(key)} no longer exists: its state is ignored" for key in kept if key[0] not in added_by_learn]
    return lines


def unknown_callbacks(root: BaseCallback) -> list[str]:
    """Return the class names of the user's callbacks without ``get_state``: a snapshot may miss a part of their state.

    :param root: the callback of ``learn()``
    """
    our_package = __name__.partition(".")[0]
    unknown = [
        type(callback).__qualname__
        for (path, _), callback in _numbered(root).items()
        if path not in ATTRIBUTES and path.partition(".")[0] != our_package and not isinstance(callback, HasState)
    ]
    return list(dict.fromkeys(unknown))


def _numbered(root: BaseCallback) -> dict[Key, BaseCallback]:
    """Return every callback once, by its class and its number among the callbacks of this class."""
    # The order is that of Stable-Baselines3's calls: depth first, from left to right. So the stack is reversed.
    seen: dict[int, BaseCallback] = {}
    waiting = [root]
    while waiting:
        callback = waiting.pop()
        if id(callback) not in seen:
            seen[id(callback)] = callback
            waiting.extend(reversed(list(_held_by(callback))))
    numbers: Counter[str] = Counter()
    numbered: dict[Key, BaseCallback] = {}
    for callback in seen.values():
        # A callback with "state_class" saves its state under the name of that class, which it replaces.
        path = class_path(getattr(callback, "state_class", type(callback)))
        numbered[path, numbers[path]] = callback
        numbers[path] += 1
    return numbered


def _held_by(callback: BaseCallback) -> Iterator[BaseCallback]:
    """Yield the callbacks that a callback holds in its attributes, including those in lists and dicts."""
    for name, value in vars(callback).items():
        # "parent" points upwards, and "locals" and "globals" are the variables of learn().
        if name in {"parent", "locals", "globals"}:
            continue
        parts = list(value.values()) if isinstance(value, dict) else value
        if not isinstance(parts, list | tuple):
            parts = [parts]
        for part in parts:
            if isinstance(part, BaseCallback):
                yield part


def _attributes_of(callback: BaseCallback) -> list[str]:
    return [name for cls in type(callback).__mro__ for name in ATTRIBUTES.get(class_path(cls), ())]


def _state_holder(callback: BaseCallback) -> HasState | None:
    """Return the object that holds the callback's state: the callback itself, or the function that it wraps."""
    if isinstance(callback, HasState):
        return callback
    function = getattr(callback, "callback", None)
    if isinstance(function, HasState) and not isinstance(function, BaseCallback):
        return function
    return None


def _eval_env(callback: BaseCallback) -> VecEnv | None:
    env = getattr(callback, "eval_env", None)
    return env if isinstance(env, VecEnv) else None


def _set_one(callback: BaseCallback, record: Mapping[str, Any], set_env_state: SetEnvState | None) -> None:
    if not all(type(record[name]) is int and record[name] >= 0 for name in ("n_calls", "num_timesteps")):
        raise ValueError(
            f"the snapshot has n_calls={record['n_calls']!r} and num_timesteps={record['num_timesteps']!r} for "
            f"{record['class']}: expected integers >= 0. Resume from another snapshot"
        )
    callback.n_calls, callback.num_timesteps = record["n_calls"], record["num_timesteps"]
    known = _attributes_of(callback)
    for name, value in record["attributes"].items():
        now = "missing"
        if name in known:
            now = f"of type {type(getattr(callback, name)).__name__}"
        if name not in known or not _is_alike(getattr(callback, name), value):
            raise ValueError(
                f"the snapshot has {name}={value!r} for {record['class']}, but this attribute is now {now}: use the "
                "version of this class that wrote the snapshot"
            )
        setattr(callback, name, value)
    holder = _state_holder(callback)
    if holder is not None and "state" in record:
        holder.set_state(record["state"])
    eval_env = _eval_env(callback)
    if eval_env is not None and set_env_state is not None and record.get("eval_env") is not None:
        set_env_state(eval_env, record["eval_env"])
    if isinstance(callback, ProgressBarCallback):
        _move_bar(callback)


def _is_alike(here: Any, there: Any) -> bool:
    """Return whether a saved value may replace an attribute: both are numbers, both are flags, or both are lists.

    :param here: the attribute's current value; any saved value may replace None
    """
    if here is None:
        return True
    # In Python a bool is an int, but a saved number must not replace a flag.
    if isinstance(here, bool):
        return isinstance(there, bool)
    kinds = (int | float | np.number, list)
    return any(isinstance(here, kind) and isinstance(there, kind) for kind in kinds)


def _move_bar(callback: ProgressBarCallback) -> None:
    """Move a progress bar to the current step, and leave earlier steps out of the speed that it shows."""
    bar = getattr(callback, "pbar", None)
    if bar is not None:
        n_before = callback.locals["total_timesteps"] - bar.total
        # tqdm computes the speed from n - initial.
        bar.n = bar.initial = bar.last_print_n = max(0, callback.num_timesteps - n_before)
        bar.refresh()


def _python_number(value: Any, _place: str) -> Any:
    """Return a NumPy scalar as an exactly equal Python number, and any other value unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def _name(key: Key) -> str:
    path, number = key
    name = path.rpartition(".")[2]
    return f"{name} number {number + 1}" if number else name
