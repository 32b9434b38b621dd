"""The guard acts on critical alerts: it stops the training, lowers the learning rates or rolls back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3.callbacks.alerts import ACTION, NON_FINITE, Alert
from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
from sb3_visual_td3.common.schedules import Scaled
from sb3_visual_td3.common.types import GuardedModel
from sb3_visual_td3.diagnosis.live import WINDOW
from sb3_visual_td3.runs.snapshot import Snapshot


def lr_scale_of(model: BaseAlgorithm) -> float:
    """:return: the factor in force; 1 if none was set"""
    if isinstance(model, GuardedModel):
        return model.lr_scale
    return model.lr_schedule.factor if isinstance(model.lr_schedule, Scaled) else 1.0


def set_lr_scale(model: BaseAlgorithm, factor: float) -> None:
    """Have every learning rate multiplied from the next training on.

    Of a stock algorithm ``lr_schedule`` is wrapped, and ``learning_rate`` too: ``load()`` makes the one of the other.

    :param model: any of Stable-Baselines3's kind
    :param factor: on the rates as they were given
    """
    if isinstance(model, GuardedModel):
        model.lr_scale = factor
    elif factor != lr_scale_of(model):
        given = model.lr_schedule.schedule if isinstance(model.lr_schedule, Scaled) else model.lr_schedule
        model.lr_schedule = model.learning_rate = Scaled(given, factor)


OnCritical = Literal["warn", "stop", "reduce_lr", "rollback"]


class Guard:
    """Does what was asked for when a critical alert begins.

    - ``"warn"``: nothing.
    - ``"stop"``: training ends.
    - ``"reduce_lr"``: all learning rates are multiplied by ``lr_factor``, for good; schedules go on below that.
    - ``"rollback"``: at the start of the next rollout, networks, target networks, optimizers and the range of rewards
      seen return to the last healthy snapshot, and the learning rates are lowered as well. Steps, updates and the log
      go on. So does the replay buffer: TD3 and its kin learn from transitions of any policy, and those of a broken one
      show where not to go; how much of them comes in is bounded by ``max_actions``.

    After an action ``WINDOW`` updates pass until the next, for one trouble has many faces, and those that are seen
    then are judged by what the action has made of them. A critical alert that lasts longer, or begins later, is acted
    on again; after ``max_actions`` it ends the training.

    Weights that are not finite cannot wait and cannot be trained on: a rollback is made at once, anything else stops.

    :param on_critical: what is to be done
    :param lr_factor: above 0 and below 1
    :param max_actions: how many actions one training may see
    :raises ValueError: if an argument is out of its range
    """

    def __init__(self, on_critical: OnCritical, lr_factor: float, max_actions: int) -> None:
        if on_critical not in get_args(OnCritical):
            known = ", ".join(map(repr, get_args(OnCritical)))
            raise ValueError(f"on_critical={on_critical!r}: expected one of {known}")
        if isinstance(lr_factor, bool) or not isinstance(lr_factor, int | float) or not 0 < lr_factor < 1:
            raise ValueError(f"lr_factor={lr_factor!r}: expected a number above 0 and below 1")
        if isinstance(max_actions, bool) or not isinstance(max_actions, int) or max_actions < 1:
            raise ValueError(f"max_actions={max_actions!r}: expected a number of actions >= 1")
        self.on_critical = on_critical
        self.lr_factor = lr_factor
        self.max_actions = max_actions
        self.n_actions = 0
        self.has_stopped = False
        """Whether training is to end."""
        self._quiet_until = 0
        self._doubted_until = 0
        self._target: tuple[Alert, Snapshot] | None = None
        self._snapshots: SnapshotCallback | None = None

    def prepare(self, callbacks: Iterable[BaseCallback]) -> None:
        """Find what to go back to, before anything is begun.

        :param callbacks: all of the training's
        :raises ValueError: if there is to be a rollback and nobody takes snapshots
        """
        self._snapshots = next((each for each in callbacks if isinstance(each, SnapshotCallback)), None)
        if self.on_critical == "rollback" and self._snapshots is None:
            raise ValueError(
                "ExplosionAlertCallback(on_critical='rollback') has no snapshots to go back to: add "
                "SnapshotCallback(run_dir=...) as the last in the list of callbacks, or use on_critical='reduce_lr'"
            )

    def begin(self, model: BaseAlgorithm, callbacks: Iterable[BaseCallback]) -> None:
        """Begin with a training.

        :param model: the model
        :param callbacks: all of the training's
        :raises ValueError: as :meth:`prepare`
        """
        self.prepare(callbacks)
        self._model = model
        self.n_actions = self._quiet_until = self._doubted_until = 0
        self.has_stopped = False
        self._target = None

    def is_in_doubt(self, n_updates: int) -> bool:
        """:return: whether the training is not known to be healthy, whatever the alerts of the moment say"""
        return self.has_stopped or self._target is not None or n_updates < self._doubted_until

    def doubt_from(self, n_updates: int) -> None:
        """Have snapshots marked as unhealthy that were taken after so many updates: trouble had begun by then."""
        if self._snapshots is not None:
            self._snapshots.mark_unhealthy(n_updates)

    def doubt_for_now(self, n_updates: int) -> None:
        """Take the training for unhealthy until a window has passed: an alert may flicker."""
        self._doubted_until = n_updates + WINDOW

    def last_words(self, n_updates: int) -> str:
        """End the training.

        :param n_updates: made so far
        :return: where the last healthy snapshot is, for the message
        """
        self.has_stopped = True
        if self._snapshots is None:
            return "training stops; no snapshot was taken: add SnapshotCallback to the callbacks for the next time"
        healthy = self._snapshots.newest_healthy(n_updates)
        return f"training stops; {'no snapshot is healthy' if healthy is None else f'last healthy: {healthy.path}'}"

    def act_on(self, cause: Alert, n_updates: int) -> Alert | None:
        """Do what is to be done about a critical alert; a rollback waits for :meth:`carry_out`.

        :param cause: the alert, the one to remedy first if there are several
        :param n_updates: made so far
        :return: what was done, to be told; None where nothing was
        """
        if not self._is_time_for(cause, n_updates):
            return None
        if self.on_critical == "stop":
            self.n_actions += 1
            return self._stop(cause, "")
        if self.n_actions >= self.max_actions:
            return self._stop(cause, f": {self.n_actions} actions have not cured it (max_actions={self.max_actions})")
        if self.on_critical == "reduce_lr":
            return self._count(cause, cause.step, n_updates, "")
        assert self._snapshots is not None
        healthy = self._snapshots.newest_healthy(n_updates)
        if healthy is None:
            return self._stop(cause, ": there is no healthy snapshot to go back to")
        self._target = cause, healthy
        return None

    def _is_time_for(self, cause: Alert, n_updates: int) -> bool:
        if self.on_critical == "warn" or self.has_stopped or self._target is not None:
            return False
        return n_updates >= self._quiet_until or cause.rule == NON_FINITE

    def carry_out(self, step: int, n_updates: int) -> Alert | None:
        """Go back, if that was decided; to be called between two rollouts.

        :param step: environment steps so far
        :param n_updates: updates so far
        :return: what was done, to be told; None where nothing was
        """
        if self._target is None:
            return None
        (cause, healthy), self._target = self._target, None
        assert self._snapshots is not None
        self._snapshots.go_back_to(healthy)
        self._doubted_until = 0
        return self._count(cause, step, n_updates, f"back to the weights of {healthy.path}, ")

    def get_state(self) -> dict[str, Any]:
        """:return: what has been done so far; to be called between two rollouts"""
        return {
            "n_actions": self.n_actions,
            "quiet_until": self._quiet_until,
            "doubted_until": self._doubted_until,
            "lr_scale": lr_scale_of(self._model),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called, with the learning rates of then."""
        self.n_actions = state["n_actions"]
        self._quiet_until = state["quiet_until"]
        self._doubted_until = state["doubted_until"]
        set_lr_scale(self._model, state["lr_scale"])

    def _count(self, cause: Alert, step: int, n_updates: int, done: str) -> Alert:
        self.n_actions += 1
        self._quiet_until = n_updates + WINDOW
        scale = lr_scale_of(self._model) * self.lr_factor
        set_lr_scale(self._model, scale)
        words = (
            f"{done}learning rates times {self.lr_factor:g}: {scale:g} of what was given "
            f"(action {self.n_actions} of {self.max_actions})"
        )
        return Alert(step, cause.rule, ACTION, math.nan, math.nan, words)

    def _stop(self, cause: Alert, why: str) -> Alert:
        self.has_stopped = True
        return Alert(cause.step, cause.rule, ACTION, math.nan, math.nan, f"training stops{why}. {cause.remedy}")
