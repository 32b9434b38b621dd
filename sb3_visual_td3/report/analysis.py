"""From the data of a run to its analysis: one object that every renderer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import Criterion, judge
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict, decide
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.hyperparam_comparison import ComparedParameter, compare_hyperparams, contradictions
from sb3_visual_td3.report.hyperparams_found import RunSettings
from sb3_visual_td3.report.recommendation import Recommendation, recommend
from sb3_visual_td3.report.settings_answers import Answer, answers, effect
from sb3_visual_td3.runs.manifest import RunManifest

ALERT_PREFIX = "alerts/"
_SHORT_ALERT_NAMES = {tags.ALERT_WARNING: "warning", tags.ALERT_CRITICAL: "critical"}


@dataclass(frozen=True)
class Metric:
    """Statistics of one tag: over its finite values, first and last as they are."""

    n: int
    first: float
    last: float
    mean: float
    std: float
    min: float
    max: float
    first_step: int
    last_step: int

    @classmethod
    def of(cls, series: Series) -> Metric:
        """Compute the statistics of a series that is not empty (population standard deviation)."""
        finite = series.finite.values
        if finite.size == 0:
            finite = np.array([np.nan])
        return cls(
            n=len(series),
            first=float(series.values[0]),
            last=float(series.values[-1]),
            mean=series.mean(),
            std=series.std(),
            min=float(finite.min()),
            max=float(finite.max()),
            first_step=int(series.steps[0]),
            last_step=int(series.steps[-1]),
        )


@dataclass(frozen=True)
class AlertCount:
    """How often one alert was active; points that say 0 are no alerts.

    :param first_step: step of the first activation; None where there was none.
    """

    n_points: int
    n_active: int
    first_step: int | None

    @classmethod
    def of(cls, series: Series) -> AlertCount:
        """Count the points that are 1."""
        active = series.steps[series.values == 1.0]
        return cls(len(series), int(active.size), int(active[0]) if active.size else None)


@dataclass(frozen=True)
class Analysis:
    """One run, judged.

    :param name: what tells the run apart from the others of the report.
    :param alerts: by short name: "warning", "critical", and the rest of the tag for other rules.
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
    alerts: Mapping[str, AlertCount]
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
        alerts=_alerts(series),
        missing=tuple(tag for tag in tags.TAGS if tag not in series),
        manifest=manifest,
        notes=(*data.notes, *notes, *against, *answers_did, *contradictions(hyperparams)),
        settings=settings,
        answers=answered,
        hyperparams=hyperparams,
        recommendation=recommend(verdict, diagnoses, settings, series),
    )


def _alerts(series: SeriesSet) -> dict[str, AlertCount]:
    return {
        _SHORT_ALERT_NAMES.get(tag, tag.removeprefix(ALERT_PREFIX)): AlertCount.of(series[tag])
        for tag in series.names()
        if tag.startswith(ALERT_PREFIX)
    }
