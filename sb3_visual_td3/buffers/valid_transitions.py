"""Keeps out of a replay buffer the steps that a simulator failed to make.

An environment marks such a step with ``info["invalid_transition"] = True`` and truncates the episode: its observation
is the last one again and its reward is made up, so there is nothing to learn from it. VisualTD3 stores none whatever
its replay buffer is. For Stable-Baselines3's own algorithms there are the classes below::

    from stable_baselines3 import SAC
    from sb3_visual_td3.buffers.valid_transitions import ValidReplayBuffer

    model = SAC("CnnPolicy", env, replay_buffer_class=ValidReplayBuffer)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

INVALID = "invalid_transition"

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
    """Store one transition of each environment, but none that is marked as invalid.

    A buffer takes a step of all environments at once. Where some steps are valid, an invalid one's place is taken by a
    copy of a valid one, which is a transition like any other; where none is, nothing is stored. In both cases the
    episode of that environment ends with the transition before: see :func:`end_segments`.

    The other parameters are those of a replay buffer's ``add``.

    :param add: the buffer's own ``add``
    :param buffer: where it is stored
    :param infos: of each environment
    """
    invalid = [index for index, info in enumerate(infos) if info.get(INVALID)]
    if not invalid:
        add(obs, next_obs, action, reward, done, infos)
        return
    end_segments(buffer, invalid)
    valid = [index for index in range(len(infos)) if index not in invalid]
    if not valid:
        return
    rows = np.arange(len(infos))
    rows[invalid] = valid[0]
    row, kept = buffer.pos, [infos[index] for index in rows]
    add(_picked(obs, rows), _picked(next_obs, rows), action[rows], _picked(reward, rows), _picked(done, rows), kept)
    end_segments(buffer, invalid, row)


def _picked(part: Rows, rows: Sequence[int] | NDArray[Any]) -> Any:
    return {key: value[rows] for key, value in part.items()} if isinstance(part, Mapping) else part[rows]


def end_segments(buffer: ReplayBuffer, envs: Sequence[int] | None = None, row: int | None = None) -> None:
    """Have nothing that is stored from now on continue what a replay buffer holds.

    No n-step window runs on from there, and an episode that HerReplayBuffer draws goals from ends there. A last
    transition whose episode was not over bootstraps from its own next observation.

    :param buffer: any replay buffer; one of the user's own is asked for ``end_segment()``, if it has that
    :param envs: the environments that are concerned; None for all
    :param row: the row after which nothing continues; None for the newest
    """
    if not buffer.size():
        return
    if row is None:
        row = (buffer.pos - 1) % buffer.buffer_size
    envs = range(buffer.n_envs) if envs is None else envs
    ends = getattr(buffer, "segment_ends", None)
    if ends is not None:
        ends[row, envs] = True
    elif isinstance(buffer, HerReplayBuffer):
        for env in envs:
            if buffer._current_ep_start[env] != buffer.pos:
                buffer._compute_episode_length(env)
    elif hasattr(buffer, "end_segment"):
        buffer.end_segment()
    elif buffer.optimize_memory_usage:
        # Its next observation is overwritten by whatever is added next, so it must not bootstrap from that.
        buffer.dones[row, envs] = True
    elif buffer.handle_timeout_termination:
        # NStepReplayBuffer's windows end at a time-out, whose transition bootstraps as one in mid-episode does.
        buffer.timeouts[row, envs] = np.where(buffer.dones[row, envs], buffer.timeouts[row, envs], True)
    elif isinstance(buffer, NStepReplayBuffer):
        # It takes every end for a terminal one then, and never clears a time-out that it did not write.
        buffer.dones[row, envs] = True


class _KeepsOutInvalid(ReplayBuffer):
    """To be mixed into a replay buffer."""

    def add(self, *arguments: Any) -> None:
        """Store one transition of each environment, but none whose info says that it is invalid."""
        add_valid(super().add, self, *arguments)


class ValidReplayBuffer(_KeepsOutInvalid, ReplayBuffer):
    """Stable-Baselines3's replay buffer without the steps that the simulator failed to make."""


class ValidDictReplayBuffer(_KeepsOutInvalid, DictReplayBuffer):
    """Likewise, for Dict observations."""


class ValidNStepReplayBuffer(_KeepsOutInvalid, NStepReplayBuffer):
    """Likewise, with n-step returns."""


class ValidTransitions:
    """Stands before a replay buffer: stores what it is given, but no invalid transition.

    :param buffer: any replay buffer
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self._buffer = buffer

    def add(self, *arguments: Any) -> None:
        """Take what a replay buffer's ``add`` takes."""
        add_valid(self._buffer.add, self._buffer, *arguments)
