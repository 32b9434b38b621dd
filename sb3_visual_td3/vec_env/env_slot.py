"""Represent one environment of a RayVecEnv in the learner's process: its Ray actor, connection and pending request.

If the Ray actor dies, the slot starts another one and answers the pending step with an invalid transition.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from sb3_visual_td3.common.types import INVALID_TRANSITION, SIMULATOR_FAILURE
from sb3_visual_td3.vec_env.connection import ActorConnection, ConnectionLostError
from sb3_visual_td3.vec_env.env_actor import EnvActor, Outcome, SearchPaths, pack
from sb3_visual_td3.vec_env.ray_session import need_ray

CHECK_INTERVAL_S = 1.0
"""How often to ask Ray whether the machine of a silent environment is still alive, in seconds."""
MAX_DEATHS_IN_A_ROW = 5
"""If an environment dies more than this many times without a step in between, the slot raises EnvLostError."""
LATE = "is_late"
"""Key of ``info``: True in a step whose answer misses the deadline, and in the later step that returns this answer."""
_CONNECTION_BROKE = "the connection to it broke"
_CLOSE_TIMEOUT_S = 10.0
_DEATH_NOTICE_TIMEOUT_S = 60.0
"""How long Ray may take to report the death of an actor whose connection broke, in seconds."""
_LISTEN_TIMEOUT_S = 10.0
"""How long an actor may take to start listening for a connection, in seconds."""
_RESTART_PAUSE_S = 0.2
"""The slot waits for ``0.2 * 2**n`` seconds before the n-th restart since the environment's last step, for n >= 2."""
_LOG = logging.getLogger("sb3_visual_td3")


def ray_timeout(seconds: float) -> float | None:
    """Return a timeout as Ray expects it, where None stands for an infinite wait.

    :param seconds: longest wait, may be infinite
    """
    return None if seconds == math.inf else seconds


class EnvLostError(RuntimeError):
    """Report that an environment died and could not be restarted."""


class Pending(Enum):
    """Name the kind of request that an environment has not answered yet."""

    NOTHING = auto()
    STEP = auto()
    RESET = auto()
    """A reset that the learner requested."""
    RESTART = auto()
    """A reset that the slot requested, because the environment died during an episode."""


class Reply(NamedTuple):
    """Hold the result of a step for the learner."""

    observation: Any
    reward: float
    done: bool
    info: dict[str, Any]


def lost_step(first_observation: Any, last_observation: Any, reason: str) -> Reply:
    """Return the result of a step in which the environment died. It truncates the episode.

    :param first_observation: first observation of the next episode
    :param last_observation: last observation before the failure
    :param reason: reason of the failure, in one line
    :return: an invalid step with reward 0
    """
    info = {
        INVALID_TRANSITION: True,
        SIMULATOR_FAILURE: reason,
        "TimeLimit.truncated": True,  # the value of the last state is not 0: SB3 bootstraps it
        "terminal_observation": _copy(last_observation),
    }
    return Reply(first_observation, reward=0.0, done=True, info=info)


def late_step(last_observation: Any) -> Reply:
    """Return the result of a step that the environment did not finish before the deadline.

    :param last_observation: last observation that the environment sent
    :return: an invalid step with reward 0; the episode continues
    """
    return Reply(
        last_observation,
        reward=0.0,
        done=False,
        info={INVALID_TRANSITION: True, LATE: True, "TimeLimit.truncated": False},
    )


def _copy(observation: Any) -> Any:
    """Return a copy of an observation in writeable arrays."""
    if isinstance(observation, Mapping):
        return {key: np.array(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(np.array(value) for value in observation)
    return np.array(observation)


@dataclass(frozen=True)
class ActorOptions:
    """Hold the resources of each environment's actor, as arguments of Ray's ``options``."""

    num_cpus: float
    num_gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    spread: bool = False
    runtime_env: Mapping[str, Any] | None = None

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments with which Ray creates the actor, for Ray's ``options``."""
        known: dict[str, Any] = {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            # Ray would restart a dead actor silently, and the learner would take two episodes for one.
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD" if self.spread else "DEFAULT",
        }
        if self.resources:
            known["resources"] = dict(self.resources)
        if self.runtime_env is not None:
            known["runtime_env"] = dict(self.runtime_env)
        return known


class EnvSlot:
    """Manage one environment: its actor, the connection to it, the pending request and the last reply.

    The actor cannot answer Ray calls, such as a reset, while it serves a connection. So the connection is closed before
    each Ray call.

    :param index: index of the environment in the vector
    :param make_env: a pickled function that makes the environment
    :param options: the resources of its actor
    :param patience_s: longest wait for an answer, in seconds
    """

    def __init__(self, index: int, make_env: bytes, options: ActorOptions, patience_s: float) -> None:
        self._ray = need_ray()
        # Ray reports a lost actor with these errors. All other errors come from the environment.
        errors = self._ray.exceptions
        self._dead: tuple[type[Exception], ...] = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )
        self.index = index
        self.pending = Pending.NOTHING
        self.answer_ref: Any = None
        """Ray's reference to the pending answer. During a step over the connection, this is ``connection.service``."""
        self.connection: ActorConnection | None = None
        self._is_unreachable = False
        self._silence = f"no answer in patience_s={patience_s:g} s"
        self.give_up_reason = self._silence
        self._gives_up_at = 0.0
        self.reply: Reply | None = None
        self.reset_info: dict[str, Any] = {}
        self.n_rebuilds = 0
        self.n_late = 0
        self.has_answered = False
        self._actor_class = self._ray.remote(EnvActor).options(**options.keywords())
        self._make_env = make_env
        self._patience_s = patience_s
        # A new actor needs these to replace a dead one: the attributes set so far, and the last reset.
        self._attributes: dict[str, Any] = {}
        self._last_observation: Any = None
        self._reset_with: tuple[int | None, dict[str, Any]] = (None, {})
        self._seed: int | None = None
        self._is_behind = False  # True while the environment makes a step that the learner no longer waits for
        self._n_deaths = 0  # since the last step that was made
        self._death_reason = ""
        self._actor = self._start()

    def _start(self) -> Any:
        """Ask Ray for a new actor; it starts in the background."""
        return self._actor_class.remote(self._make_env, SearchPaths.of_this_process())

    @property
    def is_free(self) -> bool:
        """Return whether a step can be requested: no request is pending, and the last reply has been taken."""
        return self.pending is Pending.NOTHING and self.reply is None

    @property
    def needs_connection(self) -> bool:
        """Return whether to open a connection before the next step.

        If the machine of the Ray actor could not be reached, the slot does not try again until the actor is restarted.
        """
        return self.is_free and self.connection is None and not self._is_unreachable

    def begin_connection(self) -> Any:
        """Make the actor listen for a connection.

        :return: Ray's reference to the address, for :meth:`open_connection`
        """
        return self._actor.listen.remote()

    def open_connection(self, address_ref: Any) -> None:
        """Open a connection for the steps. If the actor has died, the next step detects it.

        :param address_ref: the Ray reference that :meth:`begin_connection` returned
        :raises OSError: if the actor's machine cannot be reached or cannot listen
        """
        self._is_unreachable = True  # remains True if an OSError is raised below
        try:
            self.connection = ActorConnection(self._actor, self._ray.get(address_ref, timeout=_LISTEN_TIMEOUT_S))
        except self._ray.exceptions.RayTaskError as error:
            raise OSError(str(getattr(error, "cause", error))) from error
        except self._ray.exceptions.RayError:
            pass  # the actor is dead or hangs: the step uses Ray's call, which reports that
        self._is_unreachable = False

    def _leave_connection(self) -> None:
        """Make the actor answer Ray calls again; the answer to a pending step is still read from the connection."""
        if self.connection is not None:
            self.connection.leave()
            if self.pending is not Pending.STEP:
                self._drop_connection()

    def _drop_connection(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def ask_step(self, action: Any) -> None:
        """Send an action, unless an earlier answer is still missing or the environment is being restarted."""
        if not self.is_free:
            return  # the action is dropped: the environment still makes an earlier step
        if self.connection is None:
            self._ask(Pending.STEP, self._actor.step.remote(pickle.dumps(action, pickle.HIGHEST_PROTOCOL)))
            return
        self._ask(Pending.STEP, self.connection.service)
        try:
            self.connection.send(action)
        except ConnectionLostError:
            self._lose_connection()

    def _lose_connection(self) -> None:
        """Drop a broken connection; Ray will report whether the actor died or the environment raised an error."""
        self._drop_connection()
        # Ray reports a dead process at once, a dead machine only after missing heartbeats.
        death_notice_by = time.monotonic() + _DEATH_NOTICE_TIMEOUT_S
        if death_notice_by < self._gives_up_at:
            self._gives_up_at, self.give_up_reason = death_notice_by, _CONNECTION_BROKE

    def ask_reset(self, seed: int | None, options: dict[str, Any]) -> None:
        """Begin an episode; the answer to a pending step is dropped."""
        if seed is not None:
            self._seed = seed
        self._reset_with = (seed, options)
        self.reply = None
        self._is_behind = False
        self._drop_connection()  # a reset is a Ray call, which the actor answers only when it serves no connection
        self._ask(Pending.RESET, self._actor.reset.remote(seed, options))

    def _ask(self, what: Pending, answer_ref: Any) -> None:
        """Mark a request as pending, and restart the timeout for its answer."""
        self.pending = what
        self.answer_ref = answer_ref
        self.give_up_reason = self._silence
        self._gives_up_at = time.monotonic() + self._patience_s

    @property
    def patience_left_s(self) -> float:
        """Return how long to wait for the pending answer before giving up, in seconds."""
        return max(0.0, self._gives_up_at - time.monotonic())

    def collect(self) -> None:
        """Fetch the answer to the pending request, or the error that Ray reports instead of an answer.

        If the Ray actor has died, it is replaced and its environment is reset; the slot then waits for that reset. If
        the connection is broken, the request stays pending until Ray reports the cause.

        :raises EnvLostError: if the actor dies repeatedly
        :raises Exception: the exception that the environment has raised
        """
        if self.connection is not None and self.connection.poll():
            self._collect_from_connection(self.connection)
            return
        try:
            answer = self._fetch(self.answer_ref)
        except self._dead as death:
            self.restart(_first_line(death))
        except Exception:  # raised by the environment: the request is over, and the actor serves no connection
            self.pending, self.answer_ref = Pending.NOTHING, None
            self._drop_connection()
            raise
        else:
            self.accept(answer)

    def _collect_from_connection(self, connection: ActorConnection) -> None:
        """Read the answer to a step from the connection; if the connection is broken, the step stays pending."""
        try:
            observation, outcome = connection.receive()
        except ConnectionLostError:
            self._lose_connection()
            return
        except Exception:  # the learner cannot unpickle the answer
            self.pending, self.answer_ref = Pending.NOTHING, None
            raise
        except BaseException:  # Ctrl-C, possibly within a message, whose rest would be read as the next message
            self._drop_connection()
            raise
        self.has_answered = True
        self._accept_step(observation, outcome)
        if connection.is_left:
            self._drop_connection()

    def accept(self, answer: tuple[Any, bytes] | None) -> None:
        """Process the answer to a Ray call.

        :param answer: result of the call; None if the call was ``EnvActor.serve``, which returns when the connection
            ends
        """
        if answer is None:
            self.restart(_CONNECTION_BROKE)
            return
        observation, packed = answer
        if self.pending is Pending.STEP:
            self._accept_step(observation, cloudpickle.loads(packed))
            return
        self.reset_info = cloudpickle.loads(packed)
        if self.pending is Pending.RESTART:
            # This reply ends the interrupted episode. Its observation is the first one of the next episode.
            self._answered(lost_step(observation, self._last_observation, self._death_reason))
        else:
            self._answered(Reply(observation, reward=0.0, done=False, info={}))

    def _accept_step(self, observation: Any, outcome: Outcome) -> None:
        """Process the result of a step."""
        reward, done, info, reset_info = outcome
        self._n_deaths = 0
        if self._is_behind:
            # The learner has chosen another action meanwhile, and would store this result with the wrong action.
            info |= {INVALID_TRANSITION: True, LATE: True}
        if reset_info is not None:
            self.reset_info = reset_info
        self._answered(Reply(observation, reward, done, info))

    def _answered(self, reply: Reply) -> None:
        """Store the reply to the pending request."""
        self.reply = reply
        self._last_observation = reply.observation
        self.pending = Pending.NOTHING
        self.answer_ref = None
        self._is_behind = False

    def take(self) -> Reply:
        """Return the reply to the learner's request, and clear the stored reply.

        If the environment has not answered the step yet, the reply is an invalid step with the last observation.
        """
        reply, self.reply = self.reply, None
        if reply is not None:
            return reply
        # During a restart no step is pending: the next reply ends the interrupted episode, whatever the action is.
        self._is_behind = self.pending is Pending.STEP
        self.n_late += 1
        return late_step(self._last_observation)

    def restart(self, reason: str) -> None:
        """Replace the actor by a new one, because it has died or does not answer.

        :param reason: why the actor is replaced, in one line
        :raises EnvLostError: if the actor has died too often in a row
        """
        self._n_deaths += 1
        if self._n_deaths > MAX_DEATHS_IN_A_ROW:
            raise EnvLostError(
                f"environment {self.index} died {self._n_deaths} times in a row, the last time: {reason}; check its "
                "machine and memory"
            )
        _LOG.warning("restarting environment %d: %s", self.index, reason)
        if self._n_deaths > 1:
            time.sleep(_RESTART_PAUSE_S * 2.0**self._n_deaths)  # a machine that is short of memory needs time
        self.kill()
        self.n_rebuilds += 1
        self._death_reason = reason
        self._actor = self._start()
        self._is_unreachable = False  # Ray may have chosen another machine
        # An actor handles calls in order: first the attributes, then the reset.
        for name, value in self._attributes.items():
            self._actor.call.remote("set_attr", pack((name, value)))
        if self.pending is Pending.RESET:
            self._ask(Pending.RESET, self._actor.reset.remote(*self._reset_with))
        elif self._last_observation is not None:
            self._ask(Pending.RESTART, self._actor.reset.remote(self._restart_seed(), {}))

    def extend_patience(self, reason: str) -> None:
        """Allow a silent environment ``patience_s`` more seconds for its answer, and log a warning.

        :param reason: why the environment counts as silent, for the warning
        """
        _LOG.warning("environment %d still does not answer: %s", self.index, reason)
        self._gives_up_at = time.monotonic() + self._patience_s

    def _restart_seed(self) -> int | None:
        """Derive a new seed for a restarted environment, which would otherwise repeat its first episodes."""
        if self._seed is None:
            return None
        return int(np.random.SeedSequence([self._seed, self.n_rebuilds]).generate_state(1)[0])

    @property
    def was_just_restarted(self) -> bool:
        """Return whether the environment was restarted, and has not made a step since then."""
        return self._n_deaths > 0

    def begin_call(self, request: str, *arguments: Any) -> Any:
        """Send a request that is not a step.

        :param request: a name of :data:`~sb3_visual_td3.vec_env.env_actor.REQUESTS`
        :param arguments: arguments of the request
        :return: Ray's reference to the answer, for :meth:`end_call`
        """
        if request == "set_attr":
            self._attributes[arguments[0]] = arguments[1]
        self._leave_connection()
        return self._actor.call.remote(request, pack(arguments))

    def end_call(self, answer_ref: Any, request: str, *arguments: Any) -> Any:
        """Wait for the answer to :meth:`begin_call`; if the actor dies, restart it and repeat the request."""
        while True:
            self._drain_connection(answer_ref)
            try:
                return cloudpickle.loads(self._fetch(answer_ref))
            except self._dead as death:
                self.restart(_first_line(death))
                answer_ref = self.begin_call(request, *arguments)

    def where(self) -> tuple[str, int]:
        """Return Ray's id of the actor's machine, and the id of its process there."""
        self._leave_connection()
        answer_ref = self._actor.where.remote()
        self._drain_connection(answer_ref)
        node, pid = self._fetch(answer_ref)
        return str(node), int(pid)

    def _drain_connection(self, answer_ref: Any) -> None:
        """Read the answer to the last step from a connection that is being closed, if this answer is still missing.

        A Ray actor that sends a large answer handles no other request until the learner has read this answer.

        :param answer_ref: Ray's reference to the answer to the next request. The method also returns when this
            reference is ready
        """
        while self.connection is not None and self.connection.is_left and self.patience_left_s:
            if self.connection.poll(min(CHECK_INTERVAL_S, self.patience_left_s)):
                self._collect_from_connection(self.connection)
            elif self._ray.wait([answer_ref], timeout=0)[0]:  # also ready if the actor's machine is lost
                return

    def _fetch(self, answer_ref: Any) -> Any:
        """Return the answer to a Ray call, or raise the environment's exception."""
        try:
            answer = self._ray.get(answer_ref, timeout=ray_timeout(self._patience_s))
        except self._ray.exceptions.GetTimeoutError as error:
            raise EnvLostError(
                f"environment {self.index}: {self._silence}; check its machine, or raise patience_s"
            ) from error
        except self._ray.exceptions.RayTaskError as error:
            # Ray wraps the environment's exception. The learner should see the original, as with SubprocVecEnv.
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, Exception) else error) from error
        self.has_answered = True
        return answer

    def begin_close(self) -> Any:
        """Tell the Ray actor to close its environment, and return immediately.

        :return: Ray's reference to the answer; wait for this reference before :meth:`kill`
        """
        self._drop_connection()
        return self._actor.close.remote()

    def kill(self) -> None:
        """End the actor's process and the processes that it has started."""
        self._drop_connection()
        # The handle is dropped now. If it outlived this Ray session, its destructor would kill the actor that has the
        # same id in the next session of this process.
        actor, self._actor, self.answer_ref = self._actor, None, None
        self._ray.kill(actor, no_restart=True)


def close_slots(slots: list[EnvSlot]) -> None:
    """Close the environments, then kill all Ray actors, even if an environment could not be closed."""
    closing = [slot.begin_close() for slot in slots if slot.has_answered]
    if closing:
        need_ray().wait(closing, num_returns=len(closing), timeout=_CLOSE_TIMEOUT_S)
    for slot in slots:
        slot.kill()


def _first_line(error: Exception) -> str:
    """Return the first line of Ray's message, without the page of advice below it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"
