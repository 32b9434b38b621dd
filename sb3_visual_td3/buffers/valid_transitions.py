"""Prevent replay buffers from storing steps in which a simulator failed.

An environment marks such a step with ``info["invalid_transition"] = True`` and truncates the episode. VisualTD3 never
stores such a step. For Stable-Baselines3's own algorithms use one of the classes below::

    from stable_baselines3 import SAC
    from sb3_visual_td3.buffers.valid_transitions import ValidReplayBuffer

    model = SAC("CnnPolicy", env, replay_buffer_class=ValidReplayBuffer)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_visual_td3.common.segments import end_segments
from sb3_visual_td3.common.types import INVALID_TRANSITION

Rows = NDArray[Any] | Mapping[str, NDArray[Any]]


def add_valid(
    add: Callable[..., None],
    buffer: ReplayBuffer,
    obs: Any,
    next_obs: Any,
    action: NDArray[Any],
    reward: NDArray[Any],
    done: NDArray[Any],
    infos: list[dict[str, Any]],
) -> None:
    """Store the transitions of one step, except those in which the simulator failed.

    A buffer stores all environments at once. So an invalid transition is replaced by a copy of another environment's
    valid transition. n-step windows and the episodes of HerReplayBuffer end directly before this copy and directly
    after it. If the simulators of all environments failed, nothing is stored.

    :param add: the buffer's own ``add``
    :param buffer: the buffer to store in
    :param obs: ``(n_envs, *observation)``, or a dict of arrays
    :param next_obs: observations after the step
    :param action: ``(n_envs, action_dim)``
    :param reward: ``(n_envs,)``
    :param done: ``(n_envs,)``, 1 where the episode ended or was truncated
    :param infos: one dict for each environment; ``invalid_transition`` is True in the info of an invalid transition
    """
    invalid = [index for index, info in enumerate(infos) if info.get(INVALID_TRANSITION)]
    if not invalid:
        add(obs, next_obs, action, reward, done, infos)
        return
    end_segments(buffer, invalid)
    valid = [index for index in range(len(infos)) if index not in invalid]
    if not valid:
        return
    rows = np.arange(len(infos))
    rows[invalid] = valid[0]
    row, kept = buffer.pos, [infos[index] for index in rows]  # the row that add() is about to write
    add(_picked(obs, rows), _picked(next_obs, rows), action[rows], _picked(reward, rows), _picked(done, rows), kept)
    end_segments(buffer, invalid, row)


def _picked(part: Rows, rows: Sequence[int] | NDArray[Any]) -> Any:
    if isinstance(part, Mapping):
        return {key: value[rows] for key, value in part.items()}
    return part[rows]


class _KeepsOutInvalid(ReplayBuffer):
    """Prevent a replay buffer from storing transitions in which the simulator failed; this class is a mixin."""

    def add(self, *arguments: Any) -> None:
        """Store the transitions of one step without those in which the simulator failed, see :func:`add_valid`."""
        add_valid(super().add, self, *arguments)


class ValidReplayBuffer(_KeepsOutInvalid, ReplayBuffer):
    """Store transitions like Stable-Baselines3's ReplayBuffer, except for steps in which the simulator failed."""


class ValidDictReplayBuffer(_KeepsOutInvalid, DictReplayBuffer):
    """Store transitions like Stable-Baselines3's DictReplayBuffer, except for steps in which the simulator failed."""


class ValidNStepReplayBuffer(_KeepsOutInvalid, NStepReplayBuffer):
    """Store transitions like Stable-Baselines3's NStepReplayBuffer, except for steps in which the simulator failed."""


class ValidTransitions:
    """Wrap a replay buffer of any class, and pass on all transitions except those in which the simulator failed.

    :param buffer: any replay buffer
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer

    def add(self, *arguments: Any) -> None:
        """Store one transition of each environment; the arguments are those of a replay buffer's ``add``."""
        add_valid(self._buffer.add, self._buffer, *arguments)
