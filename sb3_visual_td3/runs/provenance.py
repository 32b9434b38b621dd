"""Where a run comes from: the machine, the state of the code, the command. No environment variable is looked at."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
