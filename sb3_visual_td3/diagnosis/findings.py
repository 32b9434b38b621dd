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
    :param note: what the value means; the report writes this text after the tag and the value
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
    :param evidence: the supporting points, the strongest first
    :param first_step: environment step at which the finding first showed; None if unknown
    :param value: the number that the rule compared with ``threshold``; NaN if there were several
    :param threshold: the limit for ``value``; NaN if there were several
    :param role: ``"cause"``, or ``"blind_spot"`` if the finding explains why the logged values do not show a problem
    :param remedy: the first thing to do; None means the rule's own remedy
    :param explained_by: ids of the diagnoses that may have caused this finding; None means the rule's own list
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
    :param evidence: the supporting points, the strongest first
    :param remedy: the first thing to do
    :param first_step: environment step at which the problem first showed; None if unknown
    :param role: ``"cause"``; ``"blind_spot"`` if the diagnosis explains why the logged values do not show a problem; or
        ``"consequence"`` if it follows from a cause that was also found
    :param explained_by: ids of the diagnoses that may have caused this one
    :param consequence_of: id of the cause, for a consequence
    :param value: the number that the rule compared with ``threshold``; NaN if there were several
    :param threshold: the limit for ``value``; NaN if there were several
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
        """Return this diagnosis as a consequence of another one; the new remedy says to fix the cause first."""
        remedy = f"A consequence of {cause.id}: fix {cause.id} first. If this problem remains afterwards: {self.remedy}"
        return replace(self, role="consequence", consequence_of=cause.id, remedy=remedy)


@dataclass(frozen=True)
class SettingChange:
    """Describe one change of a hyperparameter that a cure proposes.

    :param key: name of the hyperparameter in VisualTD3 and rl-zoo. ``policy_kwargs.NAME`` is the key NAME of
        policy_kwargs. ``group_lr`` is the learning rate of the parameter group (such as the actor's encoder) that the
        evidence names. If this group has no rate of its own, ``group_lr`` changes ``learning_rate``.
    :param reason: why, and where the number comes from
    :param to: the new value; a mapping is merged into the run's own mapping
    :param fill: keys that are added if the run's mapping lacks them
    :param at_least: lower limit, proposed if the run's value is smaller
    :param at_most: upper limit, proposed if the run's value is larger
    :param times: factor by which the run's value is multiplied if it is within the limits
    :param of_steps: raises the lower limit from ``at_least`` to this fraction of the run's environment steps
    :param of_steps_at_most: highest value to which ``of_steps`` raises the lower limit; None means the number of
        the run's environment steps
    :param unless_set: change only if the run's own value is None, False or 0
    :param unless_rewards_are_normalized: change only if VecNormalize does not scale the rewards
    :param envs: change only for these environments; empty: for all
    :param default: default value in the environments of ``envs``; used if the run states no value
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
    :param code: a sentence that says what else to do, such as a change in the training code
    :param code_in_visual_td3: replaces ``code`` for a run of VisualTD3
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
    :param is_live: whether the rule is also applied while training runs
    :param explained_by: ids of the diagnoses that may have caused this one
    :param cure: the proposed changes
    :param find: ``diagnose`` of the module, which returns None if nothing is wrong
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
        :return: the finding; None if nothing is wrong
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
