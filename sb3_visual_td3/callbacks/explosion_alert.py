"""Judges the last updates while it trains: alerts to console, event file and ``alerts.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3.callbacks.alerts import Alert, alert_of, append_to, gradient_alerts, largest_norms
from sb3_visual_td3.callbacks.event_writer import EventWriter, run_directory
from sb3_visual_td3.callbacks.watching import unwatch, watch
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import Points
from sb3_visual_td3.diagnosis.live import LiveWindow, judge

NON_FINITE = "non_finite"


class ExplosionAlertCallback(BaseCallback):
    """Judges the last updates every ``check_freq`` steps, by the rules of the report and by two thresholds.

    Gradient norms before clipping are held against ``warning`` and ``critical``; the rules look for what needs no
    threshold of yours: a feature leak, a dead policy, |Q| beyond what the rewards allow, clipping on nearly every
    update, a learning rate that is too high, targets that never move, a reward of another scale, a frozen or constant
    camera, and values that are not finite.

    The event file gets a 0 or a 1 of each at every check (``alerts/``); console and ``alerts.jsonl`` get one entry when
    an alert begins. Losses, gradients, observations or rewards that are not finite end the training: nothing that comes
    after them can be used.

    :param warning: norm above which a group is reported
    :param critical: norm above which a group is reported as exploded
    :param check_freq: how many environment steps lie between two checks
    :param sample_freq: how many updates lie between two that are measured
    :param run_dir: where ``alerts.jsonl`` goes; by default the folder of the event files' run
    :param verbose: 0 keeps the console quiet
    :raises ValueError: if not 0 < warning < critical, or a frequency is below 1; when training starts, if the model's
        updates cannot be watched
    """

    def __init__(
        self,
        warning: float = 10_000.0,
        critical: float = 100_000.0,
        check_freq: int = 50,
        sample_freq: int = 10,
        run_dir: str | Path | None = None,
        verbose: int = 1,
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
        self._active: set[tuple[str, str]] = set()
        self._last_checked = 0

    @property
    def is_critical(self) -> bool:
        """Whether a critical alert lasts."""
        return any(level == "critical" for _, level in self._active)

    def _on_training_start(self) -> None:
        self._writer = EventWriter(self.logger)
        folder = self.run_dir or run_directory(self.logger)
        self._alerts_path = None if folder is None else Path(folder) / "alerts.jsonl"
        self._last_checked = self.num_timesteps
        self._watch = watch(self.model, self.sample_freq, "points")
        self.window.clear()

    def _on_rollout_start(self) -> None:
        self._watch.reattach()

    def _on_step(self) -> bool:
        self._watch.see(self.locals, self.num_timesteps)
        broken = not_finite(self.locals)
        if broken is not None or self.num_timesteps - self._last_checked >= self.check_freq:
            return self._check(broken)
        return True

    def _on_training_end(self) -> None:
        if self.num_timesteps > self._last_checked:
            self._check()
        unwatch(self.model, self._watch, "points")

    def get_state(self) -> dict[str, Any]:
        """:return: the window so far, and the alerts that last"""
        return {
            "last_checked": self._last_checked,
            "active": [list(alert) for alert in sorted(self._active)],
            "window": self.window.get_state(),
            "watch": self._watch.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the window of an earlier run; to be called when training has started.

        :param state: of ``get_state``
        """
        self._last_checked = state["last_checked"]
        self._active = {(rule, level) for rule, level in state["active"]}
        self.window.set_state(state["window"])
        self._watch.set_state(state["watch"])

    def _check(self, broken: str | None = None) -> bool:
        """:return: whether training can go on"""
        self._last_checked = self.num_timesteps
        sources = self._watch.read_points()
        for points in sources:
            self.window.append(points)
        alerts = self._judge(sources[0], broken)
        self._write(alerts, bool(largest_norms(sources[0])))
        for alert in alerts:
            if alert.key not in self._active:
                self._announce(alert)
        self._active = {alert.key for alert in alerts}
        return not any(alert.rule == NON_FINITE for alert in alerts)

    def _judge(self, points: Points, broken: str | None) -> list[Alert]:
        step = self.num_timesteps
        alerts = gradient_alerts(largest_norms(points), step, self.warning, self.critical)
        alerts += [alert_of(finding, step) for finding in judge(self.window.data)]
        if broken is not None:
            alerts = [alert for alert in alerts if alert.rule != NON_FINITE]
            alerts.append(Alert(step, NON_FINITE, "critical", np.nan, np.nan, broken))
        return alerts

    def _write(self, alerts: Sequence[Alert], has_norms: bool) -> None:
        levels = {alert.level for alert in alerts if ":" in alert.rule}
        rules = {alert.rule for alert in alerts}
        points = {tag: float(rule in rules) for rule, tag in tags.ALERT_RULE.items()}
        if has_norms:
            points[tags.ALERT_WARNING] = float("warning" in levels)
            points[tags.ALERT_CRITICAL] = float("critical" in levels)
        self._writer.write(points, self.num_timesteps)

    def _announce(self, alert: Alert) -> None:
        if self.verbose:
            print(alert.line())
        if self._alerts_path is not None:
            append_to(self._alerts_path, alert)


def not_finite(locals_: Mapping[str, Any]) -> str | None:
    """Look for NaN and infinity in what a step was made of; images are whole numbers and are not looked at.

    :param locals_: of ``collect_rollouts``: ``actions``, ``new_obs`` (an array, or a dict of arrays) and ``rewards``
    :return: what is not finite, in words: the first in the order of cause and effect; None if all is
    """
    observations = locals_["new_obs"]
    by_key = observations if isinstance(observations, Mapping) else {"": observations}
    parts = {
        "the policy's action is {}: the weights are, too": locals_["actions"],
        **{f"the observation{f' {key!r}' if key else ''} holds {{}}": part for key, part in by_key.items()},
        "the reward is {}: every target would be": locals_["rewards"],
    }
    for words, part in parts.items():
        if np.issubdtype(part.dtype, np.floating) and not np.isfinite(part).all():
            return words.format(part[~np.isfinite(part)].flat[0]) + "; training stops"
    return None
