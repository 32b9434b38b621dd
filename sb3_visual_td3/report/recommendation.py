"""What to change in the hyperparameter file for the causes that were found, as a list and as a diff."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import CRITIC_MLP, GROUP_NAMES, GROUPS
from sb3_visual_td3.diagnosis.findings import Diagnosis, SettingChange
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

ACT_FROM = 0.5
"""Confidence of a cause from which settings are recommended for it."""

RATES = tuple(group.rate_argument for group in GROUPS)
_GROUP_LR = "group_lr"
_COMMON_RATE = ("learning_rate", "lr")
_SCHEDULES = ("lin_", "cos_")
_READ_AS = {"learning_starts": "first_update"}
"""Keys whose value other notations tell under another parameter of the reference table."""


@dataclass(frozen=True)
class Change:
    """One line of the hyperparameter file.

    :param key: in the names of VisualTD3 and rl-zoo; ``policy_kwargs.NAME`` is one key of that mapping.
    :param old: the run's own value; None where it is not known, or not set.
    :param own_name: how the run's settings call it, and None where no line of theirs names it.
    :param own_value: what stands there.
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
    """What to change.

    :param changes: of the hyperparameter file.
    :param code: by diagnosis, what no hyperparameter cures.
    """

    changes: tuple[Change, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)


def recommend(
    verdict: Verdict, diagnoses: Sequence[Diagnosis], settings: RunSettings, series: SeriesSet
) -> Recommendation:
    """Return what to change for the causes that were found, the first one first; nothing for a run that may go on.

    Consequences ask for nothing: they go with their cause. Of two changes of one key the first counts.
    """
    if verdict is Verdict.GO:
        return Recommendation()
    run = _Run(settings, series, logged(series))
    changes: dict[str, Change] = {}
    code: dict[str, str] = {}
    for diagnosis in diagnoses:
        cure = RULES[diagnosis.id].cure
        if diagnosis.role == "consequence" or diagnosis.confidence < ACT_FROM:
            continue
        found = [change for p in cure.changes if (change := run.change(p, diagnosis)) is not None]
        for change in found:
            changes.setdefault(change.key, change)
        sentence = cure.code or (None if found else cure.if_nothing_to_change)
        if settings.algo == "visual_td3" and cure.code_in_visual_td3 is not None:
            sentence = cure.code_in_visual_td3
        if sentence is not None:
            code[diagnosis.id] = sentence
    return Recommendation(tuple(changes.values()), code)


@dataclass(frozen=True)
class _Run:
    settings: RunSettings
    series: SeriesSet
    logged: Mapping[str, Reading]

    def change(self, proposed: SettingChange, diagnosis: Diagnosis) -> Change | None:
        """Return the change where the run's own value is another one."""
        if proposed.envs and self.settings.value("env_id") not in proposed.envs:
            return None
        if proposed.unless_rewards_are_normalized and self._rewards_are_normalized:
            return None
        key, parameter = self._key(proposed.key, diagnosis)
        own_name, own_value = self._own_line(key, parameter)
        old = self._in_force(key, parameter)
        in_force = proposed.default if old is None else old
        new = self._new(proposed, in_force)
        if new is None or new == in_force:
            return None
        return Change(key, old, new, f"{proposed.reason}{self._needs(key)}", diagnosis.id, own_name, own_value)

    def _needs(self, key: str) -> str:
        """Return what a change takes beside the line itself, as the end of its reason."""
        if key in own_arguments() and self.settings.algo != "visual_td3":
            return "; an argument of VisualTD3 (--algo visual_td3)"
        if key == "normalize" and self.settings.algo == "td3" and self.settings.value("frame_stack"):
            # SB3 2.9 stores VecNormalize's unstacked observation: "could not broadcast input array".
            return "; SB3's TD3 crashes on it below a frame_stack, VisualTD3 does not (--algo visual_td3)"
        return ""

    @property
    def _rewards_are_normalized(self) -> bool:
        logged_flag = self.series.flag(tags.REWARD_IS_NORMALIZED)
        set_flag = self.settings.reward_is_normalized
        return bool(set_flag is not None and set_flag.value) if logged_flag is None else logged_flag

    def _key(self, key: str, diagnosis: Diagnosis) -> tuple[str, Parameter | None]:
        """Return the key to write, and the parameter of the reference table that it is."""
        table = reference_table().parameters
        if key != _GROUP_LR:
            return key, table.get(_READ_AS.get(key, key))
        parameter = table[f"{_group_of(diagnosis).removesuffix('_mlp')}_lr"]
        return (parameter.id if self._has_own_rate(parameter) else "learning_rate"), parameter

    def _has_own_rate(self, parameter: Parameter) -> bool:
        """Return whether the group has a learning rate that is not that of all."""
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
        """Return the line of the run's settings: of rl-zoo's file, where there is one, for it is what is edited."""
        others = [] if parameter is None else [n.name for n in parameter.names if n.name not in _COMMON_RATE]
        names = _COMMON_RATE if key == "learning_rate" else (key, *others)
        for layer in self.settings.file_layers:
            for name in names:
                value = layer.value_or_group(name)
                if value is not None:
                    return name, layer.code.get(name, value)
        return None, None

    def _in_force(self, key: str, parameter: Parameter | None) -> Any:
        """Return the value that the run had, in the units of the key."""
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
        return reading.written if reading.written.startswith(_SCHEDULES) else reading.value

    def _new(self, proposed: SettingChange, old: Any) -> Any:
        if isinstance(proposed.to, Mapping):
            own = old if isinstance(old, Mapping) else {}
            return {**proposed.fill, **own, **proposed.to}
        if proposed.to is not None:
            is_set = old is not None and old is not False and old != 0
            return None if proposed.unless_set and is_set else proposed.to
        lowest, highest = self._lowest(proposed), proposed.at_most
        found = as_number(old)
        if found is None:
            return lowest if lowest is not None else highest
        value, is_schedule = found
        new: float | None = None
        if lowest is not None and value < lowest:
            new = lowest
        elif highest is not None and value > highest:
            new = highest
        elif proposed.times is not None:
            new = float(f"{value * proposed.times:.3g}")
        return _of_the_same_shape(str(old), new / value) if new is not None and is_schedule and value else new

    def _lowest(self, proposed: SettingChange) -> float | None:
        n_steps = self.series.n_steps
        if proposed.at_least is None or proposed.of_steps is None or n_steps is None:
            return proposed.at_least
        return min(max(proposed.at_least, round(proposed.of_steps * n_steps)), proposed.most or n_steps)


def _group_of(diagnosis: Diagnosis) -> str:
    """Return the parameter group that the evidence names first; the critics' heads where it names none."""
    by_tag = {by_group[group]: group for by_group in (tags.GRADIENT_NORM, tags.UPDATE_RATIO) for group in GROUP_NAMES}
    return next((by_tag[e.tag] for e in diagnosis.evidence if e.tag in by_tag), CRITIC_MLP.name)


def _of_the_same_shape(schedule: str, factor: float) -> Any:
    """Return ``"lin_3e-4_1e-5"`` with every number times the factor; of another kind of schedule, its new start."""
    shape, *ends = schedule.split("_")
    if not schedule.startswith(_SCHEDULES):
        start = as_number(schedule)
        return None if start is None else float(f"{start[0] * factor:.3g}")
    return "_".join([shape, *(f"{float(end) * factor:.3g}" for end in ends)])


_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS_OF_YAML = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def zoo_diff(changes: Sequence[Change], settings: RunSettings) -> tuple[str, ...]:
    """Return the lines of the diff; none where there is nothing to change.

    A line with - is one of the run's own settings. Where it has none, its value is not known or comes from a default.
    """
    if not changes:
        return ()
    lines = ["--- as it was run", "+++ recommended"]
    parents = dict.fromkeys(change.key.partition(".")[0] for change in changes)
    for parent in parents:
        nested = [change for change in changes if change.key.startswith(f"{parent}.")]
        lines += _group(parent, nested, settings) if nested else _line(next(c for c in changes if c.key == parent))
    return tuple(lines)


def _line(change: Change, key: str = "", indent: str = "") -> list[str]:
    lines = []
    if change.own_name is not None:
        own = key or change.own_name
        lines.append(f"-{indent}{own}: {as_yaml(change.own_value)}")
    return [*lines, f"+{indent}{key or change.key}: {as_yaml(change.new)}  # {change.reason}"]


def _group(parent: str, changes: Sequence[Change], settings: RunSettings) -> list[str]:
    file = next((layer for layer in settings.file_layers if _mentions(layer, parent)), None)
    own_lines = [line for c in changes for line in _line(c, c.key.removeprefix(f"{parent}."), "  ")]
    if file is None:
        return [f"+{parent}:", *own_lines]
    code = file.code.get(parent)
    if code is None:
        return [f" {parent}:", *own_lines]
    own = file.value_or_group(parent)
    if not isinstance(own, Mapping):
        added = (f"{c.key.removeprefix(f'{parent}.')}={c.new!r}  # {c.reason}" for c in changes)
        return [f" {parent}: {as_yaml(code)}", *(f"+# {parent} is Python code; add to it {each}" for each in added)]
    replaced = {change.key.removeprefix(f"{parent}.") for change in changes}
    kept = [f"+  {as_yaml(k)}: {as_yaml(v)}" for k, v in _nested(own).items() if k not in replaced]
    added_lines = [line for line in own_lines if line.startswith("+")]
    return [f"-{parent}: {as_yaml(code)}", f"+{parent}:", *kept, *added_lines]


def _mentions(layer: Layer, parent: str) -> bool:
    return parent in layer.code or layer.value_or_group(parent) is not None


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of mappings that dotted names stand for."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split(".")
        into = nested
        for parent in parents:
            into = into.setdefault(parent, {})
        into[last] = value
    return nested


def as_yaml(value: Any) -> str:
    """Return a value in one line of YAML 1.1 that PyYAML reads back as the same; text of a file stays text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_yaml(str(key))}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    return _text(str(value))


def _float(value: float) -> str:
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return repr(value)
    digits = next(n for n in range(17) if float(f"{value:.{n}e}") == value)
    mantissa, _, exponent = f"{value:.{max(digits, 1)}e}".partition("e")
    return f"{mantissa}e{int(exponent):+d}"  # YAML 1.1 wants the point and the sign


def _text(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    """Return what YAML reads as the character, and Markdown and HTML as nothing of theirs."""
    code = ord(character)
    if character in "<>&`" or not 0x20 <= code < 0x7F:
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character
