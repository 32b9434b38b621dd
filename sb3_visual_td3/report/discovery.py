"""Which runs lie under a path: a run is a folder that directly holds event files, or one file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sb3_visual_td3.report.event_reader import UnreadableRunError
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest

EVENT_FILE_MARK = "tfevents"
ZOO_CONFIG, ZOO_ARGUMENTS = "config.yml", "args.yml"
"""What rl-zoo writes into RUN_DIR/ENV/; both lie there, or it is another program's folder."""
ZOO_MONITOR = "0.monitor.csv"
_LEVELS_ABOVE = 3


@dataclass(frozen=True)
class RunFiles:
    """The event files of one run, by name in order."""

    path: Path
    files: tuple[Path, ...]


def find_runs(path: Path) -> tuple[RunFiles, ...]:
    """Return the runs at or below ``path``.

    :raises UnreadableRunError: if ``path`` does not exist or no event file lies there.
    :raises OSError: if the path cannot be looked at.
    """
    if not path.exists():
        raise UnreadableRunError(f"{path}: no such file or folder")
    if path.is_file():
        return (RunFiles(path, (path,)),)
    runs = []
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders.sort()
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
    for above in (folder, *folder.parents[:_LEVELS_ABOVE]):
        candidate = above / FILE_NAME
        if not candidate.is_file():
            continue
        try:
            manifest = RunManifest.read(candidate)
        except (ValueError, OSError) as error:
            if above == folder:
                return None, f"run.json was left aside: {error}"
            continue
        if above == folder or _leads_to(above, manifest.event_dir, folder):
            return manifest, None
    return None, None


def _leads_to(base: Path, event_dir: str | None, folder: Path) -> bool:
    if not event_dir:
        return False
    target = (base / event_dir).resolve()
    return target == folder or target in folder.parents
