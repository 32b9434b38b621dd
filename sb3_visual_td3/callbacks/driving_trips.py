"""Episodes of a policy behind the wheel, counted one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

Driver = Callable[[Any], np.ndarray]
"""Maps a batch of observations to a batch of actions ``(n_envs, action_dim)``."""


class Trip(NamedTuple):
    """One episode."""

    reward: float
    length: int
    distance_m: float
    speed_mps: float
    collisions: int
    lane_invasions: int
    is_success: bool
    route_completion: float


class Drive(NamedTuple):
    """The mean over the episodes of one evaluation."""

    reward: float
    length: float
    distance_m: float
    speed_mps: float
    collisions: float
    lane_invasions: float
    success_rate: float


class _Tally:
    """What an episode has added up to so far."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.speeds: list[float] = []
        self.last_info: dict[str, Any] = {}

    def add(self, reward: float, info: dict[str, Any]) -> None:
        self.reward += reward
        self.speeds.append(info["speed_mps"])
        self.last_info = info

    def trip(self) -> Trip:
        info = self.last_info
        return Trip(
            self.reward,
            len(self.speeds),
            info["distance_m"],
            float(np.mean(self.speeds)),
            info["collisions"],
            info["lane_invasions"],
            bool(info["is_success"]),
            info.get("route_completion", np.nan),
        )


def drive_trips(
    driver: Driver, env: VecEnv, seed: int, description: str = "evaluation", quiet: bool = True
) -> list[Trip]:
    """Drive one episode in each of the environments.

    :param driver: what acts
    :param env: driving environments; each starts from a place of its own that the seed fixes
    :param seed: of the environments
    :param description: for the progress bar
    :param quiet: whether to leave out the progress bar, which only a terminal sees
    :return: the episodes
    """
    env.seed(seed)
    observations = env.reset()
    tallies = [_Tally() for _ in range(env.num_envs)]
    driving = np.ones(env.num_envs, dtype=bool)
    with tqdm(total=env.num_envs, desc=description, unit="episode", leave=False, disable=quiet or None) as bar:
        while driving.any():
            observations, rewards, dones, infos = env.step(driver(observations))
            for index in np.flatnonzero(driving):
                tallies[index].add(float(rewards[index]), infos[index])
            bar.update(int((driving & dones).sum()))
            driving &= ~dones
    return [tally.trip() for tally in tallies]


def mean_of(trips: Sequence[Trip]) -> Drive:
    """:return: the means

    :param trips: at least one
    """
    return Drive(*np.mean([trip[: len(Drive._fields)] for trip in trips], axis=0).tolist())


def drive(driver: Driver, env: VecEnv, seed: int, description: str = "evaluation", quiet: bool = True) -> Drive:
    """:return: the means of what :func:`drive_trips` drives, which documents the parameters"""
    return mean_of(drive_trips(driver, env, seed, description, quiet))


def random_driver(env: VecEnv, seed: int) -> Driver:
    """:return: a driver that draws every action uniformly"""
    assert env.action_space.shape is not None
    generator = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    shape = (env.num_envs, *env.action_space.shape)
    return lambda _: generator.uniform(low, high, shape).astype(np.float32)


def full_brake_driver(env: VecEnv) -> Driver:
    """:return: a driver that steers straight and brakes, always"""
    brake = np.tile(np.array([0.0, -1.0], dtype=np.float32), (env.num_envs, 1))
    return lambda _: brake
