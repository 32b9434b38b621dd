"""Stacks of camera frames as numbers of frames, each of which is stored once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb3_visual_td3.buffers.frame_index import ids_let_go
from sb3_visual_td3.buffers.frame_store import BLACK, Frames, FrameStore
from sb3_visual_td3.buffers.observation_store import AFTER, BEFORE, Continuity, Moment, Place, step_rows
from sb3_visual_td3.common.arrays import fill


def _same(one: Frames, other: Frames) -> bool:
    """:return: whether arrays of one shape are equal; ten times as fast as numpy's ``array_equal`` on a frame"""
    return one.tobytes() == other.tobytes()


class StackStore:
    """Stacked frames before and after each transition.

    A transition holds the number of each of its frames, so any stack can be rebuilt whatever the environment pads
    with. A frame is shared where it *equals* one of the transition before; nothing is inferred from ends of episodes.

    :param shape: ``(channels, height, width)`` of a stack
    :param frame_stack: frames in it, oldest first, which divides the channels
    :param size: steps to hold
    :param n_envs: environments that write side by side
    """

    def __init__(self, shape: tuple[int, int, int], frame_stack: int, size: int, n_envs: int) -> None:
        channels, height, width = shape
        self.frame_stack = frame_stack
        self.shape = (size, n_envs, *shape)
        self.dtype = np.dtype(np.uint8)
        # While the buffer fills, each environment's first stack is there beside one frame per transition.
        n_expected = (size + frame_stack) * n_envs
        self.frames = FrameStore((channels // frame_stack, height, width), n_expected)
        self.ids = np.zeros((0, n_envs, 2, frame_stack), np.int32)
        """``(size, n_envs, before and after, frame_stack)``."""

    @property
    def n_bytes(self) -> int:
        """What it will need when it is full, if episodes are long."""
        size, n_envs = self.shape[:2]
        return self.frames.n_bytes + size * n_envs * 2 * self.frame_stack * self.ids.itemsize

    def allocate(self) -> None:
        """Get the room."""
        self.ids = np.zeros((self.shape[0], *self.ids.shape[1:]), np.int32)
        self.frames.allocate()

    def clear(self) -> None:
        """Forget everything; the room stays."""
        self.ids[:] = BLACK
        self.frames.clear()

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments.

        :param place: where
        :param obs: ``(n_envs, channels, height, width)`` uint8
        :param next_obs: the same after the step, before any reset
        :return: whether it continues the step before, and shifts by one frame
        """
        n_envs = self.shape[1]
        shape = (n_envs, self.frame_stack, *self.frames.frame_shape)
        before = step_rows("obs", obs, self.shape[1:], self.dtype).reshape(shape)
        after = step_rows("next_obs", next_obs, self.shape[1:], self.dtype).reshape(shape)
        continuity = Continuity(np.zeros(n_envs, bool), np.zeros(n_envs, bool))
        replaced = self.ids[place.row].copy()
        known = None if place.previous is None else self.ids[place.previous, :, AFTER].tolist()
        for env in range(n_envs):
            ids, continuity.continues[env] = self._number_first(before[env], known[env] if known else [])
            self.ids[place.row, env, BEFORE] = ids
            ids, continuity.shifts[env] = self._number_next(before[env], after[env], ids)
            self.ids[place.row, env, AFTER] = ids
        if place.replaces:
            oldest = self.ids[(place.row + 1) % self.shape[0]]
            for env in range(n_envs):
                self.frames.let_go(ids_let_go(replaced[env], oldest[env]))
        return continuity

    def _number_first(self, stack: Frames, known: list[int]) -> tuple[list[int], bool]:
        """:return: numbers for a transition's observation, and whether it is the one ``known`` already"""
        if known and all(_same(self.frames[id_], frame) for id_, frame in zip(known, stack, strict=True)):
            return known, True
        return self._number_each(stack, known), False

    def _number_next(self, stack: Frames, following: Frames, ids: list[int]) -> tuple[list[int], bool]:
        """:return: numbers for what follows a stack, and whether it is that stack and one new frame"""
        if _same(stack[1:], following[:-1]):
            return [*ids[1:], self.frames.put(following[-1])], True
        return self._number_each(following, ids), False

    def _number_each(self, stack: Frames, known: Iterable[int]) -> list[int]:
        """:return: numbers for frames that may be known, repeated, black or new, which are stored"""
        ids: list[int] = []
        for frame in stack:
            candidates = dict.fromkeys([*ids, BLACK, *known])
            found = next((id_ for id_ in candidates if _same(self.frames[id_], frame)), None)
            ids.append(self.frames.put(frame) if found is None else found)
        return ids

    def take(self, moment: Moment, index: Any) -> Frames:
        """Rebuild stacks.

        :param moment: before the transitions or after them
        :param index: an index such as numpy's into ``(size, n_envs)``
        :return: ``(..., channels, height, width)`` uint8, a copy
        """
        ids = self.ids[:, :, moment][index]
        frames = self.frames.take(ids)
        return frames.reshape(*ids.shape[:-1], *self.shape[2:])

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """Show what is held, without a copy.

        :param n_rows: rows in use
        :return: the numbers of the frames, and the frames
        """
        return {"ids": self.ids[:n_rows], "frames": self.frames.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what was held.

        :param state: of a store made alike
        """
        fill(self.ids[: state["ids"].shape[0]], state["ids"])
        self.frames.set_state(state["frames"])
