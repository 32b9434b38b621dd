"""From the data of a run to its analysis: one object that every renderer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import Criterion, judge
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict, decide
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.metric import Metric
from sb3_visual_td3.report.sections.alerts import Alert
from sb3_visual_td3.report.sections.run_sections import RunSections
from sb3_visual_td3.runs.manifest import RunManifest


@dataclass(frozen=True)
class Analysis:
    """One run, judged.

    :param name: what tells the run apart from the others of the report.
    :param missing: names of the table that the run did not log.
    """

    name: str
    data: RunData
    verdict: Verdict
    criteria: tuple[CriterionResult, ...]
    diagnoses: tuple[Diagnosis, ...]
    metrics: Mapping[str, Metric]
    missing: tuple[str, ...]
    manifest: RunManifest | None
    notes: tuple[str, ...]

    @property
    def series(self) -> SeriesSet:
        """The series that were judged."""
        return self.data.series

    @cached_property
    def sections(self) -> RunSections:
        """The figures below the verdict; computed when they are first asked for."""
        return RunSections.of(self.series, self.criteria, self.diagnoses)

    @property
    def alerts(self) -> Mapping[str, Alert]:
        """By short name: "warning", "critical", and the rest of the tag for other rules."""
        return self.sections.alerts

    def blocking(self, status: Status) -> tuple[CriterionResult, ...]:
        """Return the blocking criteria of one status."""
        return tuple(r for r in self.criteria if r.blocking and r.status is status)

    @property
    def cause(self) -> Diagnosis | None:
        """The diagnosis to remedy first; None where none is likely."""
        return self.diagnoses[0] if self.diagnoses and self.diagnoses[0].confidence >= 0.5 else None


def analyse(
    data: RunData,
    criteria: Sequence[Criterion],
    *,
    name: str,
    manifest: RunManifest | None = None,
    notes: Sequence[str] = (),
) -> Analysis:
    """Judge the series of a run. The manifest is shown and decides nothing."""
    series = data.series
    results = judge(criteria, series)
    logged = series.names()
    return Analysis(
        name=name,
        data=data,
        verdict=decide(results),
        criteria=results,
        diagnoses=diagnose(series),
        metrics={tag: Metric.of(series[tag]) for tag in logged},
        missing=tuple(tag for tag in tags.TAGS if tag not in series),
        manifest=manifest,
        notes=(*data.notes, *notes),
    )
