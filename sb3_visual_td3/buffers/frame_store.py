"""Frames, each stored once: the store, the index of a transition's frames in it, and the memory that it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.common.saved_state import fill

try:  # Stable-Baselines3 looks with it too, where it is installed.
    import psutil
except ImportError:
    psutil = None

CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """:return: what may still be used without swapping, within the container's limit; None where nothing tells"""
    limits = [] if psutil is None else [int(psutil.virtual_memory().available)]
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((CGROUP / "memory.current").read_text()) + _file_cache_bytes())
    except (OSError, ValueError):
        pass  # no version 2 cgroup: the machine's own figure stands
    return min(limits) if limits else None


def _file_cache_bytes() -> int:
    """:return: what the container's kernel gives back when memory is short"""
    for line in (CGROUP / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def require_memory(n_bytes: int, purpose: str, advice: str) -> None:
    """Refuse what would end in swapping, or in the kernel's killing the process hours later.

    :param n_bytes: what will be used
    :param purpose: what for, as the subject of the message
    :param advice: what to do if it is not there
    :raises MemoryError: if less is available
    """
    available = available_bytes()
    if available is not None and n_bytes > available:
        raise MemoryError(f"{purpose} needs {n_bytes / 1e9:.2f} GB, {available / 1e9:.2f} GB are available. {advice}")


Ids = NDArray[np.int32]
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Windows(NamedTuple):
    """The transitions that follow each sampled one, itself included.

    ``rows`` and ``is_within`` are ``(batch, n_steps)``: rows of the ring, and whether they belong to the window, which
    may end early. ``last_rows`` is ``(batch,)``: the last one that does.
    """

    rows: Rows
    is_within: Flags
    last_rows: Rows


def n_step_windows(rows: Rows, envs: Rows, is_last: list[Flags], newest: int, n_steps: int) -> Windows:
    """Follow each transition until its episode or segment ends, at the newest transition, or after ``n_steps``.

    :param rows: ``(batch,)``, the first row of each window
    :param envs: ``(batch,)``, the environment of each window
    :param is_last: each ``(size, n_envs)``: reasons why nothing may follow a transition
    :param newest: the row written last; what comes after it in the ring is the oldest, or nothing
    :param n_steps: longest window, >= 1
    :return: the windows
    """
    size = len(is_last[0])
    steps = np.arange(n_steps)
    window = (rows[:, None] + steps) % size
    ends = window == newest
    for reason in is_last:
        ends |= reason[window, envs[:, None]]
    ends[:, -1] = True
    n_more = ends.argmax(axis=1)
    return Windows(window, steps <= n_more[:, None], (rows + n_more) % size)


def ids_let_go(replaced: Ids, successor: Ids) -> list[int]:
    """Find the frames that only a replaced transition used.

    A stack takes its frames from the transition before it or stores new ones, so what a transition uses and its
    successor does not, no later one uses either.

    :param replaced: any shape: the ids of the oldest transition, which is being replaced
    :param successor: any shape: the ids of the one that is the oldest now
    :return: each id once
    """
    return sorted(set(replaced.ravel().tolist()) - set(successor.ravel().tolist()))


Frames = NDArray[np.uint8]

BLACK = 0
"""The number of the frame that is all zeros: what VecFrameStack fills with at a reset costs nothing."""
SPARE = 16
"""One frame in so many is room for what episodes store beyond a frame per transition; untouched, it costs nothing."""


class FrameStore:
    """Frames by number, in one block that is followed by smaller ones when it is full; numbers let go are used again.

    Pages are used as frames are written, lowest number first.

    :param frame_shape: ``(channels, height, width)`` of one frame
    :param n_expected: how many frames there will be, a few more or fewer
    """

    def __init__(self, frame_shape: tuple[int, int, int], n_expected: int) -> None:
        self.frame_shape = frame_shape
        self.n_expected = n_expected
        self._n_main = n_expected + n_expected // SPARE + 1
        self._n_more = max(n_expected // SPARE, 64)
        self._blocks: list[Frames] = []
        self._free: list[int] = []
        self._n_touched = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return int(np.prod(self.frame_shape))

    @property
    def n_bytes(self) -> int:
        """What the expected frames need."""
        return (self.n_expected + 1) * self.frame_bytes

    @property
    def n_held(self) -> int:
        """How many frames are in use, the black one included."""
        return self._n_touched - len(self._free)

    def allocate(self) -> None:
        """Get room for the expected frames.

        :raises MemoryError: if the operating system refuses
        """
        self._blocks = [np.empty((self._n_main, *self.frame_shape), np.uint8)]
        self.clear()

    def clear(self) -> None:
        """Let go of every frame; the room stays."""
        self._free = []
        self._blocks[0][BLACK] = 0
        self._n_touched = BLACK + 1

    def __getitem__(self, number: int) -> Frames:
        """:return: a frame as it lies here, no copy"""
        block, place = 0, number
        if number >= self._n_main:
            block, place = divmod(number - self._n_main, self._n_more)
            block += 1
        frame: Frames = self._blocks[block][place]
        return frame

    def put(self, frame: Frames) -> int:
        """Store a copy.

        :param frame: of the shape given
        :return: its number
        :raises MemoryError: if there are more frames than expected and the machine has no room for them
        """
        if self._free:
            number = self._free.pop()
        else:
            number = self._n_touched
            if number == self._n_main + (len(self._blocks) - 1) * self._n_more:
                self._grow()
            self._n_touched += 1
        self[number][...] = frame
        return number

    def _grow(self) -> None:
        advice = "Episodes so short that their first frames add up need more: use a smaller buffer_size"
        require_memory(self._n_more * self.frame_bytes, "The next part of the replay buffer", advice)
        self._blocks.append(np.empty((self._n_more, *self.frame_shape), np.uint8))

    def let_go(self, numbers: Iterable[int]) -> None:
        """Have these numbers used again; the black frame stays."""
        self._free.extend(number for number in numbers if number != BLACK)

    def take(self, numbers: Ids) -> Frames:
        """Copy frames side by side.

        :param numbers: any shape
        :return: that shape followed by the frame's
        """
        flat = numbers.reshape(-1)
        found = np.empty((flat.size, *self.frame_shape), np.uint8)
        if flat.size == 0:  # nothing may be allocated yet
            return found.reshape(*numbers.shape, *self.frame_shape)
        # "clip" writes into `found` directly; "raise" would copy it once more. What lies beyond is written below.
        np.take(self._blocks[0], flat, axis=0, out=found, mode="clip")
        if len(self._blocks) > 1:
            for block, first in zip(self._blocks[1:], range(self._n_main, self._n_touched, self._n_more), strict=False):
                places = np.flatnonzero((flat >= first) & (flat < first + self._n_more))
                found[places] = block[flat[places] - first]
        return found.reshape(*numbers.shape, *self.frame_shape)

    def _written(self) -> list[Frames]:
        """:return: of each block what has been written, no copies"""
        n_used = [self._n_main] + [self._n_more] * len(self._blocks[1:])
        starts = np.cumsum([0, *n_used[:-1]]).tolist()
        return [block[: max(0, self._n_touched - start)] for block, start in zip(self._blocks, starts, strict=False)]

    def get_state(self) -> dict[str, Any]:
        """Show the frames, without a copy.

        :return: the blocks as far as they are written, and the numbers that are used again, the next one last
        """
        return {
            "n_main": self._n_main,
            "n_more": self._n_more,
            "n_touched": self._n_touched,
            "free": np.array(self._free, np.int64),
            "blocks": [block for block in self._written() if len(block)],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up frames, one block after the other; there is room for the expected ones.

        :param state: of a store made alike
        :raises MemoryError: if there are more frames than expected and the machine has no room for them
        """
        del self._blocks[1:]
        self._n_main, self._n_more = state["n_main"], state["n_more"]
        if len(self._blocks[0]) != self._n_main:  # it was unpickled once: see __setstate__
            del self._blocks[0]
            self._blocks.append(np.empty((self._n_main, *self.frame_shape), np.uint8))
        for number, written in enumerate(state["blocks"]):
            if number:
                self._grow()
            fill(self._blocks[number][: written.shape[0]], written)
        self._free = np.asarray(state["free"]).tolist()
        self._n_touched = state["n_touched"]

    def __getstate__(self) -> dict[str, Any]:
        """:return: what is in use; room that was never written is not"""
        return {**self.__dict__, "_blocks": self._written()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Get the room back; what was read is that room where it is as good as full, so that nothing is there twice."""
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
