"""``visual-td3 resume RUN_DIR``: continues a run that was killed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sb3_visual_td3.callbacks.snapshot import SNAPSHOTS
from sb3_visual_td3.runs.durable_files import own_copies, refuse_links
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest
from sb3_visual_td3.runs.snapshot_error import SnapshotError
from sb3_visual_td3.runs.snapshot_health import word_for
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.zoo.experiment import Permission, arguments_of, check_experiment, hyperparameter_file
from sb3_visual_td3.zoo.mistakes import BAD_USAGE
from sb3_visual_td3.zoo.plugin import VisualExperimentManager, register
from sb3_visual_td3.zoo.train import train_or_complain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a resumption can be told."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of the run, which holds snapshots/")
    parser.add_argument("--list", action="store_true", help="show the snapshots there are and do nothing")
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages of your own that the run's hyperparameters name and that may be imported",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="the run is yours: it may start the simulator's command, load the saved model that it was begun with, and "
        "have callbacks write outside RUN_DIR, as it did before",
    )
    parser.add_argument(
        "-tb",
        "--tensorboard-log",
        metavar="DIR",
        help="where the event files of a run are that was trained with -tb, and where they go on, in a folder of their "
        "own; by default they are copied to RUN_DIR/tb, and those outside RUN_DIR stay as they are",
    )
    parser.add_argument(
        "--without-logs",
        action="store_true",
        help="go on even if event files or other logs are lost, cut or cannot be written",
    )


def run(settings: argparse.Namespace) -> int:
    """Continue a run.

    :param settings: the parsed arguments
    :return: the exit code
    """
    try:
        if settings.run_dir.is_dir():
            refuse_links(settings.run_dir)
        if settings.list:
            return _list_snapshots(settings.run_dir)
        if (finished := _finishing_time(settings.run_dir)) is not None:
            print(f"{settings.run_dir} was trained to its end, at {finished}: there is nothing to resume")
            return 0
        register()
        experiment = _experiment_of(settings.run_dir)
        check_experiment(experiment, Permission(settings.run_dir, settings.allow, settings.trust))
        own_copies(settings.run_dir, settings.run_dir / SNAPSHOTS)
    except (ValueError, OSError) as error:
        print(f"visual-td3 resume: {error}", file=sys.stderr)
        return BAD_USAGE
    with tempfile.TemporaryDirectory() as folder:
        conf_file = Path(folder) / "hyperparams.yml"
        conf_file.write_text(yaml.safe_dump(hyperparameter_file(experiment)), encoding="utf-8")
        VisualExperimentManager.resumed_run_dir = settings.run_dir
        VisualExperimentManager.resumed_experiment = experiment
        VisualExperimentManager.resumed_packages = tuple(settings.allow)
        VisualExperimentManager.resumes_without_logs = settings.without_logs
        try:
            trained = train_or_complain(arguments_of(experiment, str(conf_file), settings.tensorboard_log), "resume")
        finally:
            VisualExperimentManager.resumed_run_dir = None
            VisualExperimentManager.resumed_experiment = None
            VisualExperimentManager.resumed_packages = ()
            VisualExperimentManager.resumes_without_logs = False
    return 0 if trained else BAD_USAGE


def _store(run_dir: Path) -> SnapshotStore:
    if not (run_dir / SNAPSHOTS).is_dir():
        raise ValueError(
            f"{run_dir} holds no {SNAPSHOTS}/: give the folder of a run that SnapshotCallback was part of, such as "
            "logs/visual_td3/LiteDriving-v0_1"
        )
    return SnapshotStore(run_dir / SNAPSHOTS)


def _finishing_time(run_dir: Path) -> str | None:
    """:return: when the run came to its end and left its model; None where it did not, or nothing says so"""
    path = run_dir / FILE_NAME
    manifest = RunManifest.read(path) if path.is_file() else None
    if manifest is None or not (run_dir / f"{manifest.env_id}.zip").is_file():
        return None
    return manifest.finished


def _list_snapshots(run_dir: Path) -> int:
    for each in _store(run_dir).all():
        print(f"step {each.step:>12,}  {each.created}  {word_for(each.health):<10}  {each.path}")
    return 0


def _experiment_of(run_dir: Path) -> Mapping[str, Any]:
    """:return: how the run was started, of the newest snapshot whose description can be read"""
    snapshot = _store(run_dir).newest()
    experiment: Mapping[str, Any] | None = snapshot.state.get("experiment")
    if experiment is None:
        raise SnapshotError(
            f"{run_dir}: the run was not started by 'visual-td3 train'. Call its script again, with "
            "SnapshotCallback(..., resume=True)"
        )
    return experiment
