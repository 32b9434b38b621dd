"""Implement ``visual-td3 resume RUN_DIR``: continue a run that was killed.

:mod:`~sb3_visual_td3.zoo.experiment` refuses a saved configuration that would import a package, start a program or
write to a folder without the user's permission.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sb3_visual_td3.callbacks.ending_signals import DEFAULT_SIGNALS
from sb3_visual_td3.callbacks.event_writer import EVENT_FOLDER
from sb3_visual_td3.callbacks.run_files import ALERTS, EVENT_FILES
from sb3_visual_td3.callbacks.snapshot import SNAPSHOTS, run_lock
from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.runs.durable_files import break_hard_links, refuse_links
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest
from sb3_visual_td3.runs.snapshot import NoSnapshotError, SnapshotError, health_label
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.zoo.experiment import (
    Permission,
    arguments_of,
    check_experiment,
    hyperparameter_file,
    kept_experiment,
)
from sb3_visual_td3.zoo.mistakes import answer
from sb3_visual_td3.zoo.plugin import Resumption, RunOptions, register
from sb3_visual_td3.zoo.saved_run import is_complete_zip
from sb3_visual_td3.zoo.train import train_and_report_errors

_A_RUN = "logs/visual_td3/LiteDriving-v0_1"


def run(settings: argparse.Namespace) -> int:
    """Execute ``visual-td3 resume``: continue a training run, or list its snapshots.

    :param settings: the parsed arguments of ``visual-td3 resume``
    :return: the exit code
    """
    run_dir: Path = settings.run_dir
    try:
        if not run_dir.is_dir():
            raise UsageError(f"there is no folder {run_dir}: give the folder of a run, such as {_A_RUN}")
        refuse_links(run_dir)
        if settings.list:
            return _list_snapshots(run_dir)
        finished = _finishing_time(run_dir)
        if finished is not None:
            print(f"{run_dir} was trained to its end, at {finished}: there is nothing to resume")
            return 0
        register()
        experiment, begins_again = _experiment_of(run_dir)
        check_experiment(experiment, Permission(run_dir, settings.allow, settings.trust))
        break_hard_links(run_dir, run_dir / SNAPSHOTS)
        if begins_again:
            _clear_first_attempt(run_dir)
    except Exception as error:
        return answer("resume", error)
    # rl-zoo reads hyperparameters only from a file. The flags come from the saved configuration. rl-zoo would evaluate
    # env_kwargs on a command line as code, so the experiment manager receives them in the options.
    with tempfile.TemporaryDirectory() as folder:
        conf_file = Path(folder) / "hyperparams.yml"
        conf_file.write_text(yaml.safe_dump(hyperparameter_file(experiment)), encoding="utf-8")
        arguments = arguments_of(experiment, str(conf_file), settings.tensorboard_log)
        if settings.num_threads is not None:
            arguments.append(f"--num-threads={settings.num_threads}")  # the last of two flags counts
        if settings.end_on is not None:
            arguments += ["--end-on", *settings.end_on]
        resumption = Resumption(run_dir, experiment, tuple(settings.allow), settings.without_logs, begins_again)
        options = RunOptions(signals=DEFAULT_SIGNALS, resumption=resumption)
        return train_and_report_errors(arguments, "resume", options)[0]


def _store(run_dir: Path) -> SnapshotStore:
    if not (run_dir / SNAPSHOTS).is_dir():
        raise ValueError(
            f"{run_dir} holds no {SNAPSHOTS}/: give the folder of a run that had a SnapshotCallback, such as {_A_RUN}"
        )
    return SnapshotStore(run_dir / SNAPSHOTS)


def _finishing_time(run_dir: Path) -> str | None:
    """Return when the run finished and saved its model; None if it did not."""
    path = run_dir / FILE_NAME
    manifest = RunManifest.read(path) if path.is_file() else None
    if manifest is None or manifest.finished is None:
        return None
    # Earlier versions wrote "finished" before they saved the model, so such a run may have been killed in between.
    if not is_complete_zip(run_dir / f"{manifest.env_id}.zip"):
        return None
    return manifest.finished


def _list_snapshots(run_dir: Path) -> int:
    for each in _store(run_dir).all():
        print(f"step {each.step:>12,}  {each.created}  {health_label(each.health):<10}  {each.path}")
    return 0


def _experiment_of(run_dir: Path) -> tuple[Mapping[str, Any], bool]:
    """Return the saved configuration of a run, and True if the run has no snapshot and therefore starts again."""
    kept = kept_experiment(run_dir)
    if kept is not None:  # the run may have been killed before it created the folder
        (run_dir / SNAPSHOTS).mkdir(exist_ok=True)
    try:
        # A check of the replay buffer takes a while. SnapshotCallback makes this check later, before it restores the
        # buffer.
        snapshot = _store(run_dir).newest(with_large_arrays=False)
    except NoSnapshotError as error:
        if kept is None:
            raise NoSnapshotError(
                f"{run_dir} cannot be continued: it has no snapshot and no saved configuration. Train the run again"
            ) from error
        print(f"{run_dir} was killed before its first snapshot: it starts again")
        return kept, True
    experiment: Mapping[str, Any] | None = snapshot.state.get("experiment")
    if experiment is None:
        raise SnapshotError(
            f"{run_dir}: the run was not started by 'visual-td3 train'. Run its script again, with "
            "SnapshotCallback(..., resume=True)"
        )
    return experiment, False


def _clear_first_attempt(run_dir: Path) -> None:
    """Delete the logs of a run that starts again, or move them to a subfolder if they hold episodes."""
    # If another process trains this run, the lock raises an error before anything is removed.
    run_lock(run_dir).acquire()  # SnapshotCallback takes it over
    logs = [path for path in _logs_of(run_dir) if path.is_file() and not path.is_symlink()]
    # A monitor file has two header lines, then one line for each episode.
    has_episodes = any(path.suffix == ".csv" and path.read_bytes().count(b"\n") > 2 for path in logs)
    if not has_episodes:
        for path in logs:
            path.unlink()
    else:
        number = next(n for n in range(1, 1_000_000) if not (run_dir / f"earlier_{n}").exists())
        for path in logs:
            moved = run_dir / f"earlier_{number}" / path.relative_to(run_dir)
            moved.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, moved)
        print(f"{run_dir} has episodes but no snapshots: its previous logs are now in {run_dir / f'earlier_{number}'}")
    for folder in {path.parent for path in logs} - {run_dir}:
        with suppress(OSError):
            folder.rmdir()


def _logs_of(run_dir: Path) -> Iterator[Path]:
    yield from run_dir.glob("*monitor.csv")
    yield run_dir / ALERTS
    for folder, _, _ in os.walk(run_dir / EVENT_FOLDER):  # os.walk does not follow links
        yield from Path(folder).glob(EVENT_FILES)
