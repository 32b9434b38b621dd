"""One trial of a hyperparameter search: trains with what it draws, and is pruned where its run turns NO-GO."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from rl_zoo3.callbacks import TrialEvalCallback
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS, get_callback_list
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.alerts import NON_FINITE, Alert
from sb3_visual_td3.callbacks.driving_eval import DrivingEvalCallback
from sb3_visual_td3.callbacks.driving_metrics import DrivingMetricsCallback
from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
from sb3_visual_td3.callbacks.gradient_norm import GradientNormCallback
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
from sb3_visual_td3.diagnosis.live import Finding, judge
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.sampling import with_sampled

VERDICT = "verdict"
DIAGNOSIS = "diagnosis"
MEANING = "diagnosis_meaning"


def no_go(findings: tuple[Finding, ...]) -> Finding | None:
    """Say whether what was found is reason enough to give a trial up.

    What the rules are not sure of, or have no data for, is none: a healthy trial is not to be lost for it.

    :param findings: of the live rules, the cause to remedy first in front
    :return: the finding to tell; None where training may go on
    """
    return findings[0] if any(finding.level == "critical" for finding in findings) else None


class TrialHealthCallback(ExplosionAlertCallback):
    """Watches the updates of a trial; nothing is written or printed but what is not finite is remembered."""

    def __init__(self) -> None:
        super().__init__(verbose=0)
        self.not_finite: str | None = None

    def _tell(self, alerts: Sequence[Alert], is_fatal: bool = False) -> None:
        super()._tell(alerts, is_fatal)
        words = [alert.meaning for alert in alerts if alert.rule == NON_FINITE]
        self.not_finite = self.not_finite or next(iter(words), None)

    def verdict(self) -> tuple[str, str] | None:
        """:return: the first diagnosis of a run that is NO-GO, and what it means; None where nothing is sure"""
        if self.not_finite is not None:
            return "non_finite", self.not_finite
        found = no_go(judge(self.window.data))
        return None if found is None else (found.rule, found.meaning)


class HealthEvalCallback(TrialEvalCallback):  # type: ignore[misc]  # rl-zoo has no types
    """rl-zoo's evaluation of a trial, with a look at its health after each.

    :param eval_env: to evaluate on
    :param trial: learns the results, and the first diagnosis where the run is NO-GO
    :param health: has watched the updates; it stands in front in the list of callbacks
    :param n_eval_episodes: episodes of each evaluation
    :param eval_freq: calls of the callback between two evaluations
    :param deterministic: whether actions are
    :param path: where rl-zoo keeps evaluations and the best model; None keeps none
    """

    def __init__(
        self,
        eval_env: VecEnv,
        trial: optuna.Trial,
        health: TrialHealthCallback,
        n_eval_episodes: int,
        eval_freq: int,
        deterministic: bool,
        path: str | None,
    ) -> None:
        super().__init__(
            eval_env,
            trial,
            n_eval_episodes=n_eval_episodes,
            eval_freq=eval_freq,
            deterministic=deterministic,
            best_model_save_path=path,
            log_path=path,
        )
        self._health = health

    def _on_step(self) -> bool:
        n_evaluations = self.eval_idx
        goes_on = bool(super()._on_step())
        return goes_on and (self.eval_idx == n_evaluations or self._health.verdict() is None)


def prune_if_no_go(trial: optuna.Trial, health: TrialHealthCallback) -> None:
    """End a trial whose run is NO-GO, and say why.

    :param trial: keeps verdict and first diagnosis as user attributes
    :param health: has watched its updates
    :raises optuna.TrialPruned: if the run is NO-GO
    """
    verdict = health.verdict()
    if verdict is None:
        return
    rule, meaning = verdict
    for key, value in ((VERDICT, Verdict.NO_GO.value), (DIAGNOSIS, rule), (MEANING, meaning)):
        trial.set_user_attr(key, value)
    raise optuna.TrialPruned(f"{Verdict.NO_GO.value}: {rule}: {meaning}")


WRITERS = (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    RunRecorderCallback,
    SnapshotCallback,
)
"""Callbacks that write about a run; a trial has no RUN_DIR and no event files, and is evaluated and watched anyway."""


def callbacks_of_a_trial(specified: Any) -> list[Any]:
    """Leave out the callbacks that only write about a run.

    :param specified: ``callback`` of a hyperparameter file
    :return: the others, in the file's form
    """
    entries = specified if isinstance(specified, list) else [specified] if specified else []
    return [entry for entry in entries if not isinstance(get_callback_list({"callback": entry})[0], WRITERS)]


def facts_of(manager: ExperimentManager) -> dict[str, Any]:
    """Find out what may be drawn, by building the model of the hyperparameter file.

    :param manager: rl-zoo's, set up
    :return: ``additional_args`` of the sampler
    :raises ValueError: if the model cannot be built: no trial could be
    """
    env = manager.create_envs(manager.n_envs, no_log=True)
    try:
        model = build(manager, env, manager._hyperparams)
    finally:
        env.close()
    assert isinstance(model, VisualTD3)
    chosen = manager._hyperparams.keys() & {"replay_buffer_class", "optimize_memory_usage"}
    return {"has_encoder": model.encoder_is_shared is not None, "has_n_steps": not chosen}


def build(manager: ExperimentManager, env: VecEnv, hyperparams: Mapping[str, Any]) -> BaseAlgorithm:
    """:return: the model, unseeded as rl-zoo's trials are; without event files"""
    verbose = manager.verbose if manager.verbose >= 2 else 0
    model: BaseAlgorithm = ALGOS[manager.algo](
        env=env, tensorboard_log=None, seed=None, verbose=verbose, device=manager.device, **hyperparams
    )
    return model


def run_trial(manager: ExperimentManager, trial: optuna.Trial, facts: Mapping[str, Any]) -> float:
    """Train with hyperparameters that the trial draws.

    :param manager: rl-zoo's, set up; it is not changed
    :param trial: draws, learns the evaluations, and keeps verdict and diagnosis where the run is NO-GO
    :param facts: of :func:`facts_of`
    :return: mean reward of the last evaluation
    :raises optuna.TrialPruned: if the run is NO-GO, or Optuna's pruner ends it
    """
    hyperparams = with_sampled(
        manager._hyperparams, HYPERPARAMS_SAMPLER[manager.algo](trial, manager.n_actions, manager.n_envs, facts)
    )
    manager = copy.copy(manager)
    # rewards are normalised with the discount that is drawn, as they will be when the best is trained
    manager.normalize_kwargs = {**manager.normalize_kwargs, "gamma": hyperparams["gamma"]}
    envs = [manager.create_envs(manager.n_envs, no_log=True)]
    try:
        model = build(manager, envs[0], hyperparams)
        envs.append(manager.create_envs(manager.n_eval_envs, eval_env=True))
        return _train(manager, model, envs[1], trial)
    finally:
        for env in envs:
            env.close()


def _train(manager: ExperimentManager, model: BaseAlgorithm, eval_env: VecEnv, trial: optuna.Trial) -> float:
    health = TrialHealthCallback()
    folder = manager.optimization_log_path
    evaluation = HealthEvalCallback(
        eval_env,
        trial,
        health,
        n_eval_episodes=manager.n_eval_episodes,
        eval_freq=max(manager.n_timesteps // manager.n_evaluations // manager.n_envs, 1),
        deterministic=manager.deterministic_eval,
        path=None if folder is None else os.path.join(folder, f"trial_{trial.number}"),
    )
    callbacks = [*get_callback_list({"callback": manager.specified_callbacks}), health, evaluation]
    model.learn(manager.n_timesteps, callback=callbacks)
    prune_if_no_go(trial, health)
    if evaluation.is_pruned:
        raise optuna.TrialPruned(f"behind the other trials at evaluation {evaluation.eval_idx}")
    return float(evaluation.last_mean_reward)
