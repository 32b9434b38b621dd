"""Run one environment in an actor, a process that Ray starts on the simulator's machine.

The code of this file runs in the actor's process, except :class:`SearchPaths` and :func:`pack`, which both sides use.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import cloudpickle
import gymnasium as gym

from sb3_visual_td3.vec_env.connection import Address, ConnectionLostError, Listener


class SearchPaths(NamedTuple):
    """Hold the learner's working folder and ``sys.path``.

    With these paths, an actor on the same machine can import the learner's modules.
    """

    folder: str
    paths: Sequence[str]

    @classmethod
    def of_this_process(cls) -> SearchPaths:
        """Return the working folder and the import paths (``sys.path``) of the calling process."""
        # "" in sys.path means the working folder of the process that reads it, so it is replaced by the full path.
        return cls(os.getcwd(), tuple(path or os.getcwd() for path in sys.path))

    def apply(self) -> None:
        """Change the working folder to the learner's if this machine has it; put the learner's import paths first."""
        with suppress(OSError):
            os.chdir(self.folder)
        sys.path[:] = [*self.paths, *(path for path in sys.path if path not in self.paths)]


class Outcome(NamedTuple):
    """Hold the result of a step except for its observation, which is sent separately."""

    reward: float
    done: bool
    info: dict[str, Any]
    reset_info: dict[str, Any] | None
    """The info of the reset after the step; None if the episode continues."""


class EnvActor:
    """Hold one environment, step it, and reset it when its episode ends.

    The learner requests steps over a network connection (:meth:`serve`) or by Ray calls (:meth:`step`). An observation
    that the learner receives from a Ray call consists of read-only arrays.

    :param make_env: a pickled function that makes the environment
    :param paths: the learner's working folder and import paths
    """

    def __init__(self, make_env: bytes, paths: SearchPaths) -> None:
        self._make_env = make_env
        self._paths = paths
        self._env: gym.Env[Any, Any] | None = None
        self._listener: Listener | None = None

    @property
    def env(self) -> gym.Env[Any, Any]:
        """Return the environment, which is made when it is first used."""
        # The environment is not made in __init__, because Ray reports an exception there as the death of the actor. If
        # a call raises an exception, Ray reports this exception.
        if self._env is None:
            self._paths.apply()
            env = cloudpickle.loads(self._make_env)()
            if not isinstance(env, gym.Env):
                # This is an environment of the old gym. The import is here because Stable-Baselines3 imports torch,
                # which takes more than a second of processor time and 200 MB in each actor.
                from stable_baselines3.common.vec_env.patch_gym import _patch_env

                env = _patch_env(env)
            self._env = env
        return self._env

    def where(self) -> tuple[str, int]:
        """Return Ray's id of the machine and the id of this process."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def reset(self, seed: int | None, options: dict[str, Any]) -> tuple[Any, bytes]:
        """Begin an episode.

        :param seed: seed of the episode; None continues the environment's own random numbers
        :param options: ``options`` of gymnasium's ``reset``; empty for none
        :return: the first observation, and the pickled info
        """
        # Some environments do not accept ``options``; SubprocVecEnv leaves it out in the same way.
        keywords: dict[str, Any] = {"options": options} if options else {}
        observation, info = self.env.reset(seed=seed, **keywords)
        return observation, pack(info)

    def step(self, action: bytes) -> tuple[Any, bytes]:
        """Step the environment; the learner calls this method through Ray.

        :param action: the pickled action, which Ray passes faster than an array
        :return: the observation, and the pickled :class:`Outcome`
        """
        observation, outcome = self._step(pickle.loads(action))
        return observation, pack(outcome)

    def listen(self) -> Address:
        """Start listening for the learner's connection.

        :return: address at which :meth:`serve` accepts the connection
        :raises OSError: if this machine does not have the IP address that Ray reports for it
        """
        import ray

        self.close_listener()
        self._listener = Listener(ray.util.get_node_ip_address())
        return self._listener.address

    def close_listener(self) -> None:
        """Stop listening for a connection."""
        if self._listener is not None:
            self._listener.close()

    def serve(self) -> None:
        """Step the environment with each action that the learner sends over the connection, and send the result back.

        The call ends when the learner sends None or disconnects, or with an exception of the environment.
        """
        assert self._listener is not None, "call listen first"
        with suppress(ConnectionLostError):
            connection = self._listener.accept()
            try:
                while (action := connection.receive()) is not None:
                    connection.send(self._step(action))
            finally:
                connection.close()

    def _step(self, action: Any) -> tuple[Any, Outcome]:
        """Step the environment, and reset it if the episode ends, as SB3's vectorised environments do."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done, reset_info = terminated or truncated, None
        info["TimeLimit.truncated"] = truncated and not terminated
        if done:
            # SB3 finds the last observation of the episode here, because the next episode's first one takes its place.
            info["terminal_observation"] = observation
            observation, reset_info = self.env.reset()
        return observation, Outcome(cast(float, reward), done, info, reset_info)

    def call(self, request: str, packed: bytes) -> bytes:
        """Execute a request that is not a step, and return its pickled result.

        :param request: a name of :data:`REQUESTS`
        :param packed: pickled arguments of the request
        """
        env = self.env
        return pack(REQUESTS[request](env, *cloudpickle.loads(packed)))

    def close(self) -> None:
        """Close the environment if it has been made."""
        self.close_listener()
        env, self._env = self._env, None
        if env is not None:
            env.close()


Env = gym.Env[Any, Any]


# The functions below execute the requests in REQUESTS as SubprocVecEnv's worker process does.


def _spaces(env: Env) -> tuple[Any, Any]:
    return env.observation_space, env.action_space


def _has_attr(env: Env, name: str) -> bool:
    try:
        env.get_wrapper_attr(name)
    except AttributeError:
        return False
    return True


def _env_method(env: Env, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return env.get_wrapper_attr(name)(*arguments, **keywords)


def _is_wrapped(env: Env, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]]) -> bool:
    from stable_baselines3.common.env_util import is_wrapped

    return is_wrapped(env, wrapper_class)


REQUESTS: Mapping[str, Callable[..., Any]] = {
    "spaces": _spaces,
    "render": lambda env: env.render(),
    "env_method": _env_method,
    "get_attr": lambda env, name: env.get_wrapper_attr(name),
    "has_attr": _has_attr,
    "set_attr": setattr,
    "is_wrapped": _is_wrapped,
}
"""Functions that the learner can request between two steps, by the name of the request."""


def pack(value: Any) -> bytes:
    """Pickle a value for another process.

    Functions and classes that are local or defined in ``__main__`` are pickled by value.
    """
    return bytes(cloudpickle.dumps(value))
