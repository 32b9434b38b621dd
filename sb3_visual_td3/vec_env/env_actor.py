"""What runs beside the simulator: one environment, in a process that Ray starts."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import cloudpickle
import gymnasium as gym

from sb3_visual_td3.vec_env.step_line import Address, Door, LineBrokenError


class Home(NamedTuple):
    """Where the learner looks for modules and files: an environment on the same machine finds the same."""

    folder: str
    paths: Sequence[str]

    @classmethod
    def of_this_process(cls) -> Home:
        """:return: the home of whoever calls"""
        return cls(os.getcwd(), tuple(path or os.getcwd() for path in sys.path))

    def move_in(self) -> None:
        """Look there first; on another machine it may not be there."""
        with suppress(OSError):
            os.chdir(self.folder)
        sys.path[:] = [*self.paths, *(path for path in sys.path if path not in self.paths)]


class Outcome(NamedTuple):
    """What a step has brought, beside the observation."""

    reward: float
    done: bool
    info: dict[str, Any]
    reset_info: dict[str, Any] | None
    """None, where it has not ended an episode."""


class EnvActor:
    """One environment, which steps, and resets itself when its episode ends.

    Whoever steps it comes by a line of their own (:meth:`listen`, :meth:`serve`) or, where no line can be had, by
    Ray's calls (:meth:`step`). These return observations as they are: Ray hands arrays on without a copy. All else is
    pickled, for what Ray hands on cannot be written to.

    :param make_env: a pickled function that makes the environment
    :param home: of the learner
    """

    def __init__(self, make_env: bytes, home: Home) -> None:
        self._make_env = make_env
        self._home = home
        self._env: gym.Env[Any, Any] | None = None
        self._door: Door | None = None

    @property
    def env(self) -> gym.Env[Any, Any]:
        """The environment, made when it is first asked for: what goes wrong then is an error, and no death."""
        if self._env is None:
            self._home.move_in()
            make_env = cloudpickle.loads(self._make_env)
            from stable_baselines3.common.vec_env.patch_gym import _patch_env

            self._env = _patch_env(make_env())
        return self._env

    def where(self) -> tuple[str, int]:
        """:return: Ray's name for the machine, and the number of this process"""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def reset(self, seed: int | None, options: dict[str, Any]) -> tuple[Any, bytes]:
        """:return: first observation, and the pickled info"""
        observation, info = self.env.reset(seed=seed, **({"options": options} if options else {}))
        return observation, pack(info)

    def step(self, action: bytes) -> tuple[Any, bytes]:
        """Make a step for one who calls by Ray.

        :param action: pickled: Ray takes three times as long for an array, which could not be written to
        :return: the observation, and the outcome, pickled
        """
        observation, outcome = self._step(pickle.loads(action))
        return observation, pack(outcome)

    def listen(self) -> Address:
        """:return: where :meth:`serve` is going to take a line

        :raises OSError: if this machine does not have the address that Ray has for it
        """
        import ray

        self.close_door()
        self._door = Door(ray.util.get_node_ip_address())
        return self._door.address

    def close_door(self) -> None:
        """Take no line."""
        if self._door is not None:
            self._door.shut()

    def serve(self) -> None:
        """Make steps for the one at the other end of the line, until they say None or are gone."""
        assert self._door is not None, "listen first"
        with suppress(LineBrokenError):
            line = self._door.open()
            try:
                while (action := line.receive()) is not None:
                    line.send(self._step(action))
            finally:
                line.close()

    def _step(self, action: Any) -> tuple[Any, Outcome]:
        """Make a step, and begin a new episode where it ends one."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done, reset_info = terminated or truncated, None
        info["TimeLimit.truncated"] = truncated and not terminated
        if done:
            info["terminal_observation"] = observation
            observation, reset_info = self.env.reset()
        return observation, Outcome(cast(float, reward), done, info, reset_info)

    def call(self, request: str, packed: bytes) -> bytes:
        """Do what is asked for between two steps.

        :param request: a name of :data:`REQUESTS`
        :param packed: its arguments, pickled
        :return: what there is to say, pickled
        """
        env = self.env
        return pack(REQUESTS[request](env, *cloudpickle.loads(packed)))

    def close(self) -> None:
        """Close the environment, where there is one."""
        self.close_door()
        env, self._env = self._env, None
        if env is not None:
            env.close()


Env = gym.Env[Any, Any]


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
"""What can be asked for between two steps, by the name of Stable-Baselines3's VecEnv; the first argument is the
environment."""


def pack(value: Any) -> bytes:
    """:return: the value, pickled by value where it cannot be imported"""
    return bytes(cloudpickle.dumps(value))
