"""One meaning, many notations: what a run's settings say of each parameter, in the units of Stable-Baselines3."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.input_files import parse_mapping
from sb3_visual_td3.common.schedules import Constant, parse_schedule
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.hyperparams_found import RunSettings

EVENT_FILE = "event file"
SB3_LEARNING_RATE = "train/learning_rate"
_UPDATES_PER_STEP = ("updates_per_step", "utd_ratio", "updates_per_env_step")
_UPDATES_EACH_TIME = ("gradient_steps", "updates_each", "num_updates")
_OBJECT = re.compile(r"(?:val|value|start|initial_value)=([-+.\deE]+)")
_VARIES = 1e-3
_MIN_POINTS = 5


@dataclass(frozen=True)
class Reading:
    """What one source says of one parameter.

    :param value: in the parameter's own units; None where there is none of it, or where it is no number.
    :param written: as the source writes it.
    :param is_off: whether there is none of it.
    :param changes: whether the value is that of the start, and moves from there.
    :param every: environment steps between two rounds of updates.
    """

    value: float | None
    written: str
    source: str
    is_off: bool = False
    changes: bool = False
    every: float | None = None

    @property
    def text(self) -> str:
        """The value, and how it is written where that is something else."""
        if self.is_off:
            return "none"
        if self.value is None or self.changes:
            return self.written
        plain = number(self.value)
        return plain if self.written == plain else f"{plain} ({self.written})"


@dataclass(frozen=True)
class Name:
    """One name that settings use for a parameter; see hyperparam_reference.yml for the meaning."""

    name: str
    one_minus: bool = False
    in_action_units: bool = False


@dataclass(frozen=True)
class Parameter:
    """One row of hyperparam_reference.yml.

    :param references: by the reference's id; one that has no such thing is not there.
    """

    id: str
    title: str
    names: tuple[Name, ...]
    references: Mapping[str, Reading]
    none_if_null: tuple[str, ...] = ()
    encoder: Literal["actor", "critic"] | None = None
    compare: Literal["ratio", "horizon"] = "ratio"


@dataclass(frozen=True)
class ReferenceTable:
    """The whole of hyperparam_reference.yml.

    :param titles: of the references, by id.
    :param sources: where their values stand, by id.
    """

    titles: Mapping[str, str]
    sources: Mapping[str, str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@cache
def reference_table() -> ReferenceTable:
    """Return the reference values."""
    name = "hyperparam_reference.yml"
    content = parse_mapping(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"), name)
    known = content["references"]
    return ReferenceTable(
        {identifier: entry["title"] for identifier, entry in known.items()},
        {identifier: entry["source"] for identifier, entry in known.items()},
        {identifier: _parameter(identifier, dict(entry), known) for identifier, entry in content["parameters"].items()},
    )


def _parameter(identifier: str, entry: dict[str, Any], known: Mapping[str, Any]) -> Parameter:
    references = {name: _reference(entry.pop(name), known[name]["title"]) for name in known if name in entry}
    names = tuple(Name(name) if isinstance(name, str) else Name(**name) for name in entry.pop("names"))
    return Parameter(
        id=identifier,
        names=names,
        references=references,
        **{**entry, "none_if_null": tuple(entry.get("none_if_null", ()))},
    )


def _reference(value: Any, source: str) -> Reading:
    if value is None:
        return Reading(None, "none", source, is_off=True)
    entry = value if isinstance(value, Mapping) else {"value": value}
    plain = float(entry["value"])
    return Reading(plain, entry.get("written", number(plain)), source, every=entry.get("every"))


def as_number(value: Any) -> tuple[float, bool] | None:
    """Return a setting as a number, and whether it is only the start of a schedule; None where it is no number.

    Schedules are understood as strings (``"lin_1e-4"``) and as run.json writes schedule objects.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return (float(value), False) if math.isfinite(value) else None
    try:
        schedule = parse_schedule(value)
        return float(schedule(1.0)), not isinstance(schedule, Constant)
    except ValueError:
        found = _OBJECT.search(value)
    try:
        return None if found is None else (float(found[1]), "Constant" not in value)
    except ValueError:
        return None


def told(parameter: Parameter, settings: RunSettings) -> Reading | None:
    """Return what the run's settings say of a parameter; None where they do not.

    What is in force by default is not told, see :func:`by_default`.
    """
    return _read(parameter, settings, len(settings.told))


def by_default(parameter: Parameter, settings: RunSettings) -> Reading | None:
    """Return what is in force where neither the settings nor the event file tell."""
    return _read(parameter, settings, None)


def _read(parameter: Parameter, settings: RunSettings, n_layers: int | None) -> Reading | None:
    if parameter.id == "updates_per_step":
        return next(_updates(settings, n_layers), None)
    for layer in settings.layers[:n_layers]:
        for name in parameter.names:
            group = {key: v for key, v in layer.values.items() if key.startswith(f"{name.name}.")}
            if name.name in layer.values or group:
                value = layer.values.get(name.name, ", ".join(f"{k.split('.')[-1]} {v}" for k, v in group.items()))
                if value is not None or name.name in parameter.none_if_null:
                    return _told_by(name, value, settings, layer.source)
    return None


def _told_by(name: Name, value: Any, settings: RunSettings, source: str) -> Reading:
    found = as_number(value)
    if value is None or found is None:
        return Reading(None, "none" if value is None else str(value), source, is_off=value is None)
    plain, changes = found
    written = number(plain)
    if changes:
        written = value if value.startswith(("lin_", "cos_")) else f"from {written}"
    if name.one_minus:
        return Reading(_rounded(1.0 - plain), f"{name.name} {written}", source)
    limit = as_number(settings.value("act_limit"))
    if name.in_action_units and limit is not None and limit[0] not in (0.0, 1.0):
        return Reading(plain / limit[0], f"{name.name} {written}, act_limit {number(limit[0])}", source)
    return Reading(plain, written, source, changes=changes)


def _updates(settings: RunSettings, n_layers: int | None) -> Iterator[Reading]:
    for layer in settings.layers[:n_layers]:
        direct = next((name for name in _UPDATES_PER_STEP if name in layer.values), None)
        if direct is not None and (found := as_number(layer.values[direct])) is not None:
            yield Reading(found[0], number(found[0]), layer.source)
        elif "update_every" in layer.values:
            yield from _spinning_up_updates(layer.values, layer.source)
        elif "train_freq" in layer.values or "gradient_steps" in layer.values:
            yield from _sb3_updates(settings, layer.source)


def _spinning_up_updates(values: Mapping[str, Any], source: str) -> Iterator[Reading]:
    """Spinning Up makes as many updates as it waited steps; another number of them must be told."""
    every = as_number(values["update_every"])
    if every is None or every[0] <= 0:
        return
    name = next((name for name in _UPDATES_EACH_TIME if name in values), None)
    each = every if name is None else as_number(values[name])
    if each is not None:
        yield _rounds(each[0], every[0], source)


def _sb3_updates(settings: RunSettings, source: str) -> Iterator[Reading]:
    frequency, each = settings.value("train_freq"), as_number(settings.value("gradient_steps"))
    steps, unit = frequency if isinstance(frequency, list) and len(frequency) == 2 else (frequency, "step")
    every, n_envs = as_number(steps), as_number(settings.value("n_envs") or 1)
    if each is None or every is None or every[0] <= 0 or n_envs is None:
        return
    if each[0] < 0:
        yield Reading(1.0, "as many updates as steps", source)
    elif unit == "step":
        yield _rounds(each[0], every[0] * n_envs[0], source)
    else:
        yield Reading(None, f"{_counted(each[0], 'update')} every {_counted(every[0], str(unit))}", source)


def _rounds(each: float, every: float, source: str) -> Reading:
    steps = "step" if every == 1 else f"{number(every)} steps"
    return Reading(each / every, f"{_counted(each, 'update')} every {steps}", source, every=every)


def _counted(n: float, what: str) -> str:
    return f"{number(n)} {what}{'' if n == 1 else 's'}"


def logged(series: SeriesSet) -> dict[str, Reading]:
    """Return what the event file itself says, by parameter: rates and noise at its first point, updates as counted."""
    rates = {f"{group.removesuffix('_mlp')}_lr": series[tag] for group, tag in tags.GROUP_LR.items()}
    found = {name: rate if len(rate.finite) else series[SB3_LEARNING_RATE] for name, rate in rates.items()}
    found["exploration_noise"] = series[tags.EXPLORATION_NOISE]
    readings = {name: _first(each.finite) for name, each in found.items() if len(each.finite)}
    updates = series[tags.TOTAL_ITERATIONS].finite
    updates = updates.where(updates.values > 0)
    if len(updates) >= _MIN_POINTS and updates.steps[-1] > updates.steps[0]:
        rate = (updates.values[-1] - updates.values[0]) / float(updates.steps[-1] - updates.steps[0])
        readings["updates_per_step"] = Reading(_rounded(rate, 3), number(_rounded(rate, 3)), EVENT_FILE)
    return readings


def _first(series: Series) -> Reading:
    first, last = (_rounded(float(value)) for value in (series.values[0], series.values[-1]))
    if abs(last - first) <= _VARIES * max(abs(first), abs(last)):
        return Reading(first, number(first), EVENT_FILE)
    return Reading(first, f"{number(first)} to {number(last)}", EVENT_FILE, changes=True)


def _rounded(value: float, digits: int = 6) -> float:
    """Return the value without the noise of binary digits: event files hold 32-bit floats."""
    return float(f"{value:.{digits}g}")
