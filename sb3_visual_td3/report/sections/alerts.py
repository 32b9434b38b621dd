"""Count the points of each alert of a run, and the active points among them, which have the value 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import counted, number, percent, step_range
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.document import Code, Column, Section, Sentence, Table, columns

PREFIX = "alerts/"
_SHORT_NAMES = {tags.ALERT_WARNING: "warning", tags.ALERT_CRITICAL: "critical"}


class Stretch(NamedTuple):
    """Describe a period in which one alert was active, by its consecutive active points.

    :ivar first_step: step of the first active point
    :ivar last_step: step of the last active point
    :ivar until_step: step of the first point after the period; equal to ``last_step`` if no point follows
    """

    first_step: int
    last_step: int
    until_step: int
    n_points: int


@dataclass(frozen=True)
class Alert:
    """Describe how often, and at which steps, one alert was active in a run.

    :param logged: first and last step of all points, active or not
    :param first_step: step of the first active point; None without such a point
    :param last_step: step of the last active point; None without such a point
    """

    tag: str
    n_points: int
    n_active: int
    logged: tuple[int, int]
    first_step: int | None
    last_step: int | None
    stretches: tuple[Stretch, ...]

    @classmethod
    def of(cls, series: Series) -> Alert:
        """Count all points of an alert and its active points, which have the value 1.

        :param series: the points of the alert, at least one
        """
        is_active = series.values == 1.0
        active = series.steps[is_active]
        first = last = None
        if active.size:
            first, last = int(active[0]), int(active[-1])
        logged = (int(series.steps[0]), int(series.steps[-1]))
        return cls(series.name, len(series), int(active.size), logged, first, last, _stretches(series))

    @property
    def longest(self) -> Stretch | None:
        """Return the active period with the highest number of points; None if the alert was never active.

        If several periods have this number of points, the first of them is returned.
        """
        return max(self.stretches, key=lambda stretch: stretch.n_points, default=None)


def _stretches(series: Series) -> tuple[Stretch, ...]:
    active = (series.values == 1.0).astype(np.int8)
    # The 0 at both ends makes the edges alternate: the index of a stretch's first point, then the index after its last
    # point.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]])))
    steps = series.steps
    return tuple(
        Stretch(int(steps[begin]), int(steps[end - 1]), int(steps[min(end, len(series) - 1)]), int(end - begin))
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    )


def alerts(data: SeriesSet) -> dict[str, Alert]:
    """Return the logged alerts by short name: "warning", "critical", or the id of a rule."""
    return {
        _SHORT_NAMES.get(tag, tag.removeprefix(PREFIX)): Alert.of(data[tag])
        for tag in data.names()
        if tag.startswith(PREFIX)
    }


def alerts_section(found: Mapping[str, Alert]) -> Section | None:
    """Return the section on alerts; None if the run logged no alert."""
    if not found:
        return None
    fired = {name: alert for name, alert in found.items() if alert.n_active}
    silent = [alert for alert in found.values() if not alert.n_active]
    sentences: list[Sentence] = [
        (
            "An alert's tag has the value 1 at each step at which the alert is active, and 0 at each step at which the "
            "check found nothing. Only points with the value 1 count as active.",
        ),
        *(_counts(alert) for alert in fired.values()),
    ]
    if silent:
        names = ", ".join(alert.tag.removeprefix(PREFIX) for alert in silent)
        sentences.append((f"Logged and never active: {names}.",))
    tables = (_table(fired),) if fired else ()
    return Section("alerts", "Alerts", tuple(sentences), tables)


def _counts(alert: Alert) -> Sentence:
    n_quiet = alert.n_points - alert.n_active
    said = f" has {alert.n_points:,} points, of which {alert.n_active:,} are active and {n_quiet:,} are not."
    return (Code(alert.tag), said)


def _table(fired: Mapping[str, Alert]) -> Table:
    heads = ("Active", "Points logged", "Part active", "First active at", "Last active at", "Active periods")
    rows = tuple(
        (
            name,
            number(alert.n_active),
            number(alert.n_points),
            percent(alert.n_active / alert.n_points),
            number(alert.first_step),
            number(alert.last_step),
            number(len(alert.stretches)),
            _longest(alert),
        )
        for name, alert in fired.items()
    )
    return Table((*columns("Alert", *heads), Column("Longest period")), rows)


def _longest(alert: Alert) -> str:
    longest = alert.longest
    if longest is None:
        return "-"
    return f"{counted(longest.n_points, 'point')}, {step_range(longest.first_step, longest.last_step)}"
