"""Judge the first 5 %, 10 %, ... and 100 % of a run, to find out when a failure became visible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.event_reader import RunData

N_PARTS = 20
"""A run is judged this many times: on its first 5 %, its first 10 %, ... and as a whole."""


class Prefix(NamedTuple):
    """Hold the verdict on the part of a run from its beginning to a certain step.

    :ivar until: the step at which the part ends, on the run's x-axis
    :ivar verdict: the verdict; None if the part holds no point
    """

    until: int
    verdict: Verdict | None


@dataclass(frozen=True)
class VerdictOverTime:
    """Hold the verdicts on the first 5 %, 10 %, ... and 100 % of a run.

    :param prefixes: one entry for each part, the shortest part first
    :param begin: the step that counts as the beginning of the run
    """

    prefixes: tuple[Prefix, ...]
    begin: int = 0

    @property
    def end(self) -> int:
        """Return the last step of the run."""
        return self.prefixes[-1].until

    @property
    def no_go_from(self) -> int | None:
        """Return the first step from which every verdict is NO-GO; None if the last verdict is not NO-GO."""
        found = None
        for prefix in reversed(self.prefixes):
            if prefix.verdict is not Verdict.NO_GO:
                break
            found = prefix.until
        return found

    @property
    def part_after(self) -> float | None:
        """Return the fraction of the run's steps after ``no_go_from``; None if the last verdict is not NO-GO."""
        if self.no_go_from is None:
            return None
        return (self.end - self.no_go_from) / (self.end - self.begin)

    @property
    def changes(self) -> tuple[Prefix, ...]:
        """Return the first verdict, and each verdict that differs from the one before."""
        found: list[Prefix] = []
        for prefix in self.prefixes:
            if prefix.verdict is None:
                continue
            if not found or prefix.verdict is not found[-1].verdict:
                found.append(prefix)
        return tuple(found)


def verdict_over_time(data: RunData, judge: Callable[[RunData], Verdict]) -> VerdictOverTime | None:
    """Judge the first 5 %, 10 %, ... and 100 % of a run's steps.

    :param data: the points of the run, before ``--tags`` renames the tags
    :param judge: function that returns the verdict on a run
    :return: the verdicts; None for a run without a step
    """
    first, last = data.span
    begin = min(first, 0)
    if last <= begin:
        return None
    prefixes: list[Prefix] = []
    n_points, verdict = 0, None
    for step in sorted({begin + (last - begin) * part // N_PARTS for part in range(1, N_PARTS + 1)}):
        part = data.until(step)
        # Without a new point since the previous step, the verdict is the same.
        if part.n_points != n_points:
            n_points, verdict = part.n_points, judge(part)
        prefixes.append(Prefix(step, verdict))
    return VerdictOverTime(tuple(prefixes), begin)
