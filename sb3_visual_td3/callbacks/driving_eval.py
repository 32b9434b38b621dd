"""Drives the policy on roads it has not trained on, beside two drivers that know nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3.callbacks.driving_trips import (
    Drive,
    Driver,
    Trip,
    drive_trips,
    full_brake_driver,
    mean_of,
    random_driver,
)
from sb3_visual_td3.callbacks.event_writer import EventWriter
from sb3_visual_td3.common import tags


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
    :param log_path: where ``evaluations.npz`` goes, as Stable-Baselines3's EvalCallback writes it and rl-zoo's
        ``all_plots`` reads it; None writes none
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
        log_path: str | Path | None = None,
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
        self.log_path = log_path
        self._evaluations: dict[int, list[Trip]] = {}
        self.best_distance_m = -np.inf
        self._last_evaluated = 0

    def _on_training_start(self) -> None:
        self._writer = EventWriter(self.logger)
        self._last_evaluated = self.num_timesteps
        self._env = make_vec_env(self.eval_env, self.n_eval_episodes, self.seed, env_kwargs=self.eval_env_kwargs)
        self._baselines = {
            tag: mean_of(self._drive(driver, description)).distance_m
            for tag, driver, description in (
                (tags.EVAL_RANDOM_DISTANCE, random_driver(self._env, self.seed), "random driver"),
                (tags.EVAL_BRAKE_DISTANCE, full_brake_driver(self._env), "full-brake driver"),
            )
        }

    def _drive(self, driver: Driver, description: str) -> list[Trip]:
        return drive_trips(driver, self._env, self.seed, description, quiet=not self.verbose)

    def _keep(self, trips: list[Trip]) -> None:
        self._evaluations[self.num_timesteps] = trips
        if self.log_path is None:
            return
        columns = (("results", "reward"), ("ep_lengths", "length"), ("successes", "is_success"))
        every = self._evaluations.values()
        arrays = {name: np.array([[getattr(trip, field) for trip in row] for row in every]) for name, field in columns}
        arrays["timesteps"] = np.array(list(self._evaluations))
        with open(Path(self.log_path) / "evaluations.npz", "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own

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
            "evaluations": [
                {"step": step, "trips": [list(trip) for trip in trips]} for step, trips in self._evaluations.items()
            ],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the record of an earlier run; to be called when training has started.

        :param state: of ``get_state``
        """
        self.best_distance_m = state["best_distance_m"]
        self._last_evaluated = state["last_evaluated"]
        self._baselines = dict(state["baselines"])
        rows = state.get("evaluations", [])  # a snapshot of an earlier version has none
        self._evaluations = {row["step"]: [Trip(*trip) for trip in row["trips"]] for row in rows}

    def evaluate(self) -> Drive:
        """Evaluate the policy as it is now, log it, and keep it if it is the best so far."""
        self._last_evaluated = self.num_timesteps
        trips = self._drive(lambda observations: self.model.predict(observations, deterministic=True)[0], "policy")
        self._keep(trips)
        result = mean_of(trips)
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
