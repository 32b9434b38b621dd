"""Act on critical alerts: stop the training, lower the learning rates, or roll back to a healthy snapshot.

:class:`~sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback` decides which alerts are critical.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3.callbacks.alerts import ACTION, NON_FINITE, Alert
from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
from sb3_visual_td3.common.numbers import to_float, to_integer
from sb3_visual_td3.common.schedules import Scaled
from sb3_visual_td3.common.types import GuardedModel
from sb3_visual_td3.diagnosis.live import WINDOW
from sb3_visual_td3.runs.snapshot import Snapshot


def lr_scale_of(model: BaseAlgorithm) -> float:
    """Return the factor that :func:`set_lr_scale` has applied to a model's learning rates; 1 if it was not called.

    :param model: any Stable-Baselines3 algorithm
    """
    if isinstance(model, GuardedModel):
        return model.lr_scale
    if isinstance(model.lr_schedule, Scaled):
        return model.lr_schedule.factor
    return 1.0


def set_lr_scale(model: BaseAlgorithm, factor: float) -> None:
    """Multiply every learning rate by a factor, from the next call of ``train()`` on.

    For a stock algorithm, ``learning_rate`` and ``lr_schedule`` are replaced, because ``load()`` creates the schedule
    from ``learning_rate``.

    :param model: any Stable-Baselines3 algorithm
    :param factor: factor on the user's learning rates; it replaces the factor of an earlier call
    """
    if isinstance(model, GuardedModel):
        model.lr_scale = factor
    elif factor != lr_scale_of(model):
        given = model.lr_schedule
        if isinstance(given, Scaled):
            given = given.schedule
        model.lr_schedule = model.learning_rate = Scaled(given, factor)


OnCritical = Literal["warn", "stop", "reduce_lr", "rollback"]


class Guard:
    """Act when a critical alert begins: stop the training, lower the learning rates, or roll back.

    - ``"warn"``: the guard does nothing.
    - ``"stop"``: the guard ends the training.
    - ``"reduce_lr"``: the guard multiplies all learning rates by ``lr_factor``, permanently.
    - ``"rollback"``: at the start of the next rollout, the guard goes back to the last healthy snapshot, and lowers the
      learning rates as well. It restores networks, target networks and optimizers, and for VisualTD3 also the scale of
      the rewards and the range of the targets. Steps, updates, the log and the replay buffer continue.

    What the guard does is called a guard action. After a guard action, the guard waits for 200 updates (``WINDOW``),
    because one problem triggers several alerts. After ``max_actions`` guard actions, the next critical alert ends the
    training.

    A non-finite value is a special case. If a rollback makes all values finite again, ``"rollback"`` acts without this
    wait. Otherwise the training ends, whatever the setting.

    :param on_critical: one of the four names above
    :param lr_factor: factor on the learning rates, above 0 and below 1
    :param max_actions: maximum number of guard actions in one training run, >= 1
    :raises ValueError: if an argument is out of range
    """

    def __init__(self, on_critical: OnCritical, lr_factor: float, max_actions: int) -> None:
        if on_critical not in get_args(OnCritical):
            known = ", ".join(map(repr, get_args(OnCritical)))
            raise ValueError(f"on_critical={on_critical!r}: expected one of {known}")
        self.on_critical = on_critical
        expected = "a number above 0 and below 1"
        self.lr_factor = to_float("lr_factor", lr_factor, above=0.0, below=1.0, expected=expected)
        self.max_actions = to_integer("max_actions", max_actions, 1)
        self.n_actions = 0
        self.has_stopped = False
        """Whether the training has to end at the next step."""
        # The number of updates before which the guard acts only on non-finite values.
        self._quiet_until = 0
        # The number of updates before which no snapshot is healthy.
        self._doubted_until = 0
        self._target: tuple[Alert, Snapshot] | None = None
        self._snapshots: SnapshotCallback | None = None

    def prepare(self, callbacks: Iterable[BaseCallback]) -> None:
        """Find the SnapshotCallback, whose snapshots a rollback restores; call this before training starts.

        :param callbacks: all callbacks of the training
        :raises ValueError: if ``on_critical`` is ``"rollback"``, and ``callbacks`` contains no SnapshotCallback
        """
        self._snapshots = next((each for each in callbacks if isinstance(each, SnapshotCallback)), None)
        if self.on_critical == "rollback" and self._snapshots is None:
            raise ValueError(
                "ExplosionAlertCallback(on_critical='rollback') has no snapshots to return to. Add "
                "SnapshotCallback(run_dir=...) as the last callback in the list, or use on_critical='reduce_lr'"
            )

    def begin(self, model: BaseAlgorithm, callbacks: Iterable[BaseCallback]) -> None:
        """Prepare for a new training run, and set the number of guard actions back to 0.

        :param model: the model to guard
        :param callbacks: all callbacks of the training
        :raises ValueError: as :meth:`prepare`
        """
        self.prepare(callbacks)
        self._model = model
        self.n_actions = self._quiet_until = self._doubted_until = 0
        self.has_stopped = False
        self._target = None

    def is_in_doubt(self, n_updates: int) -> bool:
        """Return whether the training may be unhealthy although no alert is active.

        :param n_updates: gradient updates made so far
        """
        return self.has_stopped or self._target is not None or n_updates < self._doubted_until

    def doubt_from(self, n_updates: int) -> None:
        """Mark as unhealthy all snapshots that were taken after a problem began.

        :param n_updates: snapshots with more gradient updates than this are marked
        """
        if self._snapshots is not None:
            self._snapshots.mark_unhealthy(n_updates)

    def doubt_for_now(self, n_updates: int) -> None:
        """Treat the training as unhealthy for the next window of updates.

        The end of an alert does not show that the training is healthy, because an alert near its threshold comes and
        goes.

        :param n_updates: gradient updates made so far
        """
        self._doubted_until = n_updates + WINDOW

    def end_if_incurable(self, *, can_go_back: bool) -> bool:
        """End the training because of a non-finite value, unless ``"rollback"`` makes all values finite again.

        :param can_go_back: whether all values would be finite with the weights of a healthy snapshot
        :return: whether the training ends
        """
        if self.on_critical == "rollback" and can_go_back:
            return False
        self.has_stopped = True
        return True

    def final_message(self, n_updates: int) -> str:
        """Return what the last alert of a training says: that it stops, and which snapshot is the last healthy one.

        :param n_updates: gradient updates made so far
        """
        if self._snapshots is None:
            return "training stops; no snapshot was taken. Next time, add SnapshotCallback to the callbacks"
        healthy = self._snapshots.newest_healthy(n_updates)
        if healthy is None:
            return "training stops; no snapshot is healthy"
        return f"training stops; last healthy: {healthy.path}"

    def act_on(self, cause: Alert, n_updates: int) -> Alert | None:
        """Act on a critical alert; if the action is a rollback, :meth:`carry_out` performs it later.

        :param cause: the first critical alert
        :param n_updates: gradient updates made so far
        :return: an alert that describes the guard action; None if this call did nothing or only decided on a rollback
        """
        if not self._is_time_for(cause, n_updates):
            return None
        if self.on_critical == "stop":
            self.n_actions += 1
            return self._stop(cause, "")
        # Without a limit, the guard would act again and again on a run that it cannot cure.
        if self.n_actions >= self.max_actions:
            return self._stop(
                cause,
                f": after {self.n_actions} actions (max_actions={self.max_actions}), there is a critical alert again",
            )
        if self.on_critical == "reduce_lr":
            return self._lower_rates(cause, cause.step, n_updates, "")
        assert self._snapshots is not None
        healthy = self._snapshots.newest_healthy(n_updates)
        if healthy is None:
            return self._stop(cause, ": there is no healthy snapshot to return to")
        self._target = cause, healthy
        return None

    def _is_time_for(self, cause: Alert, n_updates: int) -> bool:
        if self.on_critical == "warn" or self.has_stopped or self._target is not None:
            return False
        return n_updates >= self._quiet_until or cause.rule == NON_FINITE

    def carry_out(self, step: int, n_updates: int) -> Alert | None:
        """Roll back, if :meth:`act_on` decided to; call this between two rollouts, when no batch is in use.

        :param step: environment steps so far
        :param n_updates: gradient updates made so far
        :return: an alert that describes the rollback; None if there was none
        """
        if self._target is None:
            return None
        (cause, healthy), self._target = self._target, None
        assert self._snapshots is not None
        self._snapshots.go_back_to(healthy)
        # The restored weights are healthy, so the next snapshot may be healthy too.
        self._doubted_until = 0
        return self._lower_rates(cause, step, n_updates, f"back to the weights of {healthy.path}, ")

    def get_state(self) -> dict[str, Any]:
        """Return the state of the guard as plain data; call this between two rollouts, when no rollback is pending."""
        return {
            "n_actions": self.n_actions,
            "quiet_until": self._quiet_until,
            "doubted_until": self._doubted_until,
            "lr_scale": lr_scale_of(self._model),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state, and multiply the model's learning rates by the ``lr_scale`` of this state.

        :param state: the state returned by ``get_state``
        """
        self.n_actions = state["n_actions"]
        self._quiet_until = state["quiet_until"]
        self._doubted_until = state["doubted_until"]
        set_lr_scale(self._model, state["lr_scale"])

    def _lower_rates(self, cause: Alert, step: int, n_updates: int, done: str) -> Alert:
        self.n_actions += 1
        self._quiet_until = n_updates + WINDOW
        # After a rollback with the same learning rates, the same problem would come back, so every action lowers them.
        scale = lr_scale_of(self._model) * self.lr_factor
        set_lr_scale(self._model, scale)
        words = (
            f"{done}learning rates multiplied by {self.lr_factor:g}, now {scale:g} times the given rates (action "
            f"{self.n_actions} of {self.max_actions})"
        )
        return Alert(step, cause.rule, ACTION, math.nan, math.nan, words)

    def _stop(self, cause: Alert, why: str) -> Alert:
        self.has_stopped = True
        return Alert(cause.step, cause.rule, ACTION, math.nan, math.nan, f"training stops{why}. {cause.remedy}")
