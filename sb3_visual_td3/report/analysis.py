"""Judge a run, and collect its verdict, causes and all numbers in one object that every renderer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.criteria import Criterion, judge
from sb3_visual_td3.diagnosis.evidence import RunEvidence, evidence_of
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM, diagnose
from sb3_visual_td3.diagnosis.return_curve import Answer, ReturnCurve
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.two_questions import Answers, EvidenceLevel, ask, too_early
from sb3_visual_td3.diagnosis.verdict import EVIDENCE, CriterionResult, Status, Verdict, answer_of, decide
from sb3_visual_td3.report.document import Section
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.hyperparam_comparison import (
    ComparedParameter,
    as_number,
    compare_hyperparams,
    contradictions,
)
from sb3_visual_td3.report.over_time import VerdictOverTime
from sb3_visual_td3.report.recommendation import Recommendation, recommend
from sb3_visual_td3.report.run_settings import RunSettings
from sb3_visual_td3.report.sections.alerts import Alert, alerts, alerts_section
from sb3_visual_td3.report.sections.availability import Availability, Metric, availability
from sb3_visual_td3.report.sections.critics import Critics, critics, critics_section
from sb3_visual_td3.report.sections.episodes import (
    Episodes,
    Evaluations,
    episodes,
    episodes_section,
    evaluations,
    evaluations_section,
)
from sb3_visual_td3.report.sections.growth import Growth, growth, growth_section
from sb3_visual_td3.report.sections.norms import Norms, norms, norms_section
from sb3_visual_td3.report.sections.rewards import Rewards, rewards, rewards_section
from sb3_visual_td3.runs.manifest import RunManifest

_OF_THE_ACTORS_ENCODER = tuple(
    by_group[ACTOR_CNN.name]
    for by_group in (
        tags.GRADIENT_NORM,
        tags.GRADIENT_NORM_CLIPPED,
        tags.CLIP_FRACTION,
        tags.UPDATE_RATIO,
        tags.GROUP_LR,
        tags.PARAM_MEAN,
        tags.PARAM_STD,
    )
)
"""If a run logged one of these tags, its actor has its own encoder, whatever the settings say."""


@dataclass(frozen=True)
class StatedProperty:
    """Hold a property of the run that the event file does not show, but that a settings file states.

    :param tag: the 0/1 tag of the property
    :param meaning: the property in words
    :param source: the file that states it
    """

    tag: str
    meaning: str
    source: str


def stated_properties(settings: RunSettings, series: SeriesSet) -> tuple[tuple[StatedProperty, ...], tuple[str, ...]]:
    """Find properties of a run that are known only from its settings, such as normalised rewards.

    :param settings: settings of the run
    :param series: series of the run, as logged
    :return: the properties, and notes on settings that the event file contradicts
    """
    found, notes = [], []
    shared = settings.encoder_is_shared
    if shared is not None and shared.value and series.flag(tags.ENCODER_IS_SHARED) is None:
        logged = [tag for tag in _OF_THE_ACTORS_ENCODER if tag in series]
        if logged:
            notes.append(
                f"{shared.source} says that actor and critic share one encoder, but the event file has {logged[0]}: "
                "the event file takes precedence"
            )
        else:
            found.append(StatedProperty(tags.ENCODER_IS_SHARED, "actor and critic share one encoder", shared.source))
    scaled = settings.reward_is_normalized
    if scaled is not None and scaled.value and own_scale.rewards_are_scaled(series) is None:
        found.append(StatedProperty(tags.REWARD_IS_NORMALIZED, "the rewards are normalised", scaled.source))
    gamma = settings.get("gamma")
    if gamma is not None and gamma.value == 1 and series.flag(tags.RETURN_IS_UNDISCOUNTED) is None:
        found.append(StatedProperty(tags.RETURN_IS_UNDISCOUNTED, "returns are not discounted", gamma.source))
    return tuple(found), tuple(notes)


def effect_of_settings(
    given: Sequence[StatedProperty],
    series: SeriesSet,
    criteria: Sequence[Criterion],
    results: Sequence[CriterionResult],
    diagnoses: Sequence[Diagnosis],
) -> tuple[str, ...]:
    """Return notes on properties that are known only from settings, and on the results that these properties change.

    :param given: the properties, such as normalised rewards
    :param series: series of the run, as logged
    :param criteria: all criteria
    :param results: results of the criteria, computed with these properties
    :param diagnoses: diagnoses of the run, computed with these properties
    """
    if not given:
        return ()
    alone = judge(criteria, series)
    said = "; ".join(f"{each.meaning} (according to {each.source})" for each in given)
    changed = [
        after.id
        for before, after in zip(alone, results, strict=True)
        if (before.status, before.blocking) != (after.status, after.blocking)
    ]
    changed += sorted({d.id for d in diagnose(series)} ^ {d.id for d in diagnoses})
    consequence = f"This changes the result of {', '.join(changed)}." if changed else "This changes no result."
    notes = [
        f"The event file does not show these properties, so they are taken from the settings: {said}. {consequence}"
    ]
    verdict, without = decide(results), decide(alone)
    if verdict is not without:
        notes.append(f"From the event file alone the verdict would be {without.value}, not {verdict.value}")
    return tuple(notes)


@dataclass(frozen=True)
class RunSections:
    """Hold the numbers that the sections of a report show."""

    growth: Growth
    norms: Norms
    critics: Critics
    rewards: Rewards
    episodes: Episodes
    evaluations: Evaluations
    alerts: Mapping[str, Alert]
    availability: Availability

    @classmethod
    def of(
        cls, data: SeriesSet, criteria: Sequence[CriterionResult] = (), diagnoses: Sequence[Diagnosis] = ()
    ) -> RunSections:
        """Compute the numbers that the sections of a report show.

        :param data: the series of the run
        :param criteria: results of the criteria
        :param diagnoses: diagnoses of the run
        """
        # Sums and ratios of huge values overflow to infinity. Infinity is the right number here, so no warning is
        # shown.
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(
                growth=growth(data),
                norms=norms(data, diagnoses),
                critics=critics(data),
                rewards=rewards(data),
                episodes=episodes(data),
                evaluations=evaluations(data),
                alerts=alerts(data),
                availability=availability(data, criteria),
            )

    def as_document(self) -> tuple[Section, ...]:
        """Return the sections between the plots and the list of metrics; a section without data is left out."""
        sections = (
            growth_section(self.growth),
            norms_section(self.norms),
            critics_section(self.critics),
            rewards_section(self.rewards),
            episodes_section(self.episodes),
            evaluations_section(self.evaluations),
            alerts_section(self.alerts),
        )
        return tuple(section for section in sections if section is not None)


@dataclass(frozen=True)
class Analysis:
    """Hold one run with its verdict and everything that leads to the verdict.

    :param name: name of the run in the report
    :param data: content of the run's event files
    :param verdict: GO, NO-GO or INSUFFICIENT
    :param criteria: all criteria with their results
    :param diagnoses: the causes that were found; the one to fix first comes first
    :param metrics: statistics of every logged tag
    :param missing: known tags that the run did not log
    :param manifest: content of run.json
    :param notes: remarks on the data and the settings
    :param settings: the run's hyperparameters, with the source of each
    :param stated_properties: properties that the settings state and the event files do not show, such as a shared
        encoder
    :param hyperparams: hyperparameters compared with well-known values
    :param recommendation: recommended changes; empty for a GO
    :param until: the step of ``--until``; None for the whole run
    :param over_time: verdicts on the run's earlier parts; None if they were not requested
    :param resumable: folder with which ``visual-td3 resume`` continues the run; None if it cannot be continued
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
    stated_properties: tuple[StatedProperty, ...] = ()
    hyperparams: tuple[ComparedParameter, ...] = ()
    recommendation: Recommendation = field(default_factory=Recommendation)
    until: int | None = None
    over_time: VerdictOverTime | None = None
    resumable: Path | None = None

    @cached_property
    def answers(self) -> Answers:
        """Return the answers to "is it stable?" and "is it learning?", with the curves behind the answers."""
        return ask(self.series)

    @property
    def stable(self) -> Answer:
        """Return the answer to "is it stable?", from all criteria about stability that count for the verdict."""
        return answer_of(self.criteria, about_learning=False)

    @property
    def learning(self) -> Answer:
        """Return the answer to "is it learning?"."""
        return answer_of(self.criteria, about_learning=True)

    @property
    def curve(self) -> ReturnCurve | None:
        """Return the curve that represents the run; None if no return was logged."""
        return self.answers.learning.curve

    @cached_property
    def evidence(self) -> RunEvidence:
        """Return how much of the run could be checked."""
        return evidence_of(self.series, self.criteria, self.answers)

    @property
    def early(self) -> str | None:
        """Return why it is too early for a verdict, in words; None if it is not too early."""
        return too_early(self.series)

    @property
    def series(self) -> SeriesSet:
        """Return the series of the event files."""
        return self.data.series

    @cached_property
    def sections(self) -> RunSections:
        """Return the numbers that the report shows below the verdict; they are computed on first access."""
        return RunSections.of(self.series, self.criteria, self.diagnoses)

    @property
    def alerts(self) -> Mapping[str, Alert]:
        """Return the alerts by short name: "warning", "critical", or the id of a rule."""
        return self.sections.alerts

    def blocking(self, status: Status) -> tuple[CriterionResult, ...]:
        """Return the criteria that count for the verdict on this run and have the given status."""
        return tuple(r for r in self.criteria if r.blocking and r.status is status)

    @property
    def cause(self) -> Diagnosis | None:
        """Return the diagnosis to fix first; None if its confidence is below :data:`LIKELY_FROM`.

        It is also None for a GO, and for a run that is too short to be judged.
        """
        if self.verdict is Verdict.GO or (self.verdict is Verdict.INSUFFICIENT and self.early is not None):
            return None
        if not self.diagnoses or self.diagnoses[0].confidence < LIKELY_FROM:
            return None
        return self.diagnoses[0]


def _too_thin(evidence: RunEvidence, required: EvidenceLevel) -> CriterionResult:
    return CriterionResult(
        id=EVIDENCE,
        title=f"The evidence is at least {required}, as --require-evidence demands",
        status=Status.UNKNOWN,
        blocking=True,
        value=None,
        threshold=None,
        source="--require-evidence",
        detail=f"the evidence is {evidence}",
    )


def analyse(
    data: RunData,
    criteria: Sequence[Criterion],
    *,
    name: str,
    manifest: RunManifest | None = None,
    notes: Sequence[str] = (),
    settings: RunSettings | None = None,
    require_evidence: EvidenceLevel = "thin",
    until: int | None = None,
    over_time: VerdictOverTime | None = None,
    resumable: Path | None = None,
) -> Analysis:
    """Judge the series of a run.

    :param data: content of the run's event files
    :param criteria: the criteria that ``load_criteria`` returned
    :param name: name of the run in the report
    :param manifest: content of run.json; only its settings, which ``settings`` also has, can change the verdict
    :param notes: remarks on the files of the run
    :param settings: settings of the run, which may state properties that the event file does not show
    :param require_evidence: evidence that a GO needs: ``"thin"``, ``"standard"`` or ``"full"``; with less, a GO
        becomes INSUFFICIENT
    :param until: the step of ``--until``, after which ``data`` has no points; None for the whole run
    :param over_time: verdicts on the run's earlier parts
    :param resumable: folder with which ``visual-td3 resume`` continues the run
    """
    settings = settings or RunSettings()
    series = _with_plan(data.series, settings)
    data = replace(data, series=series)
    stated, against = stated_properties(settings, series)
    known = _with_flags(series, stated)
    results, diagnoses = judge(criteria, known), diagnose(known)
    effects = effect_of_settings(stated, series, criteria, results, diagnoses)
    results = _with_evidence(results, series, require_evidence)
    verdict = decide(results)
    hyperparams = compare_hyperparams(settings, series)
    return Analysis(
        name=name,
        data=data,
        verdict=verdict,
        criteria=results,
        diagnoses=diagnoses,
        metrics={tag: Metric.of(series[tag]) for tag in series.names()},
        missing=tuple(tag for tag in tags.TAGS if tag not in series),
        manifest=manifest,
        notes=(*data.notes, *notes, *against, *effects, *contradictions(hyperparams)),
        settings=settings,
        stated_properties=stated,
        hyperparams=hyperparams,
        recommendation=recommend(verdict, diagnoses, settings, series),
        until=until,
        over_time=over_time,
        resumable=resumable,
    )


def verdict_on(
    series: SeriesSet,
    criteria: Sequence[Criterion],
    settings: RunSettings,
    require_evidence: EvidenceLevel,
) -> Verdict:
    """Return the verdict that :func:`analyse` gives on a run, without computing the rest of a report.

    :param series: the series, under the names in ``common/tags.py``
    :param criteria: the criteria that ``load_criteria`` returned
    :param settings: settings of the run
    :param require_evidence: see :func:`analyse`
    """
    series = _with_plan(series, settings)
    stated, _ = stated_properties(settings, series)
    results = judge(criteria, _with_flags(series, stated))
    return decide(_with_evidence(results, series, require_evidence))


def _with_plan(series: SeriesSet, settings: RunSettings) -> SeriesSet:
    """Return the series together with the planned length of the run and of its warm-up, from the settings."""
    planned, starts = as_number(settings.value("n_timesteps")), as_number(settings.value("learning_starts"))
    return replace(
        series,
        planned_steps=None if planned is None else planned[0],
        learning_starts=None if starts is None else starts[0],
    )


def _with_flags(series: SeriesSet, stated: Sequence[StatedProperty]) -> SeriesSet:
    # The flags from settings are kept apart from the series, so that the numbers show only what was logged.
    return replace(series, known_flags={each.tag: True for each in stated})


def _with_evidence(
    results: tuple[CriterionResult, ...], series: SeriesSet, required: EvidenceLevel
) -> tuple[CriterionResult, ...]:
    """Return the results; if a GO has less evidence than required, add a result that prevents this GO."""
    if decide(results) is not Verdict.GO:
        return results
    evidence = evidence_of(series, results, ask(series))
    if not evidence.is_below(required):
        return results
    return (*results, _too_thin(evidence, required))
