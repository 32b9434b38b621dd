"""Find the runs below a path, and the settings files that belong to a run.

A run is a folder that directly holds event files or tables, such as SB3's progress.csv. If a folder holds several CSV
files with different values of the same return, each of them is a run. If the path is a single file, this file is the
run.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from sb3_visual_td3.common.input_files import read_mapping
from sb3_visual_td3.diagnosis.tag_search import EPISODE_WORDS, EVALUATION_WORDS, words_of
from sb3_visual_td3.report.console import one_line
from sb3_visual_td3.report.event_file import EVENT_FILE_MARK, scalars_at_begin
from sb3_visual_td3.report.event_reader import UnreadableRunError
from sb3_visual_td3.report.table_file import (
    OUR_OWN_TABLES,
    Curve,
    StepRange,
    TableBegin,
    are_equal,
    curves_at_begin,
    is_evaluation,
    is_sb3_table,
    is_table,
    step_range,
    table_begin,
)
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest, is_of_this_package

ZOO_CONFIG, ZOO_ARGUMENTS = "config.yml", "args.yml"
"""The files that rl-zoo writes into RUN_DIR/ENV/. A folder with only one of these files belongs to another program."""
_SNAPSHOTS = "snapshots"
"""As SNAPSHOTS in ``callbacks/snapshot.py``, which needs torch."""
ZOO_MONITOR = "0.monitor.csv"
_LEVELS_ABOVE = 3
"""The settings of a run are looked up in its folder and in this many folders above it."""
MAX_LEVELS_BELOW = 64
"""Runs are looked up in this many levels of folders below a path. No training run writes a deeper tree."""
_WORDS_OF_PARTS = (
    (EPISODE_WORDS - {"epoch"})
    | EVALUATION_WORDS
    | {"train", "training", "evals", "evaluations", "rollouts", "step", "steps", "update", "updates"}
    | {"log", "logs", "progress", "metrics", "results", "scalars", "stats", "summary"}
    | {"average", "avg", "mean", "raw", "smoothed"}
    | {"actor", "critic", "loss", "losses", "q", "return", "returns", "reward", "rewards", "score", "scores"}
)
"""Words in the name of a file that say which part of a run it holds. Names that differ only in these words belong to
one run."""
_MAX_NAMED = 3
_TOO_DEEP = "its folders are nested too deeply; name a folder inside it"


@dataclass(frozen=True)
class RunFiles:
    """Hold the files of one run: its event files and its tables, such as progress.csv; both are sorted by name.

    :param notes: remarks on how the files of a folder were assigned to runs
    """

    path: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def find_runs(path: Path, errors: list[OSError] | None = None) -> tuple[RunFiles, ...]:
    """Return the runs at or below a path.

    Hidden files and folders below the path are left out, such as the incomplete copies of rsync.

    :param path: a folder, or one file
    :param errors: a list to which this function adds an error for each folder that cannot be searched; None to ignore
        these folders
    :raises UnreadableRunError: if the path does not exist, or holds no log
    :raises OSError: if nothing else was found, and a folder cannot be read
    """
    if not path.exists():
        raise UnreadableRunError(f"{path}: no such file or folder")
    if path.is_file():
        return (RunFiles(path, (path,)),)
    unsearched: list[OSError] = []
    runs = [run for events, tables in _trees(path, unsearched) for run in _grouped(events, tables)]
    if not runs:
        if unsearched:
            raise unsearched[0]
        raise UnreadableRunError(
            f"{path}: no event file here (a file with {EVENT_FILE_MARK!r} in its name), no progress.csv, "
            "monitor.csv or evaluations.npz of SB3, and no CSV file with a step column. "
            "Hidden files and folders are left out"
        )
    if errors is not None:
        errors += unsearched
    return tuple(sorted(runs, key=lambda run: run.path))


_EventFiles = dict[Path, tuple[Path, ...]]
"""Maps a folder to its event files."""
_Tables = dict[Path, dict[Path, TableBegin | None]]
"""Maps a folder to its tables, and each table to what its beginning shows; None for SB3's tables."""


def _trees(path: Path, errors: list[OSError]) -> Iterator[tuple[_EventFiles, _Tables]]:
    """Yield the logs in the folders at and below a path, and then the logs behind each link to a folder.

    No folder is searched twice. A folder that contains the path is not searched, even if a link leads to it. A link in
    a run is not followed: it may lead to another run, such as the one that this run was started from.

    :param errors: a list to which this function adds an error for each folder that cannot be searched
    """
    seen = {str(above) for above in path.resolve().parents}
    in_runs: set[Path] = set()
    # Links come last, so that a folder that also lies below the path itself keeps its own name.
    tops = [path]
    for top in tops:
        events: _EventFiles = {}
        tables: _Tables = {}
        real_top = os.path.realpath(top)
        for name, folders, names in os.walk(top, onerror=errors.append):
            # Only the top may be a link, because os.walk follows no links.
            real = real_top + name.removeprefix(str(top))
            folder = Path(name)
            folders[:] = sorted(each for each in folders if not _is_hidden(each))
            if folders and len(folder.parts) - len(path.parts) >= MAX_LEVELS_BELOW:
                errors.append(OSError(errno.ELOOP, _TOO_DEEP, name))
                folders.clear()
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            files = [folder / each for each in sorted(names) if not _is_hidden(each)]
            found = tuple(file for file in files if EVENT_FILE_MARK in file.name)
            logs = _log_tables(files)
            if found:
                events[folder] = found
            if logs:
                tables[folder] = logs
            if found or logs or folder.parent in in_runs:
                in_runs.add(folder)
            else:
                tops += [folder / each for each in folders if (folder / each).is_symlink()]
        yield events, tables


def _is_hidden(name: str) -> bool:
    # Zip files from macOS hold a second tree of files with attributes.
    return name.startswith(".") or name == "__MACOSX"


def _log_tables(files: Iterable[Path]) -> dict[Path, TableBegin | None]:
    """Return the tables among some files, and what the beginning of each table shows; None for SB3's tables."""
    found: dict[Path, TableBegin | None] = {}
    for file in files:
        if EVENT_FILE_MARK in file.name or file.name in OUR_OWN_TABLES or not is_table(file):
            continue
        if is_sb3_table(file.name):
            found[file] = None
        elif file.name.endswith(".csv") and (begin := table_begin(file)) is not None:
            found[file] = begin
    return found


def _grouped(events: _EventFiles, tables: _Tables) -> tuple[RunFiles, ...]:
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
    notes: dict[Path, tuple[str, ...]] = {}
    for folder, logs in tables.items():
        named = [file for file in logs if is_sb3_table(file.name)]
        above = folder if folder in files else _nearest(folder, files)
        if above is None and len(named) == len(logs):
            above = only or _only_one_below(folder, files)
        if above is None:
            around = _nearest(folder, alone)
            if around is not None and len(named) == len(logs):
                alone[around] += logs
            else:
                runs, remarks = _runs_of_tables(folder, logs)
                alone |= runs
                notes |= dict.fromkeys(runs, remarks)
        elif above == folder:
            files[folder] += logs
        else:
            files[above] += named
    files |= alone
    return tuple(RunFiles(folder, tuple(files[folder]), notes.get(folder, ())) for folder in sorted(files))


_Key = tuple[str, ...]
"""The words of a file's name that may identify the run. Files with the same words belong to one run."""


def _runs_of_tables(
    folder: Path, tables: Mapping[Path, TableBegin | None]
) -> tuple[dict[Path, list[Path]], tuple[str, ...]]:
    """Return the runs in a folder without event files with the tables of each run, and notes on all of these runs.

    Files with different values of the same return over the same step column are different runs, unless each file
    continues the one before, or their names differ only in words such as "train" and "loss". All other tables form one
    run, whose path is the folder. In a folder with a run.json, all tables belong to this run.
    """
    known = {file: begin for file, begin in tables.items() if begin is not None}
    if len(known) < 2 or (folder / FILE_NAME).exists():
        return {folder: list(tables)}, ()
    of_key: dict[_Key, list[Path]] = {}
    for file in known:
        of_key.setdefault(_key_of(file), []).append(file)
    evaluations = _evaluations(of_key, known)
    runs = _separate_runs(of_key, evaluations, known)
    if len(runs) < 2:
        named = [file.name for key in sorted(evaluations - {()}) for file in of_key[key]]
        notes = [f"read as evaluations of this run, because of the names: {_listed(named)}"] if named else []
        return {folder: list(tables)}, tuple(notes)
    found = {keys: [file for key in keys for file in of_key[key]] for keys in runs}
    without_return = []
    for key in sorted(of_key.keys() - {key for keys in runs for key in keys} - evaluations):
        files = of_key[key]
        named_alike = [keys for keys in runs if any(each and set(each) <= set(key) for each in keys)]
        if len(named_alike) == 1:
            found[named_alike[0]] += files
        elif not any(known[file].returns for file in files):
            without_return += files
    taken = {file for files in found.values() for file in files}
    rest = [file for file in tables if file not in taken and file not in without_return]
    notes = [f"{folder.name} holds several runs, because these CSV files have different returns: "]
    notes[0] += _listed([_main_file(files, known).name for files in found.values()])
    if rest:
        rest += without_return
    elif without_return:
        names = _listed([file.name for file in without_return])
        notes.append(f"left out, because they hold no return, and their names match none of these runs: {names}")
    by_path = {_main_file(files, known): sorted(files) for files in found.values()}
    return {**by_path, folder: sorted(rest)} if rest else by_path, tuple(notes)


def _evaluations(of_key: Mapping[_Key, Sequence[Path]], tables: Mapping[Path, TableBegin]) -> set[_Key]:
    """Return the keys whose files all hold evaluations of runs in other files; empty if there are no other files.

    The word "test" may also stand for an experiment. A file such as test_a.csv therefore does not hold evaluations if
    its return was logged as often as that of another file.
    """
    found = {key for key, files in of_key.items() if all(map(_is_named_evaluation, files))}
    if len(found) == len(of_key):
        return set()
    others = [file for key, files in of_key.items() if key not in found for file in files]
    for key in sorted(found - {()}):
        words = {word for file in of_key[key] for word in words_of(_name_of_run(file))}
        if words & EVALUATION_WORDS <= {"test", "testing"} and any(
            _is_as_fine(file, other, tables) for file in of_key[key] for other in others
        ):
            found.remove(key)
    return found


def _is_as_fine(file: Path, other: Path, tables: Mapping[Path, TableBegin]) -> bool:
    """Return whether a file holds a return of another file, at steps that are as close to one another."""
    if tables[file].step != tables[other].step or not tables[file].returns & tables[other].returns:
        return False
    one, two = step_range(file), step_range(other)
    return one is not None and two is not None and 0 < one.interval <= two.interval


def _separate_runs(
    of_key: Mapping[_Key, Sequence[Path]], evaluations: Iterable[_Key], tables: Mapping[Path, TableBegin]
) -> list[tuple[_Key, ...]]:
    """Return the runs among the files that hold the same return, as the keys of their files; empty without such files.

    :param evaluations: keys of files with evaluations, which are left out
    """
    holders: dict[tuple[str, str], dict[_Key, Path]] = {}
    for key, files in of_key.items():
        for file in files if key not in evaluations else ():
            # seed1_eval.csv is a part of seed1.csv.
            if _is_named_evaluation(file) and not all(map(_is_named_evaluation, files)):
                continue
            for tag in tables[file].returns:
                holders.setdefault((tables[file].step, tag), {}).setdefault(key, file)
    curves: dict[Path, dict[str, Curve]] = {}
    # Each key leads to the list of all keys of its run.
    run_of: dict[_Key, list[_Key]] = {}
    for (_, tag), files_of in sorted(holders.items()):
        if len(files_of) < 2:
            continue
        clusters: list[list[_Key]] = []
        for key, file in files_of.items():
            if file not in curves:
                curves[file] = curves_at_begin(file, tables[file].returns)
            same = (each for each in clusters if _hold_equal_curves(curves, tag, files_of[each[0]], file))
            cluster = next(same, None)
            if cluster is None:
                clusters.append([key])
            else:
                cluster.append(key)
        # Files that begin at the same step do not continue one another. This needs no more reading.
        begins = [curve.steps[0] for keys in clusters if (curve := curves[files_of[keys[0]]].get(tag)) is not None]
        is_one = len({*begins}) == len(begins) and _continue_one_another(
            [[files_of[key] for key in cluster] for cluster in clusters]
        )
        if is_one:
            clusters = [[key for cluster in clusters for key in cluster]]
        for cluster in clusters:
            joined = list(dict.fromkeys(key for each in cluster for key in run_of.get(each, [each])))
            run_of |= dict.fromkeys(joined, joined)
    return list(dict.fromkeys(tuple(keys) for keys in run_of.values()))


def _hold_equal_curves(curves: Mapping[Path, Mapping[str, Curve]], tag: str, one: Path, other: Path) -> bool:
    first, second = curves[one].get(tag), curves[other].get(tag)
    return first is not None and second is not None and are_equal(first, second)


def _continue_one_another(clusters: Sequence[Sequence[Path]]) -> bool:
    """Return whether some files, each with the other files of its cluster, are the parts of a run that was resumed."""
    ranges: list[StepRange] = []
    for files in clusters:
        found = [steps for file in files if (steps := step_range(file)) is not None]
        if len(found) < len(files):
            return False
        ranges.append(StepRange(min(r.first for r in found), max(r.last for r in found), found[0].interval))
    ranges.sort()
    return all(after.continues(before) for before, after in pairwise(ranges))


def _main_file(files: Sequence[Path], tables: Mapping[Path, TableBegin]) -> Path:
    """Return the file that names a run: the first one with returns of the training, or an export of the same run."""
    main = min(files, key=lambda file: (not tables[file].returns, _is_named_evaluation(file), file))
    return min(file for file in files if _name_of_run(file) == _name_of_run(main))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{', '.join(names[:_MAX_NAMED])}{more}"


def _name_of_run(file: Path) -> str:
    """Return the part of a file's name that may name the run, such as ``run-A`` of ``run-A-tag-loss.csv``.

    TensorBoard exports one file for each tag of a run.
    """
    return file.stem.rpartition("-tag-")[0] or file.stem


def _is_named_evaluation(file: Path) -> bool:
    return is_evaluation(_name_of_run(file))


def _key_of(file: Path) -> _Key:
    name = _name_of_run(file)
    # Other characters may be the only difference between two names, as in lr=1e-3 and lr=1e+3.
    if re.search(r"[^\w. -]", name, re.ASCII):
        return (name,)
    return tuple(word for word in words_of(name) if word not in _WORDS_OF_PARTS)


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


def find_resumable(run: Path) -> Path | None:
    """Return the folder that ``visual-td3 resume`` needs to continue a run; None if the run has no snapshot.

    :param run: folder or file of the run; the result begins like this path
    """
    folder = run.parent if run.is_file() else run
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        if (above / FILE_NAME).is_file():
            # Its manifest may be of another run, so it has to lead here.
            has_snapshot = any((above / _SNAPSHOTS).glob("step_*/snapshot.json"))
            return above if has_snapshot and find_manifest(run)[0] == find_manifest(above)[0] else None
    return None


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
            content = read_mapping(candidate)
            if not is_of_this_package(content):
                continue
            manifest = RunManifest.of(content, str(candidate))
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
