"""Where frames lie, each once, by a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.buffers.frame_index import Ids
from sb3_visual_td3.buffers.memory import require_memory
from sb3_visual_td3.common.arrays import fill

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
