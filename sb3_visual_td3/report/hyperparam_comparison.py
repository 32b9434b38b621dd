"""Compare a run's hyperparameters with the values of Spinning Up, Stable-Baselines3 and the TD3 authors.

Each notation is first converted to Stable-Baselines3's units: ``polyak`` 0.995 is ``tau`` 0.005.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import groups_of
from sb3_visual_td3.common.input_files import parse_mapping, shown
from sb3_visual_td3.common.schedules import Constant, parse_schedule
from sb3_visual_td3.diagnosis.numerals import counted, number, rounded
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.run_settings import Layer, RunSettings, flattened, known_names
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest

EVENT_FILE = "event file"
SB3_LEARNING_RATE = "train/learning_rate"
_UPDATES_PER_STEP = ("updates_per_step", "utd_ratio", "updates_per_env_step")
_UPDATES_EACH_TIME = ("gradient_steps", "updates_each", "num_updates")
# Matches the first value of a schedule in the repr of the schedule object.
_OBJECT = re.compile(r"(?:val|value|start|initial_value)=([-+.\deE]+)")
_VARIES = 1e-3
"""A logged rate follows a schedule if its first and last value differ by more than this fraction of the larger one."""
_MIN_POINTS = 5
_OF_SB3 = {"a2c", "dqn", "ppo", "sac"}
_OF_SB3_CONTRIB = {"ars", "crossq", "maskableppo", "ppolstm", "qrdqn", "recurrentppo", "tqc", "trpo"}
_OTHER_ALGORITHMS = _OF_SB3 | _OF_SB3_CONTRIB
"""Algorithms that are not compared with the references, in lower case and without underscores."""


@dataclass(frozen=True)
class Reading:
    """Hold the value of one parameter according to one source.

    :param value: number in the parameter's own units; None if the parameter is switched off or its value is not a
        number
    :param written: the value as the source writes it
    :param changes: whether the value is only the start of a schedule
    :param every: only for "updates per step": environment steps between two rounds of updates; None if unknown
    """

    value: float | None
    written: str
    source: str
    is_off: bool = False
    changes: bool = False
    every: float | None = None

    @property
    def text(self) -> str:
        """Return the value as text, with the notation of its source in brackets if it differs: ``0.001 (1e-3)``."""
        if self.is_off:
            return "none"
        if self.value is None or self.changes:
            return self.written
        plain = number(self.value)
        return plain if self.written == plain else f"{plain} ({self.written})"


_LEAST_SIMILARITY = 0.8
"""A known name is suggested for an unknown name if their similarity, from 0 to 1, is at least this value."""


@dataclass(frozen=True)
class Name:
    """Describe one name that settings use for a parameter; hyperparam_reference.yml explains the fields."""

    name: str
    one_minus: bool = False
    in_action_units: bool = False


@dataclass(frozen=True)
class Parameter:
    """Hold one row of hyperparam_reference.yml, which describes one parameter.

    :param names: the names that settings use; the first one found in a source counts
    :param references: the value in each reference that has the parameter, by the id of the reference
    :param none_if_null: names whose null value means that the parameter is switched off
    :param encoder: the row applies only if this network has its own encoder; if None, the row always applies. A shared
        encoder counts as the critic's own
    :param compare: ``"ratio"`` divides the values; ``"horizon"`` first converts a discount to 1 / (1 - gamma)
    """

    id: str
    title: str
    names: tuple[Name, ...]
    references: Mapping[str, Reading]
    none_if_null: tuple[str, ...] = ()
    encoder: Literal["actor", "critic"] | None = None
    compare: Literal["ratio", "horizon"] = "ratio"

    @property
    def is_count(self) -> bool:
        """Return whether every reference has an integer, such as a number of steps."""
        values = [reference.value for reference in self.references.values()]
        return all(value is not None and value.is_integer() for value in values)

    @property
    def is_fraction(self) -> bool:
        """Return whether the value lies between 0 and 1."""
        return self.id in {"tau", "gamma"}

    @property
    def expected(self) -> str:
        """Return the accepted values, in words."""
        if self.is_fraction:
            return "a number from 0 to 1"
        return "an integer >= 0" if self.is_count else "a number >= 0, or a schedule"

    def accepts(self, value: Any) -> bool:
        """Return whether the parameter can have a value that a settings file states."""
        found = as_number(value)
        if found is None or found[0] < 0:
            return False
        return (not self.is_fraction or found[0] <= 1) and (not self.is_count or found[0].is_integer())


@dataclass(frozen=True)
class ReferenceTable:
    """Hold the content of hyperparam_reference.yml.

    :param titles: the title of each reference, by the id of the reference
    :param sources: where the values of each reference come from, by the id of the reference
    :param parameters: the rows of the file, by the id of the parameter
    """

    titles: Mapping[str, str]
    sources: Mapping[str, str]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


@cache
def reference_table() -> ReferenceTable:
    """Return the reference values from hyperparam_reference.yml, which is read only once."""
    name = "hyperparam_reference.yml"
    content = parse_mapping(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"), name)
    known = content["references"]
    return ReferenceTable(
        {identifier: entry["title"] for identifier, entry in known.items()},
        {identifier: entry["source"] for identifier, entry in known.items()},
        {identifier: _parameter(identifier, dict(entry), known) for identifier, entry in content["parameters"].items()},
    )


def misspelled(given: Layer) -> tuple[str, ...]:
    """Return a note for each name in a file that is almost the name of a known setting.

    :param given: the file of --hyperparams
    """
    rows = reference_table().parameters.values()
    known = known_names() | {name.name for parameter in rows for name in parameter.names}
    notes = []
    for name in given.values:
        if name in known or name.partition(".")[0] in known:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=_LEAST_SIMILARITY)
        if close:
            notes.append(f"{given.source}: {name!r} is not a setting that the report uses; did you mean {close[0]!r}?")
    return tuple(notes)


def implausible(given: Layer) -> tuple[str, ...]:
    """Return a note for each value in a file that its setting cannot have, such as ``tau: fast`` or ``tau: -5``.

    :param given: the file of --hyperparams
    """
    found: dict[str, str] = {}
    algo = given.values.get("algo")
    if isinstance(algo, str):
        # Only the defaults of these two algorithms are known, so only their names are suggested.
        known = {"td3": "td3", "visualtd3": "visual_td3"}
        close = difflib.get_close_matches(algo.lower().replace("_", ""), known, n=1, cutoff=_LEAST_SIMILARITY)
        if close and known[close[0]] != RunSettings((given,)).algo:
            found["algo"] = f"expected the name of an algorithm; did you mean {known[close[0]]!r}?"
    for parameter in reference_table().parameters.values():
        for name in (each.name for each in parameter.names):
            value = given.values.get(name)
            if value is not None and name not in parameter.none_if_null and not parameter.accepts(value):
                found.setdefault(name, f"expected {parameter.expected}")
    return tuple(f"{given.source}: {name} is {shown(given.values[name])}; {why}" for name, why in found.items())


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
    """Return a setting as a number; for a schedule, this is the value at the start of training.

    :param value: the value as a settings file states it
    :return: the number, and True for a schedule that is not constant; None if the setting has no number
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return (float(value), False) if math.isfinite(value) else None
    try:
        # A schedule is a function of the remaining progress, which is 1 at the start.
        schedule = parse_schedule(value)
        return float(schedule(1.0)), not isinstance(schedule, Constant)
    except ValueError:
        # run.json holds the repr of a schedule object, such as "FloatSchedule(ConstantSchedule(val=0.001))".
        found = _OBJECT.search(value)
    if found is None:
        return None
    try:
        return float(found[1]), "Constant" not in value
    except ValueError:
        return None


def stated(parameter: Parameter, settings: RunSettings) -> Reading | None:
    """Return the value that the run's settings state for a parameter, without defaults; None if they state no value."""
    return _read(parameter, settings, len(settings.given))


def by_default(parameter: Parameter, settings: RunSettings) -> Reading | None:
    """Return the default of a parameter, for a run whose settings and event file do not show the value."""
    return _read(parameter, settings, None)


def _read(parameter: Parameter, settings: RunSettings, n_layers: int | None) -> Reading | None:
    if parameter.id == "updates_per_step":
        return next(_updates(settings, n_layers), None)
    for layer in settings.layers[:n_layers]:
        for name in parameter.names:
            # A parameter may be a group of settings, such as action_noise with its key sigma. The group is then shown
            # as text.
            group = {key: v for key, v in layer.values.items() if key.startswith(f"{name.name}.")}
            if name.name not in layer.values and not group:
                continue
            group_text = ", ".join(f"{key.split('.')[-1]} {v}" for key, v in group.items())
            value = layer.values.get(name.name, group_text)
            # Null means "switched off" for some parameters and "not stated" for all others.
            if value is not None or name.name in parameter.none_if_null:
                return _reading_of(name, value, settings, layer.source)
    return None


def _reading_of(name: Name, value: Any, settings: RunSettings, source: str) -> Reading:
    if value is None:
        return Reading(None, "none", source, is_off=True)
    found = as_number(value)
    if found is None:
        return Reading(None, str(value), source)
    plain, changes = found
    written = number(plain)
    if changes:
        written = value if value.startswith(("lin_", "cos_")) else f"from {written}"
    if name.one_minus:
        return Reading(_rounded(1.0 - plain), f"{name.name} {written}", source)
    # Spinning Up gives noise in the units of the action, whose range is -act_limit to act_limit.
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
    """Convert Spinning Up's settings to updates per step: one update per step, unless they state another number."""
    every = as_number(values["update_every"])
    if every is None or every[0] <= 0:
        return
    name = next((name for name in _UPDATES_EACH_TIME if name in values), None)
    each = every if name is None else as_number(values[name])
    if each is not None:
        yield _rounds(each[0], every[0], source)


def _sb3_updates(settings: RunSettings, source: str) -> Iterator[Reading]:
    """Convert SB3's train_freq (in steps of each environment) and gradient_steps to updates per environment step."""
    frequency, each = settings.value("train_freq"), as_number(settings.value("gradient_steps"))
    steps, unit = frequency, "step"
    if isinstance(frequency, list) and len(frequency) == 2:
        steps, unit = frequency
    every, n_envs = as_number(steps), as_number(settings.value("n_envs") or 1)
    if each is None or every is None or every[0] <= 0 or n_envs is None:
        return
    if each[0] < 0:  # -1: as many updates as steps were collected
        yield Reading(1.0, "as many updates as steps", source)
    elif unit == "step":
        yield _rounds(each[0], every[0] * n_envs[0], source)
    else:
        yield Reading(None, f"{counted(each[0], 'update')} every {counted(every[0], str(unit))}", source)


def _rounds(each: float, every: float, source: str) -> Reading:
    steps = "step" if every == 1 else f"{number(every)} steps"
    return Reading(each / every, f"{counted(each, 'update')} every {steps}", source, every=every)


def logged(series: SeriesSet) -> dict[str, Reading]:
    """Return the hyperparameters that the event file shows, such as learning rates, by name.

    Updates per step are estimated from the logged number of updates.
    """
    # A group without its own tag has SB3's common learning rate.
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
    # If the first and the last point differ, the rate follows a schedule.
    first, last = (_rounded(float(value)) for value in (series.values[0], series.values[-1]))
    if abs(last - first) <= _VARIES * max(abs(first), abs(last)):
        return Reading(first, number(first), EVENT_FILE)
    return Reading(first, f"{number(first)} to {number(last)}", EVENT_FILE, changes=True)


def _rounded(value: float, digits: int = 6) -> float:
    """Round a value to a few digits: event files hold 32-bit floats, in which 1e-4 is 9.99999974e-5."""
    return float(f"{value:.{digits}g}")


def hyperparam_rows(manifest: RunManifest | None) -> tuple[tuple[str, str], ...]:
    """Return the name and the value of every entry in run.json, with nested names joined by dots."""
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
    for prefix, values in (("", manifest.hyperparams), ("git ", manifest.git or {}), ("machine ", manifest.machine)):
        rows += [(name, _text(value)) for name, value in flattened(values, prefix)]
    rows += [("command", shlex.join(manifest.command))] if manifest.command else []
    rows += [(f"version of {package}", _text(version)) for package, version in sorted(manifest.versions.items())]
    return tuple((name, value) for name, value in rows if value != "null")


def other_setting_rows(settings: RunSettings) -> tuple[tuple[str, str, str], ...]:
    """Return the name, the value and the source of every setting that comes from a file other than run.json."""
    return tuple(
        (name, _text(found.value), found.source)
        for name, found in settings.given_settings()
        if found.source != FILE_NAME
    )


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
"""A logged value contradicts the settings if the two differ by more than this fraction of the larger one."""


@dataclass(frozen=True)
class Against:
    """Hold the comparison of one parameter with one reference.

    :param reference: value of the reference, as text; None if it does not have the parameter
    :param agreement: the result as a fixed word, for programs that read report.json
    :param words: the result as text for the reader of the report
    :param factor: ratio of the two values, >= 1; None if a factor has no meaning
    """

    reference: str | None
    agreement: Agreement
    words: str
    factor: float | None = None


@dataclass(frozen=True)
class ComparedParameter:
    """Hold one row of the comparison, with the parameter, the run's value and all references.

    :param ours: value of the run, such as ``0.005 (polyak 0.995)``; None if unknown
    :param source: the file that states it
    :param against: the comparison with each reference, by its id
    :param contradiction: the value in the event file, if it contradicts the source
    """

    id: str
    title: str
    ours: str | None
    source: str | None
    against: Mapping[str, Against]
    contradiction: str | None = None


def compare_hyperparams(settings: RunSettings, series: SeriesSet) -> tuple[ComparedParameter, ...]:
    """Compare the hyperparameters of a run with reference values, such as Stable-Baselines3's defaults.

    :param settings: settings of the run
    :param series: series of the run
    :return: the rows; empty if no value of the run is known, or if the run is of another algorithm, such as SAC
    """
    if not _is_comparable(settings, series):
        return ()
    seen = logged(series)
    rows = [_row(p, settings, seen) for p in reference_table().parameters.values() if _applies(p, settings, series)]
    return tuple(rows) if any(row.ours is not None for row in rows) else ()


def _is_comparable(settings: RunSettings, series: SeriesSet) -> bool:
    """Return whether the reference values, which are TD3's, can fit a run; True if its algorithm is not known."""
    algo = (settings.algo or "").replace("_", "")
    # The settings state the algorithm, but the tags only suggest one.
    if "td3" in algo or algo == "ddpg":
        return True
    kind = recognise(series.names())
    if kind.family in {Family.ON_POLICY, Family.VALUE_BASED} or kind.has_entropy_bonus:
        return False
    # run.json has the name of the class. A subclass of VisualTD3 may have any name.
    return algo not in _OTHER_ALGORITHMS


def comparison_table(rows: Sequence[ComparedParameter]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the headings and the rows of a table that compares the hyperparameters of a run with reference values."""
    titles = reference_table().titles
    headings = ("Hyperparameter", "This run", "From", *titles.values())
    return headings, tuple(
        (row.title, _ours(row), row.source or "-", *(_cell(row.against[identifier]) for identifier in titles))
        for row in rows
    )


def reference_sources() -> str:
    """Return the sources of the reference values of hyperparameters as text in one line."""
    table = reference_table()
    sentences = ["The reference values come from these sources."]
    for identifier, title in table.titles.items():
        sentences.append(f"{title}: {table.sources[identifier]}.")
    return " ".join(sentences)


def _ours(row: ComparedParameter) -> str:
    ours = row.ours or "not known"
    if row.contradiction is None:
        return ours
    return f"{ours} (the event file logged {row.contradiction})"


def _cell(against: Against) -> str:
    if against.agreement in ("no_counterpart", "none_there"):
        return against.words
    return f"{against.reference}: {against.words}"


def contradictions(rows: Sequence[ComparedParameter]) -> tuple[str, ...]:
    """Return a note on each setting that the event file contradicts."""
    return tuple(
        f"{row.title}: {row.ours} in {row.source}, but {row.contradiction} in the event file"
        for row in rows
        if row.contradiction is not None
    )


def agreement(ours: Reading | None, reference: Reading | None, parameter: Parameter) -> Against:
    """Compare the run's value of a hyperparameter with the value of a reference.

    :param ours: the run's value; None if unknown
    :param reference: the reference's value; None if it has none
    :param parameter: the hyperparameter
    """
    if reference is None:
        return Against(None, "no_counterpart", "no counterpart")
    there = reference.text
    if ours is None:
        return Against(there, "not_known", "not known")
    if ours.is_off or reference.is_off:
        kind: Agreement
        if ours.is_off and reference.is_off:
            kind = "same"
        elif ours.is_off:
            kind = "none_here"
        else:
            kind = "none_there"
        return Against(there, kind, kind.replace("_", " "))
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
    if ours.every is None:
        return Against(there, "same", "same ratio")
    if ours.every == every:
        return Against(there, "same", "same")
    # 50 updates every 50 steps are as many updates as 1 update every step. A reader who compares only the numbers 50
    # and 1 would see 50 times more updates.
    factor = number(max(ours.every, every) / min(ours.every, every))
    more = "more" if ours.every < every else "fewer"
    return Against(
        there,
        "other_notation",
        f"same ratio, written as {reference.written}; this does not mean {factor} times {more} updates",
    )


def _apart(ours: Reading, value: float, reference: float, there: str, parameter: Parameter) -> Against:
    lower = value < reference
    kind: Agreement = "lower" if lower else "higher"
    # Discounts of 0.99 and 0.999 differ by 1 % as numbers, but by a factor of ten in the steps that the return looks
    # ahead.
    if parameter.compare == "horizon" and 0 <= value < 1 and 0 <= reference < 1:
        factor = (1 - min(value, reference)) / (1 - max(value, reference))
        further = "less" if lower else "further"
        return Against(there, kind, f"looks {rounded(factor)} times {further} ahead", factor)
    at_start = ", at the start" if ours.changes else ""
    if min(value, reference) <= 0:
        return Against(there, kind, f"{kind}{at_start}")
    factor = max(value, reference) / min(value, reference)
    return Against(there, kind, f"{rounded(factor)} times {kind}{at_start}", factor)


def _row(parameter: Parameter, settings: RunSettings, seen: Mapping[str, Reading]) -> ComparedParameter:
    # Settings files take precedence over the event file, whose points are rounded and may come late. The event file
    # takes precedence over defaults.
    said, measured = stated(parameter, settings), seen.get(parameter.id)
    ours = said or measured or by_default(parameter, settings)
    contradiction = None
    if said is not None and measured is not None and _contradicts(said, measured):
        contradiction = measured.text
    return ComparedParameter(
        id=parameter.id,
        title=parameter.title,
        ours=None if ours is None else ours.text,
        source=None if ours is None else ours.source,
        against={
            identifier: agreement(ours, parameter.references.get(identifier), parameter)
            for identifier in reference_table().titles
        },
        contradiction=contradiction,
    )


def _contradicts(said: Reading, measured: Reading) -> bool:
    """Return whether the value in the event file contradicts the value in the settings.

    If the settings state a schedule, the result is False: the schedule may have changed the value before the first
    point was logged.
    """
    if said.changes or measured.value is None:
        return False
    if said.is_off:
        return measured.value != 0.0
    if said.value is None:
        return False
    largest = max(abs(said.value), abs(measured.value))
    return measured.changes or abs(said.value - measured.value) > _CONTRADICTS * largest


def _applies(parameter: Parameter, settings: RunSettings, series: SeriesSet) -> bool:
    if parameter.encoder is None:
        return True
    shared = settings.encoder_is_shared
    if parameter.encoder == "actor" and shared is not None and shared.value:
        return False
    own = {name.name for name in parameter.names} - {"lr", "learning_rate"}
    is_set = any(name in layer.values for layer in settings.given for name in own)
    return is_set or settings.sees_images or tags.GROUP_LR[groups_of(parameter.encoder)[0].name] in series
