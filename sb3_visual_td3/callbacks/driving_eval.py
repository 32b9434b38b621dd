"""Drives the policy on roads it has not trained on, beside two drivers that know nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv
from tqdm.auto import tqdm

from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.common import tags

Driver = Callable[[Any], np.ndarray]
"""Maps a batch of observations to a batch of actions ``(n_envs, action_dim)``."""


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
    """What one evaluation episode has added up to."""

    def __init__(self) -> None:
        self.reward = 0.0
        self.speeds: list[float] = []
        self.last_info: dict[str, Any] = {}

    def add(self, reward: float, info: dict[str, Any]) -> None:
        self.reward += reward
        self.speeds.append(info["speed_mps"])
        self.last_info = info

    def row(self) -> tuple[float, ...]:
        info = self.last_info
        return (
            self.reward,
            len(self.speeds),
            info["distance_m"],
            float(np.mean(self.speeds)),
            info["collisions"],
            info["lane_invasions"],
            float(info["is_success"]),
        )


def drive(driver: Driver, env: VecEnv, seed: int, description: str = "evaluation", quiet: bool = True) -> Drive:
    """Drive one episode in each of the environments.

    :param driver: what acts
    :param env: driving environments; each starts from a place of its own that the seed fixes
    :param seed: of the environments
    :param description: for the progress bar
    :param quiet: whether to leave out the progress bar, which only a terminal sees
    :return: the means
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
    return Drive(*np.mean([tally.row() for tally in tallies], axis=0).tolist())


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


class DrivingEvalCallback(BaseCallback):
    """Evaluates the policy every ``eval_freq`` steps and at the end, on environments of its own.

    "It survived" is no success, so metres and speed are logged, and beside them the metres of a random and of a
    full-brake driver from the same places. The model that drove farthest is kept as ``best_model.zip``.

    :param eval_env: id of a driving environment, whose ``info`` tells distance, speed, collisions and invasions
    :param eval_env_kwargs: for the environment; by default LiteDriving-v0's held-out maps
    :param eval_freq: how many environment steps lie between two evaluations
    :param n_eval_episodes: episodes of each evaluation, always from the same places
    :param seed: of the places
    :param best_model_save_path: where ``best_model.zip`` goes; None keeps none
    :param verbose: 0 keeps the console quiet
    :raises ValueError: if a number is below 1
    """

    def __init__(
        self,
        eval_env: str = "LiteDriving-v0",
        eval_env_kwargs: Mapping[str, Any] | None = None,
        eval_freq: int = 2_500,
        n_eval_episodes: int = 5,
        seed: int = 1_000,
        best_model_save_path: str | Path | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(verbose)
        if eval_freq < 1 or n_eval_episodes < 1:
            raise ValueError(f"eval_freq={eval_freq}, n_eval_episodes={n_eval_episodes}: expected numbers >= 1")
        self.eval_env = eval_env
        self.eval_env_kwargs = {"maps": "held_out"} if eval_env_kwargs is None else dict(eval_env_kwargs)
        self.eval_freq = eval_freq
        self.n_eval_episodes = n_eval_episodes
        self.seed = seed
        self.best_model_save_path = best_model_save_path
        self.best_distance_m = -np.inf
        self._last_evaluated = 0

    def _on_training_start(self) -> None:
        self._writer = EventWriter(self.logger)
        self._last_evaluated = self.num_timesteps
        self._env = make_vec_env(self.eval_env, self.n_eval_episodes, self.seed, env_kwargs=self.eval_env_kwargs)
        self._baselines = {
            tags.EVAL_RANDOM_DISTANCE: self._drive(random_driver(self._env, self.seed), "random driver").distance_m,
            tags.EVAL_BRAKE_DISTANCE: self._drive(full_brake_driver(self._env), "full-brake driver").distance_m,
        }

    def _drive(self, driver: Driver, description: str) -> Drive:
        return drive(driver, self._env, self.seed, description, quiet=not self.verbose)

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last_evaluated >= self.eval_freq:
            self.evaluate()
        return True

    def _on_training_end(self) -> None:
        if self._last_evaluated != self.num_timesteps:
            self.evaluate()
        self._env.close()

    def get_state(self) -> dict[str, Any]:
        """:return: how far the best policy drove, and the drivers that know nothing"""
        return {
            "best_distance_m": float(self.best_distance_m),
            "last_evaluated": self._last_evaluated,
            "baselines": dict(self._baselines),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the record of an earlier run; to be called when training has started.

        :param state: of ``get_state``
        """
        self.best_distance_m = state["best_distance_m"]
        self._last_evaluated = state["last_evaluated"]
        self._baselines = dict(state["baselines"])

    def evaluate(self) -> Drive:
        """Evaluate the policy as it is now, log it, and keep it if it is the best so far."""
        self._last_evaluated = self.num_timesteps
        result = self._drive(lambda observations: self.model.predict(observations, deterministic=True)[0], "policy")
        scalars = {
            tags.EVAL_REWARD: result.reward,
            tags.EVAL_LENGTH: result.length,
            tags.EVAL_DISTANCE: result.distance_m,
            tags.EVAL_SPEED: result.speed_mps,
            tags.EVAL_COLLISIONS: result.collisions,
            tags.EVAL_LANE_INVASIONS: result.lane_invasions,
            tags.EVAL_SUCCESS_RATE: result.success_rate,
        }
        self._writer.write({**scalars, **self._baselines}, self.num_timesteps)
        if self.verbose:
            print(
                f"evaluation at step {self.num_timesteps}: {result.distance_m:.0f} m in {result.length:.0f} steps "
                f"at {result.speed_mps:.1f} m/s (random {self._baselines[tags.EVAL_RANDOM_DISTANCE]:.0f} m, "
                f"full brake {self._baselines[tags.EVAL_BRAKE_DISTANCE]:.0f} m)"
            )
        if self.best_model_save_path is not None and result.distance_m > self.best_distance_m:
            self.model.save(Path(self.best_model_save_path) / "best_model")
        self.best_distance_m = max(self.best_distance_m, result.distance_m)
        return result
