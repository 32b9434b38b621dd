"""Driving evaluation episodes and their results, with two baseline drivers that learn nothing.

DrivingEvalCallback and ``visual-td3 evaluate`` both use it, so that their figures can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

Driver = Callable[[Any], np.ndarray]
"""Maps a batch of observations to a batch of actions of shape ``(n_envs, action_dim)``."""

_REQUIRED_INFO = ("speed_mps", "distance_m", "collisions", "lane_invasions", "is_success")
"""Keys that the environment's ``info`` must have. ``route_completion`` is optional."""


class Drive(NamedTuple):
    """The result of one episode, or the mean over several episodes."""

    reward: float
    length: float
    distance_m: float
    speed_mps: float
    collisions: float
    lane_invasions: float
    success_rate: float
    route_completion: float = np.nan
    """Fraction of the route, 0 to 1; NaN if the environment has no route."""


class _Tally:
    """Sums of one episode in progress."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.speeds: list[float] = []
        self.last_info: dict[str, Any] = {}

    def _add(self, reward: float, info: dict[str, Any]) -> None:
        missing = [key for key in _REQUIRED_INFO if key not in info]
        if missing:
            raise ValueError(
                f"the evaluation environment's info has no {', '.join(missing)}: expected a driving environment, such "
                "as LiteDriving-v0. For other environments, use Stable-Baselines3's EvalCallback"
            )
        self.reward += reward
        self.speeds.append(info["speed_mps"])
        self.last_info = info

    def step(self, reward: float, is_done: bool, info: dict[str, Any]) -> Drive | None:
        """Add one step of the environment.

        :param reward: reward of the step
        :param is_done: whether the episode has ended
        :param info: ``info`` of the step
        :return: the result of the episode if this step ends it, otherwise None
        """
        # The simulator failed to make this step. The environment begins a new episode, and this one does not count.
        if info.get("invalid_transition"):
            self._clear()
            return None
        self._add(reward, info)
        if not is_done:
            return None
        drive = self._drive()
        self._clear()
        return drive

    def _clear(self) -> None:
        self.reward, self.speeds, self.last_info = 0.0, [], {}

    def _drive(self) -> Drive:
        info = self.last_info
        # Monitor has the environment's own rewards, in case a wrapper changes them.
        episode = info.get("episode", {"r": self.reward, "l": len(self.speeds)})
        return Drive(
            float(episode["r"]),
            float(episode["l"]),
            float(info["distance_m"]),
            float(np.mean(self.speeds)),
            float(info["collisions"]),
            float(info["lane_invasions"]),
            float(info["is_success"]),
            float(info.get("route_completion", np.nan)),
        )


def drive_episodes(
    driver: Driver,
    env: VecEnv,
    seed: int,
    n_episodes: int | None = None,
    description: str = "evaluation",
    quiet: bool = True,
    render: bool = False,
) -> list[Drive]:
    """Drive a number of episodes, distributed evenly over the environments.

    An episode in which the simulator fails does not count and is driven again.

    :param driver: function that chooses the actions
    :param env: driving environments; the seed determines the starting places of each
    :param seed: seed of the environments
    :param n_episodes: number of episodes, >= 1; None drives one in each environment
    :param description: label of the progress bar
    :param quiet: whether to hide the progress bar, which is shown on a terminal only
    :param render: whether to render each step
    :return: results of the episodes, environment by environment
    :raises ValueError: if ``info`` of the environments lacks a key of a driving environment
    """
    if n_episodes is None:
        n_episodes = env.num_envs
    # Fixed shares instead of "the first n episodes to finish": those would be the short ones, which end in a crash.
    n_wanted = np.array([(n_episodes + index) // env.num_envs for index in range(env.num_envs)])
    env.seed(seed)
    observations = env.reset()
    drives: list[list[Drive]] = [[] for _ in range(env.num_envs)]
    tallies = [_Tally() for _ in range(env.num_envs)]
    with tqdm(total=n_episodes, desc=description, unit="episode", leave=False, disable=quiet or None) as bar:
        while (driving := np.array([len(done) for done in drives]) < n_wanted).any():
            observations, rewards, dones, infos = env.step(driver(observations))
            for index in np.flatnonzero(driving):
                drive = tallies[index].step(float(rewards[index]), bool(dones[index]), infos[index])
                if drive is not None:
                    drives[index].append(drive)
                    bar.update()
            if render:
                env.render()
    return [drive for done in drives for drive in done]


def mean_of(drives: Sequence[Drive]) -> Drive:
    """Return the mean of each figure over several episodes."""
    return Drive(*np.mean(drives, axis=0).tolist())


def random_driver(env: VecEnv, seed: int) -> Driver:
    """Return a driver that draws every action uniformly from the action space.

    :param env: environments with a Box action space
    :param seed: seed of the actions
    """
    assert env.action_space.shape is not None
    generator = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    shape = (env.num_envs, *env.action_space.shape)
    return lambda _: generator.uniform(low, high, shape).astype(np.float32)


def full_brake_driver(env: VecEnv) -> Driver:
    """Return a driver that always steers straight and brakes fully.

    :param env: environments with the actions (steering, throttle or brake) in [-1, 1]
    """
    brake = np.tile(np.array([0.0, -1.0], dtype=np.float32), (env.num_envs, 1))
    return lambda _: brake
