"""Live alerts: the report's rules over a window of the last updates, thresholds of norms, and non-finite values."""

from __future__ import annotations

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
from sb3_visual_td3.callbacks.watching import unwatch, watch
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import Points
from sb3_visual_td3.diagnosis.live import WINDOW, LiveWindow, judge
from sb3_visual_td3.diagnosis.rules import LIVE_RULES, non_finite
from sb3_visual_td3.health.finite_monitor import NotFinite
from sb3_visual_td3.training_state.callback_state import callbacks_in


class StandIn:
    """Sets all weights to zero until they are put back, so that an action is finite.

    Stable-Baselines3 ends a training after a step. The environment is not to be handed a NaN for it, and policies with
    a distribution (SAC) would raise an error instead of acting.

    :param policy: the policy whose weights are not finite
    """

    def __init__(self, policy: nn.Module) -> None:
        tensors = [tensor for tensor in policy.state_dict().values() if tensor.is_floating_point()]
        self._kept = [(tensor, tensor.clone()) for tensor in tensors]
        with th.no_grad():
            for tensor in tensors:
                tensor.zero_()

    def put_back(self) -> None:
        """Give the policy its own weights again; nothing more happens at the next call."""
        with th.no_grad():
            for tensor, kept in self._kept:
                tensor.copy_(kept)
        self._kept.clear()


class Broken(NamedTuple):
    """Something in a step that is not finite; ``by_weights`` says that the policy's own weights are to blame."""

    words: str
    by_weights: bool


def broken_step(locals_: Mapping[str, Any]) -> Broken | None:
    """Look for NaN and infinity in what a step was made of; images are whole numbers and are not looked at.

    :param locals_: of ``collect_rollouts``: ``actions``, ``new_obs`` (an array, or a dict of arrays) and ``rewards``
    :return: what is not finite: the first in the order of cause and effect; None if all is
    """
    observations = locals_["new_obs"]
    by_key = observations if isinstance(observations, Mapping) else {"": observations}
    parts = {
        "the policy's action is {}: the weights are, too": locals_["actions"],
        **{f"the observation{f' {key!r}' if key else ''} holds {{}}": part for key, part in by_key.items()},
        "the reward is {}: every target would be": locals_["rewards"],
    }
    for number, (words, part) in enumerate(parts.items()):
        if not _is_finite(part):
            return Broken(words.format(part[~np.isfinite(part)].flat[0]), by_weights=number == 0)
    return None


def replay_is_finite(replay_buffer: Any) -> bool:
    """Look through what a replay buffer holds, which takes a moment.

    :param replay_buffer: any; what it does not keep as arrays is not looked at
    :return: whether rewards, actions and observations are finite; rows that were not written yet count as well
    """
    names = ("rewards", "actions", "observations", "next_observations")
    return all(_is_finite(part) for name in names for part in _arrays_in(getattr(replay_buffer, name, None)))


def _arrays_in(value: Any) -> Iterator[Any]:
    parts = value.values() if isinstance(value, Mapping) else [value]
    yield from (part for part in parts if isinstance(part, np.ndarray))


def _is_finite(part: Any) -> bool:
    return not np.issubdtype(part.dtype, np.floating) or bool(np.isfinite(part).all())


class ExplosionAlertCallback(BaseCallback):
    """Judges the last updates every ``check_freq`` steps, by the rules of the report and by two thresholds.

    Gradient norms before clipping are held against ``warning`` and ``critical``; the rules look for what needs no
    threshold of yours: a feature leak, a dead policy, Q beyond what the rewards allow, clipping on nearly every
    update, a learning rate that is too high, targets that never move, a reward of another scale, a frozen or constant
    camera, and values that are not finite.

    The event file gets a 0 or a 1 of each at every check (``alerts/``); console and ``alerts.jsonl`` get one entry when
    an alert begins. Losses, gradients, observations or rewards that are not finite end the training, and the alert
    says where the last healthy snapshot is; losses and the gradients of biases are looked at after every training,
    observations and rewards at every step, all else at every check.

    A critical alert may do more than tell: ``on_critical`` is ``"warn"``, ``"stop"``, ``"reduce_lr"`` or ``"rollback"``
    (:class:`~sb3_visual_td3.callbacks.guard.Guard` says what each does). Each action is printed, is a line of level
    ``"action"`` in ``alerts.jsonl``, and counts in ``agent/guard_actions``; the window starts anew with it. A rollback
    needs a SnapshotCallback in the same list. It also mends weights that are not finite, if they are found before an
    action was chosen with them; observations, rewards and actions that are not finite end the training in any case,
    since the environment or the replay buffer holds them by then.

    :param warning: norm above which a group is reported
    :param critical: norm above which a group is reported as exploded
    :param check_freq: how many environment steps lie between two checks
    :param sample_freq: how many updates lie between two that are measured
    :param run_dir: where ``alerts.jsonl`` goes; by default the folder of the event files' run
    :param verbose: 0 keeps the console quiet
    :param on_critical: what is done when a critical alert begins
    :param lr_factor: what the learning rates are multiplied by, above 0 and below 1
    :param max_actions: how often it is acted; the next critical alert ends the training
    :raises ValueError: if an argument is out of its range; when training starts, if the model's updates cannot be
        watched, or if there is to be a rollback and there is no SnapshotCallback
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
        if not 0 < warning < critical:
            raise ValueError(f"expected 0 < warning < critical, got warning={warning}, critical={critical}")
        if check_freq < 1 or sample_freq < 1:
            raise ValueError(f"check_freq={check_freq}, sample_freq={sample_freq}: expected steps and updates >= 1")
        self.warning = warning
        self.critical = critical
        self.check_freq = check_freq
        self.sample_freq = sample_freq
        self.run_dir = run_dir
        self.window = LiveWindow()
        self.guard = Guard(on_critical, lr_factor, max_actions)
        self._active: set[tuple[str, str]] = set()
        self._last_checked = 0
        self._healthy_at = 0
        """The update at which the weights were healthy beyond doubt: when training started, or after a rollback."""
        self._is_unwritten = False
        """Whether the event file has yet to be told of weights that were not finite between two rollouts."""
        self._stand_in: StandIn | None = None

    @property
    def is_critical(self) -> bool:
        """Whether a critical alert lasts."""
        return any(level == "critical" for _, level in self._active)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing critical lasts, as far as it is known by now."""
        return not (self.is_critical or self.guard.is_in_doubt(self._watch.n_updates))

    @property
    def n_updates_in_doubt(self) -> int:
        """How many updates an alert that begins later may reach back."""
        return WINDOW + self.sample_freq

    @property
    def has_ended_training(self) -> bool:
        """Whether the next step is the last."""
        return self.guard.has_stopped

    def _on_training_start(self) -> None:
        self._writer = EventWriter(self.logger)
        folder = self.run_dir or run_directory(self.logger)
        self._alerts_path = None if folder is None else Path(folder) / "alerts.jsonl"
        self._last_checked = self.num_timesteps
        self.guard.begin(self.model, callbacks_in(self.locals.get("callback", self)))
        self._watch = watch(self.model, self.sample_freq, "points")
        self._healthy_at = self._watch.n_updates
        self._is_unwritten = False
        self.window.clear()

    def _on_rollout_start(self) -> None:
        self._watch.reattach()
        self._look_at_updates()
        action = self.guard.carry_out(self.num_timesteps, self._watch.n_updates)
        if action is not None:
            self._healthy_at = self._watch.n_updates
            self._announce(action)
            self._start_anew()

    def _on_step(self) -> bool:
        if self._stand_in is not None:
            self._stand_in.put_back()
        self._watch.see(self.locals, self.num_timesteps)
        is_due = self.num_timesteps - self._last_checked >= self.check_freq
        broken = broken_step(self.locals)
        if is_due or broken is not None or self._is_unwritten:
            self._check(broken)
        return not self.guard.has_stopped

    def _on_training_end(self) -> None:
        found = self._watch.finite.first()
        if found is not None and not self.guard.has_stopped:
            self._tell([self._of_update(found)])
        if self.num_timesteps > self._last_checked:
            self._check(can_act=False)
        unwatch(self.model, self._watch, "points")

    def get_state(self) -> dict[str, Any]:
        """:return: the window so far, the alerts that last, and what the guard has done"""
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
        """Go on with the window of an earlier run; to be called when training has started.

        :param state: of ``get_state``
        """
        self._last_checked = state["last_checked"]
        self._active = {(rule, level) for rule, level in state["active"]}
        self.window.set_state(state["window"])
        self._watch.set_state(state["watch"])
        if "guard" in state:  # older states have none
            self.guard.set_state(state["guard"])
            self._healthy_at = state["healthy_at"]
            self._is_unwritten = state["is_unwritten"]

    def _look_at_updates(self) -> None:
        """Meet an update that is not finite before the next action is chosen."""
        found = self._watch.finite.first()
        if found is None:
            return
        self._is_unwritten = True
        alerts = [self._of_update(found)]
        self._tell(alerts, is_fatal=not self._can_go_back())
        self._act(alerts)
        if self.guard.has_stopped:  # a training ends at a step only
            self._stand_in = StandIn(self.model.policy)

    def _of_update(self, found: NotFinite) -> Alert:
        return self._not_finite(f"{found.tag} is {found.value} at update {found.n_updates:,}", found.n_updates)

    def _not_finite(self, words: str, since: int | None) -> Alert:
        return Alert(
            self.num_timesteps, NON_FINITE, "critical", np.nan, np.nan, words, since=since, remedy=non_finite.REMEDY
        )

    def _check(self, broken: Broken | None = None, can_act: bool = True) -> None:
        """Judge the last updates, tell, and act.

        :param broken: what is not finite in this step, which ends the training
        :param can_act: whether there will be more training
        """
        self._last_checked = self.num_timesteps
        sources = self._watch.read_points()
        for points in sources:
            self.window.append(points)
        alerts = self._judge(sources[0])
        if broken is not None:
            alert = self._not_finite(broken.words, self._watch.n_updates if broken.by_weights else None)
            alerts = [alert, *(alert for alert in alerts if alert.rule != NON_FINITE)]
        is_broken = can_act and any(alert.rule == NON_FINITE for alert in alerts)
        is_fatal = is_broken and (broken is not None or not self._can_go_back())
        self._tell(alerts, is_fatal)
        self._active = {alert.key for alert in alerts}
        if can_act:
            self._act(alerts)
        self._write(alerts, bool(largest_norms(sources[0])))

    def _can_go_back(self) -> bool:
        """:return: whether other weights would make training finite again"""
        assert isinstance(self.model, OffPolicyAlgorithm)
        return self.guard.on_critical == "rollback" and replay_is_finite(self.model.replay_buffer)

    def _judge(self, points: Points) -> list[Alert]:
        """:return: first what is not finite, then what the rules say, the cause in front, then the thresholds"""
        step, data = self.num_timesteps, self.window.data
        found = [alert_of(finding, step) for finding in judge(data)]
        for alert in gradient_alerts(largest_norms(points), step, self.warning, self.critical):
            group = alert.rule.partition(":")[2]
            found.append(alert._replace(since=norm_rises_at(data, group, self.warning)))
        return sorted(found, key=lambda alert: alert.rule != NON_FINITE)

    def _tell(self, alerts: Sequence[Alert], is_fatal: bool = False) -> None:
        """Tell what has begun, and doubt the snapshots that were taken since it had.

        :param alerts: that show now
        :param is_fatal: whether what is not finite ends the training
        """
        begun = [alert for alert in alerts if alert.key not in self._active]
        since = [alert.since for alert in begun if alert.level == "critical" and alert.since is not None]
        if since:
            self.guard.doubt_from(max(min(since) - self.sample_freq, self._healthy_at))
        last_words = f"; {self.guard.last_words(self._watch.n_updates)}" if is_fatal else ""
        for alert in begun:
            is_the_end = is_fatal and alert.rule == NON_FINITE
            self._announce(alert._replace(meaning=alert.meaning + last_words) if is_the_end else alert)
        self._active |= {alert.key for alert in alerts}

    def _act(self, alerts: Sequence[Alert]) -> None:
        """Have the guard act on what is critical, the first of it if there are several."""
        critical = [alert for alert in alerts if alert.level == "critical"]
        if not critical:
            return
        self.guard.doubt_for_now(self._watch.n_updates)
        action = self.guard.act_on(critical[0], self._watch.n_updates)
        if action is not None:
            self._announce(action)
            if not self.guard.has_stopped:
                self._start_anew()

    def _start_anew(self) -> None:
        """Forget what was measured before an action."""
        self._watch.read_points()
        self._watch.finite.first()
        self.window.clear()
        self._active.clear()

    def _write(self, alerts: Sequence[Alert], has_norms: bool) -> None:
        levels = {alert.level for alert in alerts if ":" in alert.rule}
        rules = {alert.rule for alert in alerts} | ({NON_FINITE} if self._is_unwritten else set())
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
