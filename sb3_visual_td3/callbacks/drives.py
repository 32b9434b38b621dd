"""Play evaluation episodes and return their results, for policies and for baselines that do not learn.

A :class:`Drive` is the result of an episode in a driving environment. An :class:`Episode` is the result of an episode
in any environment.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from sb3_visual_td3.callbacks.driving_score import INFRACTIONS, Infraction, driving_score, infractions_of_step
from sb3_visual_td3.common.types import INVALID_TRANSITION

Policy = Callable[[Any, np.ndarray], np.ndarray]
"""Maps a batch of observations to a batch of actions, one for each environment. The second argument has a bool for each
environment: True if its episode begins with this observation."""

_REQUIRED_INFO = ("speed_mps", "distance_m", "collisions", "lane_invasions", "is_success")
"""Keys that the ``info`` of a driving environment must have. ``route_completion`` is optional."""


class Episode(NamedTuple):
    """Hold the result of one episode in any environment."""

    reward: float
    """Return of the episode."""
    length: float
    success_rate: float = np.nan
    """1 if the episode ended in success, 0 if it did not; NaN if ``info`` has no ``is_success``."""


class Drive(NamedTuple):
    """Hold the result of one episode of driving, or the mean over several episodes."""

    reward: float
    length: float
    distance_m: float
    speed_mps: float
    collisions: float
    lane_invasions: float
    success_rate: float
    route_completion: float = np.nan
    """Fraction of the route, 0 to 1; NaN if the environment has no route."""
    route_length_m: float = np.nan
    """Length of the route in metres. If the episode has no goal, this field and all following fields are NaN."""
    driving_score: float = np.nan
    """Score of CARLA's leaderboard 2.1, 0 to 100."""
    collision_vehicle: float = np.nan
    """Number of collisions with vehicles. This and the following fields count infractions (``INFRACTIONS``)."""
    collision_walker: float = np.nan
    collision_layout: float = np.nan
    red_light: float = np.nan
    off_route: float = np.nan
    lane_invasion: float = np.nan
    blocked: float = np.nan
    timeout: float = np.nan
    """Number of timeouts, 0 or 1 in one episode."""


MANY_STEPS = 10_000
"""After this number of steps in one evaluation episode, a warning says how to limit the length of episodes."""
MANY_STEPS_WITHOUT_LIMIT = 2_000
"""The same in an environment without a known time limit. The doctor also rolls out this number of steps."""
MAX_STEPS = 100_000
"""An evaluation episode is cut off after this number of steps, and counts with the return and length so far."""

Result = TypeVar("Result", Episode, Drive)


class _Tally(ABC, Generic[Result]):
    """Sum up what happens in the evaluation episode that an environment is playing."""

    def __init__(self, many_steps: int = MANY_STEPS) -> None:
        self._many_steps = many_steps
        self.clear()

    def clear(self) -> None:
        """Clear all sums for a new episode."""
        self.reward = 0.0
        self.length = 0

    def step(self, reward: float, is_done: bool, info: dict[str, Any]) -> Result | None:
        """Add one step of the environment, and return the result of the episode if this step ends it."""
        # The simulator failed to make this step, so the environment ends the episode, and the episode does not count.
        if info.get(INVALID_TRANSITION):
            self.clear()
            return None
        self.reward += reward
        self.length += 1
        self.add(info, is_done)
        if self.length == self._many_steps:
            warnings.warn(
                f"an evaluation episode has not ended after {self._many_steps:,} steps. If episodes of this "
                "environment may never end, give max_episode_steps to gymnasium.make() or register(). An evaluation "
                f"cuts episodes off after {MAX_STEPS:,} steps",
                stacklevel=2,
            )
        if not is_done and self.length < MAX_STEPS:
            return None
        # Monitor records the environment's own rewards, which an outer wrapper may have changed.
        episode = info.get("episode", {"r": self.reward, "l": self.length})
        result = self.result(float(episode["r"]), float(episode["l"]), info)
        self.clear()
        return result

    def add(self, info: dict[str, Any], is_done: bool) -> None:
        """Add what happened in one step, such as collisions, from the ``info`` of the step."""

    @abstractmethod
    def result(self, reward: float, length: float, last_info: dict[str, Any]) -> Result:
        """Return the result of the episode that has just ended.

        :param reward: return of the episode
        :param length: number of steps
        :param last_info: ``info`` of the last step
        """


class _EpisodeTally(_Tally[Episode]):
    def result(self, reward: float, length: float, last_info: dict[str, Any]) -> Episode:
        is_success = last_info.get("is_success")
        return Episode(reward, length, np.nan if is_success is None else float(is_success))


class _DriveTally(_Tally[Drive]):
    def clear(self) -> None:
        super().clear()
        self.speeds: list[float] = []
        self.infractions: list[Infraction] = []

    def add(self, info: dict[str, Any], is_done: bool) -> None:
        missing = [key for key in _REQUIRED_INFO if key not in info]
        if missing:
            raise ValueError(
                f"the evaluation environment's info has no {', '.join(missing)}: expected a driving environment, such "
                "as LiteDriving-v0. For other environments, use PolicyEvalCallback or Stable-Baselines3's EvalCallback"
            )
        self.speeds.append(info["speed_mps"])
        self.infractions += infractions_of_step(info, is_done)

    def result(self, reward: float, length: float, last_info: dict[str, Any]) -> Drive:
        drive = Drive(
            reward,
            length,
            float(last_info["distance_m"]),
            float(np.mean(self.speeds)),
            float(last_info["collisions"]),
            float(last_info["lane_invasions"]),
            float(last_info["is_success"]),
            float(last_info.get("route_completion", np.nan)),
        )
        if "route_length_m" not in last_info:
            return drive
        counts = {name: float(self.infractions.count(name)) for name in INFRACTIONS}
        return drive._replace(
            route_length_m=float(last_info["route_length_m"]),
            driving_score=driving_score(drive.route_completion, self.infractions),
            **counts,
        )


_MAX_REPEATS = 3
"""Maximum number of repetitions of an episode with the same seed if the simulator fails. The value is a guess."""


def _play(
    policy: Policy,
    env: VecEnv,
    seed: int,
    tallies: Sequence[_Tally[Result]],
    n_wanted: np.ndarray,
    on_episode: Callable[[], object],
    render: bool,
    options: Sequence[dict[str, Any]] | None = None,
) -> list[list[Result]]:
    """Play episodes until each environment has finished ``n_wanted`` of them.

    :param seed: seed of the first environment; the others get the seeds that follow
    :param tallies: one for each environment
    :param n_wanted: number of episodes of each environment
    :param on_episode: called after each episode
    :param options: for each environment, the ``options`` of its first ``reset()``
    :return: the results of each environment
    """
    results: list[list[Result]] = [[] for _ in range(env.num_envs)]
    n_failures = [0] * env.num_envs
    is_next = n_wanted > 0
    while is_next.any():
        # A VecEnv's automatic reset has no seed and no options. So an environment in which the simulator failed in the
        # first episode waits for the next round, which begins with an explicit reset.
        is_playing, is_next = is_next, np.zeros_like(is_next)
        if options is not None:
            env.set_options(list(options))
        env.seed(seed)
        observations = env.reset()
        dones = np.ones(env.num_envs, dtype=bool)
        while is_playing.any():
            observations, rewards, dones, infos = env.step(policy(observations, dones))
            for index in np.flatnonzero(is_playing):
                result = tallies[int(index)].step(float(rewards[index]), bool(dones[index]), infos[index])
                if result is not None:
                    results[index].append(result)
                    is_playing[index] = len(results[index]) < n_wanted[index]
                    on_episode()
                elif infos[index].get(INVALID_TRANSITION) and not results[index]:
                    n_failures[index] += 1
                    # The simulator may fail each time with this seed. Another episode then replaces this one.
                    if n_failures[index] <= _MAX_REPEATS:
                        is_playing[index], is_next[index] = False, True
            if render:
                env.render()
    return results


def drive_episodes(
    policy: Policy,
    env: VecEnv,
    seed: int,
    n_episodes: int | None = None,
    description: str = "evaluation",
    quiet: bool = True,
    render: bool = False,
    options: Sequence[dict[str, Any]] | None = None,
) -> list[Drive]:
    """Drive a number of episodes, spread over the environments as evenly as possible.

    An episode in which the simulator fails does not count. If it was the first episode of its environment, it is driven
    again with the same seed and options, up to three times. Otherwise, another episode replaces it.

    :param policy: function that chooses the actions
    :param env: driving environments
    :param seed: seed of the starting places
    :param n_episodes: number of episodes, >= 1; None drives one in each environment
    :param description: label of the progress bar
    :param quiet: whether to hide the progress bar
    :param render: whether to render each step
    :param options: for each environment, the ``options`` of its first ``reset()``, such as ``{"route": 3}``
    :return: results of the episodes, environment by environment
    :raises ValueError: if ``info`` lacks a key of a driving environment
    """
    if n_episodes is None:
        n_episodes = env.num_envs
    # Each environment drives a fixed number of episodes. The first n episodes to finish would mostly be short ones,
    # which end in a crash.
    n_wanted = np.array([(n_episodes + index) // env.num_envs for index in range(env.num_envs)])
    tallies = [_DriveTally() for _ in range(env.num_envs)]
    with tqdm(total=n_episodes, desc=description, unit="episode", leave=False, disable=quiet or None) as bar:
        drives = _play(policy, env, seed, tallies, n_wanted, bar.update, render, options)
    return [drive for done in drives for drive in done]


def play_episodes(
    policy: Policy,
    env: VecEnv,
    seed: int,
    n_episodes: int,
    description: str = "evaluation",
    quiet: bool = True,
    render: bool = False,
) -> list[Episode]:
    """Play a number of episodes in any environment, each with its own seed.

    Episode i begins with ``seed + i``. The number of environments and their earlier use do not change this. An
    episode in which the simulator fails (``info["invalid_transition"]``) does not count. It is repeated with the same
    seed, up to three times. If the simulator fails again, an episode with another start replaces it.

    :param policy: function that chooses the actions
    :param env: the environments
    :param seed: seed of the first episode
    :param n_episodes: number of episodes, >= 1
    :param description: label of the progress bar
    :param quiet: whether to hide the progress bar
    :param render: whether to render each step
    :return: results of the episodes, in the order of their seeds
    """
    episodes: list[Episode] = []
    # Most environments end an episode after fewer steps, and the user should not wait long for the warning.
    many_steps = MANY_STEPS if _time_limit_of(env) is not None else min(MANY_STEPS, MANY_STEPS_WITHOUT_LIMIT)
    with tqdm(total=n_episodes, desc=description, unit="episode", leave=False, disable=quiet or None) as bar:
        # When an episode ends, a VecEnv resets the environment without a seed. So each batch of episodes, one in each
        # environment, begins with an explicit reset.
        for n_done in range(0, n_episodes, env.num_envs):
            n_wanted = (np.arange(env.num_envs) < n_episodes - n_done).astype(int)
            tallies = [_EpisodeTally(many_steps) for _ in range(env.num_envs)]
            batch = _play(policy, env, seed + n_done, tallies, n_wanted, bar.update, render)
            episodes += [episode for done in batch for episode in done]
    return episodes


def _time_limit_of(env: VecEnv) -> int | None:
    """Return the time limit of an episode in steps; None if it is unknown, as in a worker process."""
    spec = spec_of(env)
    return None if spec is None else spec.max_episode_steps


def spec_of(env: VecEnv) -> EnvSpec | None:
    """Return the spec of the first environment; None if it is unknown, as in a worker process.

    :param env: the environments
    """
    envs = getattr(env.unwrapped, "envs", None)  # get_attr("spec") would end the worker if the spec has no pickle
    return envs[0].spec if envs else None


def mean_of(drives: Sequence[Drive]) -> Drive:
    """Return the mean of each measured number over several episodes."""
    return Drive(*np.mean(drives, axis=0).tolist())


def random_driver(env: VecEnv, seed: int) -> Policy:
    """Return a driver that draws every action uniformly from the action space.

    :param env: environments with a Box action space
    :param seed: seed of the actions
    """
    assert env.action_space.shape is not None
    generator = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    shape = (env.num_envs, *env.action_space.shape)
    return lambda *_: generator.uniform(low, high, shape).astype(np.float32)


def trained_policy(model: BaseAlgorithm, deterministic: bool = True) -> Policy:
    """Return the policy of a model as a function; the policy may be recurrent.

    :param model: the model
    :param deterministic: whether the policy acts without randomness
    """
    states: tuple[np.ndarray, ...] | None = None

    def act(observations: Any, starts: np.ndarray) -> np.ndarray:
        nonlocal states
        actions, states = model.predict(observations, state=states, episode_start=starts, deterministic=deterministic)
        return actions

    return act


def random_policy(env: VecEnv, seed: int) -> Policy:
    """Return a policy that samples every action from the action space, which may be of any type.

    :param env: the environments
    :param seed: seed of the actions
    """
    # The space is copied, because other code may use the random generator of the original.
    space = copy.deepcopy(env.action_space)
    space.seed(seed)
    return lambda *_: np.array([space.sample() for _ in range(env.num_envs)])


def full_brake_driver(env: VecEnv) -> Policy:
    """Return a driver that always steers straight and brakes fully.

    :param env: environments with the actions (steering, throttle or brake) in [-1, 1]
    """
    brake = np.tile(np.array([0.0, -1.0], dtype=np.float32), (env.num_envs, 1))
    return lambda *_: brake
