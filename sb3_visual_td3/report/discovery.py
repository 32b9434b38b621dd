"""Find the runs below a path, and the settings files that belong to a run.

A run is a folder that directly holds event files, or a single event file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sb3_visual_td3.report.console import one_line
from sb3_visual_td3.report.event_reader import UnreadableRunError
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest

EVENT_FILE_MARK = "tfevents"
ZOO_CONFIG, ZOO_ARGUMENTS = "config.yml", "args.yml"
"""The files that rl-zoo writes into RUN_DIR/ENV/. A folder with only one of them belongs to another program."""
ZOO_MONITOR = "0.monitor.csv"
_LEVELS_ABOVE = 3
"""Folders above a run in which its settings are looked for: RUN_DIR/tb/NAME_1 is two levels deep."""
MAX_LEVELS_BELOW = 64
"""A log folder has a few levels. A deeper tree was not written by a training."""


@dataclass(frozen=True)
class RunFiles:
    """The event files of one run, sorted by name."""

    path: Path
    files: tuple[Path, ...]


def find_runs(path: Path) -> tuple[RunFiles, ...]:
    """Return the runs at or below a path.

    :param path: a folder, or one event file
    :raises UnreadableRunError: if the path does not exist, holds no event file, or has too deeply nested folders
    :raises OSError: if a folder cannot be read
    """
    if not path.exists():
        raise UnreadableRunError(f"{path}: no such file or folder")
    if path.is_file():
        return (RunFiles(path, (path,)),)
    runs = []
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders.sort()
        if folders and len(Path(folder).parts) - len(path.parts) >= MAX_LEVELS_BELOW:
            raise UnreadableRunError(
                f"{path}: its folders are nested more than {MAX_LEVELS_BELOW} levels deep; give a folder further down"
            )
        files = tuple(Path(folder) / name for name in sorted(names) if EVENT_FILE_MARK in name)
        if files:
            runs.append(RunFiles(Path(folder), files))
    if not runs:
        raise UnreadableRunError(f"{path}: no event file here (a file with {EVENT_FILE_MARK!r} in its name)")
    return tuple(runs)


def _refuse(error: OSError) -> None:
    # os.walk ignores errors by default, but an unreadable folder may hold the very run that fails.
    raise error


def find_zoo_folder(run: Path) -> tuple[Path | None, str | None]:
    """Return the folder in which rl-zoo keeps a run's settings.

    rl-zoo's RUN_DIR holds one run, so RUN_DIR/ENV/config.yml belongs to every event file below it. RUN_DIR is the
    folder of the run or one above it; its name starts with the id of the environment, or it holds the monitor's file.

    :param run: folder or file of the run
    :return: the folder, if there is one, and a note if the settings are ambiguous or unreadable
    """
    try:
        return _find_zoo_folder(run)
    except OSError as error:
        return None, f"rl-zoo's settings were ignored: {one_line(error)}"


def _find_zoo_folder(run: Path) -> tuple[Path | None, str | None]:
    folder = (run.parent if run.is_file() else run).resolve()
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        folders = (config.parent for config in sorted(above.glob(f"*/{ZOO_CONFIG}")))
        found = [env for env in folders if (env / ZOO_ARGUMENTS).is_file() and _is_run_dir(above, env.name)]
        if len(found) > 1:
            names = ", ".join(env.name for env in found)
            return None, f"rl-zoo's settings were ignored: {above.name} holds those of several environments ({names})"
        if found:
            return found[0], None
    return None, None


def _is_run_dir(folder: Path, env: str) -> bool:
    return folder.name.startswith(f"{env}_") or (folder / ZOO_MONITOR).is_file()


def find_manifest(run: Path) -> tuple[RunManifest | None, str | None]:
    """Return the run.json that belongs to a run.

    It lies in the run's folder or in a folder above it; one above counts only if its ``event_dir`` points to this run.

    :param run: folder or file of the run
    :return: the manifest, if there is one, and a note if one could not be read
    """
    folder = (run.parent if run.is_file() else run).resolve()
    # The nearest one counts. A run.json in the run's own folder needs no event_dir.
    note = None
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        candidate = above / FILE_NAME
        try:
            manifest = RunManifest.read(candidate)
            is_of_run = above == folder or _leads_to(above, manifest.event_dir, folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, OSError) as error:
            # An unreadable one may or may not belong to this run: continue the search, and say so.
            note = note or f"run.json was ignored: {one_line(error)}"
            continue
        if is_of_run:
            return manifest, note
    return None, note


def _leads_to(base: Path, event_dir: str | None, folder: Path) -> bool:
    if not event_dir:
        return False
    try:
        target = (base / event_dir).resolve()
    except RuntimeError:  # a cycle of symbolic links, before Python 3.13
        return False
    return target == folder or target in folder.parents
