"""From the data of a run to its analysis: one object that every renderer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import Criterion, judge
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict, decide
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.hyperparam_comparison import ComparedParameter, compare_hyperparams, contradictions
from sb3_visual_td3.report.hyperparams_found import RunSettings
from sb3_visual_td3.report.metric import Metric
from sb3_visual_td3.report.recommendation import Recommendation, recommend
from sb3_visual_td3.report.sections.alerts import Alert
from sb3_visual_td3.report.sections.run_sections import RunSections
from sb3_visual_td3.report.settings_answers import Answer, answers, effect
from sb3_visual_td3.runs.manifest import RunManifest


@dataclass(frozen=True)
class Analysis:
    """One run, judged.

    :param name: what tells the run apart from the others of the report.
    :param missing: names of the table that the run did not log.
    :param settings: the run's hyperparameters, and where each comes from.
    :param answers: what the settings answered because the event file did not.
    :param hyperparams: the hyperparameters against well-known ones; empty where none is known.
    :param recommendation: what to change; empty for a run that may go on.
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
    settings: RunSettings = field(default_factory=RunSettings)
    answers: tuple[Answer, ...] = ()
    hyperparams: tuple[ComparedParameter, ...] = ()
    recommendation: Recommendation = field(default_factory=Recommendation)

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
    settings: RunSettings | None = None,
) -> Analysis:
    """Judge the series of a run.

    :param manifest: shown, and decides nothing.
    :param settings: answer what the event file leaves open; the notes say where they did, and what came of it.
    """
    settings = settings or RunSettings()
    series = data.series
    answered, against = answers(settings, series)
    known = replace(series, told={answer.tag: True for answer in answered})
    results, diagnoses = judge(criteria, known), diagnose(known)
    verdict = decide(results)
    hyperparams = compare_hyperparams(settings, series)
    answers_did = effect(answered, series, criteria, results, diagnoses)
    return Analysis(
        name=name,
        data=data,
        verdict=verdict,
        criteria=results,
        diagnoses=diagnoses,
        metrics={tag: Metric.of(series[tag]) for tag in series.names()},
        missing=tuple(tag for tag in tags.TAGS if tag not in series),
        manifest=manifest,
        notes=(*data.notes, *notes, *against, *answers_did, *contradictions(hyperparams)),
        settings=settings,
        answers=answered,
        hyperparams=hyperparams,
        recommendation=recommend(verdict, diagnoses, settings, series),
    )
