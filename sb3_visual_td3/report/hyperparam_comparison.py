"""The run's hyperparameters beside Spinning Up's, Stable-Baselines3's and the TD3 authors'."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import number, rounded
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.report.hyperparams_found import RunSettings
from sb3_visual_td3.report.hyperparams_notation import (
    Parameter,
    Reading,
    by_default,
    logged,
    reference_table,
    told,
)
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest


def hyperparam_rows(manifest: RunManifest | None) -> tuple[tuple[str, str], ...]:
    """Return name and value of everything that run.json tells, nested names joined by a dot."""
    if manifest is None:
        return ()
    rows: list[tuple[str, str]] = [
        ("algo", manifest.algo),
        ("env_id", manifest.env_id),
        ("seed", _text(manifest.seed)),
        ("n_timesteps", _text(manifest.n_timesteps)),
        ("encoder", _text(manifest.encoder)),
        ("reward_is_normalized", _text(manifest.reward_is_normalized)),
        ("started", _text(manifest.started)),
        ("finished", _text(manifest.finished)),
        ("end", _text(manifest.how_it_ended if manifest.end else None)),
    ]
    _flatten("", manifest.hyperparams, rows)
    _flatten("git ", manifest.git or {}, rows)
    _flatten("machine ", manifest.machine, rows)
    rows += [("command", " ".join(manifest.command))] if manifest.command else []
    rows += [(f"version of {package}", _text(version)) for package, version in sorted(manifest.versions.items())]
    return tuple((name, value) for name, value in rows if value != "null")


def other_setting_rows(settings: RunSettings) -> tuple[tuple[str, str, str], ...]:
    """Return name, value and source of what other files than run.json tell."""
    return tuple(
        (name, _text(found.value), found.source)
        for name, found in settings.told_settings()
        if found.source != FILE_NAME
    )


def _flatten(prefix: str, values: Mapping[str, Any], rows: list[tuple[str, str]]) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            _flatten(f"{name}.", value, rows)
        else:
            rows.append((name, _text(value)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


Agreement = Literal[
    "same",
    "other_notation",
    "lower",
    "higher",
    "differs",
    "none_there",
    "none_here",
    "no_counterpart",
    "not_known",
]
_EQUAL = 1e-5
_CONTRADICTS = 0.05
"""Updates are counted at the points that are logged, which need not fall on the steps at which they are made."""


@dataclass(frozen=True)
class Against:
    """One parameter against one reference.

    :param reference: its value there, in words; None where the reference has no such thing.
    :param factor: how many times lower or higher; None where that says nothing.
    """

    reference: str | None
    agreement: Agreement
    words: str
    factor: float | None = None


@dataclass(frozen=True)
class ComparedParameter:
    """One row of the comparison.

    :param ours: the run's value, and how it is written where that is something else; None where it is not known.
    :param source: what tells the run's value.
    :param against: by the reference's id.
    :param contradiction: what the event file logged, where the source says something else.
    """

    id: str
    title: str
    ours: str | None
    source: str | None
    against: Mapping[str, Against]
    contradiction: str | None = None


def compare_hyperparams(settings: RunSettings, series: SeriesSet) -> tuple[ComparedParameter, ...]:
    """Compare every parameter of the table that applies to the run; nothing where nothing is known of it."""
    seen = logged(series)
    rows = [_row(p, settings, seen) for p in reference_table().parameters.values() if _applies(p, settings, series)]
    return tuple(rows) if any(row.ours is not None for row in rows) else ()


def comparison_table(rows: Sequence[ComparedParameter]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return headings and cells: the run's value and its source, then each reference's value and the verdict."""
    titles = reference_table().titles
    headings = ("Hyperparameter", "This run", "From", *titles.values())
    return headings, tuple(
        (row.title, _ours(row), row.source or "-", *(_cell(row.against[identifier]) for identifier in titles))
        for row in rows
    )


def reference_sources() -> str:
    """Return where the references' values stand, in one line."""
    table = reference_table()
    return "; ".join(f"{title}: {table.sources[identifier]}" for identifier, title in table.titles.items()) + "."


def _ours(row: ComparedParameter) -> str:
    ours = row.ours or "not known"
    return ours if row.contradiction is None else f"{ours} (the event file logged {row.contradiction})"


def _cell(against: Against) -> str:
    says_it_all = against.agreement in ("no_counterpart", "none_there")
    return against.words if says_it_all else f"{against.reference}: {against.words}"


def contradictions(rows: Sequence[ComparedParameter]) -> tuple[str, ...]:
    """Return a note for each setting that the event file contradicts."""
    return tuple(
        f"{row.title}: {row.source} says {row.ours}, the event file logged {row.contradiction}"
        for row in rows
        if row.contradiction is not None
    )


def agreement(ours: Reading | None, reference: Reading | None, parameter: Parameter) -> Against:
    """Say how a run's value stands to a reference's."""
    if reference is None:
        return Against(None, "no_counterpart", "no counterpart")
    there = reference.text
    if ours is None:
        return Against(there, "not_known", "not known")
    if ours.is_off or reference.is_off:
        kind: Agreement = "same" if ours.is_off and reference.is_off else "none_here" if ours.is_off else "none_there"
        return Against(there, kind, {"same": "same", "none_here": "none here"}.get(kind, "none there"))
    if ours.value is None or reference.value is None:
        return Against(there, "differs", f"not comparable with {ours.written}")
    if abs(ours.value - reference.value) <= _EQUAL * max(abs(ours.value), abs(reference.value)):
        return _equal(ours, reference, there)
    return _apart(ours, ours.value, reference.value, there, parameter)


def _equal(ours: Reading, reference: Reading, there: str) -> Against:
    if reference.every is not None:
        return _equal_ratio(ours, reference, reference.every, there)
    if ours.changes:
        return Against(there, "same", "same, at the start")
    if ours.written == reference.written:
        return Against(there, "same", "same")
    return Against(there, "other_notation", "same meaning, other notation")


def _equal_ratio(ours: Reading, reference: Reading, every: float, there: str) -> Against:
    if ours.every is None or ours.every == every:
        return Against(there, "same", "same" if ours.every else "same ratio")
    factor = number(max(ours.every, every) / min(ours.every, every))
    more = "more" if ours.every < every else "fewer"
    return Against(there, "other_notation", f"same ratio, not {factor} times {more}: {reference.written} there")


def _apart(ours: Reading, value: float, reference: float, there: str, parameter: Parameter) -> Against:
    lower = value < reference
    if parameter.compare == "horizon" and 0 <= value < 1 and 0 <= reference < 1:
        factor = (1 - min(value, reference)) / (1 - max(value, reference))
        words = f"looks {rounded(factor)} times {'less' if lower else 'further'} ahead"
        return Against(there, "lower" if lower else "higher", words, factor)
    at_start = ", at the start" if ours.changes else ""
    if min(value, reference) <= 0:
        return Against(there, "lower" if lower else "higher", f"{'lower' if lower else 'higher'}{at_start}")
    factor = max(value, reference) / min(value, reference)
    words = f"{rounded(factor)} times {'lower' if lower else 'higher'}{at_start}"
    return Against(there, "lower" if lower else "higher", words, factor)


def _row(parameter: Parameter, settings: RunSettings, seen: Mapping[str, Reading]) -> ComparedParameter:
    said, measured = told(parameter, settings), seen.get(parameter.id)
    ours = said or measured or by_default(parameter, settings)
    return ComparedParameter(
        id=parameter.id,
        title=parameter.title,
        ours=None if ours is None else ours.text,
        source=None if ours is None else ours.source,
        against={
            identifier: agreement(ours, parameter.references.get(identifier), parameter)
            for identifier in reference_table().titles
        },
        contradiction=measured.text if said and measured and _contradicts(said, measured) else None,
    )


def _contradicts(said: Reading, measured: Reading) -> bool:
    """Return whether the event file says otherwise; of a schedule, its first point comes after the start."""
    if said.changes or measured.value is None:
        return False
    if said.is_off:
        return measured.value != 0.0
    if said.value is None:
        return False
    return measured.changes or abs(said.value - measured.value) > _CONTRADICTS * max(
        abs(said.value), abs(measured.value)
    )


def _applies(parameter: Parameter, settings: RunSettings, series: SeriesSet) -> bool:
    if parameter.encoder is None:
        return True
    shared = settings.encoder_is_shared
    if parameter.encoder == "actor" and shared is not None and shared.value:
        return False
    own = {name.name for name in parameter.names} - {"lr", "learning_rate"}
    is_told = any(name in layer.values for layer in settings.told for name in own)
    return is_told or settings.sees_images or tags.GROUP_LR[f"{parameter.encoder}_cnn"] in series
