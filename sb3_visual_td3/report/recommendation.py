"""Recommend changes of the hyperparameter file for the causes that were found, as a list and as a diff.

The ``CURE`` of each rule proposes the changes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import CRITIC_MLP, GROUP_NAMES, GROUPS
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Diagnosis, SettingChange
from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.hyperparam_comparison import (
    Parameter,
    Reading,
    as_number,
    by_default,
    logged,
    reference_table,
    stated,
)
from sb3_visual_td3.report.run_settings import Layer, RunSettings, own_arguments

RATES = tuple(group.rate_argument for group in GROUPS)
_GROUP_LR = "group_lr"
_COMMON_RATE = ("learning_rate", "lr")
_SCHEDULES = ("lin_", "cos_")
_NAME_IN_REFERENCE = {"learning_starts": "first_update"}
"""Maps the key of a change to the name of the same setting in the reference table, if the two names differ."""


@dataclass(frozen=True)
class Change:
    """Describe one recommended line of the hyperparameter file.

    :param key: name in VisualTD3 or rl-zoo, such as ``tau`` or ``policy_kwargs.NAME``
    :param old: the run's own value; None if unknown or not set
    :param new: the recommended value
    :param reason: why the change helps, and where the number comes from
    :param diagnosis: id of the diagnosis
    :param own_name: name of the same setting in the run's own settings, such as ``lr`` for ``learning_rate``; None if
        the run's settings do not state this setting
    :param own_value: the value under ``own_name``, as written there
    """

    key: str
    old: Any
    new: Any
    reason: str
    diagnosis: str
    own_name: str | None = None
    own_value: Any = None


@dataclass(frozen=True)
class Recommendation:
    """Hold the recommended changes for a run.

    :param changes: changes to the hyperparameter file
    :param code: maps the id of a diagnosis to a sentence on what else to do, such as a change in the training code
    """

    changes: tuple[Change, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)


def recommend(
    verdict: Verdict, diagnoses: Sequence[Diagnosis], settings: RunSettings, series: SeriesSet
) -> Recommendation:
    """Return the changes for the causes that were found.

    :param verdict: verdict on the run; for a GO nothing is recommended
    :param diagnoses: diagnoses in the order in which to fix them; the first that changes a setting decides its value
    :param settings: settings of the run
    :param series: series of the run
    """
    if verdict is Verdict.GO:
        return Recommendation()
    # A dict keeps the order in which the keys were added, and setdefault keeps the first change of a key.
    run = _Run(settings, series, logged(series))
    changes: dict[str, Change] = {}
    code: dict[str, str] = {}
    for diagnosis in diagnoses:
        cure = RULES[diagnosis.id].cure
        if diagnosis.role == "consequence" or diagnosis.confidence < LIKELY_FROM:
            continue
        found = [change for p in cure.changes if (change := run.change(p, diagnosis)) is not None]
        for change in found:
            changes.setdefault(change.key, change)
        sentence = cure.code
        if sentence is None and not found:
            sentence = cure.if_nothing_to_change
        if settings.algo == "visual_td3" and cure.code_in_visual_td3 is not None:
            sentence = cure.code_in_visual_td3
        if sentence is not None:
            code[diagnosis.id] = sentence
    return Recommendation(tuple(changes.values()), code)


@dataclass(frozen=True)
class _Run:
    """Hold the settings of a run, and find out what a proposed change would change in them.

    :param settings: the settings from the run's files, and the defaults
    :param series: the series of the run
    :param logged: the hyperparameters that the event file shows, by name
    """

    settings: RunSettings
    series: SeriesSet
    logged: Mapping[str, Reading]

    def change(self, proposed: SettingChange, diagnosis: Diagnosis) -> Change | None:
        """Return a proposed change with the old and the new value of this run; None if there is nothing to change."""
        # Some changes make sense for our environments only, such as their reward weights.
        if proposed.envs and self.settings.value("env_id") not in proposed.envs:
            return None
        if proposed.unless_rewards_are_normalized and self._rewards_are_normalized:
            return None
        key, parameter = self._key(proposed.key, diagnosis)
        own_name, own_value = self._own_line(key, parameter)
        old = self._in_force(key, parameter)
        in_force = old
        if old is None:
            in_force = proposed.default
        new = self._new(proposed, in_force)
        if new is None or new == in_force:
            return None
        return Change(key, old, new, f"{proposed.reason}{self._needs(key)}", diagnosis.id, own_name, own_value)

    def _needs(self, key: str) -> str:
        """Return what else the setting ``key`` requires, as text to append to ``Change.reason``; "" for nothing."""
        if key in own_arguments() and self.settings.algo != "visual_td3":
            return "; an argument of VisualTD3 (--algo visual_td3)"
        if key == "normalize" and self.settings.algo == "td3" and self.settings.value("frame_stack"):
            # SB3 2.9 stores VecNormalize's original observation, which is not stacked yet, in a buffer for stacked
            # ones: "could not broadcast input array from shape (1,84,84,1) into shape (1,4,84,84)", see
            # https://github.com/DLR-RM/stable-baselines3/issues/693
            return (
                "; with td3 and a frame_stack, use visual-td3 train, because rl-zoo's own train crashes with this "
                "setting"
            )
        return ""

    @property
    def _rewards_are_normalized(self) -> bool:
        logged = own_scale.rewards_are_scaled(self.series)
        if logged is not None:
            return logged
        setting = self.settings.reward_is_normalized
        return setting is not None and bool(setting.value)

    def _key(self, key: str, diagnosis: Diagnosis) -> tuple[str, Parameter | None]:
        """Return the name of the setting to change, and the row of the reference table that describes this setting.

        :param key: name of a setting; ``group_lr`` stands for the learning rate of one parameter group. The evidence of
            the diagnosis tells which group
        :param diagnosis: the diagnosis that proposes the change
        :return: the name and the row, or the name and None if the table does not describe the setting
        """
        table = reference_table().parameters
        if key != _GROUP_LR:
            return key, table.get(_NAME_IN_REFERENCE.get(key, key))
        # A run with one rate for all groups keeps one rate.
        parameter = table[f"{_group_of(diagnosis).removesuffix('_mlp')}_lr"]
        if self._has_own_rate(parameter):
            return parameter.id, parameter
        return "learning_rate", parameter

    def _has_own_rate(self, parameter: Parameter) -> bool:
        """Return whether a group of weights has its own learning rate, different from the common rate.

        :param parameter: the row of the reference table for the learning rate of this group
        """
        # VisualTD3 states every group's rate in run.json. Only a rate that differs from learning_rate was set
        # separately.
        common = as_number(self.settings.value("learning_rate"))
        for layer in self.settings.given:
            for name in parameter.names:
                if name.name in layer.values and name.name not in _COMMON_RATE:
                    return as_number(layer.values[name.name]) != common
        if common is None and parameter.id in self.logged:
            rates = {self.logged[name].value for name in RATES if name in self.logged}
            return len(rates) > 1
        return False

    def _own_line(self, key: str, parameter: Parameter | None) -> tuple[str | None, Any]:
        """Return the name and the value of a setting in the user's own hyperparameter file.

        :return: ``(None, None)`` if no file has the setting
        """
        names: tuple[str, ...] = (key,)
        if key == "learning_rate":
            names = _COMMON_RATE
        elif parameter is not None:
            names += tuple(name.name for name in parameter.names if name.name not in _COMMON_RATE)
        for layer in self.settings.file_layers:
            for name in names:
                value = layer.value_or_group(name)
                if value is not None:
                    return name, layer.code.get(name, value)
        return None, None

    def _in_force(self, key: str, parameter: Parameter | None) -> Any:
        """Return the value that the run used for the setting ``key``; None if it is not known."""
        for layer in self.settings.given:
            value = layer.value_or_group(key)
            if value is not None or key in layer.values:
                return value
        if parameter is None:
            return self.settings.defaults.values.get(key)
        reading = stated(parameter, self.settings) or self.logged.get(parameter.id)
        reading = reading or by_default(parameter, self.settings)
        if reading is None:
            return None
        # A schedule keeps its text, so that the recommended value is a schedule of the same shape.
        if reading.written.startswith(_SCHEDULES):
            return reading.written
        return reading.value

    def _new(self, proposed: SettingChange, old: Any) -> Any:
        """Return the recommended value, given the value that the run used; None for no change."""
        if isinstance(proposed.to, Mapping):
            # The keys of ``fill`` are used only if the run's mapping lacks them. Those of ``to`` override all others.
            own = old if isinstance(old, Mapping) else {}
            return {**proposed.fill, **own, **proposed.to}
        if proposed.to is not None:
            is_set = old is not None and old is not False and old != 0
            if proposed.unless_set and is_set:
                return None
            return proposed.to
        # A value outside the limits is moved to the nearer limit. A value within the limits is multiplied by the
        # factor ``times``, if the proposal has one.
        lowest, highest = self._lowest(proposed), proposed.at_most
        found = as_number(old)
        if found is None:
            return highest if lowest is None else lowest
        value, is_schedule = found
        new: float | None = None
        if lowest is not None and value < lowest:
            new = lowest
        elif highest is not None and value > highest:
            new = highest
        elif proposed.times is not None:
            new = float(f"{value * proposed.times:.3g}")
        if new is not None and is_schedule and value:
            return _of_the_same_shape(str(old), new / value)
        return new

    def _lowest(self, proposed: SettingChange) -> float | None:
        n_steps = self.series.n_steps
        if proposed.at_least is None or proposed.of_steps is None or n_steps is None:
            return proposed.at_least
        return min(max(proposed.at_least, round(proposed.of_steps * n_steps)), proposed.of_steps_at_most or n_steps)


def _group_of(diagnosis: Diagnosis) -> str:
    """Return the first parameter group in the evidence of a diagnosis; critic_mlp if the evidence has no group."""
    by_tag = {by_group[group]: group for by_group in (tags.GRADIENT_NORM, tags.UPDATE_RATIO) for group in GROUP_NAMES}
    return next((by_tag[e.tag] for e in diagnosis.evidence if e.tag in by_tag), CRITIC_MLP.name)


def _of_the_same_shape(schedule: str, factor: float) -> Any:
    """Multiply both ends of a schedule such as ``"lin_3e-4_1e-5"`` by a factor.

    :return: the new schedule. A schedule in another notation becomes a constant: the start of the schedule, multiplied
        by the factor. None if this start is unknown
    """
    # "lin_3e-4_1e-5" goes linearly from 3e-4 to 1e-5.
    shape, *ends = schedule.split("_")
    if not schedule.startswith(_SCHEDULES):
        start = as_number(schedule)
        return None if start is None else float(f"{start[0] * factor:.3g}")
    return "_".join([shape, *(f"{float(end) * factor:.3g}" for end in ends)])


_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
WORDS_OF_YAML = frozenset(["true", "false", "yes", "no", "on", "off", "null", "y", "n"])
"""Texts that YAML 1.1 reads as a truth value or as null, unless they are quoted."""


def zoo_diff(changes: Sequence[Change], settings: RunSettings) -> tuple[str, ...]:
    """Return the recommended changes as the lines of a diff.

    :param changes: the recommended changes
    :param settings: settings of the run
    :return: the lines; empty if there is nothing to change
    """
    if not changes:
        return ()
    lines = ["--- as it was run", "+++ recommended"]
    # Changes within one mapping, such as policy_kwargs, stand together; a dict keeps the order of the first change of
    # each mapping.
    parents = dict.fromkeys(change.key.partition(".")[0] for change in changes)
    for parent in parents:
        nested = [change for change in changes if change.key.startswith(f"{parent}.")]
        if nested:
            lines += _group(parent, nested, settings)
        else:
            lines += _line(next(change for change in changes if change.key == parent))
    return tuple(lines)


def _line(change: Change, key: str = "", indent: str = "") -> list[str]:
    lines = []
    if change.own_name is not None:
        own = key or change.own_name
        lines.append(f"-{indent}{own}: {as_yaml(change.own_value)}")
    return [*lines, f"+{indent}{key or change.key}: {as_yaml(change.new)}  # {change.reason}"]


def _group(parent: str, changes: Sequence[Change], settings: RunSettings) -> list[str]:
    """Return the diff lines of the changes within one mapping, such as policy_kwargs."""
    file = next((layer for layer in settings.file_layers if _mentions(layer, parent)), None)
    own_lines = [line for c in changes for line in _line(c, c.key.removeprefix(f"{parent}."), "  ")]
    if file is None:
        return [f"+{parent}:", *own_lines]
    code = file.code.get(parent)
    if code is None:
        return [f" {parent}:", *own_lines]
    # The file states the mapping as Python code, such as "dict(net_arch=[400, 300])". If the code can be read, the diff
    # replaces it by a YAML mapping with the changes; otherwise the diff only lists what to add.
    own = file.value_or_group(parent)
    if not isinstance(own, Mapping):
        added = (f"{c.key.removeprefix(f'{parent}.')}={c.new!r}  # {c.reason}" for c in changes)
        return [f" {parent}: {as_yaml(code)}", *(f"+# {parent} is Python code; add this: {each}" for each in added)]
    replaced = {change.key.removeprefix(f"{parent}.") for change in changes}
    kept = [f"+  {as_yaml(k)}: {as_yaml(v)}" for k, v in _nested(own).items() if k not in replaced]
    added_lines = [line for line in own_lines if line.startswith("+")]
    return [f"-{parent}: {as_yaml(code)}", f"+{parent}:", *kept, *added_lines]


def _mentions(layer: Layer, parent: str) -> bool:
    return parent in layer.code or layer.value_or_group(parent) is not None


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested mappings that dotted names stand for."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        into = nested
        for parent in parents:
            into = into.setdefault(parent, {})
        into[last] = value
    return nested


def as_yaml(value: Any) -> str:
    """Write a value as one line of YAML 1.1 that PyYAML reads back as the same value.

    Values may come from an untrusted file, so none may become markup of Markdown or HTML.

    :param value: None, bool, number, text, list or mapping
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(str(key))}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        # A bool is an int in Python, so it is handled before the numbers.
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    return _text(str(value))


def _float(value: float) -> str:
    if not math.isfinite(value):
        if math.isnan(value):
            return ".nan"
        return ".inf" if value > 0 else "-.inf"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return repr(value)
    # Use the fewest digits that read back as the same number.
    digits = next(n for n in range(17) if float(f"{value:.{n}e}") == value)
    mantissa, _, exponent = f"{value:.{max(digits, 1)}e}".partition("e")
    # Without the decimal point or the exponent's sign, YAML 1.1 would read the number as text.
    return f"{mantissa}e{int(exponent):+d}"


def _text(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in WORDS_OF_YAML:
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """Return a text in YAML's quoted notation, with characters of printable ASCII only.

    :param text: any text
    """
    # YAML reads JSON's quoted text, except for surrogate pairs: the two escapes that JSON uses for one character beyond
    # U+FFFF. Therefore _escaped() escapes such characters, not json.dumps().
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    """Escape a character in YAML's notation if Markdown or HTML could interpret it, or if it is not printable ASCII."""
    code = ord(character)
    if character in "<>&`" or not 0x20 <= code < 0x7F:
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character
