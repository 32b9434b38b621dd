"""Rename the tags of other libraries to tags of this package, by a mapping that is built in or given with --tags."""

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
from sb3_visual_td3.common.input_files import parse_mapping, read_mapping, read_text, shown
from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.rules import LIVE_RULES
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import (
    EPISODE_WORDS,
    EVALUATION_WORDS,
    STANDARD_PREFIXES,
    find_actor_losses,
    find_critic_losses,
    find_lengths,
    find_q_values,
    return_tag,
    words_of,
)
from sb3_visual_td3.diagnosis.two_questions import environment_steps
from sb3_visual_td3.report.event_reader import RunData, UnreadableRunError
from sb3_visual_td3.report.recommendation import WORDS_OF_YAML, quoted
from sb3_visual_td3.report.run_axis import axis_of
from sb3_visual_td3.report.table_file import ENVIRONMENT_STEPS, STEPS

HELP = (
    "YAML file that maps the tags in the event files to the names of this package, one per line: 'THEIRS: OURS', for "
    "example 'Loss/qf1: train/critic_1_loss'. If the values of THEIRS must be multiplied by a number to give the "
    "values of OURS, write this number as scale: 'THEIRS: {tag: OURS, scale: -1}'. If the x-axis of OURS is the "
    "episode (such as for train/episode_length), point k of THEIRS becomes episode k. The tags of CleanRL and "
    "Stable-Baselines3 need no such file. --write-tags writes a file to start from"
)
WRITE_HELP = (
    "write a file for --tags to this path. It lists every name that the run logged, with a guess of the name that "
    "this package uses for it. Correct the file, and give it with --tags. If PATH holds several runs, the file "
    "lists the names of the first run"
)


@dataclass(frozen=True)
class Target:
    """Name the tag of this package that corresponds to a tag of other code.

    :param tag: the tag of this package
    :param scale: factor by which the other code's values are multiplied
    """

    tag: str
    scale: float = 1.0

    @property
    def is_over_episodes(self) -> bool:
        """Return whether the x-axis of ``tag`` is the episode, and not the environment step."""
        return tags.is_on_episodes(self.tag)

    def read(self, series: Series) -> Series:
        """Convert a series that other code logged: rename it to ``tag``, and multiply its values by ``scale``.

        If the x-axis of ``tag`` is the episode, point k is placed at x = k, with k from 0.

        :param series: the series that the other code logged
        """
        steps = np.arange(len(series)) if self.is_over_episodes else series.steps
        # A value near the largest double becomes infinite when it is multiplied, which the criteria then report.
        with np.errstate(over="ignore", invalid="ignore"):
            return Series(self.tag, steps, series.values * self.scale)

    def in_words(self, theirs: str) -> str:
        """Return text such as ``"their_tag as our_tag"`` for the note that lists the renamed tags.

        :param theirs: the tag that the other code logged
        """
        factor = "" if self.scale == 1.0 else f" times {number(self.scale)}"
        episodes = " (point k as episode k)" if self.is_over_episodes else ""
        return f"{theirs}{factor} as {self.tag}{episodes}"


Targets = Mapping[str, tuple[Target, ...]]


@dataclass(frozen=True)
class TagMapping:
    """Map the tags that another library or project logs to the tags of this package.

    :param name: name of the library, or of the file with the mapping
    :param targets: one or several tags of this package for each tag of the other code
    :param recognised_by: a built-in mapping is used only for a run that logged all these tags
    :param keep_out: tags that only seem to correspond to a tag of this package, each with the reason
    """

    name: str
    targets: Targets
    recognised_by: tuple[str, ...] = ()
    keep_out: Mapping[str, str] = field(default_factory=dict)


def load_tag_mapping(path: Path) -> TagMapping:
    """Read the file that a user gives with ``--tags``.

    :param path: path of the file
    :raises ValueError: if the file is not a mapping to tags of this package
    :raises OSError: if the file cannot be read
    """
    lines = read_text(path).splitlines()
    if lines and all(line.lstrip().startswith("#") or not line.strip() for line in lines):
        raise ValueError(f"{path}: every line is a comment; expected a line 'THEIRS: OURS' for at least one name")
    targets = _targets(read_mapping(path), str(path))
    for theirs, why in ((theirs, why) for known in built_in_mappings() for theirs, why in known.keep_out.items()):
        if theirs in targets:
            raise ValueError(
                f"{path}: {theirs} does not correspond to {targets[theirs][0].tag}: {why}. Remove this line"
            )
    return TagMapping(path.name, targets)


@cache
def built_in_mappings() -> tuple[TagMapping, ...]:
    """Return the mappings that are part of the package; their files are read only once."""
    folder = resources.files(__package__).joinpath("tags")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yml")), key=lambda file: file.name)
    contents = ((file.name, parse_mapping(file.read_text(encoding="utf-8"), file.name)) for file in files)
    return tuple(
        TagMapping(found["library"], _targets(found["tags"], name), tuple(found["recognised_by"]), found["keep_out"])
        for name, found in contents
    )


def with_our_names(data: RunData, given: TagMapping | None = None) -> RunData:
    """Replace the tag names of other code by this package's names.

    :param data: content of the run's event files
    :param given: the mapping of --tags, which takes precedence over the built-in mappings; None uses only the built-in
        mappings
    :return: the run with renamed tags; its ``notes`` state which tags were renamed
    :raises UnreadableRunError: if two tags would get the same name
    """
    logged = set(data.series.names())
    if ENVIRONMENT_STEPS in {data.axis, axis_of(data.series)}:
        data = _with_checked_axis(data)
    if given is not None:
        chosen = {theirs: targets for theirs, targets in given.targets.items() if theirs in logged}
        _refuse_two_of_one(data.path, chosen, logged, given.name)
        data = _renamed(data, chosen, f"Tags renamed by {given.name}")
        absent = sorted(given.targets.keys() - logged)
        if absent:
            data = _noted(data, f"{given.name} also maps tags that this run did not log: {', '.join(absent)}")
    for known in built_in_mappings():
        if logged.issuperset(known.recognised_by):
            data = _renamed(data, _not_there_yet(known.targets, data.series), f"Tags of {known.name} renamed to ours")
    return data


def _with_checked_axis(data: RunData) -> RunData:
    """Correct the x-axis of a run if its steps are not the environment steps that its files or tags suggest."""
    if data.axis == ENVIRONMENT_STEPS and environment_steps(data.series) is None:
        data = replace(data, axis=STEPS)
    # The names of the tags may suggest environment steps although a table states another unit.
    if data.axis != ENVIRONMENT_STEPS:
        data = replace(data, series=replace(data.series, counts_environment_steps=False))
    return data


def _not_there_yet(targets: Targets, series: SeriesSet) -> Targets:
    # A built-in mapping never replaces a tag of this package that already has points. These points come from the run
    # itself, or from a tag that --tags or another built-in mapping renamed.
    new = {theirs: tuple(t for t in each if t.tag not in series) for theirs, each in targets.items()}
    return {theirs: each for theirs, each in new.items() if each and theirs in series}


def _refuse_two_of_one(path: Path, chosen: Targets, logged: set[str], name: str) -> None:
    sources: dict[str, list[str]] = {}
    for theirs, targets in chosen.items():
        for target in targets:
            sources.setdefault(target.tag, []).append(theirs)
    for ours, theirs_of in sources.items():
        # A tag that the run logged itself keeps its name if the file does not rename it. No other tag can then get this
        # name.
        if ours in logged and ours not in chosen:
            raise UnreadableRunError(
                f"{path}: the run logged {ours} itself, and {name} also maps {' and '.join(theirs_of)} to it. "
                f"Remove {' and '.join(theirs_of)} from {name}"
            )
        if len(theirs_of) > 1:
            raise UnreadableRunError(
                f"{path}: the run logged {' and '.join(theirs_of)}, and the --tags file {name} maps each of them to "
                f"{ours}. In {name}, keep only one of them"
            )


def _renamed(data: RunData, chosen: Targets, why: str) -> RunData:
    if not chosen:
        return data
    # The tag of the other code disappears. One such tag may become several of ours, such as a learning rate that all
    # groups share.
    renamed = {name: series for name, series in data.series.series.items() if name not in chosen}
    words = []
    for theirs, targets in chosen.items():
        for target in targets:
            ours = target.read(data.series[theirs])
            renamed[ours.name] = ours
            words.append(target.in_words(theirs))
    series = replace(data.series, series=renamed)
    return _noted(replace(data, series=series), f"{why}: {', '.join(words)}")


def _noted(data: RunData, note: str) -> RunData:
    return replace(data, notes=(*data.notes, note))


def _targets(content: Mapping[str, Any], name: str) -> dict[str, tuple[Target, ...]]:
    targets = {}
    for theirs, ours in content.items():
        entries = ours if isinstance(ours, list) else [ours]
        targets[theirs] = tuple(_target(entry, f"{name}: {theirs}") for entry in entries)
    return targets


def _target(entry: Any, where: str) -> Target:
    keys = {"tag": entry} if isinstance(entry, str) else entry
    if not isinstance(keys, dict) or not isinstance(keys.get("tag"), str) or not keys.keys() <= {"tag", "scale"}:
        raise ValueError(f"{where} is {shown(entry)}; expected a tag of this package, or {{tag: OURS, scale: FACTOR}}")
    tag, scale = keys["tag"], keys.get("scale", 1.0)
    # tags.TAGS does not contain the alerts of single rules. Their names are derived from LIVE_RULES.
    known = [*tags.TAGS, *tags.OF_SB3.values(), *map(tags.alert_of_rule, LIVE_RULES)]
    if tag not in known:
        near = difflib.get_close_matches(tag, known, n=1, cutoff=0.0)
        raise ValueError(f"{where}: {tag!r} is not a tag of this package; the nearest is {near[0]!r}")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale) or scale == 0:
        raise ValueError(f"{where}: scale is {shown(scale)}; expected a finite number that is not 0")
    return Target(tag, float(scale))


# ---- a mapping to start from

_BY_WORDS = (
    (frozenset(["approx", "kl"]), tags.OF_SB3["approx_kl"]),
    (frozenset(["approxkl"]), tags.OF_SB3["approx_kl"]),
    (frozenset(["clip", "fraction"]), tags.OF_SB3["clip_fraction"]),
    (frozenset(["clipfrac"]), tags.OF_SB3["clip_fraction"]),
    (frozenset(["explained", "variance"]), tags.OF_SB3["explained_variance"]),
    (frozenset(["value", "loss"]), tags.OF_SB3["value_loss"]),
    (frozenset(["ent", "coef"]), tags.OF_SB3["ent_coef"]),
    (frozenset(["success"]), tags.OF_SB3["success_rate"]),
    (frozenset(["reward", "divisor"]), tags.REWARD_DIVISOR),
)
"""Words in a name, and the tag that the name probably means. The first row that matches is used."""
_RETURN_WORDS = frozenset(["return", "returns", "reward", "rewards", "rew", "score", "scores"])


def mapping_to_start_from(data: RunData, name: str) -> str:
    """Return the text of a file for --tags: every tag that the run logged, with a guess of this package's tag for it.

    :param data: the run, before its tags are renamed
    :param name: name of the run, for the heading
    """
    guesses = _guesses(data)
    known = {theirs for mapping in built_in_mappings() for theirs in mapping.targets}
    lines = [
        f"# Names that {shown(name)[1:-1]} logged, for: visual-td3 report RUN --tags THIS_FILE",
        "# THEIRS: OURS. OURS is guessed from the words in THEIRS: correct the guesses. Lines that begin with # are "
        "ignored.",
        "# docs/logged_names.md lists all names that can stand for OURS. 'THEIRS: {tag: OURS, scale: -1}' changes the "
        "sign.",
    ]
    for theirs in data.series.names():
        key = _as_key(theirs)
        if theirs in guesses:
            lines.append(f"{key}: {guesses[theirs]}")
        elif theirs in tags.TAGS or theirs in known or theirs.startswith(STANDARD_PREFIXES):
            lines.append(f"# {key}: already read under this name")
        elif return_tag(theirs) is not None:
            lines.append(f"# {key}: already read as a return")
        else:
            lines.append(f"# {key}: no guess")
    return "\n".join(lines) + "\n"


def _guesses(data: RunData) -> dict[str, str]:
    """Guess the matching tag of this package for each tag that other code logged; no tag is guessed twice."""
    known = {theirs for mapping in built_in_mappings() for theirs in mapping.targets}
    logged = data.series.names()
    names = [
        name
        for name in logged
        if name not in tags.TAGS and name not in known and not name.startswith(STANDARD_PREFIXES)
    ]
    guesses: dict[str, str] = {}

    def guess(theirs: str, *ours: str) -> None:
        free = [each for each in ours if each not in guesses.values() and each not in logged]
        if theirs not in guesses and free:
            guesses[theirs] = free[0]

    critics = find_critic_losses(names)
    for theirs in critics:
        # A single critic loss belongs to the only critic, or is the sum over both. Two critic losses belong to one
        # critic each.
        each_of_two = (tags.CRITIC_1_LOSS, tags.CRITIC_2_LOSS)
        guess(theirs, *(each_of_two if len(critics) == 2 else (tags.CRITIC_LOSS,)))
    is_on_policy = recognise(logged).family is Family.ON_POLICY
    for theirs in find_actor_losses(names):
        guess(theirs, tags.OF_SB3["policy_gradient_loss"] if is_on_policy else tags.ACTOR_LOSS)
    for theirs in find_q_values(names):
        guess(theirs, tags.Q1_VALUE, tags.Q2_VALUE)
    counts_steps = data.axis == ENVIRONMENT_STEPS
    for theirs in names:
        words = set(words_of(theirs))
        found = return_tag(theirs)
        if found is not None and found.source == "evaluation":
            guess(theirs, tags.EVAL_REWARD)
        elif found is None and words & _RETURN_WORDS and words & EPISODE_WORDS:
            # A return over episodes becomes the tag with one point per episode. A return over environment steps becomes
            # the tag that SB3 logs.
            guess(theirs, tags.OF_SB3["ep_rew_mean"] if counts_steps else tags.EPISODE_REWARD)
        elif find_lengths([theirs]) is not None and not words & EVALUATION_WORDS:
            guess(theirs, tags.OF_SB3["ep_len_mean"] if counts_steps else tags.EPISODE_LENGTH)
        for wanted, ours in _BY_WORDS:
            if wanted <= words:
                guess(theirs, ours)
    return guesses


def _as_key(name: str) -> str:
    """Write a name as the key of a YAML mapping; names from event files may hold any character."""
    plain = name.replace("/", "").replace("_", "").replace("-", "").replace(".", "")
    if plain.isascii() and plain.isalnum() and name[0].isalpha() and name.lower() not in WORDS_OF_YAML:
        return name
    return quoted(name)
