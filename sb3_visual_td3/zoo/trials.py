"""Run one trial of a hyperparameter search.

:mod:`~sb3_visual_td3.zoo.search` decides which trials run, and :mod:`~sb3_visual_td3.zoo.studies` stores them.
"""

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
from sb3_visual_td3.callbacks.policy_eval import PolicyEvalCallback
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
from sb3_visual_td3.diagnosis.live import Finding, judge
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3

NET_ARCHS: Mapping[str, list[int]] = {"small": [64, 64], "medium": [256, 256], "big": [400, 300]}
"""Choices of ``net_arch`` for policies without an encoder. rl-zoo has the same choices for TD3."""

_MODEL_ARGUMENTS = (
    "tau",
    "actor_lr",
    "critic_lr",
    "critic_cnn_lr",
    "actor_cnn_lr",
    "grad_clip",
    "n_steps",
    "random_shift",
    "actor_objective",
    "pre_tanh_penalty",
    "target_q_clamp",
    "critic_loss",
)
"""Sampled hyperparameters that are arguments of VisualTD3. The others are converted to arguments first."""
_POLICY_ARGUMENTS = ("encoder", "trunk_dim", "layer_norm")
"""Sampled hyperparameters that become entries of ``policy_kwargs`` without a conversion."""
_REPLACED = ("action_noise", "noise_type", "noise_std", "actor_cnn_lr")
"""A trial does not use these entries of the hyperparameter file, because they could conflict with sampled values."""

VERDICT = "verdict"
DIAGNOSIS = "diagnosis"
MEANING = "diagnosis_meaning"


# ---- what is sampled for a trial


def sample_visual_td3_params(
    trial: optuna.Trial,
    n_actions: int,  # noqa: ARG001  rl-zoo's signature
    n_envs: int,  # noqa: ARG001
    additional_args: Mapping[str, Any],
) -> dict[str, Any]:
    """Sample hyperparameters of VisualTD3 for a trial; every combination of values is valid.

    :param trial: the Optuna trial
    :param n_actions: not used
    :param n_envs: not used
    :param additional_args: ``has_encoder``: whether the policy sees images; ``has_n_steps``: whether the buffer
        supports n-step returns; both True by default
    """
    # gamma and the learning rates have rl-zoo's ranges for TD3. gamma is drawn as its distance from 1, so that 0.99 and
    # 0.999 are as far apart as 0.9 and 0.99.
    trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True)
    trial.suggest_float("tau", 1e-3, 0.08, log=True)
    trial.suggest_float("actor_lr", 1e-5, 2e-3, log=True)
    trial.suggest_float("critic_lr", 1e-5, 2e-3, log=True)
    if trial.suggest_categorical("grad_clip", ["norm", "adaptive"]) == "norm":
        trial.suggest_float("max_grad_norm", 0.1, 1000.0, log=True)  # 1000 is above all norms of a healthy run
    else:
        trial.suggest_float("max_grad_ratio", 0.01, 1.0, log=True)  # DreamerV3 has 0.3
    trial.suggest_float("noise_start", 0.1, 0.8)
    trial.suggest_float("noise_end_fraction", 0.05, 1.0)

    trial.suggest_categorical("actor_objective", ["q1", "min", "mean"])
    trial.suggest_float("pre_tanh_penalty", 1e-6, 1e-1, log=True)  # MR.Q has 1e-5, the visual preset 5e-3
    trial.suggest_categorical("target_q_clamp", [True, False])
    trial.suggest_categorical("critic_loss", ["mse", "huber"])
    trial.suggest_categorical("layer_norm", [True, False])

    if additional_args.get("has_n_steps", True):
        trial.suggest_int("n_steps", 1, 5)
    if additional_args.get("has_encoder", True):
        # Batches of 64 to 256: an update with 256 images takes a quarter of a second on a CPU.
        trial.suggest_int("batch_size_pow", 6, 8)
        trial.suggest_float("critic_cnn_lr", 1e-5, 2e-3, log=True)
        if trial.suggest_categorical("encoder", ["shared", "separate"]) == "separate":
            trial.suggest_float("actor_cnn_lr", 1e-5, 2e-3, log=True)
        trial.suggest_categorical("trunk_dim", [None, 50, 100])
        trial.suggest_int("random_shift", 0, 6)
    else:
        trial.suggest_int("batch_size_pow", 5, 9)
        trial.suggest_categorical("net_arch", list(NET_ARCHS))
    return convert_visual_td3_params(trial.params)


def convert_visual_td3_params(sampled_params: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the sampled values of a trial to the hyperparameters with which it trained.

    :param sampled_params: Optuna's ``trial.params``
    :return: arguments of VisualTD3, plain data
    :raises ValueError: if values are missing
    """
    try:
        return _converted(sampled_params)
    except KeyError as error:
        raise ValueError(
            f"the trial has no value for {error.args[0]}, because it ended before its training began: "
            "choose another trial"
        ) from error


def _converted(drawn: Mapping[str, Any]) -> dict[str, Any]:
    noise_start = drawn["noise_start"]
    noise_end = noise_start * drawn["noise_end_fraction"]
    if drawn["grad_clip"] == "norm":
        max_grad_norm = drawn["max_grad_norm"]
    else:
        max_grad_norm = drawn["max_grad_ratio"]  # "adaptive": a ratio to the norm of the weights
    hyperparams = {
        "gamma": 1 - drawn["one_minus_gamma"],
        "batch_size": 2 ** drawn["batch_size_pow"],
        "max_grad_norm": max_grad_norm,
        "noise_schedule": f"lin_{noise_start!r}_{noise_end!r}",
    }
    hyperparams |= {name: drawn[name] for name in _MODEL_ARGUMENTS if name in drawn}
    policy_kwargs = {name: drawn[name] for name in _POLICY_ARGUMENTS if name in drawn}
    if "net_arch" in drawn:
        policy_kwargs["net_arch"] = list(NET_ARCHS[drawn["net_arch"]])
    return {**hyperparams, "policy_kwargs": policy_kwargs}


def with_sampled(hyperparams: Mapping[str, Any], sampled: Mapping[str, Any]) -> dict[str, Any]:
    """Replace hyperparameters of a file by the sampled hyperparameters of a trial.

    :param hyperparams: the hyperparameters of the file
    :param sampled: result of :func:`convert_visual_td3_params`
    :return: all hyperparameters; ``policy_kwargs`` merge key by key
    :raises ValueError: if the file's ``policy_kwargs`` are Python code
    """
    given = hyperparams.get("policy_kwargs") or {}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"policy_kwargs is Python code, {given!r}, so the policy_kwargs of a trial cannot be merged into it: write "
            "a YAML mapping"
        )
    policy_kwargs = {**given, **sampled["policy_kwargs"]}
    if "encoder" in sampled["policy_kwargs"]:
        # Stable-Baselines3's share_features_extractor and our shared encoder exclude each other.
        policy_kwargs.pop("share_features_extractor", None)
    merged = {name: value for name, value in hyperparams.items() if name not in _REPLACED}
    merged |= sampled
    if "actor_keys" in given or "critic_keys" in given:
        # The networks read different observations, so they cannot share an encoder. A network without images has no
        # encoder, so the sampled critic_cnn_lr becomes the learning rate of all groups that have no rate of their own.
        policy_kwargs["encoder"] = "separate"
        merged.pop("actor_cnn_lr", None)
        if "critic_cnn_lr" in merged:
            merged["learning_rate"] = merged.pop("critic_cnn_lr")
    if policy_kwargs.get("vectors_skip_trunk") and policy_kwargs.get("trunk_dim", 0) is None:
        policy_kwargs["vectors_skip_trunk"] = False  # there is no trunk to skip
    return {**merged, "policy_kwargs": policy_kwargs}


# ---- how a trial trains, and when it is pruned


def no_go(findings: tuple[Finding, ...]) -> Finding | None:
    """Return the finding that ends a trial early; None if training may continue.

    :param findings: findings about the training; the first finding is the one to fix first
    :return: None if no finding is critical; otherwise the first finding, even if only a later finding is critical
    """
    if any(finding.level == "critical" for finding in findings):
        return findings[0]
    return None


class TrialHealthCallback(ExplosionAlertCallback):
    """Watch the updates of a trial silently, and remember the first non-finite value."""

    def __init__(self) -> None:
        super().__init__(verbose=0)
        self.not_finite: str | None = None

    def _report(self, alerts: Sequence[Alert], *, is_fatal: bool = False) -> None:
        super()._report(alerts, is_fatal=is_fatal)
        words = [alert.meaning for alert in alerts if alert.rule == NON_FINITE]
        self.not_finite = self.not_finite or next(iter(words), None)

    def verdict(self) -> tuple[str, str] | None:
        """Return the diagnosis for which the trial is pruned.

        :return: id and meaning; None if no diagnosis is certain enough
        """
        if self.not_finite is not None:
            return "non_finite", self.not_finite
        found = no_go(judge(self.window.data))
        if found is None:
            return None
        return found.rule, found.meaning


class HealthEvalCallback(TrialEvalCallback):  # type: ignore[misc]  # rl-zoo has no types
    """Evaluate a trial as rl-zoo does, and check the health of its run after each evaluation.

    :param eval_env: the environment to evaluate on
    :param trial: the trial that receives the results
    :param health: the callback that watches the updates; it must run before this callback
    :param n_eval_episodes: number of episodes of each evaluation
    :param eval_freq: calls of the callback between two evaluations
    :param deterministic: whether the policy acts deterministically
    :param path: folder for the evaluations and the best model; None if they are not saved
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
    """End a trial whose run is NO-GO.

    :param trial: the trial, which stores verdict, first diagnosis and its meaning as user attributes
    :param health: the callback that watched its updates
    :raises optuna.TrialPruned: if the run is NO-GO
    """
    verdict = health.verdict()
    if verdict is None:
        return
    rule, meaning = verdict
    trial.set_user_attr(VERDICT, Verdict.NO_GO.value)
    trial.set_user_attr(DIAGNOSIS, rule)
    trial.set_user_attr(MEANING, meaning)
    raise optuna.TrialPruned(f"{Verdict.NO_GO.value}: {rule}: {meaning}")


WRITERS = (
    DrivingEvalCallback,
    DrivingMetricsCallback,
    ExplosionAlertCallback,
    GradientNormCallback,
    PolicyEvalCallback,
    RunRecorderCallback,
    SnapshotCallback,
)
"""Callbacks that a trial leaves out, because it has no RUN_DIR, and has evaluation and health callbacks of its own."""


def callbacks_of_a_trial(specified: Any) -> list[Any]:
    """Return the callbacks of a hyperparameter file, except :data:`WRITERS`.

    :param specified: ``callback`` of a hyperparameter file
    """
    if isinstance(specified, list):
        entries = specified
    else:
        entries = [specified] if specified else []
    return [entry for entry in entries if not isinstance(get_callback_list({"callback": entry})[0], WRITERS)]


def sampler_facts(manager: ExperimentManager) -> dict[str, Any]:
    """Return what :func:`sample_visual_td3_params` must know about the model in the hyperparameter file.

    :param manager: rl-zoo's experiment manager, after its ``setup_experiment()``
    :return: ``additional_args`` of :func:`sample_visual_td3_params`
    :raises ValueError: if the model cannot be created
    """
    env = manager.create_envs(manager.n_envs, no_log=True)
    try:
        model = _build_model(manager, env, manager._hyperparams)
    finally:
        env.close()
    assert isinstance(model, VisualTD3)
    # The buffer that VisualTD3 chooses by default supports n-step returns. If the hyperparameter file sets one of these
    # keys, the buffer may not support them, so n_steps is not sampled.
    chosen = manager._hyperparams.keys() & {"replay_buffer_class", "optimize_memory_usage"}
    return {"has_encoder": model.encoder_is_shared is not None, "has_n_steps": not chosen}


def _build_model(manager: ExperimentManager, env: VecEnv, hyperparams: Mapping[str, Any]) -> BaseAlgorithm:
    """Create a model without event files, and without a seed, as rl-zoo does for trials."""
    verbose = manager.verbose if manager.verbose >= 2 else 0
    model: BaseAlgorithm = ALGOS[manager.algo](
        env=env, tensorboard_log=None, seed=None, verbose=verbose, device=manager.device, **hyperparams
    )
    return model


def run_trial(manager: ExperimentManager, trial: optuna.Trial, facts: Mapping[str, Any]) -> float:
    """Sample hyperparameters, train with them, and return the mean reward of the last evaluation.

    :param manager: rl-zoo's experiment manager, after its ``setup_experiment()``; it is not changed
    :param trial: the Optuna trial, which receives the evaluations
    :param facts: the result of :func:`sampler_facts`
    :raises optuna.TrialPruned: if the run is NO-GO, or Optuna's pruner ends it
    """
    sampled = HYPERPARAMS_SAMPLER[manager.algo](trial, manager.n_actions, manager.n_envs, facts)
    hyperparams = with_sampled(manager._hyperparams, sampled)
    manager = copy.copy(manager)
    # Rewards are normalised with the drawn discount, as in a later training with the values of the best trial.
    manager.normalize_kwargs = {**manager.normalize_kwargs, "gamma": hyperparams["gamma"]}
    envs = [manager.create_envs(manager.n_envs, no_log=True)]
    try:
        model = _build_model(manager, envs[0], hyperparams)
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
