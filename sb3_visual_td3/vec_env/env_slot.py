"""One environment of the vector as the learner sees it: asked, answering, late, or dead and made again."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from sb3_visual_td3.vec_env.env_actor import EnvActor, Home, pack
from sb3_visual_td3.vec_env.ray_session import need_ray

INVALID = "invalid_transition"
FAILURE = "simulator_failure"
LATE = "is_late"
"""Keys of ``info``, as an environment in this process uses them: a step that was not made, and why."""
MAX_DEATHS_IN_A_ROW = 5
_CLOSE_S = 10.0
_PAUSE_S = 0.2
_LOG = logging.getLogger("sb3_visual_td3")


class EnvLostError(RuntimeError):
    """An environment cannot be got back."""


class Reply(NamedTuple):
    """What an environment says of a step."""

    observation: Any
    reward: float
    done: bool
    info: dict[str, Any]


class Asked(Enum):
    """What an environment was asked for that it has not answered."""

    NOTHING = auto()
    STEP = auto()
    RESET = auto()
    """By the learner."""
    REBIRTH = auto()
    """A reset by us: the environment died in the midst of an episode."""


@dataclass(frozen=True)
class ActorOptions:
    """What each environment is given: arguments of Ray's ``options``."""

    num_cpus: float
    num_gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    spread: bool = False
    runtime_env: Mapping[str, Any] | None = None

    def keywords(self) -> dict[str, Any]:
        """:return: the arguments; an actor is not started again by Ray, which would not tell that it died"""
        known: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "max_restarts": 0}
        known["scheduling_strategy"] = "SPREAD" if self.spread else "DEFAULT"
        if self.resources:
            known["resources"] = dict(self.resources)
        if self.runtime_env is not None:
            known["runtime_env"] = dict(self.runtime_env)
        return known


class EnvSlot:
    """One environment: its actor, what it was asked for, and its last words.

    :param index: its number in the vector
    :param make_env: a pickled function that makes it
    :param options: what its actor is given
    :param patience_s: how long to wait for what is asked for between two steps
    """

    def __init__(self, index: int, make_env: bytes, options: ActorOptions, patience_s: float) -> None:
        ray = need_ray()
        errors = ray.exceptions
        self._ray = ray
        self._dead: tuple[type[Exception], ...] = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )
        self.index = index
        self.asked = Asked.NOTHING
        self.pending: Any = None
        self.asked_at = 0.0
        self.reply: Reply | None = None
        self.reset_info: dict[str, Any] = {}
        self.n_rebuilds = 0
        self.n_late = 0
        self.has_answered = False
        self._actor_class = ray.remote(EnvActor).options(**options.keywords())
        self._make_env = make_env
        self._patience_s = patience_s
        self._attributes: dict[str, Any] = {}
        self._last_observation: Any = None
        self._reset_with: tuple[int | None, dict[str, Any]] = (None, {})
        self._seed: int | None = None
        self._is_behind = False
        self._n_deaths = 0
        self._reason = ""
        self._actor = self._start()

    def _start(self) -> Any:
        return self._actor_class.remote(self._make_env, Home.of_this_process())

    def ask_step(self, action: Any) -> None:
        """Send an action, where nothing is under way; whoever is late, or made again, has no use for it."""
        if self.asked is Asked.NOTHING:
            self._ask(Asked.STEP, self._actor.step.remote(pickle.dumps(action, pickle.HIGHEST_PROTOCOL)))

    def ask_reset(self, seed: int | None, options: dict[str, Any]) -> None:
        """Begin an episode, whatever is under way: an actor does one thing after the other."""
        self._seed = self._seed if seed is None else seed
        self._reset_with, self.reply, self._is_behind = (seed, options), None, False
        self._ask(Asked.RESET, self._actor.reset.remote(seed, options))

    def _ask(self, what: Asked, pending: Any) -> None:
        self.asked, self.pending, self.asked_at = what, pending, time.monotonic()

    def collect(self) -> None:
        """Fetch what has arrived; an actor that has died is made again, and the answer is still to come.

        :raises EnvLostError: if it dies again and again
        :raises Exception: whatever the environment has raised
        """
        try:
            self.accept(self._fetch(self.pending))
        except self._dead as death:
            self.make_again(_first_line(death))
        except Exception:
            self.asked, self.pending = Asked.NOTHING, None
            raise

    def accept(self, answer: tuple[Any, bytes]) -> None:
        """Take the answer of the actor, see :class:`EnvActor`."""
        observation, packed = answer
        asked, self.asked, self.pending = self.asked, Asked.NOTHING, None
        if asked is Asked.STEP:
            reward, done, info, reset_info = cloudpickle.loads(packed)
            self._n_deaths = 0
            if self._is_behind:  # the learner has chosen another action since
                info |= {INVALID: True, LATE: True}
            self.reset_info = self.reset_info if reset_info is None else reset_info
            self.reply = Reply(observation, reward, done, info)
        else:
            self.reset_info = cloudpickle.loads(packed)
            is_rebirth = asked is Asked.REBIRTH
            self.reply = Reply(observation, 0.0, is_rebirth, self._obituary() if is_rebirth else {})
        self._is_behind = False
        self._last_observation = observation

    def _obituary(self) -> dict[str, Any]:
        """:return: info of the step in which the environment died"""
        return {
            INVALID: True,
            FAILURE: self._reason,
            "TimeLimit.truncated": True,
            "terminal_observation": _copy(self._last_observation),
        }

    def take(self) -> Reply:
        """:return: the answer; where it has not arrived, a step that was not made"""
        reply, self.reply = self.reply, None
        if reply is not None:
            return reply
        self._is_behind = self.asked is Asked.STEP
        self.n_late += 1
        info = {INVALID: True, LATE: True, "TimeLimit.truncated": False}
        return Reply(self._last_observation, 0.0, False, info)

    def make_again(self, reason: str) -> None:
        """Put another actor in the place of one that has died, or does not answer.

        :param reason: why
        :raises EnvLostError: if that does not help
        """
        self._n_deaths += 1
        if self._n_deaths > MAX_DEATHS_IN_A_ROW:
            raise EnvLostError(
                f"environment {self.index} died {self._n_deaths} times in a row, the last time: {reason}"
            )
        _LOG.warning("environment %d is made again: %s", self.index, reason)
        if self._n_deaths > 1:
            time.sleep(_PAUSE_S * 2.0**self._n_deaths)
        self.kill()
        self.n_rebuilds += 1
        self._reason = reason
        self._actor = self._start()
        for name, value in self._attributes.items():
            self._actor.call.remote("set_attr", pack((name, value)))
        if self.asked is Asked.RESET:
            self._ask(Asked.RESET, self._actor.reset.remote(*self._reset_with))
        elif self._last_observation is not None:
            self._ask(Asked.REBIRTH, self._actor.reset.remote(self._seed_of_rebirth(), {}))

    def wait_on(self, reason: str) -> None:
        """Be patient once more: the others go on without it."""
        _LOG.warning("environment %d is still missing: %s", self.index, reason)
        self.asked_at = time.monotonic()

    def _seed_of_rebirth(self) -> int | None:
        """:return: not the first seed, with which the first episodes would come again"""
        if self._seed is None:
            return None
        return int(np.random.SeedSequence([self._seed, self.n_rebuilds]).generate_state(1)[0])

    @property
    def has_died(self) -> bool:
        """Whether it has made no step since it was made again."""
        return self._n_deaths > 0

    def begin_call(self, request: str, *arguments: Any) -> Any:
        """:return: what :meth:`end_call` fetches"""
        if request == "set_attr":
            self._attributes[arguments[0]] = arguments[1]
        return self._actor.call.remote(request, pack(arguments))

    def end_call(self, pending: Any, request: str, *arguments: Any) -> Any:
        """:return: what the environment answers; one that has died is made again and asked again"""
        while True:
            try:
                return cloudpickle.loads(self._fetch(pending))
            except self._dead as death:
                self.make_again(_first_line(death))
                pending = self.begin_call(request, *arguments)

    def where(self) -> tuple[str, int]:
        """:return: Ray's name for the machine, and the number of the process there"""
        node, pid = self._fetch(self._actor.where.remote())
        return str(node), int(pid)

    def _fetch(self, pending: Any) -> Any:
        try:
            answer = self._ray.get(pending, timeout=self._patience_s)
        except self._ray.exceptions.GetTimeoutError as error:
            raise EnvLostError(f"environment {self.index}: no answer in patience_s={self._patience_s:g} s") from error
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, Exception) else error) from error
        self.has_answered = True
        return answer

    def begin_close(self) -> Any:
        """:return: what to wait for before :meth:`kill`"""
        return self._actor.close.remote()

    def kill(self) -> None:
        """End the actor's process, and what it has started.

        The handle goes now: one that outlives its Ray would, when it goes, end the actor of the same number in the
        next one.
        """
        actor, self._actor, self.pending = self._actor, None, None
        self._ray.kill(actor, no_restart=True)


def end(slots: list[EnvSlot]) -> None:
    """Close the environments, and end their actors whether or not they could be."""
    closing = [slot.begin_close() for slot in slots if slot.has_answered]
    if closing:
        need_ray().wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
    for slot in slots:
        slot.kill()


def _first_line(error: Exception) -> str:
    """:return: what Ray says, without the page of advice below it"""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no more is known'}"


def _copy(observation: Any) -> Any:
    """:return: an observation that can be written to"""
    if isinstance(observation, Mapping):
        return {key: np.array(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(np.array(value) for value in observation)
    return np.array(observation)
