"""Implement ``visual-td3 sweep``: train with several seeds, or search for hyperparameters, as Ray tasks."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import yaml
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.errors import CODE_FAULTS, ExitCode, in_one_line, report_bug
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.vec_env.ray_session import run_tasks
from sb3_visual_td3.zoo.flags import DEFAULT_ENV, check_env_flags, packages_in
from sb3_visual_td3.zoo.mistakes import answer, is_mistake
from sb3_visual_td3.zoo.plugin import RunOptions, RunResult
from sb3_visual_td3.zoo.search import header_of_best, training_command
from sb3_visual_td3.zoo.studies import FAIL_REASON, JOURNAL, SEEDS, load_study, open_storage, open_study
from sb3_visual_td3.zoo.train import train
from sb3_visual_td3.zoo.trials import DIAGNOSIS, VERDICT

SET_BY_SWEEP = ("--seed", "--trial-id", "--max-total-trials", "--n-jobs")
"""Flags of rl-zoo that a sweep sets itself."""
JOURNAL_NAME = "sweep.log"
"""Name of the default storage in the log folder."""
TRAIN_LOG = "train.log"
"""Name of the log file in a task's folder; it holds stdout and stderr."""


class Done(NamedTuple):
    """Hold the result of one Ray task: a training run or a worker of a search.

    :ivar run_dir: the folder of the run; None for a worker of a search, or if the task failed before it had a folder
    :ivar problem: the failure in one line; empty for none
    :ivar code: the exit code
    """

    run_dir: str | None
    problem: str = ""
    code: int = 0


class Sweep(NamedTuple):
    """Hold the result of a sweep.

    :ivar run_dirs: folders of the runs, by seed
    :ivar code: the exit code of the training runs or of the search
    """

    run_dirs: dict[int, Path]
    code: int


def run(settings: argparse.Namespace, flags: Sequence[str]) -> Sweep:
    """Run a sweep; errors are printed to stderr.

    :param settings: the parsed arguments of ``visual-td3 sweep``
    :param flags: flags that are passed to ``visual-td3 train``
    """
    try:
        _check(settings, flags)
        if settings.seeds is None:
            return _search(settings, flags)
        return _train_seeds(settings, flags)
    except Exception as error:
        return Sweep({}, answer("sweep", error))


def complain(text: str) -> int:
    """Print a usage error to stderr.

    :param text: what is wrong and how to correct it
    :return: the exit code
    """
    print(f"visual-td3 sweep: {text}", file=sys.stderr)
    return ExitCode.BAD_USAGE


def storage_of(settings: argparse.Namespace) -> str:
    """Return the path of the journal file, or the address of the database, that stores the trials.

    The path of a journal file is made absolute, because workers run in other folders.

    :param settings: the parsed arguments of ``visual-td3 sweep``
    """
    if settings.storage is None:
        return str((Path(settings.log_folder) / JOURNAL_NAME).absolute())
    if "://" not in settings.storage:
        return str(Path(settings.storage).absolute())
    return str(settings.storage)


def _check(settings: argparse.Namespace, flags: Sequence[str]) -> None:
    for flag in flags:
        if flag.split("=")[0] in SET_BY_SWEEP:
            raise ValueError(f"{flag} is set by the sweep: use --seeds, or -optimize with --n-trials and --workers")
    for name in ("n_trials", "workers"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)}: expected an integer >= 1")
    if settings.seeds is not None and (len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0):
        raise ValueError(f"--seeds {' '.join(map(str, settings.seeds))}: expected integers >= 0, each only once")
    for name in ("num_cpus", "num_gpus"):
        if getattr(settings, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name):g}: expected a number >= 0")
    check_env_flags(flags, DEFAULT_ENV)


def _identity(flags: Sequence[str]) -> dict[str, str]:
    """Return the identity of a study whose trials differ only in their seeds.

    :param flags: flags of every training run of the study
    """
    return {**SEEDS, "flags": " ".join(flags)}


def _check_study(settings: argparse.Namespace, flags: Sequence[str]) -> None:
    """Before the training, refuse a study that cannot hold the runs.

    :raises ValueError: if the study holds other trials, or cannot be opened
    """
    storage = storage_of(settings)
    if storage.endswith(JOURNAL) and not Path(storage).is_file():
        return  # keep_seeds creates the file
    os.makedirs(settings.log_folder, exist_ok=True)  # SQLite creates its file there, but not the folder
    opened = open_storage(storage)
    if settings.study_name in [study.study_name for study in opened.get_all_studies()]:
        load_study(opened, settings.study_name, _identity(flags))


def _train_seeds(settings: argparse.Namespace, flags: Sequence[str]) -> Sweep:
    """Train once for each seed; a training run with a critical alert is stopped."""
    _check_study(settings, flags)
    folders = {seed: Path(settings.log_folder).absolute() / f"seed_{seed}" for seed in settings.seeds}
    calls = [
        ([*_quiet(flags), "--log-folder", str(folder), "--seed", str(seed)], str(folder))
        for seed, folder in folders.items()
    ]
    run_dirs, code = {}, 0
    # Results arrive in the order in which the tasks end.
    for index, done in _tasks(calls, settings):
        seed = settings.seeds[index]
        if done.run_dir is not None:
            run_dirs[seed] = Path(done.run_dir)
        if done.problem:
            complain(f"seed {seed}: {done.problem}")
            code = max(code, done.code)
        else:
            print(f"seed {seed}: {done.run_dir}", flush=True)
    return Sweep({seed: run_dirs[seed] for seed in settings.seeds if seed in run_dirs}, code)


def _search(settings: argparse.Namespace, flags: Sequence[str]) -> Sweep:
    """Search with several workers on one storage; a trial whose run turns NO-GO is pruned."""
    storage, folder = storage_of(settings), Path(settings.log_folder).absolute()
    search = ["-optimize", "--storage", storage, "--study-name", settings.study_name]
    search += ["--max-total-trials", str(settings.n_trials), "--log-folder", str(folder)]
    calls = [([*_quiet(flags), *search], str(folder / f"worker_{worker}")) for worker in range(settings.workers)]
    # A worker that fails does not end the search, because the other workers run the remaining trials.
    failed = [done for _, done in _tasks(calls, settings) if done.problem]
    for done in failed:
        complain(done.problem)
    if len(failed) == len(calls):
        return Sweep({}, max(done.code for done in failed))
    return Sweep({}, write_search(storage, settings.study_name, folder, packages_in(flags)))


def _quiet(flags: Sequence[str]) -> list[str]:
    return ["--verbose", "0", *flags]


def _tasks(calls: Sequence[tuple[list[str], str]], settings: argparse.Namespace) -> Iterator[tuple[int, Done]]:
    """Run the calls as Ray tasks, and yield the index and result of each when it ends."""
    resources = {"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus, "address": settings.address}
    for index, result in run_tasks(train_one, calls, **resources):
        if isinstance(result, Exception):
            yield index, Done(None, f"{type(result).__name__}: {in_one_line(result)[:300]}", ExitCode.CRASHED)
        else:
            yield index, result


def train_one(arguments: Sequence[str], folder: str) -> Done:
    """Run ``visual-td3 train`` once, in a Ray task, and write its output to ``folder``/train.log.

    :param arguments: arguments of ``visual-td3 train``
    :param folder: folder for the run and its output, created if needed
    """
    os.makedirs(folder, exist_ok=True)
    result = RunResult()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with (
        open(Path(folder, TRAIN_LOG), "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            train(arguments, RunOptions(stops_on_critical=True), result)
        except Exception as error:
            run_dir = None
            if result.has_started and result.run_dir is not None:
                run_dir = str(result.run_dir)
            text = in_one_line(error) or type(error).__name__
            # As in 'visual-td3 train', an error after the start is not a usage error, and only some types are bugs.
            is_bug = isinstance(error, CODE_FAULTS) if result.has_started else not is_mistake(error)
            if not is_bug:
                return Done(run_dir, text, ExitCode.CRASHED if result.has_started else ExitCode.BAD_USAGE)
            text = (
                f"internal error: {type(error).__name__}: {text}; please report this, with the traceback in {log.name}"
            )
            return Done(run_dir, text, report_bug("sweep", error))
    if result.run_dir is None:
        return Done(None)
    return Done(str(result.run_dir.absolute()))


_VALUES = (tags.EVAL_REWARD, tags.EPISODE_REWARD)
"""Tags of a run's objective value; the second is used if the first has no value."""
_HEALTHY = "nothing critical"


def keep_seeds(storage: str, study_name: str, run_dirs: Mapping[int, Path], report: Path, flags: Sequence[str]) -> None:
    """Store each judged run as one trial of the Optuna study.

    :param storage: result of :func:`storage_of`
    :param study_name: name of the study in it
    :param run_dirs: folders of the runs, by seed
    :param report: path of report.json
    :param flags: flags of every training run of the study
    :raises ValueError: if the study was created with other flags, does not maximise exactly one value, or cannot be
        opened
    """
    content = json.loads(report.read_text(encoding="utf-8"))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(open_storage(storage), study_name, _identity(flags))
    runs = content.get("runs", [content])  # the report of a single run has no list
    for run in runs:
        path = Path(run["run"]["path"]).resolve()
        seed, run_dir = next(each for each in run_dirs.items() if path.is_relative_to(each[1].resolve()))
        diagnoses = [each["id"] for each in run["diagnoses"]]
        attributes = {VERDICT: run["verdict"], DIAGNOSIS: diagnoses[0] if diagnoses else None, "run_dir": str(run_dir)}
        value = _value_of(run["metrics"])
        state = TrialState.COMPLETE
        if run["verdict"] == Verdict.NO_GO.value or value is None:
            # Optuna chooses the best trial among the complete trials, and a NO-GO run must not be the best.
            state, value = TrialState.PRUNED, None
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params={"seed": seed},
                distributions={"seed": IntDistribution(0, 2**32 - 1)},
                user_attrs=attributes,
            )
        )
    print(f"Study {study_name} in {storage}: {len(runs)} new trials")


def _value_of(metrics: Mapping[str, Any]) -> float | None:
    for tag in _VALUES:
        if tag in metrics and metrics[tag]["last"] is not None:
            return float(metrics[tag]["last"])
    return None


def write_search(storage: str, study_name: str, folder: Path, packages: Sequence[str] = ()) -> int:
    """Write a table of all trials of a search, and print a summary.

    :param storage: result of :func:`storage_of`
    :param study_name: name of the study in it
    :param folder: the log folder, to write ``STUDY.md`` to
    :param packages: modules of ``--gym-packages``
    :return: the exit code: 1 if all finished trials are NO-GO, else 0
    """
    study = optuna.load_study(study_name=study_name, storage=open_storage(storage, must_exist=True))
    trials = study.get_trials(deepcopy=False)
    path = folder / f"{study_name}.md"
    best = _best_file(study, folder)
    table = _table(study_name, trials)
    if best is not None:
        table += f"\nHyperparameter file of the best trial: `{best}`\n"
    write_atomically(path, table)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    no_go = [trial for trial in trials if trial.user_attrs.get(VERDICT) == Verdict.NO_GO.value]
    print(f"{len(trials)} trials: {len(complete)} complete, {len(no_go)} NO-GO")
    if complete:
        print(f"Best: trial {study.best_trial.number} with {study.best_value:.6g}")
    if best is not None:
        (env_id,) = yaml.safe_load(best.read_text(encoding="utf-8"))
        print(f"Its hyperparameter file: {best}")
        print(f"Train with it: {training_command(env_id, str(best), packages)}")
    print(f"Report: {path}", flush=True)
    return ExitCode.NO_GO if no_go and not complete else ExitCode.GO


def _best_file(study: optuna.Study, folder: Path) -> Path | None:
    """Return the hyperparameter file of the best trial; None if no worker has written one.

    Each worker writes the file of the trial that is the best when the worker ends.
    """
    try:
        header = header_of_best(study)
    except ValueError:  # no trial is complete
        return None
    written = sorted(folder.glob("*/report_*.yml"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in written if path.read_text(encoding="utf-8").startswith(header)), None)


def _table(study_name: str, trials: Sequence[FrozenTrial]) -> str:
    """Return a Markdown table with a row for each trial, the best first."""
    ranked = sorted(trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number))
    lines = [f"# {study_name}", "", "| trial | state | mean reward | health | cause | hyperparameters |"]
    lines.append("| --- " * 6 + "|")
    for trial in ranked:
        is_complete = trial.state is TrialState.COMPLETE
        attributes = trial.user_attrs
        health = attributes.get(VERDICT, _HEALTHY if is_complete else "-")
        cause = attributes.get(DIAGNOSIS) or attributes.get(FAIL_REASON, "-")
        value = "-"
        if is_complete and trial.value is not None:
            value = f"{trial.value:.6g}"
        drawn = ", ".join(f"{name}={_short(each)}" for name, each in trial.params.items())
        cells = (trial.number, trial.state.name.lower(), value, health, cause, drawn)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
