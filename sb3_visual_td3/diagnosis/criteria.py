"""Read criteria from YAML, validate them key by key, and judge them over the series of a run.

A criterion names a check of ``checks.py``, its tags and a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN, CRITIC_CNN, CRITIC_MLP, GROUP_NAMES
from sb3_visual_td3.common.input_files import parse_mapping, read_mapping, require_type, shown
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.baseline_comparison import MIN_EVALUATIONS
from sb3_visual_td3.diagnosis.checks import CHECKS, Measurement
from sb3_visual_td3.diagnosis.run_kind import Family, RunKind, recognise
from sb3_visual_td3.diagnosis.series import SeriesSet, not_finite_from
from sb3_visual_td3.diagnosis.two_questions import in_or_after_warm_up, too_early
from sb3_visual_td3.diagnosis.verdict import ABOUT_LEARNING, CriterionResult, Status

FORMAT_VERSION = 1
_BUILT_IN = "criteria.yml"

_OF_ACTOR_ENCODER = frozenset(name for name in tags.TAGS if ACTOR_CNN.name in name)
_OF_ENCODERS = _OF_ACTOR_ENCODER | {name for name in tags.TAGS if CRITIC_CNN.name in name}
# A policy without an encoder sees no frames either.
_OF_ENCODERS |= {tags.FRAME_STD, tags.FRAME_CHANGE, tags.ENCODER_DORMANT_FRACTION}

_OF_TRAINING = {
    group: frozenset(
        by_group[group]
        for by_group in (tags.GRADIENT_NORM, tags.GRADIENT_NORM_CLIPPED, tags.CLIP_FRACTION, tags.UPDATE_RATIO)
    )
    for group in GROUP_NAMES
}
"""Maps each parameter group to the tags that are logged only while the group is trained."""


def callbacks_that_fit(data: SeriesSet) -> frozenset[str]:
    """Return the callbacks of this package that can be used in a run like this one.

    DrivingMetricsCallback and DrivingEvalCallback are included only if at least one of these two callbacks ran.

    :param data: series of the run
    """
    ran = callbacks_that_ran(data)
    fit = {tag.owner for tag in tags.TAGS.values()} - {_METRICS, _EVALUATION}
    if recognise(data.names()).family in {Family.ON_POLICY, Family.VALUE_BASED}:
        fit -= {_MONITOR, _ALERTS}
    if ran & {_METRICS, _EVALUATION}:
        fit |= {_METRICS, _EVALUATION}
    return frozenset(fit)


@dataclass(frozen=True)
class Criterion:
    """Describe one requirement for a GO. The header of criteria.yml explains the keys."""

    id: str
    title: str
    kind: str
    tags: tuple[str, ...]
    blocking: bool
    source: str
    threshold: float | None = None
    applies_from_step: int = 0
    scale_dependent: bool = False
    needs_actor_encoder: bool = False
    min_points: int = 5
    reward_size: tuple[float, float] | None = None
    is_named_by_user: bool = field(default=False, compare=False)
    """Whether the user's criteria file names this criterion. Such a criterion can block a GO even if the callback that
    logs its tags did not run."""
    is_own: bool = field(default=False, compare=False)
    """Whether the user's criteria file adds this criterion."""


# The id is the key of the mapping in the file, not a field of its entry.
_KEYS = {f.name: f for f in fields(Criterion) if f.name not in {"id", "is_named_by_user", "is_own"}}
_REQUIRED = {name for name, f in _KEYS.items() if f.default is MISSING}
_EXPECTED: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "kind": (str,),
    "tags": (list,),
    "blocking": (bool,),
    "source": (str,),
    "threshold": (int, float, type(None)),
    "applies_from_step": (int,),
    "scale_dependent": (bool,),
    "needs_actor_encoder": (bool,),
    "min_points": (int,),
    "reward_size": (list, type(None)),
}

_MONITOR, _ALERTS = "GradientNormCallback", "ExplosionAlertCallback"
_METRICS, _EVALUATION = "DrivingMetricsCallback", "DrivingEvalCallback"
_NAMES_OF_OTHERS = frozenset(
    [
        tags.ACTOR_LOSS,
        tags.CRITIC_LOSS,
        tags.CRITIC_1_LOSS,
        tags.CRITIC_2_LOSS,
        tags.Q1_VALUE,
        tags.Q2_VALUE,
        tags.REWARD_DIVISOR,
        tags.EPISODE_REWARD,
        tags.EPISODE_LENGTH,
        tags.EVAL_REWARD,
        tags.EVAL_SUCCESS_RATE,
        tags.EVAL_LENGTH,
    ]
)
"""Tags that do not prove that a callback of this package ran, because other code may log tags of the same name."""
_OF_ANY_ENVIRONMENT = frozenset(
    [
        tags.EPISODE_SUCCESS,
        tags.PROGRESS_BUFFER_SIZE,
        tags.PROGRESS_EPISODE_STEPS,
        tags.PROGRESS_REWARD,
        *tags.REWARD_TERM.values(),
    ]
)
"""Tags that DrivingMetricsCallback also logs in an environment without vehicles."""


def callbacks_that_ran(data: SeriesSet) -> frozenset[str]:
    """Return the callbacks of this package that were used in a run, recognised by the tags that they logged.

    :param data: the series of the run
    """
    ran = _owners_of(data, _NAMES_OF_OTHERS)
    if any(name.startswith("alerts/") for name in data.names()):
        ran.add(_ALERTS)
    # Both driving callbacks log in a driving environment. A few reward terms alone may come from any environment.
    if _EVALUATION in ran or (tags.EPISODE_LENGTH in data and _MONITOR in ran):
        ran.add(_METRICS)
    return frozenset(ran)


def is_driving_run(data: SeriesSet) -> bool:
    """Return whether a run logged a tag that only a driving environment has, such as the speed or the collisions.

    :param data: the series of the run
    """
    return not _owners_of(data, _NAMES_OF_OTHERS | _OF_ANY_ENVIRONMENT).isdisjoint({_METRICS, _EVALUATION})


def _owners_of(data: SeriesSet, without: frozenset[str]) -> set[str]:
    """Return the callbacks that write the logged tags, except for the tags in ``without``."""
    return {tags.TAGS[name].owner for name in data.names() if name in tags.TAGS and name not in without}


def load_criteria(path: Path | None = None) -> tuple[Criterion, ...]:
    """Return the built-in criteria, with the changes and additions of a file.

    :param path: a YAML or JSON file of the same form as the built-in file; None for the built-in criteria alone
    :raises ValueError: if the file is not a mapping, has an unknown or missing key, has a value of a wrong type, is too
        large, or is nested too deeply
    :raises OSError: if ``path`` is not a regular file or cannot be read
    """
    built_in = resources.files(__package__).joinpath(_BUILT_IN).read_text(encoding="utf-8")
    criteria = _merge({}, _entries(parse_mapping(built_in, _BUILT_IN), _BUILT_IN), _BUILT_IN)
    if path is not None:
        built_in_ids = criteria.keys()
        given = _entries(read_mapping(path), str(path))
        criteria = _merge(criteria, given, str(path))
        for key in given:
            criteria[key] = replace(criteria[key], is_named_by_user=True, is_own=key not in built_in_ids)
    return tuple(criteria.values())


def judge(criteria: Sequence[Criterion], data: SeriesSet) -> tuple[CriterionResult, ...]:
    """Judge every criterion over the series of one run.

    A criterion does not apply if none of its tags was logged and the callback that logs them did not run. The exception
    is a criterion that the user's criteria file names.

    :param criteria: the criteria that :func:`load_criteria` returned
    :param data: the series of the run
    :return: one result for each criterion, in the same order
    """
    run = _Run.of(criteria, data)
    results = []
    # Near the limits of doubles, sums become infinite and differences NaN. Neither passes a comparison.
    with np.errstate(all="ignore"):
        for criterion in criteria:
            measured = _measure(criterion, data, run)
            needed = run.missing_callback(criterion)
            is_unlogged = measured.status is Status.UNKNOWN and not any(tag in data for tag in criterion.tags)
            if needed is not None and is_unlogged:
                detail = f"{run.why_without(needed)}; {measured.detail}"
                measured = Measurement(Status.NOT_APPLICABLE, None, detail)
            blocking = run.blocks(criterion)
            early = run.why_too_early_for(criterion, data)
            if blocking and measured.status is Status.FAIL and early is not None:
                blocking = False
                measured = measured._replace(detail=f"{measured.detail}; {early}")
            results.append(
                CriterionResult(
                    id=criterion.id,
                    title=criterion.title,
                    status=measured.status,
                    blocking=blocking,
                    value=measured.value,
                    threshold=criterion.threshold,
                    source=criterion.source,
                    detail=measured.detail,
                    tags=criterion.tags,
                    needs_callback=needed if run.could_use(needed) else None,
                    side=CHECKS[criterion.kind].side,
                    limit=criterion.threshold if measured.limit is None else measured.limit,
                    is_own=criterion.is_own,
                )
            )
    return tuple(results)


_UNKNOWN_KIND = RunKind(Family.UNKNOWN)


@dataclass(frozen=True)
class _Run:
    """Hold the properties of a run that decide which criteria apply to it.

    :param has_no_bound: whether the returns are undiscounted, so that the rewards do not limit Q
    :param length: length of the run in environment steps; None if no tag shows it
    :param length_in_required_tags: length of the run according to the tags that a GO requires
    :param largest_reward: largest |reward| of a step; None if the run did not log it
    :param why_too_early: why it is too early for a NO-GO; None if the run is long enough
    :param drives: whether the environment is a driving environment
    :param is_watched_from_outside: whether the run used one of SB3's own algorithms; a callback cannot read the targets
        and the sampled rewards of these algorithms
    """

    encoder_is_shared: bool
    has_no_encoder: bool
    reward_is_normalized: bool
    has_no_bound: bool = False
    frozen: frozenset[str] = frozenset()
    length: int | None = None
    length_in_required_tags: int | None = None
    last_step: int | None = None
    kind: RunKind = _UNKNOWN_KIND
    callbacks: frozenset[str] = frozenset()
    largest_reward: float | None = None
    why_too_early: str | None = None
    drives: bool = False
    logged: frozenset[str] = frozenset()
    is_watched_from_outside: bool = False

    @classmethod
    def of(cls, criteria: Sequence[Criterion], data: SeriesSet) -> _Run:
        """Read the properties of a run from the tags that it logged."""
        flags = cls(
            encoder_is_shared=data.flag(tags.ENCODER_IS_SHARED) is True,
            has_no_encoder=data.flag(tags.HAS_ENCODER) is False,
            reward_is_normalized=own_scale.rewards_are_scaled(data) is True,
            has_no_bound=_has_no_bound(data),
            frozen=frozenset(group for group, tag in tags.GROUP_FROZEN.items() if data.flag(tag) is True),
            kind=recognise(data.names()),
            callbacks=callbacks_that_ran(data),
            drives=is_driving_run(data),
            largest_reward=_largest_reward(data),
            why_too_early=too_early(data),
            logged=frozenset(data.names()),
            is_watched_from_outside=data.flag(tags.SEEN_BY_OPTIMIZER) is True,
        )
        # The length is also read from required tags only: the first tag of each criterion that this run must pass for a
        # GO. A run cannot be GO without these tags, so it gains nothing by leaving them out. If optional tags counted,
        # a run could avoid a failure by not logging them.
        needed = [criterion.tags[0] for criterion in criteria if flags.needs(criterion)]
        length = data.n_steps
        length_in_required_tags = data.length_from(needed)
        return replace(
            flags,
            length=length,
            length_in_required_tags=length if length_in_required_tags is None else length_in_required_tags,
            last_step=max((int(data[name].steps[-1]) for name in data.names() if tags.is_on_steps(name)), default=None),
        )

    def blocks(self, criterion: Criterion) -> bool:
        """Return whether the criterion can block a GO of this run."""
        if not criterion.blocking or (criterion.scale_dependent and self.reward_is_normalized):
            return False
        if criterion.is_named_by_user:
            return True
        if criterion.reward_size is not None and self.largest_reward is not None:
            lowest, highest = criterion.reward_size
            if not lowest <= self.largest_reward <= highest:
                return False
        if criterion.reward_size is not None and self.largest_reward is None and self.is_watched_from_outside:
            return False
        # Without this package's callbacks, a NaN may be a mean over no values. The criterion stable_in_own_scale looks
        # for losses that end as NaN.
        if criterion.kind == "all_finite" and not self.callbacks:
            return False
        needed = self.missing_callback(criterion)
        # Some checks also block without the callback, see _BLOCK_WITHOUT_CALLBACK.
        is_logged = criterion.kind in _BLOCK_WITHOUT_CALLBACK and self.logged.issuperset(criterion.tags)
        return needed is None or (is_logged and not self.kind.has_entropy_bonus)

    def missing_callback(self, criterion: Criterion) -> str | None:
        """Return the callback that logs the tags of a criterion, if this callback did not run; otherwise None."""
        owners = {tags.TAGS[tag].owner for tag in criterion.tags if tag in tags.TAGS}
        if criterion.is_named_by_user or not owners or owners & self.callbacks:
            return None
        return min(owners)

    def why_too_early_for(self, criterion: Criterion, data: SeriesSet) -> str | None:
        """Return, as text, why a failure of the criterion does not count yet; None if it counts."""
        if criterion.kind in _JUDGE_EARLY or criterion.is_named_by_user:
            return None
        warm_up = in_or_after_warm_up(data)
        if criterion.id in ABOUT_LEARNING and self.why_too_early is None and warm_up is not None:
            return warm_up
        n_points = len(data[criterion.tags[0]].finite)
        if self.why_too_early is None and criterion.kind == "last_above_baselines" and n_points < MIN_EVALUATIONS:
            return f"too early to say: {n_points} of {MIN_EVALUATIONS} evaluations"
        return self.why_too_early

    def could_use(self, callback: str | None) -> bool:
        """Return whether a callback that did not run could have been used in this run.

        :param callback: name of the callback; for None, the result is False
        """
        if callback in {_METRICS, _EVALUATION}:
            return self.drives
        return callback is not None and self.kind.family is Family.OFF_POLICY

    def why_without(self, callback: str) -> str:
        """Return, as text, why criteria that need a callback do not apply to this run."""
        if callback in {_METRICS, _EVALUATION}:
            return "for runs in a driving environment"
        if self.kind.family in {Family.ON_POLICY, Family.VALUE_BASED}:
            return f"for off-policy actor-critic algorithms; this run is {self.kind.family.value}"
        return f"needs tags that only {callback} logs, and it did not run"

    def asked_of(self, criterion: Criterion) -> tuple[str, ...]:
        """Return those tags of a criterion that this kind of run can log."""
        # A tag that such a run cannot log must not make a criterion unknown. Only flags that the run logged count here.
        absent: set[str] = set()
        if self.has_no_encoder:
            absent |= _OF_ENCODERS
        elif self.encoder_is_shared:
            absent |= _OF_ACTOR_ENCODER
        if self.has_no_bound:
            absent.add(tags.Q_BOUND)
        if self.is_watched_from_outside:
            absent |= tags.HIDDEN_IN_STOCK - self.logged
        for group in self.frozen:
            absent |= _OF_TRAINING[group]
        of_critic = {CRITIC_MLP.name} if self.has_no_encoder else {CRITIC_CNN.name, CRITIC_MLP.name}
        if of_critic <= self.frozen:
            absent.add(tags.TARGET_MOVED["critic"])
        return tuple(tag for tag in criterion.tags if tag not in absent)

    def is_exempt_from(self, criterion: Criterion) -> bool:
        """Return whether a criterion does not apply to this kind of run."""
        # A criterion without tags (all_finite) reads whatever was logged and always applies.
        if criterion.needs_actor_encoder:
            return self.encoder_is_shared or self.has_no_encoder or ACTOR_CNN.name in self.frozen
        if criterion.kind == "within_bound" and (self.has_no_bound or self._bound_is_hidden):
            return True
        return bool(criterion.tags) and not self.asked_of(criterion)

    @property
    def _bound_is_hidden(self) -> bool:
        return self.is_watched_from_outside and tags.Q_BOUND not in self.logged

    def why_exempt_from(self, criterion: Criterion) -> str:
        """Return, as text, why the run is exempt from a criterion, if :meth:`is_exempt_from` returns True."""
        if criterion.kind == "within_bound" and self.has_no_bound:
            return "returns are not discounted, so no bound follows from the rewards"
        if criterion.kind == "within_bound" and self._bound_is_hidden:
            return "callbacks cannot read the rewards that this algorithm samples, so no bound is known"
        if self.has_no_encoder:
            return "the policy has no encoder"
        if self.encoder_is_shared:
            return "actor and critic share one encoder"
        return "these weights are not trained"

    def needs(self, criterion: Criterion) -> bool:
        """Return whether this run must pass the criterion for a GO, whatever the length of the run."""
        is_certain = criterion.applies_from_step <= 0 and not self.is_exempt_from(criterion)
        return bool(criterion.tags) and is_certain and self.blocks(criterion)


_BLOCK_WITHOUT_CALLBACK = {"supported_by_q", "growth_below"}
"""Kinds of checks that can block a GO even if other code than GradientNormCallback logged their tags.

These checks compare the actor's loss with Q values of the same run, so the scale of the rewards does not matter. In
runs with an entropy bonus, such as SAC, these checks block only if GradientNormCallback ran, because the actor's loss
of these runs contains an entropy term."""
_JUDGE_EARLY = {"all_finite", "own_scale", "learning"}
"""Kinds of checks whose failure blocks a GO even in a very short run."""


def _largest_reward(data: SeriesSet) -> float | None:
    sizes = [data[tag].abs_max() for tag in (tags.REWARD_MIN, tags.REWARD_MAX) if len(data[tag].finite)]
    return max(sizes) if len(sizes) == 2 else None


def _has_no_bound(data: SeriesSet) -> bool:
    """Return whether Q has no bound, because the returns of the run are undiscounted.

    Earlier versions logged an infinite bound on Q instead of a flag.
    """
    if data.flag(tags.RETURN_IS_UNDISCOUNTED) is not None:
        return data.flag(tags.RETURN_IS_UNDISCOUNTED) is True
    # An infinite reward also makes the bound infinite, but then another criterion fails.
    bound = data[tags.Q_BOUND]
    return len(bound) > 0 and len(bound.finite) == 0


def _measure(criterion: Criterion, data: SeriesSet, run: _Run) -> Measurement:
    if run.is_exempt_from(criterion):
        return Measurement(Status.NOT_APPLICABLE, None, run.why_exempt_from(criterion))
    asked = run.asked_of(criterion)
    # A criterion that applies only from some step on needs the length of the run. If the length is unknown, the result
    # is unknown, not inapplicable. Otherwise, a run could avoid a failure by not logging its steps.
    begin = criterion.applies_from_step
    if begin > 0 and (run.length is None or run.length_in_required_tags is None):
        return Measurement(Status.UNKNOWN, None, "the length of the run is not known")
    if begin > 0 and run.length is not None and run.length < begin:
        return Measurement(Status.NOT_APPLICABLE, None, f"applies from {begin:,} steps; the run has {run.length:,}")
    measured = CHECKS[criterion.kind](data, asked, criterion.threshold, criterion.min_points)
    if measured.status is Status.PASS:
        return _while_logged(measured, data, asked, run.last_step)
    # Some tag shows that the run is long enough for the criterion, but the tags that a GO requires end too early. The
    # result is then unknown, not failed.
    if (
        measured.status is Status.FAIL
        and begin > 0
        and run.length_in_required_tags is not None
        and run.length_in_required_tags < begin
    ):
        detail = (
            f"applies from {begin:,} steps, but the tags that a GO requires were logged only up to step "
            f"{run.length_in_required_tags:,}"
        )
        return measured._replace(status=Status.UNKNOWN, detail=f"{measured.detail}; {detail}")
    return measured


def _while_logged(measured: Measurement, data: SeriesSet, asked: Sequence[str], last_step: int | None) -> Measurement:
    """Replace "pass" by "unknown" if a tag ends long before the run does, or if its last values are not finite."""
    for tag in asked:
        step = not_finite_from(data[tag])
        if step is not None:
            return measured._replace(
                status=Status.UNKNOWN, detail=f"{measured.detail}; {tag} is not finite from {step:,} on"
            )
    # The tags of a group that was frozen during training are expected to end early.
    frozen = {tag for group, of_group in _OF_TRAINING.items() if _ends_frozen(data, group) for tag in of_group}
    ended = [
        tag
        for tag in asked
        if tags.is_on_steps(tag) and tag not in frozen and last_step is not None and data[tag].ends_before(last_step)
    ]
    if not ended:
        return measured
    series = data[ended[0]].finite
    detail = f"{measured.detail}; {series.name} ends at {int(series.steps[-1]):,}, the run at {last_step:,}"
    return measured._replace(status=Status.UNKNOWN, detail=detail)


def _ends_frozen(data: SeriesSet, group: str) -> bool:
    """Return whether a parameter group is frozen at the end of the run; its tags are then expected to end early."""
    frozen = data[tags.GROUP_FROZEN[group]].finite
    return len(frozen) > 0 and bool(frozen.values[-1] == 1.0)


def _entries(content: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    for key in content:
        if key not in {"format_version", "criteria"}:
            raise ValueError(f"{name}: unknown key {shown(key)}; expected format_version and criteria")
    if content.get("format_version") != FORMAT_VERSION:
        version = shown(content.get("format_version"))
        raise ValueError(f"{name}: format_version is {version}; expected {FORMAT_VERSION}")
    criteria = content.get("criteria") or {}
    if not isinstance(criteria, dict) or not all(isinstance(entry, dict) for entry in criteria.values()):
        raise ValueError(
            f"{name}: criteria is {shown(criteria)}; expected a mapping from each criterion's id to its keys"
        )
    return criteria


def _merge(known: Mapping[str, Criterion], entries: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Criterion]:
    merged = dict(known)
    for identifier, entry in entries.items():
        where = f"{name}: criterion {shown(identifier)}"
        values = {key: _checked(key, value, where) for key, value in entry.items()}
        if identifier in merged:
            merged[identifier] = replace(merged[identifier], **values)
        else:
            missing = sorted(_REQUIRED - values.keys())
            if missing:
                raise ValueError(
                    f"{where}: this id is not built in, and a new criterion also needs {', '.join(missing)}; correct "
                    "the id, or add what is missing"
                )
            merged[identifier] = Criterion(id=str(identifier), **values)
        _check_keys(merged[identifier], values, where)
    return merged


def _checked(key: str, value: Any, where: str) -> Any:
    if key not in _KEYS:
        raise ValueError(f"{where}: unknown key {shown(key)}; expected one of {', '.join(_KEYS)}")
    require_type(value, _EXPECTED[key], f"{where}: {key}")
    if key == "kind" and value not in CHECKS:
        raise ValueError(f"{where}: unknown kind {shown(value)}; expected one of {', '.join(CHECKS)}")
    if key == "tags":
        if not all(isinstance(tag, str) for tag in value):
            raise ValueError(f"{where}: tags is {shown(value)}; expected a list of names")
        return tuple(value)
    if key == "reward_size" and value is not None:
        is_number = all(isinstance(end, int | float) and not isinstance(end, bool) for end in value)
        if len(value) != 2 or not is_number or any(map(math.isnan, value)):
            raise ValueError(f"{where}: reward_size is {shown(value)}; expected [lowest, highest]")
        return (float(value[0]), float(value[1]))
    if key == "min_points" and value < 1:
        raise ValueError(f"{where}: min_points is {value}; expected 1 or more")
    if key == "threshold" and value is not None:
        if math.isnan(value):
            raise ValueError(f"{where}: threshold is nan; expected a number")
        return float(value)
    return value


def _check_keys(criterion: Criterion, given: Iterable[str], where: str) -> None:
    """Refuse keys that the kind of a criterion ignores, and a criterion without the keys that its kind needs."""
    check = CHECKS[criterion.kind]
    # Every criterion has the key "tags", so an empty list is not refused. In criteria.yml of earlier versions, every
    # criterion also had "min_points".
    refused = check.ignores - {"min_points"}
    ignored = [key for key in given if key in refused and getattr(criterion, key) not in (None, ())]
    if ignored:
        raise ValueError(f"{where}: the kind {criterion.kind} does not read {', '.join(ignored)}; remove it")
    if criterion.threshold is None and "threshold" not in check.ignores:
        raise ValueError(f"{where}: the kind {criterion.kind} needs a threshold: add a number")
    if len(criterion.tags) < check.n_tags:
        raise ValueError(
            f"{where}: tags is {list(criterion.tags)}; the kind {criterion.kind} needs {check.n_tags} or more tags"
        )
