"""Define alerts, each of which is printed and written to ``alerts.jsonl`` when a rule begins to find a problem.

:class:`~sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback` creates the alerts, and
:class:`~sb3_visual_td3.callbacks.guard.Guard` acts on critical ones.
"""

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
"""Level of an entry about an action of ``callbacks/guard.py``. The other levels are ``warning`` and ``critical``."""


class Alert(NamedTuple):
    """Describe one alert: a problem that a rule has found, or an action of the guard, such as a rollback.

    :ivar step: environment steps at the time
    :ivar rule: id of the rule, such as ``non_finite`` or ``gradient_explosion:critic_cnn``
    :ivar level: ``warning``, ``critical`` or ``action``
    :ivar value: the value that the rule compared with ``threshold``; NaN for a rule without a value
    :ivar threshold: the limit for ``value``; NaN for a rule without a threshold
    :ivar meaning: one sentence for the user
    :ivar since: gradient update at which the problem first showed; None if it affected no update
    :ivar remedy: the change that the user can make
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
        """Return the key that identifies the alert while it is active."""
        return self.rule, self.level

    def line(self) -> str:
        """Return the alert as one line for the console."""
        figure = ""
        if math.isfinite(self.threshold):
            figure = f" is {self.value:,.4g} (threshold {self.threshold:,.4g})"
        return f"{self.level.upper()} at step {self.step:,}: {self.rule}{figure}: {self.meaning}"

    def to_json(self) -> str:
        """Return the alert as one line for ``alerts.jsonl``; NaN becomes null, and an infinity becomes a string."""
        numbers = {name: _json_number(getattr(self, name)) for name in ("value", "threshold")}
        return json.dumps({**self._asdict(), **numbers}, allow_nan=False)


def _json_number(value: float) -> float | str | None:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    return str(value)


def gradient_alerts(norms: dict[str, float], step: int, warning: float, critical: float) -> list[Alert]:
    """Compare the largest gradient norms of a window with the two thresholds.

    :param norms: the norm of each group before clipping
    :param step: environment steps so far
    :param warning: norm above which there is a warning
    :param critical: norm above which the alert is critical; NaN is critical too
    :return: one alert for each group above a threshold
    """
    alerts = []
    for group, norm in norms.items():
        if norm <= warning:
            continue
        # "not <=" and not ">", because every comparison with NaN is False.
        is_critical = not norm <= critical
        alerts.append(
            Alert(
                step=step,
                rule=f"gradient_explosion:{group}",
                level="critical" if is_critical else "warning",
                value=norm,
                threshold=critical if is_critical else warning,
                meaning=f"the gradient of {group} is too large for learning; the report names the likely cause",
                remedy=gradient_explosion.REMEDY,
            )
        )
    return alerts


def largest_norms(points: Points) -> dict[str, float]:
    """Return the largest gradient norm of each group; NaN counts as the largest.

    :param points: pairs (update, value) by logged name
    """
    norms = {}
    for group, tag in tags.GRADIENT_NORM.items():
        values = [value for _, value in points.get(tag, ())]
        if any(map(math.isnan, values)):
            norms[group] = math.nan
        elif values:
            norms[group] = max(values)
    return norms


def norm_rises_at(window: SeriesSet, group: str, warning: float) -> int | None:
    """Return the update from which a group's gradient norm stays above a threshold.

    :param window: the measurements of the latest updates
    :param group: name of the group
    :param warning: the threshold
    :return: number of the update; None if the norm is not above the threshold at the end
    """
    norm = window[tags.GRADIENT_NORM[group]]
    return onset(norm, ~(norm.values <= warning))


def alert_of(finding: Finding, step: int) -> Alert:
    """Return the alert for a rule that found a problem in the latest updates.

    :param finding: result of the rule
    :param step: environment steps so far
    """
    since = finding.since
    if since is None:
        # The rule does not know when the problem began, so the whole window is in doubt.
        since = finding.n_updates - WINDOW
    return Alert(
        step=step,
        rule=finding.rule,
        level=finding.level,
        value=finding.value,
        threshold=finding.threshold,
        meaning=finding.meaning,
        since=since,
        remedy=finding.remedy,
    )


def append_to(path: Path, alert: Alert) -> None:
    """Append an alert to ``alerts.jsonl``; a full disk causes a warning and does not end the training.

    :param path: path of the file
    :param alert: the alert to append
    """
    line = (alert.to_json() + "\n").encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            n_before = file.tell()
            # A nearly full disk may have taken only part of the line, which would make the file unreadable.
            if file.write(line) != len(line):
                file.truncate(n_before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        print(f"{path}: the alert could not be written: {error}; training continues without it", file=sys.stderr)
