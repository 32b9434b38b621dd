"""Describe a run in ``run.json``: its settings, its machine, its commit, and how it ended.

:class:`~sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback` writes the file and the report reads it. This module
imports neither torch nor Stable-Baselines3, so that the report starts quickly.
"""

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
"""Packages whose version can change the numbers of a training run."""
_GIT_TIMEOUT_S = 5.0
# This matches user and password in an address, such as "user:secret" in "https://user:secret@host/".
_PASSWORD = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def git_state(folder: str | Path = ".") -> dict[str, Any] | None:
    """Return the commit of a git repository, and whether files differ from it.

    :param folder: a folder inside the repository
    :return: ``commit`` (None before the first one) and ``dirty``; None outside a repository or without git
    """
    status = _git(folder, "status", "--porcelain")
    if status is None:
        return None
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    return {"commit": None if commit is None else commit.strip(), "dirty": bool(status.strip())}


def package_versions() -> dict[str, str]:
    """Return the installed versions of the packages that a training run depends on, by package name."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git(folder: str | Path, *arguments: str) -> str | None:
    # --no-optional-locks: "git status" would otherwise write to the index while the user works in the repository.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return done.stdout


def machine(gpu: str | None) -> dict[str, Any]:
    """Describe the machine.

    :param gpu: name of the GPU, which only torch knows; None if the machine has no GPU
    :return: a dict with ``cpu``, ``cores`` (that this process may use), ``memory_gb``, ``gpu``, ``platform`` and
        ``python``
    """
    # The affinity respects the limits of Slurm and of containers; cpu_count() counts all cores of the machine.
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
    """Return the command line of this process, with user and password in addresses replaced by ``***``.

    :param arguments: the words of a command line; None for ``sys.orig_argv``
    """
    words = sys.orig_argv if arguments is None else arguments
    return [_PASSWORD.sub("***", word) for word in words]


FORMAT_VERSION = 1
FILE_NAME = "run.json"
EncoderKind = Literal["separate", "shared"]
RunEnd = Literal["finished", "interrupted", "crashed", "stopped"]
"""How a run ended: ``finished`` after all steps, ``interrupted`` by Ctrl-C or a signal, ``crashed`` by an exception,
``stopped`` by a callback. A run that is not ``finished`` can be resumed from its snapshots."""


@dataclass(frozen=True)
class RunManifest:
    """Hold the content of ``run.json``.

    :param algo: class name of the algorithm
    :param env_id: id of the environment, or "unknown"
    :param seed: seed of the model; None if it had none
    :param n_timesteps: number of requested environment steps
    :param hyperparams: hyperparameters by name, plain JSON values only
    :param encoder: kind of encoder; None for a policy without encoders
    :param groups: names of the parameter groups
    :param reward_is_normalized: whether the critic saw scaled rewards; None if unknown
    :param versions: versions by package name
    :param git: result of ``git_state``
    :param machine: result of ``machine``; empty in old files
    :param command: words of the command line; empty in old files
    :param started: ISO 8601 time with its UTC offset
    :param finished: ISO 8601 time at which the run finished; None if the run has not finished. ``visual-td3 train``
        saves the model before it writes this time. Old files have this time also for runs that ended early
    :param event_dir: folder of the event files, relative to the folder of ``run.json``
    :param end: how the run ended; None if the run still trains, if the run was killed, or if the file is old
    :param ended: ISO 8601 time at which the run ended
    :param end_reason: cause of the end; None for a finished run
    :param format_version: version of the file's format
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
            raise ValueError(f"format_version is {self.format_version!r}; expected {FORMAT_VERSION}")
        if self.encoder is not None and self.encoder not in get_args(EncoderKind):
            raise ValueError(f"encoder is {shown(self.encoder)}; expected 'separate', 'shared' or None")
        if self.end is not None and self.end not in get_args(RunEnd):
            raise ValueError(f"end is {shown(self.end)}; expected one of {', '.join(get_args(RunEnd))}, or None")
        # JSON has lists instead of tuples. The dataclass is frozen, so object.__setattr__ is needed.
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "command", tuple(self.command))

    @property
    def how_it_ended(self) -> str | None:
        """Return how the run ended, such as ``crashed at 2024-05-01T10:00:00+00:00: EOFError``; None if unknown."""
        if self.end is None or self.end == "finished":
            return None if self.finished is None else f"finished at {self.finished}"
        words: str = self.end
        if self.ended is not None:
            words += f" at {self.ended}"
        if self.end_reason is not None:
            words += f": {self.end_reason}"
        return words

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader sees the old file or the new one, never a part.

        :param path: path of the file
        :raises ValueError: if ``hyperparams`` holds a value that is not plain JSON, such as NaN
        """
        path = Path(path)
        try:
            text = json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: the manifest holds a value that is not plain JSON ({error}); replace this value by finite "
                "numbers, strings or lists"
            ) from error
        write_atomically(path, text)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunManifest:
        """Read a file and check it, so that users of the manifest can rely on its types.

        :param path: path of the file
        :raises ValueError: if the file is not a valid ``run.json`` of this version
        :raises OSError: if it is not a regular file or cannot be read
        """
        return cls.of(read_mapping(Path(path)), str(path))

    @classmethod
    def of(cls, content: Mapping[str, Any], name: str) -> RunManifest:
        """Check the content of a file and return the manifest.

        :param content: plain values by key, as they were read
        :param name: name of the file, for error messages
        :raises ValueError: as :meth:`read`
        """
        _check(content, name)
        try:
            return cls(**content)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


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


def is_of_this_package(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a run.json may come from this package. Sacred, for example, writes such files too.

    :param content: content of the file by key
    """
    return bool(content.keys() & {"format_version", "algo"})


def _check(content: Mapping[str, Any], name: str) -> None:
    """Refuse content that is not a ``run.json`` of this version; RunManifest checks the values of its fields."""
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{name}: format_version is {shown(content.get('format_version'))}; this version reads {FORMAT_VERSION}. "
            "Use the version that wrote the file"
        )
    unknown = sorted(content.keys() - _TYPES.keys())
    if unknown:
        raise ValueError(
            f"{name}: unknown keys {', '.join(unknown)[:MAX_SHOWN_CHARACTERS]}; expected only keys that "
            "RunRecorderCallback writes. Remove them, or keep your own data in another file"
        )
    missing = [key for key in ("algo", "env_id") if key not in content]
    if missing:
        raise ValueError(f"{name}: missing {', '.join(missing)}; expected the keys that RunRecorderCallback writes")
    for key, value in content.items():
        require_type(value, _TYPES[key], f"{name}: {key}")
        if key in _TEXTS_INSIDE:
            for text in value.values() if isinstance(value, dict) else value:
                require_type(text, (str,), f"{name}: a value in {key}")
    if "\0" in (content.get("event_dir") or ""):
        raise ValueError(f"{name}: event_dir is {shown(content['event_dir'])}; expected the name of a folder")
