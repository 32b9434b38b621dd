"""End a segment in a replay buffer of any class: transitions stored later do not continue the stored ones.

The kinds of buffers are told apart by their attributes, because this package must not import Stable-Baselines3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sb3_visual_td3.common.types import EndsSegments


def end_segments(buffer: Any, envs: Sequence[int] | None = None, row: int | None = None) -> None:
    """End the current segment of a replay buffer: transitions stored later do not continue the stored ones.

    n-step windows end there, and so do the episodes from which HerReplayBuffer draws goals. The last transition of the
    segment bootstraps from its own next observation. There are two exceptions, in which it counts as terminal: with
    ``optimize_memory_usage``, and in an n-step buffer without ``handle_timeout_termination``.

    :param buffer: any replay buffer; if the user's own class has a method ``end_segment()``, this method is called
    :param envs: indices of the environments; None for all
    :param row: the last row of the segment; None for the newest row
    """
    if not buffer.size():
        return
    if row is None:
        row = (buffer.pos - 1) % buffer.buffer_size
    if envs is None:
        envs = range(buffer.n_envs)
    # Each kind of buffer has its own way to end an episode that is not over.
    ends = getattr(buffer, "segment_ends", None)
    if ends is not None:  # FrameReplayBuffer
        ends[row, envs] = True
    elif isinstance(buffer, EndsSegments):
        buffer.end_segment()
    elif hasattr(buffer, "_compute_episode_length"):  # HerReplayBuffer
        for env in envs:
            if buffer._current_ep_start[env] != buffer.pos:
                buffer._compute_episode_length(env)
    elif buffer.optimize_memory_usage:
        # Next observations are not stored: they are read from the next row, which will hold another episode. The end is
        # therefore marked as terminal, so that the next observation is not used.
        buffer.dones[row, envs] = True
    elif buffer.handle_timeout_termination:
        # NStepReplayBuffer's windows end at a timeout, and the transition still bootstraps.
        buffer.timeouts[row, envs] = np.where(buffer.dones[row, envs], buffer.timeouts[row, envs], True)
    elif hasattr(buffer, "n_steps"):  # NStepReplayBuffer
        # Without timeouts only a terminal transition ends its windows. A timeout that is set here would never be
        # cleared when the row is written again.
        buffer.dones[row, envs] = True
