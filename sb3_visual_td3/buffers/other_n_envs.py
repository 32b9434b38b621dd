"""A replay buffer's content for another number of environments."""

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
from sb3_visual_td3.buffers.valid_transitions import end_segments

_COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
Index = tuple[NDArray[Any], NDArray[Any]]


def for_n_envs(buffer: ReplayBuffer, n_envs: int) -> ReplayBuffer:
    """Return a replay buffer of as many transitions for another number of environments.

    The transitions of each environment stay in their order. They are laid end to end, oldest first, and cut into as
    many equal streams as there are environments now; of a remainder the oldest go. No n-step window runs across where
    two were laid together, nor beyond the newest transition.

    :param buffer: any of Stable-Baselines3's but HerReplayBuffer, or of this package; it is left as it is
    :param n_envs: how many environments there are from now on
    :return: a new buffer of the same class, or the same one where nothing changes
    :raises ValueError: if the class is another one, or next observations are not stored (``optimize_memory_usage``)
    """
    if n_envs == buffer.n_envs:
        return buffer
    is_ours = type(buffer).__module__.startswith(f"{__package__}.")
    is_known = is_ours or type(buffer) in {ReplayBuffer, DictReplayBuffer, NStepReplayBuffer}
    if not is_known or (buffer.optimize_memory_usage and not isinstance(buffer, FrameReplayBuffer)):
        raise ValueError(
            f"{type(buffer).__name__} holds transitions of {buffer.n_envs} environments, and there are {n_envs} now: "
            f"expected {buffer.n_envs}. It cannot be rearranged; make a new model, or load this one without its replay "
            "buffer"
        )
    n_rows = buffer.size()
    rows = (np.arange(n_rows) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size
    n_new = n_rows * buffer.n_envs // n_envs
    # (transition, (row, environment)), one environment after the other; the oldest of a remainder are left out.
    n_left_out = n_rows * buffer.n_envs - n_new * n_envs
    in_rows, in_envs = (
        np.tile(rows, buffer.n_envs)[n_left_out:],
        np.repeat(np.arange(buffer.n_envs), n_rows)[n_left_out:],
    )
    index = (in_rows.reshape(n_envs, n_new).T, in_envs.reshape(n_envs, n_new).T)
    new = _of_frames(buffer, index) if isinstance(buffer, FrameReplayBuffer) else _of_arrays(buffer, index)
    # What was the newest of an environment is continued by nothing.
    is_newest = index[0] == (rows[-1] if n_rows else 0)
    for row, env in np.argwhere(is_newest).tolist():
        end_segments(new, [env], row)
    if new.size():
        end_segments(new)
    return new


def _of_arrays(buffer: ReplayBuffer, index: Index) -> ReplayBuffer:
    """:return: a copy whose arrays hold the transitions of an index ``(size, n_envs)``"""
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
    """:return: a buffer to which the transitions of an index ``(size, n_envs)`` were added, step by step"""
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
