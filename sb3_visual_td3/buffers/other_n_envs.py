"""Rearrange a replay buffer when a training run continues with another number of environments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_visual_td3.buffers.frame_replay_buffer import FrameReplayBuffer
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import IndexableParts
from sb3_visual_td3.buffers.observation_store import AFTER, BEFORE
from sb3_visual_td3.common.segments import end_segments

_COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
Index = tuple[NDArray[Any], NDArray[Any]]


def for_n_envs(buffer: ReplayBuffer, n_envs: int) -> ReplayBuffer:
    """Return a replay buffer with the same transitions for another number of environments.

    The transitions of each environment keep their order. If the number of all transitions is not divisible by
    ``n_envs``, up to ``n_envs - 1`` old transitions are dropped.

    :param buffer: a buffer of this package, or a ReplayBuffer, DictReplayBuffer or NStepReplayBuffer of
        Stable-Baselines3; it is not changed
    :param n_envs: the new number of environments
    :return: a new buffer of the same class, or the same buffer if the number is the same
    :raises ValueError: if the buffer is of any other class, or next observations are not stored
        (``optimize_memory_usage``)
    """
    if n_envs == buffer.n_envs:
        return buffer
    is_ours = type(buffer).__module__.startswith(f"{__package__}.")
    is_known = is_ours or type(buffer) in {ReplayBuffer, DictReplayBuffer, NStepReplayBuffer}
    if not is_known or (buffer.optimize_memory_usage and not isinstance(buffer, FrameReplayBuffer)):
        raise ValueError(
            f"{type(buffer).__name__} was filled with n_envs={buffer.n_envs}, but n_envs is now {n_envs}, and a buffer "
            f"of this kind cannot be converted. Use n_envs={buffer.n_envs}, create a new model, or load the model "
            "without its replay buffer"
        )
    n_rows = buffer.size()
    # Rows of the ring, oldest first.
    oldest = buffer.pos if buffer.full else 0
    rows = (np.arange(n_rows) + oldest) % buffer.buffer_size
    n_new = n_rows * buffer.n_envs // n_envs
    # The present rows and environments of the transitions, one environment after the other.
    n_dropped = n_rows * buffer.n_envs - n_new * n_envs
    in_rows = np.tile(rows, buffer.n_envs)[n_dropped:]
    in_envs = np.repeat(np.arange(buffer.n_envs), n_rows)[n_dropped:]
    # Each new environment gets n_new consecutive transitions: both arrays are (n_new, n_envs).
    index = (in_rows.reshape(n_envs, n_new).T, in_envs.reshape(n_envs, n_new).T)
    new: ReplayBuffer
    if isinstance(buffer, FrameReplayBuffer):
        new = _of_frames(buffer, index)
    else:
        new = _of_arrays(buffer, index)
    if n_new == 0:
        return new
    # The newest transition of each earlier environment has no successor.
    for row, env in np.argwhere(index[0] == rows[-1]).tolist():
        end_segments(new, [env], row)
    end_segments(new)
    return new


def _of_arrays(buffer: ReplayBuffer, index: Index) -> ReplayBuffer:
    """Return a copy of Stable-Baselines3's buffer with the transitions that an index ``(size, n_envs)`` selects."""
    n_new, n_envs = index[0].shape
    new = copy.copy(buffer)
    new.n_envs, new.buffer_size = n_envs, max(buffer.buffer_size * buffer.n_envs // n_envs, 1)
    for name in _COLUMNS:
        held: Any = getattr(buffer, name)
        if isinstance(held, Mapping):
            kind = IndexableParts if isinstance(held, IndexableParts) else dict
            parts = {key: _rearranged(part, index, new.buffer_size) for key, part in held.items()}
            setattr(new, name, kind(parts))
        else:
            setattr(new, name, _rearranged(held, index, new.buffer_size))
    new.full, new.pos = n_new == new.buffer_size, n_new % new.buffer_size
    return new


def _rearranged(array: NDArray[Any], index: Index, size: int) -> NDArray[Any]:
    rearranged = np.zeros((size, index[0].shape[1], *array.shape[2:]), array.dtype)
    rearranged[: len(index[0])] = array[index]
    return rearranged


def _of_frames(buffer: FrameReplayBuffer, index: Index) -> FrameReplayBuffer:
    """Return a new FrameReplayBuffer with the transitions that an index ``(size, n_envs)`` selects.

    The transitions are added step by step, because their order decides which of them share a frame.
    """
    new = type(buffer)(
        buffer.buffer_size * buffer.n_envs,
        buffer.observation_space,
        buffer.action_space,
        buffer.device,
        index[0].shape[1],
        buffer.optimize_memory_usage,
        buffer.handle_timeout_termination,
        frame_stack=buffer.frame_stack,
        n_steps=buffer.n_steps,
        gamma=buffer.gamma,
    )
    for rows, envs in zip(*index, strict=True):
        obs, next_obs = (buffer.taken(moment, (rows, envs)) for moment in (BEFORE, AFTER))
        action, reward, done = (column[rows, envs] for column in (buffer.actions, buffer.rewards, buffer.dones))
        infos = [{"TimeLimit.truncated": bool(timeout)} for timeout in buffer.timeouts[rows, envs]]
        row = new.pos
        new.add(obs, next_obs, action, reward, done, infos)
        new.segment_ends[row] |= buffer.segment_ends[rows, envs]
    return new
