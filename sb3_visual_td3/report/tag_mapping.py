"""Names of other libraries, read as ours: a small mapping as data, built in or given with --tags."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.input_files import parse_mapping, read_mapping
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.rules import LIVE_RULES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.event_reader import RunData, UnreadableRunError

HELP = (
    "YAML file that says what the names in the event files mean, a line each: 'THEIRS: OURS', for example "
    "'Loss/qf1: train/critic_1_loss', or 'THEIRS: {tag: OURS, scale: -1}' where theirs has another sign or factor; "
    "where ours counts episodes (train/episode_length), their k-th point is episode k. The names of CleanRL and "
    "Stable-Baselines3 are known without it"
)


@dataclass(frozen=True)
class Target:
    """What a foreign name is: one of ours, after its values have been multiplied.

    :param scale: our value over theirs.
    """

    tag: str
    scale: float = 1.0

    @property
    def counts_episodes(self) -> bool:
        """Whether the x-axis of our name is the episode."""
        return self.tag in tags.TAGS and tags.TAGS[self.tag].x_axis == "episode"

    def read(self, series: Series) -> Series:
        """Return the points under our name. Where ours counts episodes, the k-th point (from 0) is episode k."""
        steps = np.arange(len(series)) if self.counts_episodes else series.steps
        with np.errstate(over="ignore", invalid="ignore"):
            return Series(self.tag, steps, series.values * self.scale)

    def in_words(self, theirs: str) -> str:
        """Return the reading in words."""
        factor = "" if self.scale == 1.0 else f" times {number(self.scale)}"
        return f"{theirs}{factor} as {self.tag}{' (point k as episode k)' if self.counts_episodes else ''}"


Targets = Mapping[str, tuple[Target, ...]]


@dataclass(frozen=True)
class TagMapping:
    """What the names of one library or project mean.

    :param name: of the library, or of the file.
    :param targets: by their name; one name of theirs may be several of ours.
    :param recognised_by: names that a run must all have logged before a built-in mapping is used.
    :param keep_out: by their name, why it is none of ours though it looks like one.
    """

    name: str
    targets: Targets
    recognised_by: tuple[str, ...] = ()
    keep_out: Mapping[str, str] = field(default_factory=dict)


def load_tag_mapping(path: Path) -> TagMapping:
    """Read the file of --tags.

    :raises ValueError: if it is no such file, or names what is not in our table (the nearest name is told).
    :raises OSError: if it cannot be read.
    """
    targets = _targets(read_mapping(path), str(path))
    for theirs, why in ((theirs, why) for known in built_in_mappings() for theirs, why in known.keep_out.items()):
        if theirs in targets:
            raise ValueError(f"{path}: {theirs} is not {targets[theirs][0].tag}: {why}. Leave it out")
    return TagMapping(path.name, targets)


@cache
def built_in_mappings() -> tuple[TagMapping, ...]:
    """Return the mappings that ship with the package."""
    folder = resources.files(__package__).joinpath("tags")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yml")), key=lambda file: file.name)
    contents = ((file.name, parse_mapping(file.read_text(encoding="utf-8"), file.name)) for file in files)
    return tuple(
        TagMapping(found["library"], _targets(found["tags"], name), tuple(found["recognised_by"]), found["keep_out"])
        for name, found in contents
    )


def with_our_names(data: RunData, given: TagMapping | None = None) -> RunData:
    """Return the run with foreign names read as ours, and notes that say so.

    :param given: of --tags; the built-in mappings read what it leaves, and never in place of a name of ours.
    :raises UnreadableRunError: if two names that the run logs would become one.
    """
    logged = set(data.series.names())
    if given is not None:
        chosen = {theirs: targets for theirs, targets in given.targets.items() if theirs in logged}
        _refuse_two_of_one(data.path, chosen, logged, given.name)
        data = _renamed(data, chosen, f"Names read as {given.name} says")
        absent = sorted(given.targets.keys() - logged)
        if absent:
            data = _noted(data, f"{given.name} also names what this run did not log: {', '.join(absent)}")
    for known in built_in_mappings():
        if logged.issuperset(known.recognised_by):
            data = _renamed(data, _not_there_yet(known.targets, data.series), f"{known.name}'s names read as ours")
    return data


def _not_there_yet(targets: Targets, series: SeriesSet) -> Targets:
    new = {theirs: tuple(t for t in each if t.tag not in series) for theirs, each in targets.items()}
    return {theirs: each for theirs, each in new.items() if each and theirs in series}


def _refuse_two_of_one(path: Path, chosen: Targets, logged: set[str], name: str) -> None:
    sources: dict[str, list[str]] = {}
    for theirs, targets in chosen.items():
        for target in targets:
            sources.setdefault(target.tag, []).append(theirs)
    for ours, theirs_of in sources.items():
        both = [*theirs_of, ours] if ours in logged and ours not in chosen else theirs_of
        if len(both) > 1:
            raise UnreadableRunError(
                f"{path}: {' and '.join(both)} were both logged, and by {name} both are {ours}. Take one out of it"
            )


def _renamed(data: RunData, chosen: Targets, why: str) -> RunData:
    if not chosen:
        return data
    kept = {name: series for name, series in data.series.series.items() if name not in chosen}
    read = [target.read(data.series[theirs]) for theirs, targets in chosen.items() for target in targets]
    series = replace(data.series, series={**kept, **{s.name: s for s in read}})
    words = (target.in_words(theirs) for theirs, targets in chosen.items() for target in targets)
    return _noted(replace(data, series=series), f"{why}: {', '.join(words)}")


def _noted(data: RunData, note: str) -> RunData:
    return replace(data, notes=(*data.notes, note))


def _targets(content: Mapping[str, Any], name: str) -> dict[str, tuple[Target, ...]]:
    return {
        theirs: tuple(_target(entry, f"{name}: {theirs}") for entry in (ours if isinstance(ours, list) else [ours]))
        for theirs, ours in content.items()
    }


def _target(entry: Any, where: str) -> Target:
    keys = {"tag": entry} if isinstance(entry, str) else entry
    if not isinstance(keys, dict) or not isinstance(keys.get("tag"), str) or not keys.keys() <= {"tag", "scale"}:
        raise ValueError(
            f"{where}: expected one of our names, or {{tag: OUR_NAME, scale: FACTOR}}; got {_short(entry)}"
        )
    tag, scale = keys["tag"], keys.get("scale", 1.0)
    known = [*tags.TAGS, *map(tags.alert_of_rule, LIVE_RULES)]
    if tag not in known:
        near = difflib.get_close_matches(tag, known, n=1, cutoff=0.0)
        raise ValueError(f"{where}: {tag!r} is no name of ours; the nearest is {near[0]!r}")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale) or scale == 0:
        raise ValueError(f"{where}: scale is {_short(scale)}; expected a finite number that is not 0")
    return Target(tag, float(scale))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
