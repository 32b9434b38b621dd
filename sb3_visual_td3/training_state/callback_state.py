"""What callbacks have counted and found so far, as plain data."""

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
"""A callback's class, and its number among those of that class."""

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
"""By class, what changes while a callback of Stable-Baselines3 or rl-zoo works; a subclass has its parents', too."""


def callbacks_in(root: BaseCallback) -> list[BaseCallback]:
    """:return: every callback of a training once, each before those that it holds"""
    return list(_numbered(root).values())


def callbacks_state(root: BaseCallback, env_state: EnvState | None = None) -> dict[str, Any]:
    """Show what every callback of a training has counted and found.

    :param root: the training's callback, which holds the others
    :param env_state: shows the state of an evaluation's environments, which go on where they were; None leaves it out
    :return: plain data
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
    """Have callbacks go on as those would have that the state was taken of; to be called when training has started.

    :param root: the training's callback, which holds the others
    :param state: of :func:`callbacks_state`
    :param set_env_state: sets the state of an evaluation's environments; None leaves them as they are
    :return: a line for each callback that is there and has no state, or has a state and is not there
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
            lines.append(f"{_name(key)} was not there when the state was put aside: it starts anew")
    uncounted = {class_path(cls) for cls in (CallbackList, ProgressBarCallback)}
    lines += [f"{_name(key)} is not there any more: its state is left out" for key in kept if key[0] not in uncounted]
    return lines


def unknown_callbacks(root: BaseCallback) -> list[str]:
    """Find callbacks that may know more than can be put aside: the user's own, without ``get_state``.

    :param root: the training's callback, which holds the others
    :return: the names of their classes; of such callbacks ``n_calls`` and ``num_timesteps`` are put aside
    """
    ours = __name__.partition(".")[0]
    strangers = [
        type(callback).__qualname__
        for (path, _), callback in _numbered(root).items()
        if path not in ATTRIBUTES and path.partition(".")[0] != ours and not isinstance(callback, HasState)
    ]
    return list(dict.fromkeys(strangers))


def _numbered(root: BaseCallback) -> dict[Key, BaseCallback]:
    """:return: every callback once, each before those that it holds"""
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
        # A subclass that only saves in another way goes on with the state of the class in whose place it is.
        path = class_path(getattr(callback, "state_class", type(callback)))
        numbered[path, numbers[path]] = callback
        numbers[path] += 1
    return numbered


def _held_by(callback: BaseCallback) -> Iterator[BaseCallback]:
    for name, value in vars(callback).items():
        if name not in {"parent", "locals", "globals"}:  # the first is above it, the others are what learn() sees
            parts = list(value.values()) if isinstance(value, dict) else value
            yield from (part for part in (parts if isinstance(parts, list | tuple) else [parts]) if _is_callback(part))


def _is_callback(value: object) -> bool:
    return isinstance(value, BaseCallback)


def _attributes_of(callback: BaseCallback) -> list[str]:
    return [name for cls in type(callback).__mro__ for name in ATTRIBUTES.get(class_path(cls), ())]


def _state_holder(callback: BaseCallback) -> HasState | None:
    """:return: the callback, or the function that it was made of, if that has a state"""
    function = getattr(callback, "callback", None)
    if isinstance(callback, HasState):
        return callback
    return function if isinstance(function, HasState) and not isinstance(function, BaseCallback) else None


def _eval_env(callback: BaseCallback) -> VecEnv | None:
    env = getattr(callback, "eval_env", None)
    return env if isinstance(env, VecEnv) else None


def _set_one(callback: BaseCallback, record: Mapping[str, Any], set_env_state: SetEnvState | None) -> None:
    if not all(type(record[name]) is int and record[name] >= 0 for name in ("n_calls", "num_timesteps")):
        raise ValueError(f"the counters of {record['class']} are not whole numbers from 0 on")
    callback.n_calls, callback.num_timesteps = record["n_calls"], record["num_timesteps"]
    known = _attributes_of(callback)
    for name, value in record["attributes"].items():
        if name not in known or not _is_alike(getattr(callback, name), value):
            raise ValueError(f"{record['class']} has no {name} such as {value!r}")
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
    """:return: whether a value can take the place of another: a number of a number, a list of a list"""
    kinds = (bool, int | float | np.number, list)
    return any(isinstance(here, kind) and isinstance(there, kind) for kind in kinds) or here is None


def _move_bar(callback: ProgressBarCallback) -> None:
    """Move the bar to where training goes on: what was done before counts as done, not as done in no time."""
    bar = getattr(callback, "pbar", None)
    if bar is not None:
        n_before = callback.locals["total_timesteps"] - bar.total
        bar.n = bar.initial = bar.last_print_n = max(0, callback.num_timesteps - n_before)
        bar.refresh()


def _python_number(value: Any, _place: str) -> Any:
    """Return a NumPy number as Python's, which is the same to the bit; any other value as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _name(key: Key) -> str:
    path, number = key
    return path.rpartition(".")[2] + (f" number {number + 1}" if number else "")
