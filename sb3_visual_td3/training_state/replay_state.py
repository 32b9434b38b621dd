"""The content of a replay buffer as plain data: our own buffers', Stable-Baselines3's, and any that has a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer

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
"""All that Stable-Baselines3's buffers have: what has more is not theirs."""


@runtime_checkable
class EndsSegments(Protocol):
    """A replay buffer that can be told that the next transition follows from none that it holds."""

    def end_segment(self) -> None:
        """Have nothing that is added from now on continue what was added last."""


def check_replay(buffer: object) -> None:
    """Make sure, before training, that the buffer can be put aside.

    :param buffer: of the model
    :raises ValueError: if it has no state of its own and holds more than Stable-Baselines3's buffers do
    """
    if isinstance(buffer, HasState):
        return
    if isinstance(buffer, ReplayBuffer):
        unknown = sorted(vars(buffer).keys() - _KNOWN)
        reason = f"it keeps {', '.join(unknown)} beside what Stable-Baselines3's ReplayBuffer keeps" if unknown else ""
    else:
        reason = "it is no ReplayBuffer"
    if reason:
        raise ValueError(
            f"SnapshotCallback cannot put {type(buffer).__name__} aside: {reason}. Give it get_state() and set_state()"
        )


def replay_state(buffer: ReplayBuffer) -> dict[str, Any]:
    """Show what a buffer holds, without a copy.

    :param buffer: one that :func:`check_replay` lets pass
    :return: plain data and views of the arrays, as far as they are in use
    :raises ValueError: as :func:`check_replay`
    """
    check_replay(buffer)
    state = buffer.get_state() if isinstance(buffer, HasState) else _stock_state(buffer)
    return {"class": class_path(type(buffer)), "state": state}


def set_replay_state(buffer: ReplayBuffer, state: Mapping[str, Any]) -> None:
    """Have a buffer go on as the one would have that the state was taken of.

    :param buffer: made alike; what it holds is forgotten
    :param state: of :func:`replay_state`; arrays still on disk are read straight into their places
    :raises ValueError: if the buffer is another one, or :func:`check_replay` does not let it pass; nothing is changed
    """
    check_replay(buffer)
    require_same_settings(
        {"class": present_class_path(state["class"])}, {"class": class_path(type(buffer))}, "The replay buffer"
    )
    if isinstance(buffer, HasState):
        buffer.set_state(state["state"])
    else:
        _set_stock_state(buffer, state["state"])


def end_segment(buffer: ReplayBuffer) -> None:
    """Have no return run on from the transitions added last into the next ones, whose episode is another.

    To be called when training goes on with environments that were reset, not restored. A last transition whose episode
    was not over then bootstraps from its own next observation.

    :param buffer: of the model; one of the user's own is asked for ``end_segment()``, if it has that
    """
    if isinstance(buffer, EndsSegments):
        buffer.end_segment()
        return
    if not buffer.size():
        return
    newest = (buffer.pos - 1) % buffer.buffer_size
    if isinstance(buffer, NStepReplayBuffer):
        if buffer.handle_timeout_termination:
            buffer.timeouts[newest] = np.logical_or(buffer.timeouts[newest], np.logical_not(buffer.dones[newest]))
        # Otherwise the buffer takes every end for a terminal one, and never clears a time-out that it did not write.
        buffer.dones[newest] = 1
    elif buffer.optimize_memory_usage:
        # Its next observation lies where the next transition's observation will: Stable-Baselines3 does the same.
        buffer.dones[newest] = 1


def _arrays(buffer: ReplayBuffer) -> dict[str, NDArray[Any]]:
    """:return: every array by name, those of Dict observations by ``name.key``"""
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
    # Where the next observations have no array of their own, the newest one lies a row further.
    n_observations = min(n_rows + 1, buffer.buffer_size) if buffer.optimize_memory_usage and n_rows else n_rows
    arrays = {
        name: array[: n_observations if name.startswith("observations") else n_rows]
        for name, array in _arrays(buffer).items()
    }
    settings = _stock_settings(buffer)
    return {"settings": settings, "pos": int(buffer.pos), "full": bool(buffer.full), "arrays": arrays}


def _set_stock_state(buffer: ReplayBuffer, state: Mapping[str, Any]) -> None:
    require_same_settings(state.get("settings", {}), _stock_settings(buffer), "The replay buffer")
    n_rows_before = buffer.size()
    for name, array in _arrays(buffer).items():
        kept = state["arrays"][name]
        fill(array[: kept.shape[0]], kept)
        array[kept.shape[0] : n_rows_before + 1] = 0  # and no further: pages that were never written take no memory
    buffer.pos, buffer.full = state["pos"], state["full"]
