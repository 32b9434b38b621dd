"""Store each camera frame once, find n-step windows over transitions, and check the free memory.

A :class:`~sb3_visual_td3.buffers.observation_store.StackStore` keeps each observation as ids of frames in a
:class:`FrameStore`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.saved_state import fill

try:  # psutil is optional. Stable-Baselines3 also uses it to check whether a replay buffer fits into memory
    import psutil
except ImportError:
    psutil = None

CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the bytes that can be used without swapping, within the container's limit; None if unknown."""
    limits = []
    if psutil is not None:
        limits.append(int(psutil.virtual_memory().available))
    # In a container psutil reports the machine's memory, and the kernel kills the process at the container's limit.
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((CGROUP / "memory.current").read_text()) + _file_cache_bytes())
    except (OSError, ValueError):
        pass  # no cgroup of version 2: only the memory of the machine is known
    return min(limits) if limits else None


def _file_cache_bytes() -> int:
    """Return the bytes of file cache that the kernel frees when the container's memory is short."""
    for line in (CGROUP / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def require_memory(n_bytes: int, purpose: str, advice: str) -> None:
    """Raise an error now if memory is too small, because the process would otherwise be killed hours later.

    :param n_bytes: bytes that will be used
    :param purpose: use of the memory, as the subject of the error message
    :param advice: what the user can do, the end of the error message
    :raises MemoryError: if fewer bytes are available
    """
    available = available_bytes()
    if available is not None and n_bytes > available:
        raise MemoryError(
            f"{purpose} needs {n_bytes / 1e9:.2f} GB, but only {available / 1e9:.2f} GB are available. {advice}"
        )


Ids = NDArray[np.int32]
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Windows(NamedTuple):
    """Hold n-step windows: each sampled transition and the transitions that follow it.

    ``rows`` ``(batch, n_steps)`` are rows of the buffer. ``is_within`` ``(batch, n_steps)`` is True for the rows that
    belong to the window, which may end early. ``last_rows`` ``(batch,)`` are the last rows of the windows.
    """

    rows: Rows
    is_within: Flags
    last_rows: Rows


def n_step_windows(rows: Rows, envs: Rows, is_last: list[Flags], newest: int, n_steps: int) -> Windows:
    """Find the n-step window of each transition: the transition and those that follow it, in the same environment.

    :param rows: ``(batch,)`` first row of each window
    :param envs: ``(batch,)`` environment of each window
    :param is_last: arrays ``(size, n_envs)`` that are True where a window has to end
    :param newest: the row written last, where a window ends too
    :param n_steps: length of the longest window, >= 1
    """
    size = len(is_last[0])
    steps = np.arange(n_steps)
    # (batch, n_steps): the rows that a full window would have, and where it has to end.
    window = (rows[:, None] + steps) % size
    ends = window == newest
    for reason in is_last:
        ends |= reason[window, envs[:, None]]
    ends[:, -1] = True  # so that argmax finds a True in every row
    n_more = ends.argmax(axis=1)
    return Windows(window, steps <= n_more[:, None], (rows + n_more) % size)


def ids_let_go(replaced: Ids, successor: Ids) -> list[int]:
    """Return the ids of the frames that are unused after the oldest transition has been overwritten.

    A frame that the next transition does not use is not used later either, so references need not be counted.

    :param replaced: ids of the frames of the overwritten transition, in any shape
    :param successor: ids of the frames of the transition after it, in any shape
    :return: each id once
    """
    return sorted(set(replaced.ravel().tolist()) - set(successor.ravel().tolist()))


Frames = NDArray[np.uint8]

BLACK = 0
"""Id of the black frame, with which VecFrameStack pads stacks at a reset. This frame is always stored."""
FRAMES_PER_SPARE = 16
"""There is memory for one spare frame per 16 expected frames, because an episode has more frames than transitions."""


class FrameStore:
    """Store frames by id, in one large block of memory, and in smaller blocks when the large block is full.

    Memory is written in the order of the ids, so the operating system provides it only as the buffer fills.

    :param frame_shape: ``(channels, height, width)``
    :param n_expected: expected number of frames
    """

    def __init__(self, frame_shape: tuple[int, int, int], n_expected: int) -> None:
        self.frame_shape = frame_shape
        self.n_expected = n_expected
        self._n_main = n_expected + n_expected // FRAMES_PER_SPARE + 1
        self._n_more = max(n_expected // FRAMES_PER_SPARE, 64)
        self._blocks: list[Frames] = []
        self._free: list[int] = []
        self._n_touched = 0

    @property
    def frame_bytes(self) -> int:
        """Return the size of one frame in bytes."""
        return int(np.prod(self.frame_shape))

    @property
    def n_bytes(self) -> int:
        """Return the bytes that the store needs for the expected number of frames and the black frame (BLACK)."""
        return (self.n_expected + 1) * self.frame_bytes

    def allocate(self) -> None:
        """Allocate memory for the expected number of frames.

        :raises MemoryError: if the operating system refuses
        """
        self._blocks = [np.empty((self._n_main, *self.frame_shape), np.uint8)]
        self.clear()

    def clear(self) -> None:
        """Drop every frame and keep the memory."""
        self._free = []
        self._blocks[0][BLACK] = 0
        self._n_touched = BLACK + 1

    def __getitem__(self, frame_id: int) -> Frames:
        """Return the frame with an id, as a view and not as a copy."""
        block, place = 0, frame_id
        if frame_id >= self._n_main:
            block, place = divmod(frame_id - self._n_main, self._n_more)
            block += 1
        frame: Frames = self._blocks[block][place]
        return frame

    def put(self, frame: Frames) -> int:
        """Store a copy of a frame.

        :param frame: ``(channels, height, width)`` uint8
        :return: the id of the frame
        :raises MemoryError: if there are more frames than expected and too little memory for them
        """
        if self._free:
            frame_id = self._free.pop()
        else:
            frame_id = self._n_touched
            if frame_id == self._n_main + (len(self._blocks) - 1) * self._n_more:
                self._grow()
            self._n_touched += 1
        self[frame_id][...] = frame
        return frame_id

    def _grow(self) -> None:
        advice = (
            "Very short episodes need more memory, because each episode stores all frames of its first stack: use "
            "a smaller buffer_size"
        )
        require_memory(self._n_more * self.frame_bytes, "The next part of the replay buffer", advice)
        self._blocks.append(np.empty((self._n_more, *self.frame_shape), np.uint8))

    def let_go(self, ids: Iterable[int]) -> None:
        """Make the ids of unused frames available for new frames; the black frame (BLACK) always keeps its id."""
        self._free.extend(frame_id for frame_id in ids if frame_id != BLACK)

    def take(self, ids: Ids) -> Frames:
        """Copy frames into one array.

        :param ids: ids of frames, in any shape
        :return: the frames, ``(*ids.shape, channels, height, width)`` uint8
        """
        flat = ids.reshape(-1)
        found = np.empty((flat.size, *self.frame_shape), np.uint8)
        if flat.size == 0:  # the memory may not be allocated yet
            return found.reshape(*ids.shape, *self.frame_shape)
        # mode="clip" writes into `found` directly, while the default mode="raise" makes another copy. Ids beyond the
        # main block are clipped here, and their frames are overwritten below.
        np.take(self._blocks[0], flat, axis=0, out=found, mode="clip")
        if len(self._blocks) > 1:
            for block, first in zip(self._blocks[1:], range(self._n_main, self._n_touched, self._n_more), strict=False):
                places = np.flatnonzero((flat >= first) & (flat < first + self._n_more))
                found[places] = block[flat[places] - first]
        return found.reshape(*ids.shape, *self.frame_shape)

    def _written(self) -> list[Frames]:
        """Return the written part of each block, as views."""
        n_used = [self._n_main] + [self._n_more] * len(self._blocks[1:])
        starts = np.cumsum([0, *n_used[:-1]]).tolist()
        return [block[: max(0, self._n_touched - start)] for block, start in zip(self._blocks, starts, strict=False)]

    def get_state(self) -> dict[str, Any]:
        """Return the frames as views, and the store's sizes and counters.

        :return: ``blocks``: the written part of each memory block; ``free``: the ids of released frames; other keys:
            sizes and counters
        """
        return {
            "n_main": self._n_main,
            "n_more": self._n_more,
            "n_touched": self._n_touched,
            "free": np.array(self._free, np.int64),
            "blocks": [block for block in self._written() if len(block)],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore frames, one block after the other, into a store for which ``allocate`` has been called.

        :param state: the state of a store with the same arguments
        :raises MemoryError: if there are more frames than expected and too little memory for them
        """
        del self._blocks[1:]
        self._n_main, self._n_more = state["n_main"], state["n_more"]
        if len(self._blocks[0]) != self._n_main:  # the main block's size differs after unpickling: see __setstate__
            del self._blocks[0]
            self._blocks.append(np.empty((self._n_main, *self.frame_shape), np.uint8))
        for number, written in enumerate(state["blocks"]):
            if number:
                self._grow()
            fill(self._blocks[number][: written.shape[0]], written)
        self._free = np.asarray(state["free"]).tolist()
        self._n_touched = state["n_touched"]

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, with each block cut to its written part, so that a pickle holds no unused memory."""
        return {**self.__dict__, "_blocks": self._written()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the attributes, and enlarge the blocks, because a pickle holds only their written parts.

        If the only block has at least ``n_expected`` frames, it keeps its size: enlarging needs twice the memory.
        """
        written: list[Frames] = state["_blocks"]
        self.__dict__.update({**state, "_blocks": []})
        if len(written) == 1 and len(written[0]) >= self.n_expected:
            self._n_main = len(written[0])
        for length in [self._n_main, *[self._n_more] * (len(written) - 1)][: len(written)]:
            block = written.pop(0)
            if len(block) < length or not block.flags.writeable:
                part, block = block, np.empty((length, *self.frame_shape), np.uint8)
                block[: len(part)] = part
            self._blocks.append(block)
