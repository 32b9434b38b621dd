"""Raise alerts during training if a rule finds a problem, a gradient norm is large, or a value is not finite.

The report applies the rules of ``diagnosis/rules`` to a whole run, and this callback applies them to the latest
updates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_visual_td3.callbacks.alerts import (
    NON_FINITE,
    Alert,
    alert_of,
    append_to,
    gradient_alerts,
    largest_norms,
    norm_rises_at,
)
from sb3_visual_td3.callbacks.event_writer import EventWriter, run_directory
from sb3_visual_td3.callbacks.guard import Guard, OnCritical
from sb3_visual_td3.callbacks.run_files import ALERTS
from sb3_visual_td3.callbacks.watching import unwatch, watch
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_float, to_integer
from sb3_visual_td3.common.types import Points
from sb3_visual_td3.diagnosis.live import WINDOW, LiveWindow, judge
from sb3_visual_td3.diagnosis.rules import LIVE_RULES, non_finite
from sb3_visual_td3.health.finite_monitor import NotFinite
from sb3_visual_td3.training_state.callback_state import callbacks_in


class ZeroedWeights:
    """Set all weights of a policy to zero, so that its next action is finite; :meth:`restore` undoes this.

    Stable-Baselines3 can end a training run only after one more step. With the old weights, this step would use NaN
    actions.

    :param policy: a policy whose weights are not finite
    """

    def __init__(self, policy: nn.Module) -> None:
        tensors = [tensor for tensor in policy.state_dict().values() if tensor.is_floating_point()]
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]
        with th.no_grad():
            for tensor in tensors:
                tensor.zero_()

    def restore(self) -> None:
        """Restore the weights that this object has set to zero; a second call changes nothing."""
        with th.no_grad():
            for tensor, kept in self._kept:
                tensor.copy_(kept)
        self._kept.clear()


class Broken(NamedTuple):
    """Describe a non-finite action, observation or reward in a step of the environments.

    :ivar words: description, such as "the observation holds nan"
    :ivar by_weights: whether the cause is a policy whose own weights are not finite
    """

    words: str
    by_weights: bool


def broken_step(locals_: Mapping[str, Any]) -> Broken | None:
    """Find the first NaN or infinity in a step.

    :param locals_: local variables of ``collect_rollouts``: ``actions``, ``new_obs`` (an array or a dict of arrays) and
        ``rewards``
    :return: the first non-finite value in the order action, observation, reward; None if all values are finite
    """
    actions, observations, rewards = locals_["actions"], locals_["new_obs"], locals_["rewards"]
    if not _is_finite(actions):
        words = f"the policy's action is {_first_not_finite(actions)}, because its weights are not finite"
        return Broken(words, by_weights=True)
    named = {"the observation": observations}
    if isinstance(observations, Mapping):
        named = {f"the observation {key!r}": part for key, part in observations.items()}
    for name, part in named.items():
        if not _is_finite(part):
            return Broken(f"{name} holds {_first_not_finite(part)}", by_weights=False)
    if not _is_finite(rewards):
        words = f"the reward is {_first_not_finite(rewards)}, which would make every target non-finite"
        return Broken(words, by_weights=False)
    return None


def _first_not_finite(part: Any) -> Any:
    part = np.asarray(part)
    return part[~np.isfinite(part)].flat[0]


def replay_is_finite(replay_buffer: Any) -> bool:
    """Return whether rewards, actions and observations in a replay buffer are finite; slow for a large buffer.

    :param replay_buffer: any buffer; only its attributes that are arrays are checked
    """
    names = ("rewards", "actions", "observations", "next_observations")
    return all(_is_finite(part) for name in names for part in _arrays_in(getattr(replay_buffer, name, None)))


def _arrays_in(value: Any) -> Iterator[Any]:
    parts = value.values() if isinstance(value, Mapping) else [value]
    for part in parts:
        if isinstance(part, np.ndarray):
            yield part


def _is_finite(part: Any) -> bool:
    part = np.asarray(part)  # an environment may return lists
    return not np.issubdtype(part.dtype, np.floating) or bool(np.isfinite(part).all())


class ExplosionAlertCallback(BaseCallback):
    """Judge the latest updates every ``check_freq`` steps, by the rules of the report and by two thresholds.

    The gradient norm of each parameter group, before clipping, is compared with ``warning`` and ``critical``. When an
    alert begins, it is printed and written to ``alerts.jsonl``. At every check, the event file gets a 0 or a 1 for each
    alert (``alerts/``).

    When a critical alert begins, :class:`~sb3_visual_td3.callbacks.guard.Guard` does what ``on_critical`` says. This is
    called a guard action. A rollback needs a SnapshotCallback in the same list of callbacks.

    A NaN or an infinity ends the training. There is one exception: if an update makes the weights non-finite,
    ``"rollback"`` restores healthy weights before the policy acts.

    :param warning: gradient norm above which a parameter group gets a warning
    :param critical: gradient norm above which a parameter group gets a critical alert; ``math.inf`` for no such limit
    :param check_freq: environment steps between two checks
    :param sample_freq: gradient updates between two measurements
    :param run_dir: folder of ``alerts.jsonl``; None takes the folder of the run that the event files belong to
    :param verbose: verbosity level; 0 prints nothing
    :param on_critical: ``"warn"`` (no guard action), ``"stop"``, ``"reduce_lr"`` or ``"rollback"``
    :param lr_factor: factor by which each guard action multiplies the learning rates, above 0 and below 1
    :param max_actions: number of guard actions after which the next critical alert ends the training
    :raises ValueError: in the constructor, if an argument is out of range; when training starts, if the model cannot be
        watched, or if ``on_critical`` is ``"rollback"`` and the list of callbacks has no SnapshotCallback
    """

    def __init__(
        self,
        warning: float = 10_000.0,
        critical: float = 100_000.0,
        check_freq: int = 50,
        sample_freq: int = 10,
        run_dir: str | Path | None = None,
        verbose: int = 1,
        *,
        on_critical: OnCritical = "warn",
        lr_factor: float = 0.5,
        max_actions: int = 3,
    ) -> None:
        super().__init__(verbose)
        self.warning = to_float("warning", warning, above=0.0)
        self.critical = critical
        if critical != math.inf:
            expected = f"a number above warning={self.warning:g}"
            self.critical = to_float("critical", critical, above=self.warning, expected=expected)
        self.check_freq = to_integer("check_freq", check_freq, 1)
        self.sample_freq = to_integer("sample_freq", sample_freq, 1)
        self.run_dir = run_dir
        self.window = LiveWindow()
        self.guard = Guard(on_critical, lr_factor, max_actions)
        self._active: set[tuple[str, str]] = set()
        self._last_checked = 0
        self._healthy_at = 0
        """Number of the update at which the weights were certainly healthy: at the start, or after a rollback."""
        self._is_unwritten = False
        """True if a non-finite update was found between two rollouts and is not in the event file yet."""
        self._zeroed: ZeroedWeights | None = None

    @property
    def is_critical(self) -> bool:
        """Return whether a critical alert is active."""
        return any(level == "critical" for _, level in self._active)

    @property
    def is_healthy(self) -> bool:
        """Return whether the training is healthy.

        It is unhealthy in three cases: a critical alert is active; such an alert ended less than 200 updates
        (``WINDOW``) ago; or the guard has ended the training. A rollback makes the training healthy at once.
        """
        return not (self.is_critical or self.guard.is_in_doubt(self._watch.n_updates))

    @property
    def n_updates_in_doubt(self) -> int:
        """Return the detection delay: a problem may begin up to this many updates before its first alert."""
        return WINDOW + self.sample_freq

    @property
    def has_ended_training(self) -> bool:
        """Return whether the guard has decided to end the training. SB3 then stops after the next step."""
        return self.guard.has_stopped

    def _on_training_start(self) -> None:
        self._writer = EventWriter.of(self)
        folder = self.run_dir or run_directory(self.logger)
        self._alerts_path = None if folder is None else Path(folder) / ALERTS
        self._last_checked = self.num_timesteps
        self.guard.begin(self.model, callbacks_in(self.locals.get("callback", self)))
        self._watch = watch(self, self.sample_freq, "points")
        self._healthy_at = self._watch.n_updates
        self._is_unwritten = False
        self._zeroed = None
        self._active.clear()
        self.window.clear()

    def _on_rollout_start(self) -> None:
        self._watch.reattach()
        # SB3 trains between two rollouts. Here the policy has not chosen an action with the new weights yet.
        self._check_updates()
        # A rollback that was decided during the last rollout happens now, before the next action.
        action = self.guard.carry_out(self.num_timesteps, self._watch.n_updates)
        if action is not None:
            self._healthy_at = self._watch.n_updates
            self._announce(action)
            self._forget_measurements()

    def _on_step(self) -> bool:
        # The step is made, so the policy gets back the weights that the training produced. They are saved, so the user
        # can examine them.
        if self._zeroed is not None:
            self._zeroed.restore()
        self._watch.see(self.locals, self.num_timesteps)
        # Every step is checked for NaN, because one step later the NaN is in the replay buffer for good.
        is_due = self.num_timesteps - self._last_checked >= self.check_freq
        broken = broken_step(self.locals)
        if is_due or broken is not None or self._is_unwritten:
            self._check(broken)
        return not self.guard.has_stopped

    def _on_training_end(self) -> None:
        # The updates after the last rollout have not been checked yet.
        found = self._watch.finite.first()
        if found is not None and not self.guard.has_stopped:
            self._report([self._of_update(found)])
        if self.num_timesteps > self._last_checked:
            self._check(can_act=False)
        unwatch(self, self._watch, "points")

    def get_state(self) -> dict[str, Any]:
        """Return the measurements of the latest updates, the active alerts, and the state of ``Guard``."""
        return {
            "last_checked": self._last_checked,
            "active": [list(alert) for alert in sorted(self._active)],
            "window": self.window.get_state(),
            "watch": self._watch.get_state(),
            "guard": self.guard.get_state(),
            "healthy_at": self._healthy_at,
            "is_unwritten": self._is_unwritten,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``get_state`` returned; call this after training has started.

        :param state: the state returned by ``get_state``
        """
        self._last_checked = state["last_checked"]
        self._active = {(rule, level) for rule, level in state["active"]}
        self.window.set_state(state["window"])
        self._watch.set_state(state["watch"])
        # Snapshots of earlier versions have no guard.
        if "guard" in state:
            self.guard.set_state(state["guard"])
            self._healthy_at = state["healthy_at"]
            self._is_unwritten = state["is_unwritten"]

    def _check_updates(self) -> None:
        """Handle a non-finite update before the policy chooses the next action with the new weights."""
        found = self._watch.finite.first()
        if found is None:
            return
        self._is_unwritten = True
        alerts = [self._of_update(found)]
        self._report(alerts, is_fatal=self.guard.end_if_incurable(can_go_back=self._can_go_back()))
        self._act(alerts)
        # SB3 ends a training run only after a step, and that step must not use non-finite weights.
        if self.guard.has_stopped:
            self._zeroed = ZeroedWeights(self.model.policy)

    def _of_update(self, found: NotFinite) -> Alert:
        return self._not_finite(f"{found.tag} is {found.value} at update {found.n_updates:,}", found.n_updates)

    def _not_finite(self, words: str, since: int | None) -> Alert:
        return Alert(
            self.num_timesteps, NON_FINITE, "critical", np.nan, np.nan, words, since=since, remedy=non_finite.REMEDY
        )

    def _check(self, broken: Broken | None = None, *, can_act: bool = True) -> None:
        """Judge the latest updates, announce alerts that have begun, and let the guard act on a critical alert.

        :param broken: a non-finite value in this step, which ends the training
        :param can_act: False if the training has already ended
        """
        self._last_checked = self.num_timesteps
        # The first source holds the gradient updates, the other sources hold camera and settings.
        sources = self._watch.read_points()
        for points in sources:
            self.window.append(points)
        alerts = self._judge(sources[0])
        # The rule non_finite reads only logged values. The value in this step is more specific, so its alert replaces
        # the rule's alert.
        if broken is not None:
            # A non-finite observation or reward has not affected any update yet.
            since = self._watch.n_updates if broken.by_weights else None
            alert = self._not_finite(broken.words, since)
            alerts = [alert, *(alert for alert in alerts if alert.rule != NON_FINITE)]
        is_fatal = False
        if can_act and any(alert.rule == NON_FINITE for alert in alerts):
            is_fatal = self.guard.end_if_incurable(can_go_back=broken is None and self._can_go_back())
        self._report(alerts, is_fatal=is_fatal)
        self._active = {alert.key for alert in alerts}
        if can_act:
            self._act(alerts)
        self._write(alerts, has_norms=bool(largest_norms(sources[0])))

    def _can_go_back(self) -> bool:
        # With a NaN in the replay buffer, restored weights would become NaN again when that transition is sampled.
        assert isinstance(self.model, OffPolicyAlgorithm)
        # The search needs memory and time, so it is made only if the guard would restore weights.
        return self.guard.on_critical == "rollback" and replay_is_finite(self.model.replay_buffer)

    def _judge(self, points: Points) -> list[Alert]:
        """Return the current alerts: non-finite values, then problems that rules found, then exceeded thresholds."""
        step, data = self.num_timesteps, self.window.data
        found = [alert_of(finding, step) for finding in judge(data)]
        for alert in gradient_alerts(largest_norms(points), step, self.warning, self.critical):
            group = alert.rule.partition(":")[2]
            found.append(alert._replace(since=norm_rises_at(data, group, self.warning)))
        # The sort is stable: the rules stay in their order, causes before effects.
        return sorted(found, key=lambda alert: alert.rule != NON_FINITE)

    def _report(self, alerts: Sequence[Alert], *, is_fatal: bool = False) -> None:
        """Announce new alerts, and mark as unhealthy all snapshots that were taken after a critical problem began.

        :param alerts: the current alerts
        :param is_fatal: whether a non-finite value ends the training
        """
        begun = [alert for alert in alerts if alert.key not in self._active]
        since = [alert.since for alert in begun if alert.level == "critical" and alert.since is not None]
        if since:
            # The problem may have begun anywhere between two measurements, so one interval earlier is safe.
            self.guard.doubt_from(max(min(since) - self.sample_freq, self._healthy_at))
        for alert in begun:
            if is_fatal and alert.rule == NON_FINITE:
                final_message = self.guard.final_message(self._watch.n_updates)
                self._announce(alert._replace(meaning=f"{alert.meaning}; {final_message}"))
            else:
                self._announce(alert)
        self._active |= {alert.key for alert in alerts}

    def _act(self, alerts: Sequence[Alert]) -> None:
        """Let the Guard act on the first critical alert; causes come before their effects in ``alerts``."""
        critical = [alert for alert in alerts if alert.level == "critical"]
        if not critical:
            return
        self.guard.doubt_for_now(self._watch.n_updates)
        action = self.guard.act_on(critical[0], self._watch.n_updates)
        if action is not None:
            self._announce(action)
            if not self.guard.has_stopped:
                self._forget_measurements()

    def _forget_measurements(self) -> None:
        """Drop all measurements and active alerts after a rollback or a reduction of the learning rates."""
        self._watch.read_points()
        self._watch.finite.first()
        self.window.clear()
        self._active.clear()

    def _write(self, alerts: Sequence[Alert], *, has_norms: bool) -> None:
        # Only alerts of the norm thresholds have a group in their name ("gradient_explosion:critic_cnn").
        levels = {alert.level for alert in alerts if ":" in alert.rule}
        rules = {alert.rule for alert in alerts}
        if self._is_unwritten:
            rules.add(NON_FINITE)
            self._is_unwritten = False
        points = {tags.alert_of_rule(rule): float(rule in rules) for rule in LIVE_RULES}
        if has_norms:
            points[tags.ALERT_WARNING] = float("warning" in levels)
            points[tags.ALERT_CRITICAL] = float("critical" in levels)
        if self.guard.on_critical != "warn":
            points[tags.GUARD_ACTIONS] = float(self.guard.n_actions)
        self._writer.write(points, self.num_timesteps)

    def _announce(self, alert: Alert) -> None:
        if self.verbose:
            print(alert.line())
        if self._alerts_path is not None:
            append_to(self._alerts_path, alert)
