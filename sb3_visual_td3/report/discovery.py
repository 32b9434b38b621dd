"""Find the runs below a path, and the settings files that belong to a run.

A run is a folder that directly holds event files or tables, such as SB3's progress.csv. If the path is a single file,
this file is the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sb3_visual_td3.report.console import one_line
from sb3_visual_td3.report.event_file import EVENT_FILE_MARK, scalars_at_begin
from sb3_visual_td3.report.event_reader import UnreadableRunError
from sb3_visual_td3.report.table_file import OUR_OWN_TABLES, has_step_column, is_sb3_table, is_table
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest

ZOO_CONFIG, ZOO_ARGUMENTS = "config.yml", "args.yml"
"""The files that rl-zoo writes into RUN_DIR/ENV/. A folder with only one of these files belongs to another program."""
ZOO_MONITOR = "0.monitor.csv"
_LEVELS_ABOVE = 3
"""The settings of a run are looked up in its folder and in this many folders above it."""
MAX_LEVELS_BELOW = 64
"""Runs are looked up in this many levels of folders below a path. No training run writes a deeper tree."""


@dataclass(frozen=True)
class RunFiles:
    """Hold the files of one run: its event files and its tables, such as progress.csv; both are sorted by name."""

    path: Path
    files: tuple[Path, ...]


def find_runs(path: Path) -> tuple[RunFiles, ...]:
    """Return the runs at or below a path.

    Hidden files and folders below the path are left out, such as the incomplete copies of rsync.

    :param path: a folder, or one file
    :raises UnreadableRunError: if the path does not exist, holds no log, or has too deeply nested folders
    :raises OSError: if a folder cannot be read
    """
    if not path.exists():
        raise UnreadableRunError(f"{path}: no such file or folder")
    if path.is_file():
        return (RunFiles(path, (path,)),)
    events: dict[Path, tuple[Path, ...]] = {}
    tables: dict[Path, tuple[Path, ...]] = {}
    for name, folders, names in os.walk(path, onerror=_refuse):
        folders[:] = sorted(each for each in folders if not _is_hidden(each))
        visible = sorted(each for each in names if not _is_hidden(each))
        folder = Path(name)
        if folders and len(folder.parts) - len(path.parts) >= MAX_LEVELS_BELOW:
            raise UnreadableRunError(
                f"{path}: its folders are nested more than {MAX_LEVELS_BELOW} levels deep; name a folder inside it"
            )
        found = tuple(folder / each for each in visible if EVENT_FILE_MARK in each)
        if found:
            events[folder] = found
        logs = tuple(folder / each for each in visible if _is_log_table(folder / each))
        if logs:
            tables[folder] = logs
    if not events and not tables:
        raise UnreadableRunError(
            f"{path}: no event file here (a file with {EVENT_FILE_MARK!r} in its name), no progress.csv, "
            "monitor.csv or evaluations.npz of SB3, and no CSV file with a step column. "
            "Hidden files and folders are left out"
        )
    return _grouped(events, tables)


def _is_hidden(name: str) -> bool:
    # Zip files from macOS hold a second tree of files with attributes.
    return name.startswith(".") or name == "__MACOSX"


def _is_log_table(path: Path) -> bool:
    name = path.name
    if EVENT_FILE_MARK in name or name in OUR_OWN_TABLES or not is_table(path):
        return False
    if is_sb3_table(name):
        return True
    return name.endswith(".csv") and has_step_column(path)


def _grouped(events: dict[Path, tuple[Path, ...]], tables: dict[Path, tuple[Path, ...]]) -> tuple[RunFiles, ...]:
    """Return the runs, each with the files of all folders that belong to the run."""
    files: dict[Path, list[Path]] = {}
    for folder, found in events.items():
        above = _nearest(folder, files)
        if above is not None and _is_part(folder, above, found):
            files[above] += found
        else:
            files[folder] = list(found)
    # SB3's tables often lie beside or above the folder of the event files. If only one run has event files, the tables
    # belong to that run. If several runs have event files, the tables belong to the nearest run whose folder contains
    # them.
    only = next(iter(files)) if len(files) == 1 else None
    alone: dict[Path, list[Path]] = {}
    for folder, found in tables.items():
        named = [file for file in found if is_sb3_table(file.name)]
        above = folder if folder in files else _nearest(folder, files)
        if above is None and len(named) == len(found):
            above = only or _only_one_below(folder, files)
        if above is None:
            around = _nearest(folder, alone)
            if around is not None and len(named) == len(found):
                alone[around] += found
            else:
                alone[folder] = list(found)
        elif above == folder:
            files[folder] += found
        else:
            files[above] += named
    files |= alone
    return tuple(RunFiles(folder, tuple(files[folder])) for folder in sorted(files))


def _nearest(folder: Path, runs: Iterable[Path]) -> Path | None:
    """Return the run that contains a folder: its nearest parent that is a run; None if no parent is a run."""
    known = set(runs)
    return next((above for above in folder.parents if above in known), None)


def _only_one_below(folder: Path, runs: Iterable[Path]) -> Path | None:
    below = [run for run in runs if folder in run.parents]
    return below[0] if len(below) == 1 else None


def _is_part(folder: Path, run: Path, files: tuple[Path, ...]) -> bool:
    """Return whether the event files of a folder belong to the run in a folder above.

    PyTorch's SummaryWriter writes some event files of a run into subfolders: ``add_scalars("loss", {"critic": ...})``
    writes into the folder "loss_critic", and ``add_hparams`` into a folder whose name is a time.
    """
    tag_sets = []
    for file in files:
        begin = scalars_at_begin(file)
        if begin is None:
            return False
        if begin.has_hparams and begin.is_whole and begin.n_points == len(begin.tags):
            continue
        tag_sets.append(begin.tags)
    inside = folder.relative_to(run).as_posix()
    for names in tag_sets:
        if len(names) != 1 or not inside.startswith(f"{next(iter(names)).replace('/', '_')}_"):
            return False
    return True


def _refuse(error: OSError) -> None:
    # os.walk ignores errors by default, but an unreadable folder may hold the run that fails.
    raise error


def find_zoo_folder(run: Path) -> tuple[Path | None, str | None]:
    """Return the folder in which rl-zoo keeps a run's settings, such as RUN_DIR/ENV with its file config.yml.

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
        found = [env for env in _possible_envs(above) if _holds_settings(env)]
        if len(found) > 1:
            names = ", ".join(env.name for env in found)
            note = f"rl-zoo's settings were ignored: {above.name} holds the settings of several environments ({names})"
            return None, note
        if found:
            return found[0], None
    return None, None


def _holds_settings(env: Path) -> bool:
    # A config.yml that is not a regular file counts too: the reader then adds a note on why the settings were ignored.
    return os.path.lexists(env / ZOO_CONFIG) and (env / ZOO_ARGUMENTS).is_file()


def _possible_envs(run_dir: Path) -> list[Path]:
    """Return the paths in ``run_dir`` at which rl-zoo may have kept the settings of a run.

    If ``run_dir`` contains rl-zoo's monitor file, return all files and folders in ``run_dir``. Otherwise, derive the
    paths from the name of ``run_dir``: the folder Pendulum-v1_3 may contain the folder Pendulum-v1.
    """
    if (run_dir / ZOO_MONITOR).is_file():
        return sorted(run_dir.iterdir())
    # run_dir is not listed, because it may hold hundreds of runs and would be listed again for each of them.
    name = run_dir.name
    return [run_dir / name[:at] for at, letter in enumerate(name) if letter == "_" and at > 0]


def find_manifest(run: Path) -> tuple[RunManifest | None, str | None]:
    """Return the run.json that belongs to a run.

    A run.json in a folder above the run counts only if its ``event_dir`` points to this run.

    :param run: folder or file of the run
    :return: the manifest, if there is one, and a note if a run.json could not be read
    """
    folder = (run.parent if run.is_file() else run).resolve()
    # The nearest run.json counts.
    note = None
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        candidate = above / FILE_NAME
        try:
            manifest = RunManifest.read(candidate)
            is_of_run = above == folder or _leads_to(above, manifest.event_dir, folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (ValueError, OSError) as error:
            # An unreadable run.json may or may not belong to this run: continue the search, and add a note.
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
    # "folder" lies below "base". An event_dir above "base" belongs to a run that "folder" is no part of.
    return target.is_relative_to(base) and folder.is_relative_to(target)
