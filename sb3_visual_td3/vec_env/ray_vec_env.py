"""Define a Stable-Baselines3 VecEnv whose environments are Ray actors, on one machine or on several."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_visual_td3.common.numbers import to_float
from sb3_visual_td3.vec_env.connection import wait_for_messages
from sb3_visual_td3.vec_env.env_actor import pack
from sb3_visual_td3.vec_env.env_slot import (
    CHECK_INTERVAL_S,
    ActorOptions,
    EnvLostError,
    EnvSlot,
    Pending,
    close_slots,
    ray_timeout,
)
from sb3_visual_td3.vec_env.ray_session import RaySession

_LOG = logging.getLogger("sb3_visual_td3")
_PATIENCE_S = 900.0
"""Default of ``patience_s``, in seconds: long enough for a simulator to start and load a large map."""
_POLL_S = 0.01
"""Seconds between two polls of Ray, if some environments answer over connections and others through Ray."""
_PLACEMENTS = ("pack", "spread")
_WARN_AFTER_S = 20.0
"""How long to wait for free resources in the cluster before a warning says what is missing, in seconds."""


class RayVecEnv(VecEnv):
    """Step environments in the actors of a Ray cluster, and return bit for bit the same results as ``SubprocVecEnv``.

    If an actor, its machine or the network fails, the environment is restarted with the attributes that ``set_attr``
    has set. The learner receives an invalid step, which truncates the episode. Its reward is 0, and ``info`` has the
    reason under ``"simulator_failure"``. An exception of the environment is raised in the learner.

    With ``deadline_s``, an environment that is late or restarting returns an invalid step with its last observation and
    the reward 0. This invalid step does not end the episode. The later step that returns the late answer is also
    invalid, because the learner has chosen another action by then.

    Every invalid step has ``"invalid_transition": True`` in ``info`` and must not be stored. VisualTD3 does not store
    invalid steps. For other algorithms, use the buffers in ``sb3_visual_td3.buffers.valid_transitions``.

    :param env_fns: functions that make the environments; pickled by value if they cannot be imported
    :param num_cpus: processors for each environment; ignored if this process starts Ray
    :param num_gpus: share of a GPU for each environment: with 0.5, two environments share a GPU
    :param resources: further resources of the cluster, such as ``{"carla": 1}``
    :param placement: ``"pack"`` fills one machine after the other, ``"spread"`` distributes over the machines
    :param address: address of the cluster, see :class:`RaySession`; None uses the environment variable ``RAY_ADDRESS``
        or starts Ray on this machine
    :param runtime_env: Ray's runtime environment, such as ``{"working_dir": "."}``
    :param direct: True sends steps over direct network connections if possible; False always uses Ray's calls, which
        are slower
    :param deadline_s: longest wait for all environments, in seconds; None for no deadline
    :param patience_s: longest wait for one answer in seconds, after which the environment is restarted; infinity for
        no limit
    :raises ImportError: if Ray is not installed
    :raises ValueError: if an argument is out of range, or no cluster can be joined
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env[Any, Any]]],
        *,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        resources: Mapping[str, float] | None = None,
        placement: str = "pack",
        address: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        direct: bool = True,
        deadline_s: float | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        if not env_fns:
            raise ValueError("env_fns=[]: expected a list with one function for each environment")
        if placement not in _PLACEMENTS:
            raise ValueError(f"placement={placement!r}: expected 'pack' or 'spread'")
        num_cpus = to_float("num_cpus", num_cpus, 0.0)
        num_gpus = to_float("num_gpus", num_gpus, 0.0)
        resources = {name: to_float(name, amount, 0.0) for name, amount in (resources or {}).items()}
        if patience_s != math.inf:
            patience_s = to_float("patience_s", patience_s, above=0.0)
        if deadline_s is not None:
            expected = f"seconds above 0 and up to patience_s={patience_s:g}"
            deadline_s = to_float("deadline_s", deadline_s, maximum=patience_s, above=0.0, expected=expected)
        self.closed = False
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._sent_at = 0.0
        self._slots: list[EnvSlot] = []
        self._session = RaySession(address)
        self._ray = self._session.ray
        self._is_direct = direct and self._session.allows_connections
        try:
            # If we started Ray, it has no other work. Then processors are not counted: more environments than
            # processors are allowed, as with SubprocVecEnv.
            counted_cpus = 0.0 if self._session.is_started_by_us else num_cpus
            options = ActorOptions(counted_cpus, num_gpus, resources, placement == "spread", runtime_env)
            self._slots = [EnvSlot(index, pack(env_fn), options, patience_s) for index, env_fn in enumerate(env_fns)]
            self._wait_for_room(options)
            observation_space, action_space = self._call("spaces", indices=0)[0]
            super().__init__(len(env_fns), observation_space, action_space)
        except BaseException:  # on Ctrl-C too, because remaining actors would block the cluster
            self.close()
            raise

    def _wait_for_room(self, options: ActorOptions) -> None:
        """Wait until Ray has placed every actor.

        :raises ValueError: if the cluster does not have enough free resources within ``patience_s``
        """
        # An actor answers its first call once Ray has found a machine for it and its environment is made.
        waiting = [slot.begin_call("spaces") for slot in self._slots]
        _, missing = self._ray.wait(waiting, num_returns=len(waiting), timeout=min(_WARN_AFTER_S, self._patience_s))
        if not missing:
            return
        _LOG.warning("%s; waiting for up to %g s", self._shortage(len(missing), options), self._patience_s)
        _, missing = self._ray.wait(waiting, num_returns=len(waiting), timeout=ray_timeout(self._patience_s))
        if missing:
            raise ValueError(f"{self._shortage(len(missing), options)}; request less, or add machines")

    def _shortage(self, n_missing: int, options: ActorOptions) -> str:
        """Return a sentence on how many environments are missing, what each requests, and what the cluster has."""
        needs = {"CPU": options.num_cpus, "GPU": options.num_gpus, **options.resources}
        asked = ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount) or "nothing"
        total = self._ray.cluster_resources()
        there = ", ".join(f"{name} {total.get(name, 0):g}" for name, amount in needs.items() if amount) or "nothing"
        return (
            f"{n_missing} of {len(self._slots)} environments could not be placed: each needs {asked}, and the "
            f"whole cluster has {there}"
        )

    def step_async(self, actions: np.ndarray) -> None:
        """Send an action to each environment that has no pending request."""
        self._open_connections()
        self._sent_at = time.monotonic()
        for slot, action in zip(self._slots, actions, strict=True):
            slot.ask_step(action)

    def _open_connections(self) -> None:
        """Connect to each environment that is about to step and has no connection."""
        if not self._is_direct:
            return
        slots = [slot for slot in self._slots if slot.needs_connection]
        errors = []
        # All actors start listening before the first connection is opened, so that they start in parallel.
        for slot, address_ref in [(slot, slot.begin_connection()) for slot in slots]:
            try:
                slot.open_connection(address_ref)
            except OSError as error:
                errors.append(error)
        if errors:
            # One line for all: if one machine's ports are blocked, usually all are.
            _LOG.warning(
                "some environments have no direct connection, so their steps use Ray's slower calls: %s", errors[0]
            )

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the results of the step.

        :return: observations (new arrays), rewards, dones and infos
        """
        self._gather(self._deadline_s)
        replies = [slot.take() for slot in self._slots]
        self.reset_infos = [slot.reset_info for slot in self._slots]
        observations, rewards, dones, infos = zip(*replies, strict=True)
        return _stacked(observations, self.observation_space), np.stack(rewards), np.stack(dones), list(infos)

    def reset(self) -> VecEnvObs:
        """Begin an episode in each environment; pending steps are dropped.

        :return: first observations
        """
        for slot, seed, options in zip(self._slots, self._seeds, self._options, strict=True):
            slot.ask_reset(seed, options)
        self._gather(None)
        observations = [slot.take().observation for slot in self._slots]
        self.reset_infos = [slot.reset_info for slot in self._slots]
        self._reset_seeds()
        self._reset_options()
        return _stacked(observations, self.observation_space)

    def _gather(self, deadline_s: float | None) -> None:
        """Wait until all answers have arrived, or until the deadline, but at least until the first answer.

        :param deadline_s: seconds after the actions were sent; None for no deadline
        """
        while waiting := [slot for slot in self._slots if slot.pending is not Pending.NOTHING]:
            left_s = math.inf
            if deadline_s is not None:
                left_s = self._sent_at + deadline_s - time.monotonic()
            is_late = left_s <= 0
            has_reply = any(slot.reply is not None for slot in self._slots)
            # After the deadline, answers that have arrived are collected without waiting. If none has arrived, wait for
            # the first one: otherwise the step would return only the previous observations.
            if is_late and has_reply:
                left_s = 0.0
            elif is_late:
                left_s = math.inf
            arrived = self._arrived(waiting, left_s, 1 if is_late else len(waiting))
            self._collect(arrived)
            silent = [slot for slot in waiting if slot not in arrived]
            self._restart_silent(silent, can_wait=has_reply and deadline_s is not None)
            if is_late and has_reply:
                return

    def _arrived(self, waiting: list[EnvSlot], timeout_s: float, n: int) -> list[EnvSlot]:
        """Wait for answers, and return the environments that have answered.

        The wait ends early if an environment has not answered for ``patience_s``. If at least one request uses a direct
        connection, the wait ends with the first answer.

        :param n: number of answers to wait for, if all requests are Ray calls
        """
        end = time.monotonic() + min(timeout_s, *(slot.patience_left_s for slot in waiting))
        connected = {slot.connection: slot for slot in waiting if slot.connection is not None}
        refs = [slot.answer_ref for slot in waiting]
        if not connected:
            timeout = ray_timeout(max(0.0, end - time.monotonic()))
            ready, _ = self._ray.wait(refs, num_returns=n, timeout=timeout)
            return self._slots_of(ready, waiting)
        # No function waits for connections and for Ray's answers together. If all steps use connections, this loop
        # checks once a second with Ray whether an actor has died, because a machine that loses its power does not close
        # its connections. Otherwise it polls Ray's answers.
        interval_s = CHECK_INTERVAL_S if len(connected) == len(waiting) else _POLL_S
        while True:
            left_s = max(0.0, end - time.monotonic())
            if readable := wait_for_messages(list(connected), min(left_s, interval_s)):
                return [connected[each] for each in readable]
            ready, _ = self._ray.wait(refs, num_returns=1, timeout=0)
            if ready or left_s == 0.0:
                return self._slots_of(ready, waiting)

    @staticmethod
    def _slots_of(answer_refs: Sequence[Any], waiting: list[EnvSlot]) -> list[EnvSlot]:
        found = set(answer_refs)
        return [slot for slot in waiting if slot.answer_ref in found]

    def _collect(self, arrived: list[EnvSlot]) -> None:
        """Collect the answers; Ray's answers are fetched together, or one by one if one of them is an error."""
        by_ray = [slot for slot in arrived if slot.connection is None]
        try:
            answers = self._ray.get([slot.answer_ref for slot in by_ray]) if by_ray else []
        except self._ray.exceptions.RayError:
            # ``get`` does not say which answer is the error, so each slot fetches its own.
            _all_done([slot.collect for slot in arrived])
            return
        for slot, answer in zip(by_ray, answers, strict=True):
            slot.accept(answer)
        _all_done([slot.collect for slot in arrived if slot not in by_ray])

    def _restart_silent(self, silent: list[EnvSlot], can_wait: bool) -> None:
        """Restart each environment that has not answered for ``patience_s``.

        :param can_wait: an environment that has made no step since its last restart is not restarted again: True gives
            it more time, and False raises an error
        """
        for slot in silent:
            if slot.patience_left_s > 0.0:
                continue
            reason = slot.give_up_reason
            if not slot.was_just_restarted:
                slot.restart(reason)
            elif can_wait:
                slot.extend_patience(reason)
            else:
                raise EnvLostError(
                    f"environment {slot.index} was restarted and does not answer: {reason}; check its machine, or "
                    "raise patience_s"
                )

    def close(self) -> None:
        """Close the environments, and shut Ray down if this process started it and no other session uses it."""
        if self.closed:
            return
        self.closed = True
        try:
            if self._ray.is_initialized():
                close_slots(self._slots)
        finally:
            self._session.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Render each environment.

        :return: one RGB array ``(height, width, 3)`` for each environment, or None if ``render_mode`` is not
            ``"rgb_array"``
        """
        if self.render_mode != "rgb_array":
            text = f"render_mode={self.render_mode!r} renders no images: make the environments with 'rgb_array'"
            warnings.warn(text, stacklevel=2)
            return [None for _ in self._slots]
        return self._call("render")

    def has_attr(self, attr_name: str) -> bool:
        """Return whether all environments have an attribute."""
        return all(self._call("has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment."""
        return self._call("get_attr", attr_name, indices=indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment."""
        self._call("set_attr", attr_name, value, indices=indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each environment and return the results."""
        return self._call("env_method", method_name, method_args, method_kwargs, indices=indices)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return for each environment whether it is wrapped in a given class."""
        return self._call("is_wrapped", wrapper_class, indices=indices)

    def _call(self, request: str, *arguments: Any, indices: VecEnvIndices = None) -> list[Any]:
        """Send a request to all chosen environments, and then wait for their results."""
        slots = self._slots if indices is None else [self._slots[index] for index in self._get_indices(indices)]
        pending = [slot.begin_call(request, *arguments) for slot in slots]
        calls = [partial(slot.end_call, each, request, *arguments) for slot, each in zip(slots, pending, strict=True)]
        return _all_done(calls)

    @property
    def places(self) -> list[tuple[str, int]]:
        """Return where each environment runs: Ray's id of its machine, and its process id."""
        return [slot.where() for slot in self._slots]

    @property
    def n_rebuilds(self) -> int:
        """Return how often an environment has been restarted so far."""
        return sum(slot.n_rebuilds for slot in self._slots)

    @property
    def n_late_steps(self) -> int:
        """Return how many steps have missed ``deadline_s`` so far."""
        return sum(slot.n_late for slot in self._slots)


def _all_done(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all calls, even if one fails, and then raise the first exception.

    Each call fetches the answer of one environment. No call is left out, because Ray logs an error for each exception
    that is not fetched.
    """
    results, errors = [], []
    for call in calls:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return results


def _stacked(observations: Sequence[Any], space: spaces.Space[Any]) -> VecEnvObs:
    """Stack the observations of all environments into new arrays ``(n_envs, ...)``, in the structure of the space."""
    if isinstance(space, spaces.Dict):
        return {key: np.stack([each[key] for each in observations]) for key in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(np.stack([each[i] for each in observations]) for i in range(len(space.spaces)))
    return np.stack(observations)
