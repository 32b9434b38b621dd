"""Define the types that rules work with: rule, result, diagnosis, evidence and cure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from sb3_visual_td3.diagnosis.series import Series, SeriesSet

Role = Literal["cause", "blind_spot", "consequence"]
"""The role of a diagnosis. A blind spot explains why the logged values do not show a problem. A consequence follows
from a cause that was also found."""


@dataclass(frozen=True)
class Evidence:
    """Hold one logged point that supports a diagnosis.

    :param tag: the logged name
    :param step: step on the tag's own x-axis; None if the value describes the whole run
    :param value: value of the point
    :param note: what the value means. The report writes this text after the tag and the value, as in
        "``train/learning_rate`` at 500 is 0.1: the logged rate; 1e-4 to 1e-3 is usual for Adam"
    """

    tag: str
    step: int | None
    value: float
    note: str

    @classmethod
    def last_of(cls, series: Series, note: str) -> Evidence:
        """Return the last point of a series as evidence; the series must not be empty."""
        return cls(series.name, int(series.steps[-1]), float(series.values[-1]), note)

    @classmethod
    def largest_of(cls, series: Series, note: str) -> Evidence:
        """Return the largest point of a series as evidence; the series must not be empty."""
        at = int(series.values.argmax())
        return cls(series.name, int(series.steps[at]), float(series.values[at]), note)

    @classmethod
    def near(cls, series: Series, step: int | None, note: str) -> Evidence:
        """Return the last point at or before a step as evidence; if the step is None, return the last point of all."""
        if step is None:
            return cls.last_of(series, note)
        at = max(int(np.searchsorted(series.steps, step, side="right")) - 1, 0)
        return cls(series.name, int(series.steps[at]), float(series.values[at]), note)


@dataclass(frozen=True)
class RuleResult:
    """Hold what a rule found in the series of a run.

    :param confidence: confidence in the finding; :meth:`Rule.diagnose` limits it to [0, 0.98]
    :param evidence: the logged points that support the finding, the strongest first
    :param first_step: environment step at which the finding first showed; None if the data do not show this
    :param value: the number that the rule compared with a threshold; NaN if the rule combined several numbers
    :param threshold: the number with which ``value`` was compared; NaN if the rule combined several numbers
    :param role: cause, or blind spot (a reason why the logged values do not show a problem)
    :param remedy: the first thing to do; None for the remedy of the rule
    :param explained_by: ids of the diagnoses that may have caused this finding; None for the list of the rule
    """

    confidence: float
    evidence: Sequence[Evidence]
    first_step: int | None
    value: float = float("nan")
    threshold: float = float("nan")
    role: Role = "cause"
    remedy: str | None = None
    explained_by: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Describe a problem that a rule has found in the logged series of a run.

    :param id: the id of the rule
    :param title: the problem in a few words
    :param confidence: confidence in [0, 1]
    :param evidence: the logged points that support the finding, the strongest first
    :param remedy: the first thing to do
    :param first_step: environment step at which the problem first showed; None if the data do not show this
    :param role: cause, blind spot (a reason why the logged values do not show a problem) or consequence
    :param explained_by: ids of the diagnoses that turn this diagnosis into a consequence if they are found too
    :param consequence_of: id of the cause, for a consequence
    :param value: the number that the rule compared with a threshold; NaN if the rule combined several numbers
    :param threshold: the number with which ``value`` was compared; NaN if the rule combined several numbers
    """

    id: str
    title: str
    confidence: float
    evidence: tuple[Evidence, ...]
    remedy: str
    first_step: int | None
    role: Role = "cause"
    explained_by: tuple[str, ...] = ()
    consequence_of: str | None = None
    value: float = float("nan")
    threshold: float = float("nan")

    def as_consequence_of(self, cause: Diagnosis) -> Diagnosis:
        """Return this diagnosis as a consequence of another diagnosis, with a remedy that names the cause first."""
        remedy = f"A consequence of {cause.id}: fix {cause.id} first. If this problem remains afterwards: {self.remedy}"
        return replace(self, role="consequence", consequence_of=cause.id, remedy=remedy)


@dataclass(frozen=True)
class SettingChange:
    """Describe one change of a hyperparameter that a cure proposes, under its name in VisualTD3 and rl-zoo.

    :param key: the setting; ``policy_kwargs.NAME`` is the key NAME of the mapping policy_kwargs. ``group_lr`` is the
        learning rate of the group that the evidence names: ``actor_lr``, ``critic_cnn_lr``, ... if the run sets it,
        otherwise ``learning_rate``
    :param reason: why, and where the number comes from
    :param to: the new value; a mapping is merged into the run's own mapping
    :param fill: more keys for the run's mapping; each is added only if the run's mapping lacks it
    :param at_least: lower limit: if the run's value is smaller, this limit is proposed
    :param at_most: upper limit: if the run's value is larger, this limit is proposed
    :param times: factor for a value within these limits: the run's value times this factor is proposed
    :param of_steps: raises the lower limit to this fraction of the run's environment steps. For example, 0.1 raises it
        to 5,000 for a run of 50,000 steps
    :param of_steps_at_most: the largest lower limit that ``of_steps`` may give, in environment steps; None for the
        length of the run
    :param unless_set: propose the change only if the run's own value is None, False or 0
    :param unless_rewards_are_normalized: propose the change only if VecNormalize does not scale the rewards
    :param envs: propose the change for these environments only; empty: for all
    :param default: the value that the environments in ``envs`` use if the settings contain no value
    """

    key: str
    reason: str
    to: Any = None
    fill: Mapping[str, Any] = field(default_factory=dict)
    at_least: float | None = None
    at_most: float | None = None
    times: float | None = None
    of_steps: float | None = None
    of_steps_at_most: float | None = None
    unless_set: bool = False
    unless_rewards_are_normalized: bool = False
    envs: tuple[str, ...] = ()
    default: Any = None


@dataclass(frozen=True)
class Cure:
    """Hold the changes that a rule recommends.

    :param changes: changes to the hyperparameter file
    :param code: a sentence that says what to do beyond ``changes``, for example what to change in the training code
    :param code_in_visual_td3: the sentence that replaces ``code`` for a run of VisualTD3
    :param if_nothing_to_change: the sentence for a run whose settings need none of the changes
    """

    changes: tuple[SettingChange, ...] = ()
    code: str | None = None
    code_in_visual_td3: str | None = None
    if_nothing_to_change: str | None = None


@dataclass(frozen=True)
class Rule:
    """Hold everything about one diagnosis, collected from its module in ``diagnosis/rules``.

    :param id: id of the diagnosis, which is the name of the module
    :param title: the problem in a few words
    :param remedy: the first thing to do
    :param is_live: whether the rule is also applied while training runs, to a window of the last updates
    :param explained_by: ids of the diagnoses that may have caused this diagnosis
    :param cure: the changes of settings that the rule proposes
    :param find: ``diagnose`` of the module: a pure function over the series of a run, or of a window of it; it returns
        None if nothing is wrong
    """

    id: str
    title: str
    remedy: str
    is_live: bool
    explained_by: tuple[str, ...]
    cure: Cure
    find: Callable[[SeriesSet], RuleResult | None]

    def diagnose(self, data: SeriesSet) -> Diagnosis | None:
        """Apply the rule to the series of a run, or of a window of it.

        :param data: the series
        :return: what the rule found, with its id, title and remedy; None if nothing is wrong
        """
        result = self.find(data)
        if result is None:
            return None
        return Diagnosis(
            id=self.id,
            title=self.title,
            confidence=bounded(result.confidence),
            evidence=tuple(result.evidence),
            remedy=self.remedy if result.remedy is None else result.remedy,
            first_step=result.first_step,
            role=result.role,
            explained_by=self.explained_by if result.explained_by is None else result.explained_by,
            value=result.value,
            threshold=result.threshold,
        )


def bounded(confidence: float) -> float:
    """Limit a confidence to [0, 0.98], because no rule is ever certain, and round it to three digits."""
    return round(min(max(confidence, 0.0), 0.98), 3)
