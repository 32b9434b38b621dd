"""Stable-Baselines3's VecEnv whose environments are Ray actors, on this machine or on many."""

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

from sb3_visual_td3.vec_env.actor_options import ActorOptions
from sb3_visual_td3.vec_env.asked import Asked
from sb3_visual_td3.vec_env.env_actor import pack
from sb3_visual_td3.vec_env.env_slot import LOOK_S, EnvLostError, EnvSlot, end
from sb3_visual_td3.vec_env.ray_session import RaySession
from sb3_visual_td3.vec_env.step_line import wait_for_news

_LOG = logging.getLogger("sb3_visual_td3")
_PATIENCE_S = 900.0
_POLL_S = 0.01
_PLACEMENTS = ("pack", "spread")
_SAY_AFTER_S = 20.0


class RayVecEnv(VecEnv):
    """Steps environments in Ray actors: as ``SubprocVecEnv`` does, bit for bit, but anywhere in a Ray cluster.

    An actor starts its environment where Ray places it, and with it the simulator that the environment starts: the two
    are always on one machine. Steps go over a connection of the learner's with each actor, as cheap as
    SubprocVecEnv's; all else goes by Ray's calls, and so do steps where there is no connecting.

    Where the process, the machine or the way to it fails, the environment is made again, with the attributes that
    ``set_attr`` has given it, and the episode is truncated: last observation, reward 0,
    ``info["invalid_transition"]=True`` and ``info["simulator_failure"]``. VisualTD3 stores no such step;
    ``sb3_visual_td3.buffers.valid_transitions`` does the same for other algorithms. An exception of the environment is
    no fault of the machine: it is raised here.

    With ``deadline_s`` nobody waits for a straggler: whoever has not answered in that time repeats its last
    observation in an invalid step, as does one that is being made again, and the others go on. When the late answer
    arrives its step is invalid as well, for meanwhile the learner has chosen another action.

    :param env_fns: make the environments; pickled by value where they cannot be imported
    :param num_cpus: processors that each environment is given; in a Ray that is started here they are not counted
    :param num_gpus: share of a GPU that each is given: with 0.5, two environments share one
    :param resources: further resources of the cluster, such as ``{"carla": 1}``
    :param placement: ``"pack"`` fills one machine after the other, ``"spread"`` takes them by turns
    :param address: of the cluster; see :class:`RaySession`. ``None``: ``RAY_ADDRESS``, or this machine
    :param runtime_env: Ray's, such as ``{"working_dir": "."}``
    :param direct: whether to connect with the actors; ``False``: steps go by Ray's calls, large observations through
        its object store, as they do through ``ray://``, where Ray encrypts (``RAY_USE_TLS=1``), and where no port of
        the actors' own can be reached
    :param deadline_s: how long to wait for stragglers after the actions were sent; ``None``: for all of them
    :param patience_s: how long to wait for one answer before the environment is taken for dead
    :raises ImportError: if Ray is not installed
    :raises ValueError: if an argument is none of these, or there is no cluster at the address
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
            raise ValueError("env_fns is empty: expected a function for each environment")
        if placement not in _PLACEMENTS:
            raise ValueError(f"placement={placement!r}: expected 'pack' or 'spread'")
        for name, amount in {"num_cpus": num_cpus, "num_gpus": num_gpus, **(resources or {})}.items():
            _check(name, amount, amount >= 0, "0 or more")
        _check("patience_s", patience_s, patience_s > 0, "seconds above 0")
        if deadline_s is not None:
            _check("deadline_s", deadline_s, 0 < deadline_s <= patience_s, "seconds above 0 and up to patience_s")
        self.closed = False
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._sent_at = 0.0
        self._slots: list[EnvSlot] = []
        self._session = RaySession(address)
        self._ray = self._session.ray
        self._is_direct = direct and self._session.allows_connections
        try:
            own = self._session.is_started_by_us
            options = ActorOptions(
                0.0 if own else num_cpus, num_gpus, dict(resources or {}), placement == "spread", runtime_env
            )
            self._slots = [EnvSlot(index, pack(env_fn), options, patience_s) for index, env_fn in enumerate(env_fns)]
            self._wait_for_room(options)
            observation_space, action_space = self._call("spaces", indices=0)[0]
            super().__init__(len(env_fns), observation_space, action_space)
        except BaseException:
            self.close()
            raise

    def _wait_for_room(self, options: ActorOptions) -> None:
        """Wait until every actor has a place.

        :raises ValueError: if there is no room
        """
        waiting = [slot.begin_call("spaces") for slot in self._slots]
        _, missing = self._ray.wait(waiting, num_returns=len(waiting), timeout=min(_SAY_AFTER_S, self._patience_s))
        if not missing:
            return
        _LOG.warning("%s; waiting for up to %g s", self._shortage(len(missing), options), self._patience_s)
        _, missing = self._ray.wait(waiting, num_returns=len(waiting), timeout=self._patience_s)
        if missing:
            raise ValueError(f"{self._shortage(len(missing), options)}; ask for less, or add machines")

    def _shortage(self, n_missing: int, options: ActorOptions) -> str:
        needs = {"CPU": options.num_cpus, "GPU": options.num_gpus, **options.resources}
        asked = ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount) or "nothing"
        total = self._ray.cluster_resources()
        there = ", ".join(f"{name} {total.get(name, 0):g}" for name, amount in needs.items() if amount) or "nothing"
        return (
            f"{n_missing} of {len(self._slots)} environments are not there: each asks for {asked}, all machines "
            f"together have {there}"
        )

    def step_async(self, actions: np.ndarray) -> None:
        """Send an action to each environment that is not under way."""
        self._open_lines()
        self._sent_at = time.monotonic()
        for slot, action in zip(self._slots, actions, strict=True):
            slot.ask_step(action)

    def _open_lines(self) -> None:
        """Connect with each environment that is about to make a step and has no line; where that is possible."""
        slots = [slot for slot in self._slots if slot.wants_line] if self._is_direct else []
        errors = []
        for slot, pending in [(slot, slot.begin_line()) for slot in slots]:
            try:
                slot.open_line(pending)
            except OSError as error:
                errors.append(error)
        if errors:
            _LOG.warning("steps go by Ray's calls, which take longer: %s", errors[0])

    def step_wait(self) -> VecEnvStepReturn:
        """:return: observations (an array of the learner's own), rewards, dones and infos"""
        self._gather(self._deadline_s)
        replies = [slot.take() for slot in self._slots]
        self.reset_infos = [slot.reset_info for slot in self._slots]
        observations, rewards, dones, infos = zip(*replies, strict=True)
        return _stacked(observations, self.observation_space), np.stack(rewards), np.stack(dones), list(infos)

    def reset(self) -> VecEnvObs:
        """Begin an episode in each environment, whatever is under way.

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
        """Wait for the answers: for all, or until the deadline has passed and there is one at least."""
        while waiting := [slot for slot in self._slots if slot.asked is not Asked.NOTHING]:
            left_s = math.inf if deadline_s is None else self._sent_at + deadline_s - time.monotonic()
            is_late, others_go_on = left_s <= 0, any(slot.reply is not None for slot in self._slots)
            if is_late and others_go_on:
                left_s = 0.0
            elif is_late:
                left_s = math.inf
            arrived = self._arrived(waiting, left_s, 1 if is_late else len(waiting))
            self._collect(arrived)
            self._give_up([slot for slot in waiting if slot not in arrived], others_go_on and deadline_s is not None)
            if is_late and others_go_on:
                return

    def _arrived(self, waiting: list[EnvSlot], timeout_s: float, n: int) -> list[EnvSlot]:
        """:return: who has answered, as soon as ``n`` have (by line: one), time is up, or somebody's patience ends"""
        end = time.monotonic() + min(timeout_s, *(slot.patience_left_s for slot in waiting))
        by_line = {slot.line: slot for slot in waiting if slot.line is not None}
        refs = [slot.pending for slot in waiting]
        while True:
            left_s = max(0.0, end - time.monotonic())
            if by_line:
                look_s = LOOK_S if len(by_line) == len(waiting) else _POLL_S
                if news := wait_for_news(list(by_line), min(left_s, look_s)):
                    return [by_line[line] for line in news]
            ready, _ = self._ray.wait(refs, num_returns=1 if by_line else n, timeout=0 if by_line else left_s)
            if ready or left_s == 0.0:
                found = set(ready)
                return [slot for slot in waiting if slot.pending in found]

    def _collect(self, arrived: list[EnvSlot]) -> None:
        """Take the answers: Ray's all at once, and where one brings bad news one by one."""
        by_ray = [slot for slot in arrived if slot.line is None]
        try:
            answers = self._ray.get([slot.pending for slot in by_ray]) if by_ray else []
        except self._ray.exceptions.RayError:
            _all_done([slot.collect for slot in arrived])
            return
        for slot, answer in zip(by_ray, answers, strict=True):
            slot.accept(answer)
        _all_done([slot.collect for slot in arrived if slot not in by_ray])

    def _give_up(self, silent: list[EnvSlot], others_go_on: bool) -> None:
        """Make again whoever has been silent for too long.

        :raises EnvLostError: if it has been made again already, and nobody else can go on
        """
        for slot in silent:
            if slot.patience_left_s:
                continue
            reason = slot.why_given_up
            if not slot.has_died:
                slot.make_again(reason)
            elif others_go_on:
                slot.wait_on(reason)
            else:
                raise EnvLostError(f"environment {slot.index} was made again and did not come back: {reason}")

    def close(self) -> None:
        """Close the environments, and Ray where it was started here and nobody else needs it."""
        if self.closed:
            return
        self.closed = True
        try:
            if self._ray.is_initialized():
                end(self._slots)
        finally:
            self._session.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """:return: a picture of each environment"""
        if self.render_mode != "rgb_array":
            text = f"render_mode={self.render_mode!r} gives no pictures: make the environments with 'rgb_array'"
            warnings.warn(text, stacklevel=2)
            return [None for _ in self._slots]
        return self._call("render")

    def has_attr(self, attr_name: str) -> bool:
        """:return: whether all environments have an attribute"""
        return all(self._call("has_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """:return: an attribute of each environment"""
        return self._call("get_attr", attr_name, indices=indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each environment."""
        self._call("set_attr", attr_name, value, indices=indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """:return: what a method of each environment returns"""
        return self._call("env_method", method_name, method_args, method_kwargs, indices=indices)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """:return: for each environment whether it is wrapped in one of these"""
        return self._call("is_wrapped", wrapper_class, indices=indices)

    def _call(self, request: str, *arguments: Any, indices: VecEnvIndices = None) -> list[Any]:
        slots = self._slots if indices is None else [self._slots[index] for index in self._get_indices(indices)]
        pending = [slot.begin_call(request, *arguments) for slot in slots]
        calls = [partial(slot.end_call, each, request, *arguments) for slot, each in zip(slots, pending, strict=True)]
        return _all_done(calls)

    @property
    def places(self) -> list[tuple[str, int]]:
        """For each environment Ray's name for its machine, and its process there."""
        return [slot.where() for slot in self._slots]

    @property
    def n_rebuilds(self) -> int:
        """How many environments have been made again so far."""
        return sum(slot.n_rebuilds for slot in self._slots)

    @property
    def n_late_steps(self) -> int:
        """How many steps were not waited for so far, see ``deadline_s``."""
        return sum(slot.n_late for slot in self._slots)


def _check(name: str, value: Any, is_good: bool, expected: str) -> None:
    if not is_good:
        raise ValueError(f"{name}={value!r}: expected {expected}")


def _all_done(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all calls, also where one fails: Ray complains of each answer that nobody has fetched.

    :return: what they return
    :raises Exception: the first that was raised
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
    """:return: arrays of our own, ``(n_envs, ...)``, in the form of the space"""
    if isinstance(space, spaces.Dict):
        return {key: np.stack([each[key] for each in observations]) for key in space.spaces}
    if isinstance(space, spaces.Tuple):
        return tuple(np.stack([each[i] for each in observations]) for i in range(len(space.spaces)))
    return np.stack(observations)
