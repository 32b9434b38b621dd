"""Judge a training run while it runs: apply the report's rules to a window of the last updates.

The callbacks append points to the window and turn what :func:`judge` finds into alerts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.types import Points
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import rank
from sb3_visual_td3.diagnosis.rules import LIVE_RULES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet

Level = Literal["warning", "critical"]

CRITICAL_FROM = 0.75
"""A diagnosis with at least this confidence is critical and may stop a run. Otherwise it is a warning.

It is the threshold of the criterion ``no_sure_cause`` in criteria.yml: what would stop a run also prevents a GO."""

WINDOW = 200
"""Number of updates in the window."""


class Finding(NamedTuple):
    """Hold a diagnosis of the last updates of a training run.

    :ivar rule: id of the diagnosis; ``alert_of_rule`` in common/tags.py returns its tag
    :ivar level: warning or critical
    :ivar n_updates: number of the newest update, counted from the start of the training
    :ivar since: the update at which the problem first showed in the window; None if unknown
    :ivar tag: the logged name of the strongest evidence
    :ivar value: the number that the rule compared with ``threshold``; if the rule compared several numbers, the value
        of the strongest evidence
    :ivar threshold: the limit for ``value``; NaN if the rule used several limits
    :ivar meaning: title and strongest evidence, in one line
    :ivar remedy: the first thing to do
    """

    rule: str
    level: Level
    n_updates: int
    since: int | None
    tag: str
    value: float
    threshold: float
    meaning: str
    remedy: str


class LiveWindow:
    """Store the points of the last updates, by tag.

    :param n_updates: length of the window in updates, >= 1
    :raises ValueError: if ``n_updates`` is not an integer >= 1
    """

    def __init__(self, n_updates: int = WINDOW) -> None:
        self.n_updates = to_integer("n_updates", n_updates, 1)
        self._points: dict[str, list[tuple[int, float]]] = {}

    def append(self, points: Points) -> None:
        """Add new points, and drop points that are too old.

        :param points: the new points of each tag, as pairs (number of the update, value)
        """
        for tag, new in points.items():
            if new:
                self._points.setdefault(tag, []).extend(new)
        oldest = (self.newest or 0) - self.n_updates
        for tag, kept in list(self._points.items()):
            # Before the first update, every point has the update 0 and none would ever be too old: limit their number.
            self._points[tag] = [point for point in kept if point[0] >= oldest][-self.n_updates :]
            if not self._points[tag]:
                del self._points[tag]

    def clear(self) -> None:
        """Drop all points, because the weights have been replaced."""
        self._points.clear()

    def get_state(self) -> dict[str, Any]:
        """Return the points as plain data, for a snapshot."""
        return {tag: [list(point) for point in points] for tag, points in self._points.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the points that ``get_state`` returned.

        :param state: the points as plain data
        """
        self._points = {tag: [(n, value) for n, value in points] for tag, points in state.items()}

    @property
    def newest(self) -> int | None:
        """Return the number of the latest update of which this window holds a point; None if it holds no points."""
        return max((points[-1][0] for points in self._points.values()), default=None)

    @property
    def data(self) -> SeriesSet:
        """Return the points as series, as the rules read them; their x-axis counts updates."""
        return SeriesSet.of(
            Series(tag, np.array([n for n, _ in points]), np.array([value for _, value in points]))
            for tag, points in self._points.items()
        )


def judge(data: SeriesSet) -> tuple[Finding, ...]:
    """Judge a window of series with the rules that run during training.

    :param data: the series of a window
    :return: the findings; the cause to fix first comes first
    """
    # The same functions as in the report: a live alert and a report can only differ in the data that they see.
    found = [diagnosis for rule in LIVE_RULES.values() if (diagnosis := rule.diagnose(data)) is not None]
    newest = max((int(series.steps[-1]) for series in data.series.values() if len(series)), default=0)
    return tuple(_finding(diagnosis, newest) for diagnosis in rank(found))


def _finding(diagnosis: Diagnosis, newest: int) -> Finding:
    strongest = diagnosis.evidence[0]
    value = strongest.value if math.isnan(diagnosis.value) else diagnosis.value
    follows = ""
    if diagnosis.consequence_of is not None:
        follows = f" (follows from {diagnosis.consequence_of})"
    return Finding(
        rule=diagnosis.id,
        level="critical" if diagnosis.confidence >= CRITICAL_FROM else "warning",
        n_updates=newest,
        since=diagnosis.first_step,
        tag=strongest.tag,
        value=value,
        threshold=diagnosis.threshold,
        meaning=f"{diagnosis.title}{follows}: {strongest.tag} {strongest.note}",
        remedy=diagnosis.remedy,
    )
