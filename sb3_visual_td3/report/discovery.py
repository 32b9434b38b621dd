"""Which runs lie under a path: a run is a folder that directly holds event files, or one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sb3_visual_td3.report.console import one_line
from sb3_visual_td3.report.event_reader import UnreadableRunError
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest

EVENT_FILE_MARK = "tfevents"
ZOO_CONFIG, ZOO_ARGUMENTS = "config.yml", "args.yml"
"""What rl-zoo writes into RUN_DIR/ENV/; both lie there, or it is another program's folder."""
ZOO_MONITOR = "0.monitor.csv"
_LEVELS_ABOVE = 3
MAX_LEVELS_BELOW = 64
"""A log folder has a few levels; a tree that is deeper was not written by a training."""


@dataclass(frozen=True)
class RunFiles:
    """The event files of one run, by name in order."""

    path: Path
    files: tuple[Path, ...]


def find_runs(path: Path) -> tuple[RunFiles, ...]:
    """Return the runs at or below ``path``.

    :raises UnreadableRunError: if ``path`` does not exist, no event file lies there, or folders are nested too deeply.
    :raises OSError: if the path cannot be looked at.
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
                f"{path}: folders are nested deeper than {MAX_LEVELS_BELOW} levels here; give a folder further down"
            )
        files = tuple(Path(folder) / name for name in sorted(names) if EVENT_FILE_MARK in name)
        if files:
            runs.append(RunFiles(Path(folder), files))
    if not runs:
        raise UnreadableRunError(f"{path}: no event file here (a file with {EVENT_FILE_MARK!r} in its name)")
    return tuple(runs)


def _refuse(error: OSError) -> None:
    """A folder that cannot be looked into may hold the run that fails: it must not be passed over."""
    raise error


def find_zoo_folder(run: Path) -> tuple[Path | None, str | None]:
    """Return the folder in which rl-zoo keeps a run's settings, if any, and a note where there are several.

    rl-zoo's RUN_DIR holds one run, so RUN_DIR/ENV/config.yml belongs to every event file below it. RUN_DIR is
    looked for in the run's folder and in those above it: it is called ENV_1, or has the monitor's file in it.
    """
    try:
        return _find_zoo_folder(run)
    except OSError as error:
        return None, f"rl-zoo's settings were left aside: {one_line(error)}"


def _find_zoo_folder(run: Path) -> tuple[Path | None, str | None]:
    folder = (run.parent if run.is_file() else run).resolve()
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        folders = (config.parent for config in sorted(above.glob(f"*/{ZOO_CONFIG}")))
        found = [env for env in folders if (env / ZOO_ARGUMENTS).is_file() and _is_run_dir(above, env.name)]
        if len(found) > 1:
            names = ", ".join(env.name for env in found)
            return None, f"rl-zoo's settings were left aside: {above.name} holds those of {names}"
        if found:
            return found[0], None
    return None, None


def _is_run_dir(folder: Path, env: str) -> bool:
    return folder.name.startswith(f"{env}_") or (folder / ZOO_MONITOR).is_file()


def find_manifest(run: Path) -> tuple[RunManifest | None, str | None]:
    """Return the run.json that belongs to a run, if any, and a note where one could not be read.

    It lies in the run's folder or in one of the folders above it; one further up counts only if its
    ``event_dir`` leads here.
    """
    folder = (run.parent if run.is_file() else run).resolve()
    note = None
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        candidate = above / FILE_NAME
        try:
            manifest = RunManifest.read(candidate)
            is_of_run = above == folder or _leads_to(above, manifest.event_dir, folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, OSError) as error:
            # One that cannot be read may belong to this run as well as to another.
            note = note or f"run.json was left aside: {one_line(error)}"
            continue
        if is_of_run:
            return manifest, note
    return None, note


def _leads_to(base: Path, event_dir: str | None, folder: Path) -> bool:
    if not event_dir:
        return False
    try:
        target = (base / event_dir).resolve()
    except RuntimeError:  # links that go round, up to Python 3.12
        return False
    return target == folder or target in folder.parents
