"""Raises an alert when a gradient norm passes a threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3.callbacks.event_writer import EventWriter, run_directory
from sb3_visual_td3.callbacks.watching import unwatch, watch
from sb3_visual_td3.common import tags
from sb3_visual_td3.health.gradient_monitor import GradientMonitor


class Alert(NamedTuple):
    """One activation of a rule."""

    step: int
    rule: str
    level: str
    value: float
    threshold: float
    meaning: str


def gradient_alerts(norms: dict[str, float], step: int, warning: float, critical: float) -> list[Alert]:
    """Judge the largest norms of a window.

    A norm that is not finite is critical: no comparison with a threshold would say so.

    :param norms: by group, before clipping
    :param step: environment step
    :param warning: a norm above it is a warning, unless it is critical
    :param critical: a norm above it is critical
    :return: one alert for each group above a threshold
    """
    alerts = []
    for group, norm in norms.items():
        if norm <= warning:
            continue
        is_critical = not norm <= critical
        alerts.append(
            Alert(
                step=step,
                rule=f"gradient_explosion:{group}",
                level="critical" if is_critical else "warning",
                value=norm,
                threshold=critical if is_critical else warning,
                meaning=f"the gradient of {group} is too large to be learning; the report names the likely cause",
            )
        )
    return alerts


class ExplosionAlertCallback(BaseCallback):
    """Watches the gradient norms before clipping: event file, console and ``alerts.jsonl``.

    The event file gets a 0 or a 1 of each level at every check; console and ``alerts.jsonl`` get one entry when a
    group passes a threshold that it was below at the check before.

    :param warning: norm above which a group is reported
    :param critical: norm above which a group is reported as exploded
    :param check_freq: how many environment steps lie between two checks
    :param sample_freq: how many updates lie between two that are measured
    :param run_dir: where ``alerts.jsonl`` goes; by default the folder of the event files' run
    :param verbose: 0 keeps the console quiet
    :raises ValueError: if not 0 < warning < critical, or a frequency is below 1
    """

    def __init__(
        self,
        warning: float = 10_000.0,
        critical: float = 100_000.0,
        check_freq: int = 100,
        sample_freq: int = 10,
        run_dir: str | Path | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(verbose)
        if not 0 < warning < critical:
            raise ValueError(f"expected 0 < warning < critical, got warning={warning}, critical={critical}")
        if check_freq < 1:
            raise ValueError(f"check_freq={check_freq}: expected a number of environment steps >= 1")
        self.warning = warning
        self.critical = critical
        self.check_freq = check_freq
        self.run_dir = run_dir
        self.monitor = GradientMonitor(sample_freq, norms_only=True)
        self._active: set[tuple[str, str]] = set()
        self._last_checked = 0

    def _on_training_start(self) -> None:
        self._writer = EventWriter(self.logger)
        folder = self.run_dir or run_directory(self.logger)
        self._alerts_path = None if folder is None else Path(folder) / "alerts.jsonl"
        self._last_checked = self.num_timesteps
        watch(self.model, self.monitor)

    def _on_step(self) -> bool:
        if self.num_timesteps - self._last_checked >= self.check_freq:
            self._check()
        return True

    def _on_training_end(self) -> None:
        if self.num_timesteps > self._last_checked:
            self._check()
        unwatch(self.model, self.monitor)

    def get_state(self) -> dict[str, Any]:
        """:return: the window so far, and the alerts that last"""
        active = [list(alert) for alert in sorted(self._active)]
        return {"last_checked": self._last_checked, "active": active, "monitor": self.monitor.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the window of an earlier run; to be called when training has started.

        :param state: of ``get_state``
        """
        self._last_checked = state["last_checked"]
        self._active = {(rule, level) for rule, level in state["active"]}
        self.monitor.set_state(state["monitor"], self.model.device)

    def _check(self) -> None:
        self._last_checked = self.num_timesteps
        norms = self.monitor.read_largest_norms()
        if not norms:
            return
        alerts = gradient_alerts(norms, self.num_timesteps, self.warning, self.critical)
        levels = {alert.level for alert in alerts}
        points = {tags.ALERT_WARNING: "warning", tags.ALERT_CRITICAL: "critical"}
        self._writer.write({tag: float(level in levels) for tag, level in points.items()}, self.num_timesteps)
        for alert in alerts:
            if (alert.rule, alert.level) not in self._active:
                self._announce(alert)
        self._active = {(alert.rule, alert.level) for alert in alerts}

    def _announce(self, alert: Alert) -> None:
        if self.verbose:
            print(
                f"{alert.level.upper()} at step {alert.step}: {alert.rule} is {alert.value:,.1f} "
                f"(threshold {alert.threshold:,.0f}): {alert.meaning}"
            )
        if self._alerts_path is not None:
            self._alerts_path.parent.mkdir(parents=True, exist_ok=True)
            with self._alerts_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(alert._asdict()) + "\n")
