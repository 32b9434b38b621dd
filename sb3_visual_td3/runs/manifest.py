"""run.json: what a run was, on which machine and from which commit, and how it ended."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, get_args

from sb3_visual_td3.common.input_files import MAX_SHOWN_CHARACTERS, read_mapping, require_type, shown
from sb3_visual_td3.runs.durable_files import write_atomically

PACKAGES = (
    "sb3-visual-td3",
    "stable-baselines3",
    "sb3-contrib",
    "rl_zoo3",
    "torch",
    "gymnasium",
    "numpy",
    "opencv-python-headless",
    "carla",
)
"""What a training's numbers depend on."""
_GIT_PATIENCE_S = 5.0
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def git_state(folder: str | Path = ".") -> dict[str, Any] | None:
    """Look up which commit is checked out, and whether files differ from it.

    :param folder: within a repository
    :return: ``commit`` (None before the first) and ``dirty``; None outside a repository, and where there is no git
    """
    status = _git(folder, "status", "--porcelain")
    if status is None:
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    return {"commit": None if commit is None else commit.strip(), "dirty": bool(status.strip())}


def package_versions() -> dict[str, str]:
    """Look up which versions of the packages that a training depends on are installed.

    :return: package name to version; what is not installed is left out
    """
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git(folder: str | Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GIT_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def machine(gpu: str | None) -> dict[str, Any]:
    """Describe the machine.

    :param gpu: its name, which only torch can tell; None for none
    :return: ``cpu``, ``cores`` (that this process may use), ``memory_gb``, ``gpu``, ``platform``, ``python``
    """
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpu": gpu,
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None) or platform.machine() or None


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def command_line(arguments: Sequence[str] | None = None) -> list[str]:
    """:return: the words that started this process; user and password within an address are left out

    :param arguments: other words
    """
    return [_PASSWORD.sub("***", word) for word in (sys.orig_argv if arguments is None else arguments)]


FORMAT_VERSION = 1
FILE_NAME = "run.json"
EncoderKind = Literal["separate", "shared"]
RunEnd = Literal["finished", "interrupted", "crashed", "stopped"]
"""How a run ended. ``finished``: all steps were made and what is saved at the end is saved. ``interrupted``: by Ctrl-C
or a signal. ``crashed``: by an exception, such as that of a worker process that died. ``stopped``: by the guard of
ExplosionAlertCallback or by another callback. All but a finished run can be resumed from its snapshots."""


@dataclass(frozen=True)
class RunManifest:
    """The description of one run.

    :param hyperparams: plain JSON values only.
    :param encoder: None where the policy has no encoder.
    :param groups: the named parameter groups.
    :param reward_is_normalized: whether the critic saw rewards scaled by VecNormalize; None if unknown.
    :param versions: package name to version.
    :param git: ``commit`` and ``dirty`` of the repository that the run was started in; None outside one.
    :param machine: cpu, cores, memory, gpu, platform and python; empty in manifests of earlier versions.
    :param command: the words of the command line; empty likewise.
    :param started: ISO 8601 time, with its offset.
    :param finished: the same; None while the run goes on, and where it ended in another way. It is written last, when
        everything else that the run leaves is on the disk.
    :param end: how the run ended; None while it goes on, where it was killed, and in manifests of earlier versions,
        which say ``finished`` of every end.
    :param ended: ISO 8601 time of that end.
    :param end_reason: what ended it, in words; None for a finished run.
    :param event_dir: where the event files lie, relative to the manifest's own folder.
    """

    algo: str
    env_id: str
    seed: int | None = None
    n_timesteps: int | None = None
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    encoder: EncoderKind | None = None
    groups: tuple[str, ...] = ()
    reward_is_normalized: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, Any] | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    started: str | None = None
    finished: str | None = None
    event_dir: str | None = None
    end: RunEnd | None = None
    ended: str | None = None
    end_reason: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version is {self.format_version!r}; this version reads {FORMAT_VERSION}")
        if self.encoder is not None and self.encoder not in get_args(EncoderKind):
            raise ValueError(f"encoder is {self.encoder!r}; expected 'separate', 'shared' or None")
        if self.end is not None and self.end not in get_args(RunEnd):
            raise ValueError(f"end is {self.end!r}; expected one of {', '.join(get_args(RunEnd))}, or None")
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "command", tuple(self.command))

    @property
    def how_it_ended(self) -> str | None:
        """Return the end in words, such as ``crashed at 2024-05-01T10:00:00+00:00: EOFError``; None without an end."""
        if self.end is None or self.end == "finished":
            return None if self.finished is None else f"finished at {self.finished}"
        at = "" if self.ended is None else f" at {self.ended}"
        return f"{self.end}{at}" + ("" if self.end_reason is None else f": {self.end_reason}")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest; a reader sees the old file or the new one, never a part.

        :raises ValueError: if ``hyperparams`` holds what JSON cannot say (NaN and infinities included).
        """
        path = Path(path)
        try:
            text = json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not plain JSON ({error}); turn the value into numbers, strings or lists"
            ) from error
        write_atomically(path, text)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunManifest:
        """Read a manifest; the type of every value is checked here, and nowhere else.

        :raises ValueError: if it is not a JSON object, is too large or too deep, of an unknown format_version, or has
            an unknown or missing key or a value of the wrong type; the message names the file and the key.
        :raises OSError: if it is not a regular file or cannot be read.
        """
        return cls.of(read_mapping(Path(path)), str(path))

    @classmethod
    def of(cls, content: Mapping[str, Any], name: str) -> RunManifest:
        """Return the manifest that a file holds.

        :param content: plain values by key, as they were read.
        :param name: of the file, for the message.
        :raises ValueError: as :meth:`read`.
        """
        _check(content, name)
        return cls(**content)


_NONE = type(None)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "algo": (str,),
    "env_id": (str,),
    "seed": (int, _NONE),
    "n_timesteps": (int, float, _NONE),
    "hyperparams": (dict,),
    "encoder": (str, _NONE),
    "groups": (list,),
    "reward_is_normalized": (bool, _NONE),
    "versions": (dict,),
    "git": (dict, _NONE),
    "machine": (dict,),
    "command": (list,),
    "started": (str, _NONE),
    "finished": (str, _NONE),
    "event_dir": (str, _NONE),
    "end": (str, _NONE),
    "ended": (str, _NONE),
    "end_reason": (str, _NONE),
    "format_version": (int,),
}
_TEXTS_INSIDE = ("groups", "command", "versions")


def _check(content: Mapping[str, Any], name: str) -> None:
    """Refuse what is not the content of a run.json of this version."""
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{name}: format_version is {shown(content.get('format_version'))}; this version reads {FORMAT_VERSION}"
        )
    unknown = sorted(content.keys() - _TYPES.keys())
    if unknown:
        raise ValueError(f"{name}: unknown keys {', '.join(unknown)[:MAX_SHOWN_CHARACTERS]}")
    missing = [key for key in ("algo", "env_id") if key not in content]
    if missing:
        raise ValueError(f"{name}: missing {', '.join(missing)}")
    for key, value in content.items():
        require_type(value, _TYPES[key], f"{name}: {key}")
        if key in _TEXTS_INSIDE:
            for text in value.values() if isinstance(value, dict) else value:
                require_type(text, (str,), f"{name}: a value in {key}")
    if content.get("encoder") not in (None, *get_args(EncoderKind)):
        raise ValueError(f"{name}: encoder is {shown(content['encoder'])}; expected 'separate', 'shared' or None")
    if content.get("end") not in (None, *get_args(RunEnd)):
        raise ValueError(
            f"{name}: end is {shown(content['end'])}; expected one of {', '.join(get_args(RunEnd))}, or None"
        )
    if "\0" in (content.get("event_dir") or ""):
        raise ValueError(f"{name}: event_dir is {shown(content['event_dir'])}; expected the name of a folder")
