"""Define FrameReplayBuffer, a replay buffer that stores each camera frame only once.

The stores in :mod:`~sb3_visual_td3.buffers.observation_store` hold the observations. A Dict observation has one store
for each key, and a Box observation has a single store.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3.buffers.frame_store import Flags, n_step_windows, require_memory
from sb3_visual_td3.buffers.observation_store import (
    AFTER,
    BEFORE,
    Moment,
    ObservationStore,
    ObservationView,
    PairStore,
    Place,
    StackStore,
    step_actions,
    step_outcomes,
    step_parts,
)
from sb3_visual_td3.common.numbers import to_float, to_integer
from sb3_visual_td3.common.pictures import channels_are_last, parts_of, pictures_in
from sb3_visual_td3.common.saved_state import fill, require_same_settings

N_CHECKED = 100
"""Number of transitions after which a buffer warns of frames that are stacked in a different way."""


def holds_frames(space: spaces.Space[Any]) -> bool:
    """Return whether a FrameReplayBuffer can hold the observations of a space."""
    try:
        return bool(frame_stacks_of(space, 1))
    except ValueError:
        return False


def frame_stacks_of(space: spaces.Space[Any], frame_stack: int) -> dict[str, int]:
    """Return how many frames each image holds.

    :param space: the observation space
    :param frame_stack: number of stacked frames, >= 1
    :return: number of frames by image key: ``frame_stack``, or 1 if the number of channels is not a multiple of it
    :raises ValueError: if there is no uint8 image, if an image has its channels last, or if no image has a multiple of
        ``frame_stack`` channels
    """
    cameras = pictures_in(space)
    if not cameras:
        kind = "DictReplayBuffer" if isinstance(space, spaces.Dict) else "ReplayBuffer"
        raise ValueError(
            f"the observation space is {space}: FrameReplayBuffer expects uint8 images (channels, height, width) in "
            f"[0, 255]. For other observations use Stable-Baselines3's {kind}, or NStepReplayBuffer for n_steps above 1"
        )
    for key, camera in cameras.items():
        if channels_are_last(camera):
            raise ValueError(
                f"{key} has the shape {camera.shape}: expected channels first, (channels, height, width). Wrap the "
                "environment in VecTransposeImage, as Stable-Baselines3's algorithms do"
            )
    stacks = {key: frame_stack if camera.shape[0] % frame_stack == 0 else 1 for key, camera in cameras.items()}
    if frame_stack > 1 and set(stacks.values()) == {1}:
        channels = ", ".join(f"{key}: {camera.shape[0]}" for key, camera in cameras.items())
        raise ValueError(
            f"frame_stack={frame_stack} does not divide the number of channels ({channels}). Use 1 if the depth of the "
            "stack is unknown"
        )
    return stacks


Observations = NDArray[Any] | Mapping[str, NDArray[Any]]


class FrameReplayBuffer(ReplayBuffer):
    """Store each camera frame once, in an eighth of the memory that Stable-Baselines3's replay buffer needs.

    An observation is a stack of frames along the channels, oldest first: ``(frame_stack * channels, height, width)``
    uint8. Observations share only *equal* frames, so samples hold exactly the stacks that the environment returned. One
    million transitions of 4 x 84 x 84 take 7.1 GB, where Stable-Baselines3 takes 56.5 GB. Each episode stores at least
    one frame more than it has transitions.

    The same seed samples the same transitions as in :class:`stable_baselines3.common.buffers.ReplayBuffer`. In a Dict,
    each uint8 image in [0, 255] is a stack if ``frame_stack`` divides its channels. Other images are single frames, and
    everything else is stored as it is.

    With ``n_steps`` above 1, rewards are summed over a window of consecutive transitions. A window ends at the end
    of an episode or at the newest transition. It also ends after a transition in two cases:

    - The ``obs`` of the next transition differs from the ``next_obs`` of this transition.
    - ``next_obs`` without its newest frame differs from ``obs`` without its oldest frame. If the environment stacks
      frames in a different way (such as every second frame, or the newest first), use ``frame_stack=1``, which
      switches this test off. After 100 transitions, the buffer warns if no window has more than one step.

    :param buffer_size: number of transitions to hold, over all environments
    :param observation_space: uint8 images ``(channels, height, width)``, or a Dict that contains some
    :param action_space: the action space
    :param device: the device of the samples
    :param n_envs: number of parallel environments
    :param optimize_memory_usage: has no effect, because this buffer always saves memory
    :param handle_timeout_termination: True lets a truncated episode (``info["TimeLimit.truncated"]``) bootstrap from
        its last observation
    :param frame_stack: number of frames in an observation; 1 if it is unknown, so that only whole observations are
        shared
    :param n_steps: number of rewards to sum, >= 1; samples hold ``discounts`` if it is above 1
    :param gamma: discount of each step, used if ``n_steps`` is above 1
    :raises ValueError: if an argument is out of range, the space has no uint8 image, an image has its channels last, or
        there is no image whose number of channels is a multiple of ``frame_stack``

    Adding the first transition raises a MemoryError if the machine cannot hold ``buffer_size`` transitions.

    Source: Mnih et al. 2015 (DQN) for storing each frame once; Sutton 1988 and Hessel et al. 2018 (Rainbow) for n-step
    returns.
    """

    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    dones: Flags
    timeouts: Flags
    segment_ends: Flags
    """``(buffer_size, n_envs)``: True for a transition after which n-step windows must end."""

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        frame_stack: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
    ) -> None:
        n_envs = to_integer("n_envs", n_envs, 1)
        buffer_size = to_integer("buffer_size", buffer_size)
        if buffer_size < n_envs:
            raise ValueError(
                f"buffer_size={buffer_size} for n_envs={n_envs}: expected at least one transition for each environment"
            )
        n_steps = to_integer("n_steps", n_steps, 1)
        gamma = to_float("gamma", gamma, 0.0, 1.0, expected="a number from 0 to 1")
        frame_stack = to_integer("frame_stack", frame_stack, 1, "an integer >= 1 (1 if there is no stack)")
        frame_stacks = frame_stacks_of(observation_space, frame_stack)
        # Not ReplayBuffer.__init__, which would allocate arrays for whole observations.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        # As in ReplayBuffer, buffer_size is the number of rows from here on. A row has one transition per environment.
        self.buffer_size = buffer_size // n_envs
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.frame_stack = frame_stack
        self.n_steps = n_steps
        self.gamma = gamma
        self._is_dict = isinstance(observation_space, spaces.Dict)
        self._stores: dict[str, ObservationStore] = {}
        for key, part in parts_of(observation_space).items():
            if key in frame_stacks:
                assert part.shape is not None
                channels, height, width = part.shape
                self._stores[key] = StackStore((channels, height, width), frame_stacks[key], self.buffer_size, n_envs)
            else:
                self._stores[key] = PairStore(part, self.buffer_size, n_envs)
        self._is_allocated = False
        self._make_columns(0)

    def _make_columns(self, size: int) -> None:
        shape = (size, self.n_envs)
        self.actions = np.zeros((*shape, self.action_dim), self._maybe_cast_dtype(self.action_space.dtype))
        self.rewards = np.zeros(shape, np.float32)
        self.dones, self.timeouts, self.segment_ends = (np.zeros(shape, bool) for _ in range(3))

    @property
    def n_bytes(self) -> int:
        """Return how many bytes the full buffer needs if episodes are long; with short episodes, it needs more."""
        n_transitions = self.buffer_size * self.n_envs
        columns = n_transitions * (self.actions.itemsize * self.action_dim + self.rewards.itemsize + 3)
        return columns + sum(store.n_bytes for store in self._stores.values())

    def _allocate(self) -> None:
        n_transitions = self.buffer_size * self.n_envs
        advice = f"Use a smaller buffer_size than {n_transitions:,}, or free memory"
        purpose = f"A replay buffer of {n_transitions:,} transitions"
        require_memory(self.n_bytes, purpose, advice)
        try:
            for store in self._stores.values():
                store.allocate()
            self._make_columns(self.buffer_size)
        except MemoryError as error:
            raise MemoryError(f"{purpose} needs {self.n_bytes / 1e9:.2f} GB: {error}. {advice}") from error
        self._is_allocated = True

    @property
    def observations(self) -> Any:  # type: ignore[override]
        """Return the observations before each transition, as a view that is indexed like Stable-Baselines3's arrays."""
        return self._view(BEFORE)

    @property
    def next_observations(self) -> Any:  # type: ignore[override]
        """Return the observations after each transition, as a view that is indexed like Stable-Baselines3's arrays."""
        return self._view(AFTER)

    def _view(self, moment: Moment) -> Any:
        return self._by_key(lambda store: ObservationView(store, moment))

    def _by_key(self, make: Callable[[ObservationStore], Any]) -> Any:
        """Apply a function to each store; return a dict of results for a Dict space, and a single result for a Box."""
        made = {key: make(store) for key, store in self._stores.items()}
        if self._is_dict:
            return made
        return next(iter(made.values()))

    def reset(self) -> None:
        """Drop every transition and keep the allocated memory."""
        super().reset()
        if self._is_allocated:
            for store in self._stores.values():
                store.clear()

    def add(
        self,
        obs: Observations,
        next_obs: Observations,
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition of each environment.

        :param obs: observations before the step, ``(n_envs, frame_stack * channels, height, width)`` uint8, or a dict
            of arrays
        :param next_obs: observations after the step, before any reset
        :param action: ``(n_envs, action_dim)``
        :param reward: ``(n_envs,)``
        :param done: ``(n_envs,)``, 1 where the episode ended or was truncated
        :param infos: one dict for each environment
        :raises ValueError: if an argument has a wrong shape or length; nothing is stored then
        :raises MemoryError: if, at the first call, the machine cannot hold the whole buffer; nothing is stored then. A
            later call raises this error if many short episodes need more frames than the memory can hold. Do not use
            the buffer after that, because the oldest transition may be overwritten in part.
        """
        # All arguments are checked before anything is written, so that a ValueError leaves the buffer as it was.
        kinds = {key: (store.shape[1:], store.dtype) for key, store in self._stores.items()}
        parts = step_parts(kinds, obs, next_obs, self._is_dict)
        actions = step_actions(action, self.action_space, (self.n_envs, self.action_dim), self.actions.dtype)
        rewards, dones = step_outcomes(reward, done, infos, self.n_envs)
        if not self._is_allocated:
            self._allocate()
        row = self.pos
        # The row of the previous step, whose episodes may continue in this step.
        previous = None
        if self.full or row > 0:
            previous = (row - 1) % self.buffer_size
        self.actions[row] = actions
        self.rewards[row] = rewards
        self.dones[row] = dones
        if self.handle_timeout_termination:
            self.timeouts[row] = [info.get("TimeLimit.truncated", False) for info in infos]
        self._add_observations(Place(row, previous, replaces=self.full), parts)
        self.pos = (row + 1) % self.buffer_size
        self.full = self.full or self.pos == 0

    def _add_observations(self, place: Place, parts: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        """Write the observations of a step, and mark where n-step windows have to end."""
        continues, shifts = np.ones(self.n_envs, bool), np.ones(self.n_envs, bool)
        for key, store in self._stores.items():
            continuity = store.write(place, *parts[key])
            continues &= continuity.continues
            shifts &= continuity.shifts
        if place.previous is not None:
            self.segment_ends[place.previous] |= ~continues
        self.segment_ends[place.row] = ~shifts
        if place.row + 1 == -(-N_CHECKED // self.n_envs) and not place.replaces:
            self._warn_of_other_stacks(place.row + 1)

    def _warn_of_other_stacks(self, n_rows: int) -> None:
        """Warn if n-step windows have one step only, because the environment stacks frames in a different way.

        :param n_rows: number of rows so far
        """
        goes_on = ~self.dones[:n_rows]
        if self.n_steps > 1 and self.frame_stack > 1 and goes_on.any() and self.segment_ends[:n_rows][goes_on].all():
            warnings.warn(
                f"n_steps={self.n_steps} has no effect: in {N_CHECKED} transitions, no observation continued the frame "
                f"stack of the one before. FrameReplayBuffer expects frame_stack={self.frame_stack} frames along the "
                "channels, oldest first. If the environment stacks them in a different way, pass "
                "replay_buffer_kwargs={'frame_stack': 1}",
                stacklevel=2,
            )

    def end_segment(self) -> None:
        """End every n-step window at the transitions added last, even if the next transitions seem to continue them."""
        if self.size():
            self.segment_ends[(self.pos - 1) % self.buffer_size] = True

    def get_state(self) -> dict[str, Any]:
        """Return the state that a resumed run needs to draw the same samples and to add transitions; nothing is copied.

        :return: plain data and views of the used part of the arrays
        """
        n_rows = self.size()
        return {
            "settings": self._settings(),
            "pos": int(self.pos),
            "full": bool(self.full),
            "is_allocated": self._is_allocated,
            "columns": {name: column[:n_rows] for name, column in self._columns().items()},
            "stores": {key: store.get_state(n_rows) for key, store in self._stores.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace the content by a saved state; the buffer then continues like the saved buffer, bit for bit.

        :param state: the state that :meth:`get_state` returned
        :raises ValueError: if the saved buffer had other settings; the buffer is not changed then
        :raises MemoryError: if the machine cannot hold the whole buffer
        """
        require_same_settings(state.get("settings", {}), self._settings(), "This FrameReplayBuffer")
        self._use_saved_stores(state["stores"])
        if self._is_allocated:
            self.reset()
            self._make_columns(self.buffer_size)
        elif state["is_allocated"]:
            self._allocate()
        if state["is_allocated"]:
            for name, column in self._columns().items():
                kept = state["columns"][name]
                fill(column[: kept.shape[0]], kept)
            for key, store in self._stores.items():
                store.set_state(state["stores"][key])
        self.pos, self.full = state["pos"], state["full"]

    def _use_saved_stores(self, stores: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace PairStores by StackStores where the saved state was written by a StackStore.

        A StackStore shares frames, and a PairStore stores whole observations. Earlier versions also used a StackStore
        for masks and other arrays that are not camera images.
        """
        for key, kept in stores.items():
            store = self._stores[key]
            if isinstance(store, PairStore) and "frames" in kept:
                channels, height, width = store.shape[2:]
                frame_stack = self.frame_stack if channels % self.frame_stack == 0 else 1
                as_frames = StackStore((channels, height, width), frame_stack, self.buffer_size, self.n_envs)
                if self._is_allocated:
                    as_frames.allocate()
                self._stores[key] = as_frames

    def _columns(self) -> dict[str, NDArray[Any]]:
        names = ("actions", "rewards", "dones", "timeouts", "segment_ends")
        return {name: getattr(self, name) for name in names}

    def _settings(self) -> dict[str, Any]:
        """Return the settings that two buffers must share before one can load the state of the other."""
        parts = {}
        for key, store in self._stores.items():
            name = f"observation[{key!r}]" if self._is_dict else key
            parts[name] = f"{store.shape[2:]} {store.dtype}"
        return {
            "buffer_size": int(self.buffer_size * self.n_envs),
            "n_envs": int(self.n_envs),
            "frame_stack": int(self.frame_stack),
            "n_steps": int(self.n_steps),
            "gamma": float(self.gamma),
            "handle_timeout_termination": bool(self.handle_timeout_termination),
            "action": f"{self.actions.shape[2:]} {self.actions.dtype}",
            **parts,
        }

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Any:
        """Sample transitions with replacement, with the same random draws as Stable-Baselines3.

        :param batch_size: number of transitions
        :param env: scales observations and rewards; None leaves them unscaled
        :return: ``ReplayBufferSamples``, or ``DictReplayBufferSamples`` for a Dict observation space
        """
        # Not ReplayBuffer.sample, whose optimize_memory_usage leaves out the newest row.
        return BaseBuffer.sample(self, batch_size, env)

    def _get_samples(  # type: ignore[override]
        self, batch_inds: NDArray[Any], env: VecNormalize | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        # As in ReplayBuffer, draw a random environment for each sampled row.
        env_indices = np.random.randint(0, high=self.n_envs, size=(len(batch_inds),))
        last_rows, rewards, discounts = self._returns(batch_inds, env_indices, env)
        # A truncated episode could have gone on, so it still bootstraps.
        is_terminal = self.dones[last_rows, env_indices] & ~self.timeouts[last_rows, env_indices]
        data = (
            self._tensors(BEFORE, batch_inds, env_indices, env),
            self._tensor(self.actions[batch_inds, env_indices]),
            self._tensors(AFTER, last_rows, env_indices, env),
            self._tensor(is_terminal[:, None].astype(np.float32)),
            self._tensor(rewards),
            None if discounts is None else self._tensor(discounts),
        )
        if self._is_dict:
            return DictReplayBufferSamples(*data)
        return ReplayBufferSamples(*data)

    def _returns(
        self, rows: NDArray[Any], envs: NDArray[Any], env: VecNormalize | None
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
        """Sum the discounted rewards of each n-step window.

        :return: last rows ``(batch,)``, returns ``(batch, 1)``, and discounts of the bootstrap ``(batch, 1)``; the
            discounts are None for single steps
        """
        if self.n_steps == 1:
            return rows, self._normalize_reward(self.rewards[rows, envs].reshape(-1, 1), env), None
        is_last = [self.dones, self.timeouts, self.segment_ends]
        windows = n_step_windows(rows, envs, is_last, (self.pos - 1) % self.buffer_size, self.n_steps)
        # (batch, n_steps) rewards, times gamma^0 ... gamma^(n_steps - 1), summed up to the end of the window. The
        # operations have the same order as in NStepReplayBuffer, so the results are equal bit for bit.
        rewards = self._normalize_reward(self.rewards[windows.rows, envs[:, None]], env)
        powers = self.gamma ** np.arange(self.n_steps, dtype=np.float32).reshape(1, -1)
        # Rewards beyond a window's end are not multiplied by 0, because an infinite one would make the sum NaN.
        returns = np.where(windows.is_within, rewards * powers, 0.0).sum(axis=1, keepdims=True)
        n_taken = windows.is_within.sum(axis=1, keepdims=True).astype(np.float32)
        return windows.last_rows, returns, self.gamma**n_taken

    def taken(self, moment: Moment, index: Any) -> Any:
        """Return a copy of the stored observations at an index.

        :param moment: ``BEFORE`` or ``AFTER`` the transitions
        :param index: indexes the axes ``(buffer_size, n_envs)`` as in NumPy
        :return: one array, or one array for each key
        """
        return self._by_key(lambda store: store.take(moment, index))

    def _tensors(self, moment: Moment, rows: NDArray[Any], envs: NDArray[Any], env: VecNormalize | None) -> Any:
        """Return observations on the device, as one tensor or as one tensor for each key."""
        found = self.taken(moment, (rows, envs))
        if env is not None and env.norm_obs:  # without norm_obs, VecNormalize would only copy
            found = self._normalize_obs(found, env)
        if isinstance(found, dict):
            return {key: self._tensor(part) for key, part in found.items()}
        return self._tensor(found)

    def _tensor(self, array: NDArray[Any]) -> th.Tensor:
        """Convert an array of samples to a tensor on the buffer's device; on a CPU both share memory."""
        return self.to_torch(array, copy=False)
