"""What evaluation episodes add up to, and two drivers that know nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

Driver = Callable[[Any], np.ndarray]
"""Maps a batch of observations to a batch of actions ``(n_envs, action_dim)``."""

_TOLD = ("speed_mps", "distance_m", "collisions", "lane_invasions", "is_success")
"""What ``info`` must say of a drive; ``route_completion`` it may say as well."""


class Drive(NamedTuple):
    """One episode, or the mean over several."""

    reward: float
    length: float
    distance_m: float
    speed_mps: float
    collisions: float
    lane_invasions: float
    success_rate: float
    route_completion: float = np.nan
    """0 to 1; nan where the environment has no route."""


class _Tally:
    """What one episode has added up to so far."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.speeds: list[float] = []
        self.last_info: dict[str, Any] = {}

    def add(self, reward: float, info: dict[str, Any]) -> None:
        missing = [key for key in _TOLD if key not in info]
        if missing:
            raise ValueError(
                f"the evaluation environment's info has no {', '.join(missing)}: expected a driving environment, such "
                "as LiteDriving-v0; others are for Stable-Baselines3's EvalCallback"
            )
        self.reward += reward
        self.speeds.append(info["speed_mps"])
        self.last_info = info

    def note(self, reward: float, is_done: bool, info: dict[str, Any]) -> list[Drive]:
        """:return: the episode, where this step ends it; one in which the simulator failed counts for nothing"""
        is_made = not info.get("invalid_transition")
        if is_made:
            self.add(reward, info)
        ended = [self.drive()] if is_made and is_done else []
        if ended or not is_made:
            self.reward, self.speeds, self.last_info = 0.0, [], {}
        return ended

    def drive(self) -> Drive:
        info = self.last_info
        # Monitor knows the environment's own rewards, where a wrapper changes them.
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
    """Drive some episodes, shared out evenly between the environments; one in which a simulator fails does not count.

    :param driver: what acts
    :param env: driving environments; each starts from places of its own that the seed fixes
    :param seed: of the environments
    :param n_episodes: how many, >= 1; by default one in each environment
    :param description: for the progress bar
    :param quiet: whether to leave out the progress bar, which only a terminal sees
    :param render: whether to render each step
    :return: the episodes, environment by environment
    :raises ValueError: if the environments' ``info`` does not tell of a drive
    """
    n_episodes = env.num_envs if n_episodes is None else n_episodes
    n_wanted = _shared_out(n_episodes, env.num_envs)
    env.seed(seed)
    observations = env.reset()
    drives: list[list[Drive]] = [[] for _ in range(env.num_envs)]
    tallies = [_Tally() for _ in range(env.num_envs)]
    with tqdm(total=n_episodes, desc=description, unit="episode", leave=False, disable=quiet or None) as bar:
        while (driving := np.array([len(done) for done in drives]) < n_wanted).any():
            observations, rewards, dones, infos = env.step(driver(observations))
            for index in np.flatnonzero(driving):
                done = tallies[index].note(float(rewards[index]), bool(dones[index]), infos[index])
                drives[index] += done
                bar.update(len(done))
            if render:
                env.render()
    return [drive for done in drives for drive in done]


def _shared_out(n_episodes: int, n_envs: int) -> np.ndarray:
    """:return: how many episodes each environment drives"""
    return np.array([(n_episodes + index) // n_envs for index in range(n_envs)])


def mean_of(drives: Sequence[Drive]) -> Drive:
    """:return: the mean of each number"""
    return Drive(*np.mean(drives, axis=0).tolist())


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
