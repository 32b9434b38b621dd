"""The live side: a window of the last updates, and the report's own rules over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from sb3_visual_td3.common.types import Points
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import rank
from sb3_visual_td3.diagnosis.rules import LIVE_RULES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet

Level = Literal["warning", "critical"]

CRITICAL_FROM = 0.75
"""Confidence of a diagnosis from which it is critical: someone may stop a run for it. Below, it is a warning."""

WINDOW = 200
"""Updates. What the rules call the end of the series is then its last fifty."""


class Finding(NamedTuple):
    """A rule that the last updates speak for.

    :ivar rule: id of the diagnosis; ``alert_of_rule`` in common/tags.py gives its tag.
    :ivar n_updates: the newest update in the window.
    :ivar since: the update at which it first showed in the window; None where it does not tell.
    :ivar tag: the logged name that speaks loudest.
    :ivar value: what the rule compared with ``threshold``; NaN where it weighed several figures.
    :ivar meaning: one line.
    :ivar remedy: what to do.
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
    """The points of the last updates.

    :param n_updates: how many updates it reaches back, >= 1.
    :raises ValueError: if ``n_updates`` is below 1.
    """

    def __init__(self, n_updates: int = WINDOW) -> None:
        if n_updates < 1:
            raise ValueError(f"n_updates={n_updates}: expected a number of updates >= 1")
        self.n_updates = n_updates
        self._points: dict[str, list[tuple[int, float]]] = {}

    def append(self, points: Points) -> None:
        """Add what is new, and drop what is too old.

        Updates that begin again at a smaller number (a snapshot was restored) begin a new window.

        :param points: by tag, (update, value).
        """
        new_points = {tag: list(new) for tag, new in points.items() if new}
        if any(new[0][0] < self._points[tag][-1][0] for tag, new in new_points.items() if tag in self._points):
            self.clear()
        for tag, new in new_points.items():
            self._points.setdefault(tag, []).extend(new)
        oldest = (self.newest or 0) - self.n_updates
        for tag, kept in list(self._points.items()):
            # Before the first update there may be many points at 0: as many as updates are enough.
            self._points[tag] = [point for point in kept if point[0] >= oldest][-self.n_updates :]
            if not self._points[tag]:
                del self._points[tag]

    def clear(self) -> None:
        """Forget everything: the weights are others now."""
        self._points.clear()

    def get_state(self) -> dict[str, Any]:
        """:return: the points, as plain data."""
        return {tag: [list(point) for point in points] for tag, points in self._points.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called."""
        self._points = {tag: [(n, value) for n, value in points] for tag, points in state.items()}

    @property
    def newest(self) -> int | None:
        """The newest update that there is a point of; None without points."""
        return max((points[-1][0] for points in self._points.values()), default=None)

    @property
    def data(self) -> SeriesSet:
        """The window as the rules read it; the x-axis counts updates."""
        return SeriesSet.of(
            Series(tag, np.array([n for n, _ in points]), np.array([value for _, value in points]))
            for tag, points in self._points.items()
        )


def judge(data: SeriesSet) -> tuple[Finding, ...]:
    """Run the live rules over a window, the cause to remedy first in front.

    :param data: a window's series, or any other's: a pure function.
    """
    found = [diagnosis for rule in LIVE_RULES.values() if (diagnosis := rule.diagnose(data)) is not None]
    newest = max((int(series.steps[-1]) for series in data.series.values() if len(series)), default=0)
    return tuple(_finding(diagnosis, newest) for diagnosis in rank(found))


def _finding(diagnosis: Diagnosis, newest: int) -> Finding:
    speaks = diagnosis.evidence[0]
    value = speaks.value if math.isnan(diagnosis.value) else diagnosis.value
    follows = "" if diagnosis.consequence_of is None else f" (follows from {diagnosis.consequence_of})"
    return Finding(
        rule=diagnosis.id,
        level="critical" if diagnosis.confidence >= CRITICAL_FROM else "warning",
        n_updates=newest,
        since=diagnosis.first_step,
        tag=speaks.tag,
        value=value,
        threshold=diagnosis.threshold,
        meaning=f"{diagnosis.title}{follows}: {speaks.tag} {speaks.note}",
        remedy=diagnosis.remedy,
    )
