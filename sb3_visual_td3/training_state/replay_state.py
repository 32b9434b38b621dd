"""Read and set the content of a replay buffer as plain data.

The buffer is one of Stable-Baselines3's, or has ``get_state()`` and ``set_state()``. The arrays in a state are views,
because a copy may not fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_visual_td3.common.moved_modules import present_class_path
from sb3_visual_td3.common.saved_state import fill, require_same_settings
from sb3_visual_td3.common.types import HasState
from sb3_visual_td3.training_state.plain_data import class_path

_OBSERVATIONS = ("observations", "next_observations")
_COLUMNS = ("actions", "rewards", "dones", "timeouts")
_SETTINGS = ("n_envs", "optimize_memory_usage", "handle_timeout_termination", "n_steps", "gamma")
_KNOWN = {
    *(*_OBSERVATIONS, *_COLUMNS, *_SETTINGS),
    *("buffer_size", "observation_space", "obs_shape", "action_space", "action_dim", "pos", "full", "device"),
}
"""All attributes of Stable-Baselines3's buffers. A subclass with more attributes may hold data that would be lost."""


def check_replay(buffer: object) -> None:
    """Refuse a replay buffer that cannot be saved.

    A buffer can be saved if it has ``get_state()`` and ``set_state()``. A ReplayBuffer of Stable-Baselines3 without
    further attributes can also be saved.

    :param buffer: replay buffer of the model
    :raises ValueError: if the buffer cannot be saved
    """
    if isinstance(buffer, HasState):
        return
    reason = ""
    if not isinstance(buffer, ReplayBuffer):
        reason = "it is not a ReplayBuffer"
    elif unknown := sorted(vars(buffer).keys() - _KNOWN):
        reason = f"it holds {', '.join(unknown)}, which Stable-Baselines3's ReplayBuffer does not have"
    if reason:
        raise ValueError(
            f"SnapshotCallback cannot save {type(buffer).__name__}: {reason}. Add get_state() and "
            "set_state() to this class"
        )


def replay_state(buffer: ReplayBuffer) -> dict[str, Any]:
    """Return the content of a replay buffer, without a copy.

    :param buffer: a buffer that :func:`check_replay` accepts
    :raises ValueError: if :func:`check_replay` refuses the buffer
    """
    check_replay(buffer)
    state = buffer.get_state() if isinstance(buffer, HasState) else _stock_state(buffer)
    return {"class": class_path(type(buffer)), "state": state}


def set_replay_state(buffer: ReplayBuffer, state: Mapping[str, Any]) -> None:
    """Replace the content of a replay buffer by a saved state.

    :param buffer: a buffer with the same settings
    :param state: result of :func:`replay_state`; arrays on disk are read directly into the buffer
    :raises ValueError: if the settings differ, or if :func:`check_replay` refuses the buffer; the buffer is then not
        changed
    """
    check_replay(buffer)
    require_same_settings(
        {"class": present_class_path(state["class"])}, {"class": class_path(type(buffer))}, "The replay buffer"
    )
    if isinstance(buffer, HasState):
        buffer.set_state(state["state"])
    else:
        _set_stock_state(buffer, state["state"])


def _arrays(buffer: ReplayBuffer) -> dict[str, NDArray[Any]]:
    """Return every array of a buffer by name; arrays of Dict observations have the names ``name.key``."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in (*_OBSERVATIONS, *_COLUMNS):
        found: Any = getattr(buffer, name, None)
        if isinstance(found, Mapping):
            arrays.update({f"{name}.{key}": part for key, part in found.items()})
        elif found is not None:
            arrays[name] = found
    return arrays


def _stock_settings(buffer: ReplayBuffer) -> dict[str, Any]:
    casts = {"gamma": float, "n_envs": int, "n_steps": int}
    settings = {name: casts.get(name, bool)(getattr(buffer, name)) for name in _SETTINGS if hasattr(buffer, name)}
    rows = {name: f"{array.shape[2:]} {array.dtype}" for name, array in _arrays(buffer).items()}
    return {"buffer_size": int(buffer.buffer_size * buffer.n_envs), **settings, **rows}


def _stock_state(buffer: ReplayBuffer) -> dict[str, Any]:
    n_rows = buffer.size()
    # With optimize_memory_usage, next observations have no array of their own: the newest one is in the row after the
    # newest transition.
    n_observations = n_rows
    if buffer.optimize_memory_usage and n_rows:
        n_observations = min(n_rows + 1, buffer.buffer_size)
    arrays = {}
    for name, array in _arrays(buffer).items():
        n_used = n_observations if name.startswith("observations") else n_rows
        arrays[name] = array[:n_used]
    settings = _stock_settings(buffer)
    return {"settings": settings, "pos": int(buffer.pos), "full": bool(buffer.full), "arrays": arrays}


def _set_stock_state(buffer: ReplayBuffer, state: Mapping[str, Any]) -> None:
    require_same_settings(state.get("settings", {}), _stock_settings(buffer), "The replay buffer")
    n_rows_before = buffer.size()
    for name, array in _arrays(buffer).items():
        kept = state["arrays"][name]
        fill(array[: kept.shape[0]], kept)
        # Clear the rows after the restored ones, but only those that were in use: writing to the others would allocate
        # their memory.
        array[kept.shape[0] : n_rows_before + 1] = 0
    buffer.pos, buffer.full = state["pos"], state["full"]
