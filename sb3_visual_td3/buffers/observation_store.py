"""Store the parts of an observation: :class:`StackStore` shares camera frames, :class:`PairStore` keeps copies.

A :class:`~sb3_visual_td3.buffers.frame_replay_buffer.FrameReplayBuffer` has one store for each part.
"""

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
"""Index of the observation before a transition (``obs``)."""
AFTER: Moment = 1
"""Index of the observation after a transition (``next_obs``)."""


class Place(NamedTuple):
    """Hold the row for a new step of all environments in a replay buffer, and the row of the previous step.

    ``previous`` is None for the first step. ``replaces`` is True if ``row`` still holds the oldest step, which is
    replaced.
    """

    row: int
    previous: int | None
    replaces: bool


class Continuity(NamedTuple):
    """Record for each environment whether a step continues the previous step, and whether it shifts the frame stack.

    ``continues``, ``(n_envs,)``: True if ``obs`` of the step equals ``next_obs`` of the previous step.
    ``shifts``, ``(n_envs,)``: True if ``next_obs`` without its newest frame equals ``obs`` without its oldest frame.
    """

    continues: Flags
    shifts: Flags


class ObservationStore(Protocol):
    """Store one part of the observations: one key of a Dict observation, or a whole Box observation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all observations, ``(size, n_envs, *observation)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the observations."""

    @property
    def n_bytes(self) -> int:
        """Return the size in bytes that the store has when it is full."""

    def allocate(self) -> None:
        """Allocate memory for all observations that the store can hold."""

    def clear(self) -> None:
        """Drop all observations and keep the allocated memory."""

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store the observations before and after one step of all environments.

        :param place: rows to which the step is written
        :param obs: before the step, ``(n_envs, *observation)``
        :param next_obs: after the step, before any reset, ``(n_envs, *observation)``
        :return: two flags for each environment, see ``Continuity``
        :raises ValueError: if an array has another shape, or the store's dtype cannot represent the values
        """

    def take(self, moment: Moment, index: Any) -> NDArray[Any]:
        """Return a copy of the observations at an index.

        :param moment: ``BEFORE`` or ``AFTER`` the transition
        :param index: indexes the axes ``(size, n_envs)`` as in NumPy
        """

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """Return everything that is stored, as plain data and array views.

        :param n_rows: number of rows in use
        """

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state; the memory must be allocated and empty."""


def step_rows(name: str, values: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the values of a step of all environments in the stored shape and dtype.

    The shape is checked, because ``reshape`` alone would scramble an image that has its channels last.

    :param name: the name of the values, for the error
    :param values: an array of ``shape``. The first axis may be missing if ``n_envs`` is 1. The last axis may be missing
        if ``shape`` is ``(n_envs, 1)``.
    :param shape: ``(n_envs, *part)``
    :param dtype: the stored dtype
    :return: the values, copied only if they have a different dtype
    :raises ValueError: if ``values`` has another shape, or an integer dtype cannot represent the values
    """
    array = np.asarray(values)
    accepted = {shape}
    if shape[0] == 1:
        accepted.add(shape[1:])
    if len(shape) == 2 and shape[1] == 1:
        accepted.add(shape[:1])
        if shape[0] == 1:
            accepted.add(())
    if array.shape not in accepted:
        hint = ""
        if len(shape) >= 4 and sorted(array.shape[-3:]) == sorted(shape[-3:]):
            hint = ": the axes of the images are in a different order. Wrap the environment in VecTransposeImage"
        raise ValueError(f"{name} is {array.shape}: expected {shape}{hint}")
    if array.dtype == dtype:
        return array.reshape(shape)
    with np.errstate(invalid="ignore"):  # NaN becomes some integer, and the comparison below detects this
        stored = array.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(stored, array):
        raise ValueError(
            f"{name} ({array.dtype}) holds numbers that the buffer's dtype {dtype} cannot store: expected values of "
            "the observation space, such as integers from 0 to 255 for images"
        )
    return stored.reshape(shape)


def step_parts(
    kinds: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    obs: NDArray[Any] | Mapping[str, NDArray[Any]],
    next_obs: NDArray[Any] | Mapping[str, NDArray[Any]],
    is_dict: bool,
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Return each part of the observations before and after a step, in the stored shape and dtype.

    :param kinds: the shape ``(n_envs, *part)`` and the dtype of each part by key
    :param obs: observations before the step
    :param next_obs: observations after the step
    :param is_dict: True if the observations are dicts
    :return: pairs of arrays, before and after, by key
    :raises ValueError: if a part is missing, or :func:`step_rows` refuses it
    """
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in kinds}
    for name, given in (("obs", obs), ("next_obs", next_obs)):
        if isinstance(given, Mapping):
            if not is_dict or parts.keys() - given.keys():
                expected = f"a dict of {', '.join(parts)}" if is_dict else "one array"
                raise ValueError(f"{name} is a dict of {', '.join(map(str, sorted(given)))}: expected {expected}")
            for key, (shape, dtype) in kinds.items():
                parts[key].append(step_rows(f"{name}[{key!r}]", given[key], shape, dtype))
        else:
            if is_dict:
                raise ValueError(f"{name} is an array {np.asarray(given).shape}: expected a dict of {', '.join(parts)}")
            for key, (shape, dtype) in kinds.items():
                parts[key].append(step_rows(name, given, shape, dtype))
    return {key: (before, after) for key, (before, after) in parts.items()}


def step_actions(
    action: NDArray[Any], space: spaces.Space[Any], shape: tuple[int, int], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return actions in the stored shape and dtype.

    :param action: ``(n_envs, action_dim)`` or ``(n_envs, *space.shape)``; the first axis may be missing if ``n_envs``
        is 1
    :param space: the action space
    :param shape: ``(n_envs, action_dim)``
    :param dtype: the stored dtype
    :return: the actions, ``(n_envs, action_dim)``
    :raises ValueError: if ``action`` has another shape, or an integer dtype cannot represent the values
    """
    array = np.asarray(action)
    whole = (shape[0], *(space.shape or ()))
    if array.shape == whole or (shape[0] == 1 and array.shape == whole[1:]):
        array = array.reshape(shape)
    return step_rows("action", array, shape, dtype)


def step_outcomes(
    reward: NDArray[Any], done: NDArray[Any], infos: list[dict[str, Any]], n_envs: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the rewards and the done flags of one step as float32.

    :param reward: ``(n_envs,)``
    :param done: ``(n_envs,)``, 1 where the episode ended or was truncated
    :param infos: one dict for each environment
    :param n_envs: number of environments
    :return: rewards and dones, each ``(n_envs,)``
    :raises ValueError: if the number of rewards, dones or infos is not ``n_envs``
    """
    if len(infos) != n_envs:
        raise ValueError(f"{len(infos)} infos: expected {n_envs}, one for each environment")
    dtype = np.dtype(np.float32)
    rewards = step_rows("reward", reward, (n_envs, 1), dtype)[:, 0]
    dones = step_rows("done", done, (n_envs, 1), dtype)[:, 0]
    return rewards, dones


class ObservationView:
    """Index stored observations like the array ``(size, n_envs, *observation)`` of Stable-Baselines3's replay buffer.

    Indexing returns a copy.

    :param store: the store of the observations
    :param moment: ``BEFORE`` or ``AFTER`` the transitions
    """

    def __init__(self, store: ObservationStore, moment: Moment) -> None:
        self._store = store
        self._moment = moment

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all observations, ``(size, n_envs, *observation)``."""
        return self._store.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the observations."""
        return self._store.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Return a copy of the observations at an index."""
        if not isinstance(index, tuple):
            return self._store.take(self._moment, index)
        if any(part is Ellipsis or part is None for part in index):
            return np.asarray(self)[index]
        # Only the indexed transitions are rebuilt; their pixels are indexed afterwards.
        of_transitions, of_pixels = index[:2], index[2:]
        found = self._store.take(self._moment, of_transitions)
        if not of_pixels:
            return found
        n_kept = found.ndim - len(self.shape[2:])
        return found[(slice(None),) * n_kept + of_pixels]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return a copy of all observations."""
        everything = self[:]
        return everything if dtype is None else everything.astype(dtype, copy=False)


class PairStore:
    """Store the observations before and after each transition, for observations that are not camera frames.

    :param space: the space of these observations
    :param size: number of steps to hold
    :param n_envs: number of environments
    """

    def __init__(self, space: spaces.Space[Any], size: int, n_envs: int) -> None:
        shape = get_obs_shape(space)
        assert isinstance(shape, tuple)
        self.shape = (size, n_envs, *shape)
        self.dtype = np.dtype(space.dtype)
        self._pairs: NDArray[Any] = np.zeros((2, 0, *self.shape[1:]), self.dtype)

    @property
    def n_bytes(self) -> int:
        """Return the size in bytes that the store has when it is full."""
        return 2 * int(np.prod(self.shape)) * self.dtype.itemsize

    def allocate(self) -> None:
        """Allocate memory for all observations that the store can hold."""
        self._pairs = np.zeros((2, *self.shape), self.dtype)

    def clear(self) -> None:
        """Do nothing: rows that the buffer does not use need not be cleared."""

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments.

        :param place: rows to which the step is written
        :param obs: observations before the step, ``(n_envs, *observation)``
        :param next_obs: observations after the step, before any reset
        :return: two flags for each environment, see ``Continuity``; ``shifts`` has no meaning in this store and is
            always True
        """
        n_envs = self.shape[1]
        before = step_rows("obs", obs, self.shape[1:], self.dtype)
        after = step_rows("next_obs", next_obs, self.shape[1:], self.dtype)
        continues = np.zeros(n_envs, bool)
        if place.previous is not None:
            known = self._pairs[AFTER, place.previous]
            # Bytes are compared, because a NaN does not equal itself.
            continues[:] = [known[env].tobytes() == before[env].tobytes() for env in range(n_envs)]
        self._pairs[BEFORE, place.row] = before
        self._pairs[AFTER, place.row] = after
        return Continuity(continues, np.ones(n_envs, bool))

    def take(self, moment: Moment, index: Any) -> NDArray[Any]:
        """Return a copy of the observations at an index.

        :param moment: ``BEFORE`` or ``AFTER`` the transition
        :param index: indexes the axes ``(size, n_envs)`` as in NumPy
        """
        return np.array(self._pairs[moment][index])

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """Return the stored observations, without a copy.

        :param n_rows: number of rows in use
        :return: the observations ``before`` and ``after`` each transition
        """
        return {"before": self._pairs[BEFORE, :n_rows], "after": self._pairs[AFTER, :n_rows]}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the stored observations.

        :param state: the state that :meth:`get_state` of a store with the same settings returned
        """
        for moment, name in ((BEFORE, "before"), (AFTER, "after")):
            fill(self._pairs[moment, : state[name].shape[0]], state[name])


def _same(one: Frames, other: Frames) -> bool:
    """Return whether two arrays of the same shape are equal.

    For a frame, ``np.array_equal`` takes ten times as long.
    """
    return one.tobytes() == other.tobytes()


class StackStore:
    """Store the stacks of frames before and after each transition; each frame is stored only once.

    :param shape: ``(channels, height, width)`` of a stack, with the oldest frame first
    :param frame_stack: number of frames in a stack, a divisor of ``channels``
    :param size: number of steps to hold
    :param n_envs: number of environments
    """

    def __init__(self, shape: tuple[int, int, int], frame_stack: int, size: int, n_envs: int) -> None:
        channels, height, width = shape
        self.frame_stack = frame_stack
        self.shape = (size, n_envs, *shape)
        self.dtype = np.dtype(np.uint8)
        # There is one frame for each transition, plus the first stack of each environment.
        n_expected = (size + frame_stack) * n_envs
        self.frames = FrameStore((channels // frame_stack, height, width), n_expected)
        self.ids = np.zeros((0, n_envs, 2, frame_stack), np.int32)
        """Ids of the frames, ``(size, n_envs, 2, frame_stack)``. The third axis has the index BEFORE or AFTER."""

    @property
    def n_bytes(self) -> int:
        """Return an estimate of the size of the full store in bytes; many short episodes need more."""
        size, n_envs = self.shape[:2]
        return self.frames.n_bytes + size * n_envs * 2 * self.frame_stack * self.ids.itemsize

    def allocate(self) -> None:
        """Allocate memory for all observations that the store can hold."""
        self.ids = np.zeros((self.shape[0], *self.ids.shape[1:]), np.int32)
        self.frames.allocate()

    def clear(self) -> None:
        """Drop all observations and keep the allocated memory."""
        self.ids[:] = BLACK
        self.frames.clear()

    def write(self, place: Place, obs: NDArray[Any], next_obs: NDArray[Any]) -> Continuity:
        """Store a step of all environments.

        :param place: rows to which the step is written
        :param obs: observations before the step, ``(n_envs, channels, height, width)`` uint8
        :param next_obs: observations after the step, before any reset
        :return: two flags for each environment, see ``Continuity``
        """
        n_envs = self.shape[1]
        shape = (n_envs, self.frame_stack, *self.frames.frame_shape)
        before = step_rows("obs", obs, self.shape[1:], self.dtype).reshape(shape)
        after = step_rows("next_obs", next_obs, self.shape[1:], self.dtype).reshape(shape)
        # before and after have the shape (n_envs, frame_stack, channels of a frame, height, width).
        continuity = Continuity(np.zeros(n_envs, bool), np.zeros(n_envs, bool))
        replaced = self.ids[place.row].copy()
        known: list[list[int]] = [[] for _ in range(n_envs)]
        if place.previous is not None:
            known = self.ids[place.previous, :, AFTER].tolist()
        for env in range(n_envs):
            ids, continuity.continues[env] = self._number_first(before[env], known[env])
            self.ids[place.row, env, BEFORE] = ids
            ids, continuity.shifts[env] = self._number_next(before[env], after[env], ids)
            self.ids[place.row, env, AFTER] = ids
        # Frames are released after the new ones are stored, because the new step may share some of them.
        if place.replaces:
            oldest = self.ids[(place.row + 1) % self.shape[0]]
            for env in range(n_envs):
                self.frames.let_go(ids_let_go(replaced[env], oldest[env]))
        return continuity

    def _number_first(self, stack: Frames, known: list[int]) -> tuple[list[int], bool]:
        """Return the id of each frame of a transition's observation, and store the frames that are new.

        :param known: ids of the frames in the previous transition's next observation; empty if there is no previous
            transition
        :return: the ids, and whether the observation equals the previous transition's next observation
        """
        if known and all(_same(self.frames[id_], frame) for id_, frame in zip(known, stack, strict=True)):
            return known, True
        return self._number_each(stack, known), False

    def _number_next(self, stack: Frames, following: Frames, ids: list[int]) -> tuple[list[int], bool]:
        """Return the id of each frame of a transition's next observation, and store the frames that are new.

        :return: the ids, and whether ``following`` (the next observation) is ``stack`` (the observation) shifted by
            one frame
        """
        if _same(stack[1:], following[:-1]):
            return [*ids[1:], self.frames.put(following[-1])], True
        return self._number_each(following, ids), False

    def _number_each(self, stack: Frames, known: Iterable[int]) -> list[int]:
        """Return the id of each frame of a stack; store each frame that is neither black nor among the known frames."""
        ids: list[int] = []
        for frame in stack:
            for candidate in dict.fromkeys([*ids, BLACK, *known]):
                if _same(self.frames[candidate], frame):
                    ids.append(candidate)
                    break
            else:
                ids.append(self.frames.put(frame))
        return ids

    def take(self, moment: Moment, index: Any) -> Frames:
        """Rebuild stacks from their frames.

        :param moment: ``BEFORE`` or ``AFTER`` the transitions
        :param index: indexes the axes ``(size, n_envs)`` as in NumPy
        :return: a copy, ``(..., channels, height, width)`` uint8
        """
        ids = self.ids[:, :, moment][index]
        frames = self.frames.take(ids)
        return frames.reshape(*ids.shape[:-1], *self.shape[2:])

    def get_state(self, n_rows: int) -> dict[str, Any]:
        """Return the stored frames, and for each observation the ids of its frames, without a copy.

        :param n_rows: number of rows in use
        :return: plain data and views of arrays
        """
        return {"ids": self.ids[:n_rows], "frames": self.frames.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the stored observations.

        :param state: the state that :meth:`get_state` of a store with the same settings returned
        """
        fill(self.ids[: state["ids"].shape[0]], state["ids"])
        self.frames.set_state(state["frames"])
