"""One trial of a search: a short training with the hyperparameters that were drawn."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import optuna
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS, get_callback_list
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.driving_eval import DrivingEvalCallback
from sb3_visual_td3.callbacks.driving_metrics import DrivingMetricsCallback
from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
from sb3_visual_td3.callbacks.gradient_norm import GradientNormCallback
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.sampling import with_sampled
from sb3_visual_td3.zoo.trial_health import HealthEvalCallback, TrialHealthCallback, prune_if_no_go

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
