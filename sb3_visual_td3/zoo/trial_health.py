"""Prunes a trial whose run turns NO-GO: by the rules of the report, over the trial's last updates."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from rl_zoo3.callbacks import TrialEvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.alerts import NON_FINITE, Alert
from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
from sb3_visual_td3.diagnosis.live import Finding, judge
from sb3_visual_td3.diagnosis.verdict import Verdict

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
