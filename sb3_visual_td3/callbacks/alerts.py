"""Alerts: what is said once when something goes wrong, to the console and to ``alerts.jsonl``."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.types import Points
from sb3_visual_td3.diagnosis.live import WINDOW, Finding
from sb3_visual_td3.diagnosis.rules import gradient_explosion, non_finite
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

NON_FINITE = non_finite.ID
ACTION = "action"
"""Level of a line that tells of something done because of a rule; the others are ``warning`` and ``critical``."""


class Alert(NamedTuple):
    """One activation of a rule, or what was done because of one.

    ``since`` is the gradient update at which it first showed; None where nothing was learnt from it.
    """

    step: int
    rule: str
    level: str
    value: float
    threshold: float
    meaning: str
    since: int | None = None
    remedy: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What stays active as long as it lasts."""
        return self.rule, self.level

    def line(self) -> str:
        """:return: for the console"""
        figure = f" is {self.value:,.4g} (threshold {self.threshold:,.4g})" if math.isfinite(self.threshold) else ""
        return f"{self.level.upper()} at step {self.step:,}: {self.rule}{figure}: {self.meaning}"

    def to_json(self) -> str:
        """:return: one line; what is no number is null or a string, which every JSON reader takes"""
        numbers = {name: _json_number(getattr(self, name)) for name in ("value", "threshold")}
        return json.dumps({**self._asdict(), **numbers}, allow_nan=False)


def _json_number(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


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
                remedy=gradient_explosion.REMEDY,
            )
        )
    return alerts


def largest_norms(points: Points) -> dict[str, float]:
    """:return: by group, the largest gradient norm among points; one that is no number is the largest"""
    norms = {}
    for group, tag in tags.GRADIENT_NORM.items():
        values = [value for _, value in points.get(tag, ())]
        if values:
            norms[group] = math.nan if any(map(math.isnan, values)) else max(values)
    return norms


def norm_rises_at(window: SeriesSet, group: str, warning: float) -> int | None:
    """:return: the update from which a group's gradient norm stays above a threshold; None if it does not"""
    norm = window[tags.GRADIENT_NORM[group]]
    return onset(norm, ~(norm.values <= warning))


def alert_of(finding: Finding, step: int) -> Alert:
    """:return: what is to be said of a rule that the last updates speak for"""
    # Where the rule cannot tell since when, all of the window is in doubt.
    since = finding.n_updates - WINDOW if finding.since is None else finding.since
    shown = finding.rule, finding.level, finding.value, finding.threshold, finding.meaning
    return Alert(step, *shown, since, finding.remedy)


def append_to(path: Path, alert: Alert) -> None:
    """Add a line to ``alerts.jsonl``; where the disk is full, that is told, and no part of the line is left."""
    line = (alert.to_json() + "\n").encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            n_before = file.tell()
            if file.write(line) != len(line):
                file.truncate(n_before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        print(f"{path}: the alert could not be added: {error}; training goes on", file=sys.stderr)
