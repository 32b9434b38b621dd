"""One environment of the vector as the learner sees it: asked, answering, late, or dead and made again."""

from __future__ import annotations

import logging
import pickle
import time
from typing import Any

import cloudpickle
import numpy as np

from sb3_visual_td3.vec_env.actor_line import ActorLine
from sb3_visual_td3.vec_env.actor_options import ActorOptions
from sb3_visual_td3.vec_env.asked import Asked
from sb3_visual_td3.vec_env.env_actor import EnvActor, Home, Outcome, pack
from sb3_visual_td3.vec_env.ray_session import need_ray
from sb3_visual_td3.vec_env.reply import INVALID, LATE, Reply, not_made, obituary
from sb3_visual_td3.vec_env.step_line import LineBrokenError

LOOK_S = 1.0
"""How often to ask Ray whether the machine of a silent environment is still there."""
MAX_DEATHS_IN_A_ROW = 5
_BROKEN = "the connection to it broke"
_CLOSE_S = 10.0
_LAST_WORDS_S = 60.0
_LISTEN_S = 10.0
_PAUSE_S = 0.2
_LOG = logging.getLogger("sb3_visual_td3")


class EnvLostError(RuntimeError):
    """An environment cannot be got back."""


class EnvSlot:
    """One environment: its actor, the line to it, what it was asked for, and its last words.

    Steps go over the line, where there is one (:meth:`open_line`), and all else by Ray's calls, for which the actor has
    to leave the line: it is opened again before the next step.

    :param index: its number in the vector
    :param make_env: a pickled function that makes it
    :param options: what its actor is given
    :param patience_s: how long to wait for what is asked for between two steps
    """

    def __init__(self, index: int, make_env: bytes, options: ActorOptions, patience_s: float) -> None:
        self._ray = need_ray()
        errors = self._ray.exceptions
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
        """Ray's reference to the answer; of a step over the line, to the end of the actor's service there."""
        self.line: ActorLine | None = None
        self._is_out_of_reach = False
        self.why_given_up = self._silence = f"no answer in patience_s={patience_s:g} s"
        self._gives_up_at = 0.0
        self.reply: Reply | None = None
        self.reset_info: dict[str, Any] = {}
        self.n_rebuilds = 0
        self.n_late = 0
        self.has_answered = False
        self._actor_class = self._ray.remote(EnvActor).options(**options.keywords())
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

    @property
    def is_free(self) -> bool:
        """Whether it is to make a step: nothing is under way, and no answer waits to be taken."""
        return self.asked is Asked.NOTHING and self.reply is None

    @property
    def wants_line(self) -> bool:
        """Whether :meth:`begin_line` would be of use."""
        return self.is_free and self.line is None and not self._is_out_of_reach

    def begin_line(self) -> Any:
        """:return: what :meth:`open_line` waits for"""
        return self._actor.listen.remote()

    def open_line(self, pending: Any) -> None:
        """Open a line for the steps; an actor that has died is left to the next step.

        :raises OSError: if its machine is out of reach, or cannot be listened at; then it wants no line any more
        """
        self._is_out_of_reach = True
        try:
            self.line = ActorLine(self._actor, self._ray.get(pending, timeout=_LISTEN_S))
        except self._ray.exceptions.RayTaskError as error:
            raise OSError(str(getattr(error, "cause", error))) from error
        except self._ray.exceptions.RayError:
            pass
        self._is_out_of_reach = False

    def _leave_line(self) -> None:
        """Have the actor come back to Ray's calls; the answer that is still to come is awaited."""
        if self.line is not None:
            self.line.leave()
            if self.asked is not Asked.STEP:
                self._drop_line()

    def _drop_line(self) -> None:
        line, self.line = self.line, None
        if line is not None:
            line.close()

    def ask_step(self, action: Any) -> None:
        """Send an action, where nothing is under way; whoever is late, or made again, has no use for it."""
        if not self.is_free:
            return
        if self.line is None:
            self._ask(Asked.STEP, self._actor.step.remote(pickle.dumps(action, pickle.HIGHEST_PROTOCOL)))
            return
        self._ask(Asked.STEP, self.line.service)
        try:
            self.line.send(action)
        except LineBrokenError:
            self._lose_line()

    def _lose_line(self) -> None:
        """The actor has died, or its environment has raised something: which of the two Ray is about to say."""
        self._drop_line()
        last_words_at = time.monotonic() + _LAST_WORDS_S
        if last_words_at < self._gives_up_at:
            self._gives_up_at, self.why_given_up = last_words_at, _BROKEN

    def ask_reset(self, seed: int | None, options: dict[str, Any]) -> None:
        """Begin an episode, whatever is under way: an actor does one thing after the other."""
        self._seed = self._seed if seed is None else seed
        self._reset_with, self.reply, self._is_behind = (seed, options), None, False
        self._drop_line()
        self._ask(Asked.RESET, self._actor.reset.remote(seed, options))

    def _ask(self, what: Asked, pending: Any) -> None:
        self.asked, self.pending, self.why_given_up = what, pending, self._silence
        self._gives_up_at = time.monotonic() + self._patience_s

    @property
    def patience_left_s(self) -> float:
        """How long to wait for what was asked for."""
        return max(0.0, self._gives_up_at - time.monotonic())

    def collect(self) -> None:
        """Fetch what has arrived; an actor that has died is made again, and the answer is still to come.

        :raises EnvLostError: if it dies again and again
        :raises Exception: whatever the environment has raised
        """
        if self.line is not None and self.line.has_news():
            self._collect_from_line(self.line)
            return
        try:
            answer = self._fetch(self.pending)
        except self._dead as death:
            self.make_again(_first_line(death))
        except Exception:
            self.asked, self.pending = Asked.NOTHING, None
            self._drop_line()
            raise
        else:
            self.accept(answer)

    def _collect_from_line(self, line: ActorLine) -> None:
        try:
            observation, outcome = line.receive()
        except LineBrokenError:
            self._lose_line()
            return
        except Exception:  # it cannot be unpickled here
            self.asked, self.pending = Asked.NOTHING, None
            raise
        except BaseException:  # Ctrl-C, perhaps in the midst of a message: what is left of it makes no sense
            self._drop_line()
            raise
        self.has_answered = True
        self._accept_step(observation, outcome)
        if line.is_left:
            self._drop_line()

    def accept(self, answer: tuple[Any, bytes] | None) -> None:
        """Take the answer that came by Ray, see :class:`EnvActor`; None is the end of the service at the line."""
        if answer is None:
            self.make_again(_BROKEN)
            return
        observation, packed = answer
        if self.asked is Asked.STEP:
            self._accept_step(observation, cloudpickle.loads(packed))
            return
        self.reset_info = cloudpickle.loads(packed)
        if self.asked is Asked.REBIRTH:
            self._answered(obituary(observation, self._last_observation, self._reason))
        else:
            self._answered(Reply(observation, 0.0, False, {}))

    def _accept_step(self, observation: Any, outcome: Outcome) -> None:
        reward, done, info, reset_info = outcome
        self._n_deaths = 0
        if self._is_behind:  # the learner has chosen another action since
            info |= {INVALID: True, LATE: True}
        self.reset_info = self.reset_info if reset_info is None else reset_info
        self._answered(Reply(observation, reward, done, info))

    def _answered(self, reply: Reply) -> None:
        self.reply, self._last_observation = reply, reply.observation
        self.asked, self.pending, self._is_behind = Asked.NOTHING, None, False

    def take(self) -> Reply:
        """:return: the answer; where it has not arrived, a step that was not made"""
        reply, self.reply = self.reply, None
        if reply is not None:
            return reply
        self._is_behind = self.asked is Asked.STEP
        self.n_late += 1
        return not_made(self._last_observation)

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
        self._actor, self._is_out_of_reach = self._start(), False
        for name, value in self._attributes.items():
            self._actor.call.remote("set_attr", pack((name, value)))
        if self.asked is Asked.RESET:
            self._ask(Asked.RESET, self._actor.reset.remote(*self._reset_with))
        elif self._last_observation is not None:
            self._ask(Asked.REBIRTH, self._actor.reset.remote(self._seed_of_rebirth(), {}))

    def wait_on(self, reason: str) -> None:
        """Be patient once more: the others go on without it."""
        _LOG.warning("environment %d is still missing: %s", self.index, reason)
        self._gives_up_at = time.monotonic() + self._patience_s

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
        self._leave_line()
        return self._actor.call.remote(request, pack(arguments))

    def end_call(self, pending: Any, request: str, *arguments: Any) -> Any:
        """:return: what the environment answers; one that has died is made again and asked again"""
        while True:
            self._read_on(pending)
            try:
                return cloudpickle.loads(self._fetch(pending))
            except self._dead as death:
                self.make_again(_first_line(death))
                pending = self.begin_call(request, *arguments)

    def where(self) -> tuple[str, int]:
        """:return: Ray's name for the machine, and the number of the process there"""
        self._leave_line()
        pending = self._actor.where.remote()
        self._read_on(pending)
        node, pid = self._fetch(pending)
        return str(node), int(pid)

    def _read_on(self, pending: Any) -> None:
        """Take the step that is under way on a line that has been left: it may be larger than what the system keeps on
        the way, and until the actor has handed it over it does not come to what is pending.
        """
        while self.line is not None and self.line.is_left and self.patience_left_s:
            if self.line.has_news(min(LOOK_S, self.patience_left_s)):
                self._collect_from_line(self.line)
            elif self._ray.wait([pending], timeout=0)[0]:  # its machine is gone
                return

    def _fetch(self, pending: Any) -> Any:
        try:
            answer = self._ray.get(pending, timeout=self._patience_s)
        except self._ray.exceptions.GetTimeoutError as error:
            raise EnvLostError(f"environment {self.index}: {self._silence}") from error
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, Exception) else error) from error
        self.has_answered = True
        return answer

    def begin_close(self) -> Any:
        """:return: what to wait for before :meth:`kill`"""
        self._drop_line()
        return self._actor.close.remote()

    def kill(self) -> None:
        """End the actor's process, and what it has started.

        The handle goes now: one that outlives its Ray would, when it goes, end the actor of the same number in the
        next one.
        """
        self._drop_line()
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
