"""Where a replay buffer keeps each part of the observations: as stacks of shared frames, or as plain pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_visual_td3.buffers.frame_store import BLACK, Flags, Frames, FrameStore, ids_let_go
from sb3_visual_td3.common.saved_state import fill

Moment = Literal[0, 1]
BEFORE: Moment = 0
"""A transition's ``obs``."""
AFTER: Moment = 1
"""A transition's ``next_obs``."""


class Place(NamedTuple):
    """Where a step of all environments is written: its row, and the row of the step before, None for the first.

    ``replaces`` says that the row holds the oldest step, which goes.
    """

    row: int
    previous: int | None
    replaces: bool


class Continuity(NamedTuple):
    """How a step follows from what is stored, for each environment: both ``(n_envs,)``.

    ``continues``: its observation is the one that the step before ended with. ``shifts``: what it ended with is that
    observation, moved on by one frame.
    """

    continues: Flags
    shifts: Flags


class ObservationStore(Protocol):
    """Keeps what every transition began and ended with, for one kind of observation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(size, n_envs, *observation)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the observations."""

    @property
    def n_bytes(self) -> int:
        """What it will need when it is full."""

    def allocate(self) -> None:
        """Get the room, for use from now on."""

    def clear(self) -> None:
        """Forget everything; the room stays."""

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments, both arrays ``(n_envs, *observation)``.

        :raises ValueError: if an array has another shape, or holds what the store's dtype cannot
        """

    def take(self, moment: Moment, index: Any) -> NDArray[Any]:
        """Copy observations out, by an index such as numpy's into ``(size, n_envs)``."""

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """:return: what the first rows hold and what the future depends on, as plain data and views of arrays"""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up such a state, array by array; there is room, and it is empty."""


def step_rows(name: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return what a step of all environments brings as an array of the shape and dtype that is stored.

    Stable-Baselines3's buffers write into their arrays by broadcasting, and by ``reshape``, which takes any shape of
    as many numbers: an image with its channels last would be stored scrambled.

    :param name: what the values are, for the error
    :param values: ``shape``; without its first axis where that is 1 (one environment); without its last where that is
        1 (one number for each environment)
    :param shape: ``(n_envs, *part)``
    :param dtype: of what is stored
    :return: the values, copied only where they have another dtype
    :raises ValueError: if the shape is another one, or integers are stored and the values are no such integers
    """
    array = np.asarray(values)
    accepted = {shape}
    if shape[0] == 1:
        accepted.add(shape[1:])
    if len(shape) == 2 and shape[1] == 1:
        accepted.add(shape[:1])
        accepted.add(() if shape[0] == 1 else shape)
    if array.shape not in accepted:
        hint = ""
        if len(shape) >= 4 and sorted(array.shape[-3:]) == sorted(shape[-3:]):
            hint = ": the axes of the images are in another order. Wrap the environment in VecTransposeImage"
        raise ValueError(f"{name} is {array.shape}: expected {shape}{hint}")
    if array.dtype == dtype:
        return array.reshape(shape)
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, which the comparison below finds
        stored = array.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(stored, array):
        raise ValueError(
            f"{name} is {array.dtype} and holds numbers that {dtype}, which is stored, does not have: expected the "
            "values of the space, such as whole numbers from 0 to 255 for images"
        )
    return stored.reshape(shape)


def step_parts(
    kinds: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    obs: NDArray[Any] | Mapping[str, NDArray[Any]],
    next_obs: NDArray[Any] | Mapping[str, NDArray[Any]],
    is_dict: bool,
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return each part of the observations before and after a step, in the shape and dtype that is stored.

    :param kinds: by key, the shape ``(n_envs, *part)`` and the dtype; what is no dict is the only part
    :param obs: an array, or a dict of arrays
    :param next_obs: the same after the step
    :param is_dict: whether the observations are dicts
    :return: by key, both arrays
    :raises ValueError: if a part is missing, or is not as :func:`step_rows` expects it
    """
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in kinds}
    for name, given in (("obs", obs), ("next_obs", next_obs)):
        keys = sorted(given) if isinstance(given, Mapping) else None
        if (keys is not None) != is_dict or (keys is not None and parts.keys() - set(keys)):
            found = f"an array {np.asarray(given).shape}" if keys is None else f"a dict of {', '.join(map(str, keys))}"
            expected = f"a dict of {', '.join(parts)}" if is_dict else "one array"
            raise ValueError(f"{name} is {found}: expected {expected}")
        for key, (shape, dtype) in kinds.items():
            part, label = (given[key], f"{name}[{key!r}]") if isinstance(given, Mapping) else (given, name)
            parts[key].append(step_rows(label, part, shape, dtype))
    return {key: (before, after) for key, (before, after) in parts.items()}


def step_actions(
    action: NDArray[Any], space: spaces.Space[Any], shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return actions as they are stored, ``(n_envs, action_dim)``: those of a Box of more axes come with all of them.

    :param action: ``(n_envs, action_dim)`` or ``(n_envs, *space.shape)``
    :param space: of the actions
    :param shape: ``(n_envs, action_dim)``
    :param dtype: of what is stored
    :return: the actions in that shape and dtype
    :raises ValueError: if the shape is another one
    """
    array, whole = np.asarray(action), (shape[0], *(space.shape or ()))
    if array.shape == whole or (shape[0] == 1 and array.shape == whole[1:]):
        array = array.reshape(shape)
    return step_rows("action", array, shape, dtype)


def step_outcomes(
    reward: NDArray[Any], done: NDArray[Any], infos: list[dict[str, Any]], n_envs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return rewards and ends of episodes, each ``(n_envs,)``.

    :param reward: ``(n_envs,)``
    :param done: ``(n_envs,)``
    :param infos: of each environment
    :param n_envs: how many there are
    :raises ValueError: if there are more or fewer of them
    """
    if len(infos) != n_envs:
        raise ValueError(f"{len(infos)} infos: expected {n_envs}, one for each environment")
    rows = [step_rows(*each, (n_envs, 1), np.dtype(np.float32))[:, 0] for each in (("reward", reward), ("done", done))]
    return rows[0], rows[1]


class ObservationView:
    """Reads like the array ``(size, n_envs, *observation)`` that Stable-Baselines3 keeps, and copies what is read.

    :param store: where the observations are
    :param moment: before the transition or after it
    """

    def __init__(self, store: ObservationStore, moment: Moment) -> None:
        self._store = store
        self._moment = moment

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self._store.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self._store.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """:return: a copy"""
        if not isinstance(index, tuple):
            return self._store.take(self._moment, index)
        if any(part is Ellipsis or part is None for part in index):
            return np.asarray(self)[index]
        of_transitions, of_pixels = index[:2], index[2:]
        found = self._store.take(self._moment, of_transitions)
        n_kept = found.ndim - len(self.shape[2:])
        return found[(slice(None),) * n_kept + of_pixels] if of_pixels else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """:return: a copy of everything"""
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


class PairStore:
    """Observations that are no frames, before and after each transition.

    :param space: of one observation
    :param size: steps to hold
    :param n_envs: environments that write side by side
    """

    def __init__(self, space: spaces.Space[Any], size: int, n_envs: int) -> None:
        shape = get_obs_shape(space)
        assert isinstance(shape, tuple)
        self.shape = (size, n_envs, *shape)
        self.dtype = np.dtype(space.dtype)
        self._pairs: NDArray[Any] = np.zeros((2, 0, *self.shape[1:]), self.dtype)

    @property
    def n_bytes(self) -> int:
        """What it will need when it is full."""
        return 2 * int(np.prod(self.shape)) * self.dtype.itemsize

    def allocate(self) -> None:
        """Get the room."""
        self._pairs = np.zeros((2, *self.shape), self.dtype)

    def clear(self) -> None:
        """Forget everything: what is not asked for need not go."""

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments.

        :param place: where
        :param obs: ``(n_envs, *observation)``
        :param next_obs: the same after the step, before any reset
        :return: whether it continues the step before; it always shifts, there being no stack
        """
        n_envs = self.shape[1]
        before = step_rows("obs", obs, self.shape[1:], self.dtype)
        after = step_rows("next_obs", next_obs, self.shape[1:], self.dtype)
        continues = np.zeros(n_envs, bool)
        if place.previous is not None:
            known = self._pairs[AFTER, place.previous]
            # Bytes: a NaN is the NaN that was stored.
            continues[:] = [known[env].tobytes() == before[env].tobytes() for env in range(n_envs)]
        self._pairs[BEFORE, place.row] = before
        self._pairs[AFTER, place.row] = after
        return Continuity(continues, np.ones(n_envs, bool))

    def take(self, moment: Moment, index: Any) -> NDArray[Any]:
        """:return: a copy of the observations at an index into ``(size, n_envs)``"""
        return np.array(self._pairs[moment][index])

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """Show what is held, without a copy.

        :param n_rows: rows in use
        :return: the observations before each transition and those after it, an array each: both grow at their end
        """
        return {"before": self._pairs[BEFORE, :n_rows], "after": self._pairs[AFTER, :n_rows]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what was held.

        :param state: of a store with the same settings
        """
        for moment, name in ((BEFORE, "before"), (AFTER, "after")):
            fill(self._pairs[moment, : state[name].shape[0]], state[name])


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

        :param state: of a store with the same settings
        """
        fill(self.ids[: state["ids"].shape[0]], state["ids"])
        self.frames.set_state(state["frames"])
