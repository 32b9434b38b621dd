"""Criteria as data: read from YAML, checked key by key, judged over series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.cause_checks import no_sure_cause
from sb3_visual_td3.diagnosis.checks import CHECKS as PLAIN_CHECKS
from sb3_visual_td3.diagnosis.checks import Check, Measurement
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status

FORMAT_VERSION = 1
_BUILT_IN = "criteria.yml"
CHECKS: Mapping[str, Check] = {**PLAIN_CHECKS, "no_sure_cause": Check(no_sure_cause)}
"""By the kind that criteria.yml names."""


@dataclass(frozen=True)
class Criterion:
    """One thing that a run must show; the keys are explained in criteria.yml."""

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


_KEYS = {f.name: f for f in fields(Criterion) if f.name != "id"}
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
}


def load_criteria(path: Path | None = None) -> tuple[Criterion, ...]:
    """Return the built-in criteria, with what ``path`` changes or adds.

    :param path: a YAML file of the built-in file's form; None for the built-in ones alone.
    :raises ValueError: for an unknown or missing key, a wrong type, or a file that is no such YAML; the
        message names the key and the file.
    :raises OSError: if ``path`` cannot be read.
    """
    built_in = resources.files(__package__).joinpath(_BUILT_IN).read_text(encoding="utf-8")
    criteria = _merge({}, _parse(built_in, _BUILT_IN), _BUILT_IN)
    if path is not None:
        criteria = _merge(criteria, _parse(_read(path), str(path)), str(path))
    return tuple(criteria.values())


def judge(criteria: Sequence[Criterion], data: SeriesSet) -> tuple[CriterionResult, ...]:
    """Judge every criterion over the series of one run."""
    reward_is_normalized = data.flag(tags.REWARD_IS_NORMALIZED) is True
    results = []
    for criterion in criteria:
        measured = _measure(criterion, data)
        blocks = criterion.blocking and not (criterion.scale_dependent and reward_is_normalized)
        results.append(
            CriterionResult(
                id=criterion.id,
                title=criterion.title,
                status=measured.status,
                blocking=blocks,
                value=measured.value,
                threshold=criterion.threshold,
                source=criterion.source,
                detail=measured.detail,
                tags=criterion.tags,
            )
        )
    return tuple(results)


def _measure(criterion: Criterion, data: SeriesSet) -> Measurement:
    if criterion.needs_actor_encoder and data.flag(tags.ENCODER_IS_SHARED):
        return Measurement(Status.NOT_APPLICABLE, None, "actor and critic share one encoder")
    n_steps = data.n_steps
    if criterion.applies_from_step > 0:
        if n_steps is None:
            return Measurement(Status.UNKNOWN, None, "the length of the run is not known")
        if n_steps < criterion.applies_from_step:
            return Measurement(
                Status.NOT_APPLICABLE,
                None,
                f"applies from {criterion.applies_from_step:,} steps; the run has {n_steps:,}",
            )
    return CHECKS[criterion.kind](data, criterion.tags, criterion.threshold, criterion.min_points)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason})") from error


def _parse(text: str, name: str) -> Mapping[str, Mapping[str, Any]]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected a mapping with the keys format_version and criteria")
    for key in content:
        if key not in {"format_version", "criteria"}:
            raise ValueError(f"{name}: unknown key {key!r}; expected format_version and criteria")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{name}: format_version is {content.get('format_version')!r}; expected {FORMAT_VERSION}")
    criteria = content.get("criteria") or {}
    if not isinstance(criteria, dict) or not all(isinstance(entry, dict) for entry in criteria.values()):
        raise ValueError(f"{name}: 'criteria' must map each criterion's id to its keys")
    return criteria


def _merge(known: Mapping[str, Criterion], entries: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Criterion]:
    merged = dict(known)
    for identifier, entry in entries.items():
        where = f"{name}: criterion {identifier!r}"
        values = {key: _checked(key, value, where) for key, value in entry.items()}
        if identifier in merged:
            merged[identifier] = replace(merged[identifier], **values)
        else:
            missing = sorted(_REQUIRED - values.keys())
            if missing:
                raise ValueError(f"{where}: missing {', '.join(missing)} (it is not one of the built-in criteria)")
            merged[identifier] = Criterion(id=str(identifier), **values)
        _check_threshold(merged[identifier], where)
    return merged


def _checked(key: str, value: Any, where: str) -> Any:
    if key not in _KEYS:
        raise ValueError(f"{where}: unknown key {key!r}; expected one of {', '.join(_KEYS)}")
    expected = _EXPECTED[key]
    is_of_type = isinstance(value, expected) and (bool in expected or not isinstance(value, bool))
    if not is_of_type:
        wanted = " or ".join("none" if t is type(None) else t.__name__ for t in expected)
        raise ValueError(f"{where}: {key} is {value!r}; expected {wanted}")
    if key == "kind" and value not in CHECKS:
        raise ValueError(f"{where}: unknown kind {value!r}; expected one of {', '.join(CHECKS)}")
    if key == "tags":
        if not all(isinstance(tag, str) for tag in value):
            raise ValueError(f"{where}: tags is {value!r}; expected a list of names")
        return tuple(value)
    return float(value) if key == "threshold" and value is not None else value


def _check_threshold(criterion: Criterion, where: str) -> None:
    check = CHECKS[criterion.kind]
    if criterion.threshold is None and check.needs_threshold:
        raise ValueError(f"{where}: the kind {criterion.kind} needs a threshold")
    if len(criterion.tags) < check.n_tags:
        raise ValueError(f"{where}: the kind {criterion.kind} reads {check.n_tags} tags; got {list(criterion.tags)}")
