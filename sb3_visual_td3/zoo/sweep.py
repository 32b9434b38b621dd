"""``visual-td3 sweep``: a training for each of several seeds, or a hyperparameter search, as Ray tasks."""

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
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.errors import BAD_USAGE, CODE_FAULTS, report_bug
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.vec_env.ray_session import run_tasks
from sb3_visual_td3.zoo.environments import check_flags
from sb3_visual_td3.zoo.mistakes import answer, is_mistake
from sb3_visual_td3.zoo.plugin import RunOptions, RunResult
from sb3_visual_td3.zoo.studies import FAIL_REASON, open_storage, open_study
from sb3_visual_td3.zoo.train import DEFAULT_ENV, train
from sb3_visual_td3.zoo.trials import DIAGNOSIS, VERDICT

DECIDED_HERE = ("--seed", "--trial-id", "--max-total-trials", "--n-jobs")
"""Flags of rl-zoo that a sweep gives itself."""
LOG = "sweep.log"
LOG_OF_ONE = "train.log"
"""What a training prints, in its own folder."""


class Done(NamedTuple):
    """What became of one task.

    :ivar run_dir: of the training; None where there is none
    :ivar problem: what went wrong, in one line; empty where nothing did
    :ivar code: exit code
    """

    run_dir: str | None
    problem: str = ""
    code: int = 0


class Sweep(NamedTuple):
    """What a sweep has left.

    :ivar run_dirs: by seed
    :ivar code: exit code, as far as it is known without a report
    """

    run_dirs: dict[int, Path]
    code: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a sweep can be told beside the flags of ``visual-td3 train``, which every training is given."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=int, nargs="+", metavar="N", help="one training for each of these seeds")
    what.add_argument("-optimize", "--optimize-hyperparameters", action="store_true", help="search hyperparameters")
    parser.add_argument("--n-trials", type=int, default=20, help="of a search: finished trials in all (default: 20)")
    parser.add_argument("--workers", type=int, default=2, help="of a search: how many try at a time (default: 2)")
    parser.add_argument("--num-cpus", type=float, default=1.0, help="of each training or worker (default: 1)")
    parser.add_argument("--num-gpus", type=float, default=0.0, help="of each, 0.5 puts two on one (default: 0)")
    parser.add_argument("--address", help="of a Ray cluster, such as auto (default: RAY_ADDRESS, or this machine)")
    parser.add_argument("-f", "--log-folder", default="logs", help="on a cluster one that all share (default: logs)")
    parser.add_argument("--storage", help=f"Optuna's (default: {LOG} in the log folder)")
    parser.add_argument("--study-name", default="sweep", help="within the storage (default: sweep)")


def run(settings: argparse.Namespace, flags: Sequence[str]) -> Sweep:
    """Sweep.

    :param settings: the parsed arguments
    :param flags: of ``visual-td3 train``
    :return: what it has left; mistakes are said on stderr
    """
    try:
        _check(settings, flags)
        return _search(settings, flags) if settings.seeds is None else _train_seeds(settings, flags)
    except Exception as error:
        return Sweep({}, answer("sweep", error))


def complain(text: str) -> int:
    """:return: the exit code of a mistake, which is said on stderr"""
    print(f"visual-td3 sweep: {text}", file=sys.stderr)
    return BAD_USAGE


def storage_of(settings: argparse.Namespace) -> str:
    """:return: where trials are kept; the same file from every folder"""
    if settings.storage is None or "://" not in settings.storage:
        return str(Path(settings.storage or Path(settings.log_folder) / LOG).absolute())
    return str(settings.storage)


def _check(settings: argparse.Namespace, flags: Sequence[str]) -> None:
    for flag in flags:
        if flag.split("=")[0] in DECIDED_HERE:
            raise ValueError(f"{flag} is decided here: give --seeds, or -optimize with --n-trials and --workers")
    for name in ("n_trials", "workers"):
        if getattr(settings, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)}: expected 1 or more")
    if settings.seeds is not None and (len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0):
        raise ValueError(f"--seeds {' '.join(map(str, settings.seeds))}: expected numbers of 0 and above, each once")
    for name in ("num_cpus", "num_gpus"):
        if getattr(settings, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name):g}: expected 0 or more")
    check_flags(flags, DEFAULT_ENV)


def _train_seeds(settings: argparse.Namespace, flags: Sequence[str]) -> Sweep:
    """Train once for each seed; what turns critical is stopped."""
    folders = {seed: Path(settings.log_folder).absolute() / f"seed_{seed}" for seed in settings.seeds}
    calls = [
        ([*_quiet(flags), "--log-folder", str(folder), "--seed", str(seed)], str(folder))
        for seed, folder in folders.items()
    ]
    run_dirs, code = {}, 0
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
    """Search with several workers on one storage; a trial that is NO-GO is pruned by the trial itself."""
    storage, folder = storage_of(settings), Path(settings.log_folder).absolute()
    search = ["-optimize", "--storage", storage, "--study-name", settings.study_name]
    search += ["--max-total-trials", str(settings.n_trials), "--log-folder", str(folder)]
    calls = [([*_quiet(flags), *search], str(folder / f"worker_{worker}")) for worker in range(settings.workers)]
    failed = [done for _, done in _tasks(calls, settings) if done.problem]
    for done in failed:
        complain(done.problem)
    if len(failed) == len(calls):
        return Sweep({}, max(done.code for done in failed))
    return Sweep({}, write_search(storage, settings.study_name, folder))


def _quiet(flags: Sequence[str]) -> list[str]:
    return ["--verbose", "0", *flags]


def _tasks(calls: Sequence[tuple[list[str], str]], settings: argparse.Namespace) -> Iterator[tuple[int, Done]]:
    """:return: what became of each, as they end"""
    room = {"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus, "address": settings.address}
    for index, result in run_tasks(train_one, calls, **room):
        if isinstance(result, Exception):
            yield index, Done(None, f"{type(result).__name__}: {' '.join(str(result).split())[:300]}", BAD_USAGE)
        else:
            yield index, result


def train_one(arguments: Sequence[str], folder: str) -> Done:
    """Train, in a process of its own; what is printed goes to ``folder``/train.log.

    :param arguments: of ``visual-td3 train``
    :param folder: is made
    :return: what became of it
    """
    os.makedirs(folder, exist_ok=True)
    result = RunResult()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with (
        open(Path(folder, LOG_OF_ONE), "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            train(arguments, RunOptions(stops_on_critical=True), result)
        except Exception as error:
            left = str(result.run_dir) if result.has_started and result.run_dir is not None else None
            text = " ".join(str(error).split()) or type(error).__name__
            is_bug = isinstance(error, CODE_FAULTS) if result.has_started else not is_mistake(error)
            if not is_bug:
                return Done(left, text, BAD_USAGE)
            text = (
                f"internal error: {type(error).__name__}: {text}; please report this, with the traceback in {log.name}"
            )
            return Done(left, text, report_bug("sweep", error))
    return Done(None if result.run_dir is None else str(result.run_dir.absolute()))


_VALUES = (tags.EVAL_REWARD, tags.EPISODE_REWARD)
"""What a training is worth: the first of these that it has logged."""
_NOTHING = "nothing critical"


def keep_seeds(storage: str, study_name: str, run_dirs: Mapping[int, Path], report: Path, flags: Sequence[str]) -> None:
    """Keep one trial for each seed that was judged, in the storage.

    :param storage: what ``--storage`` names
    :param study_name: within it
    :param run_dirs: by seed
    :param report: report.json
    :param flags: of every training: a study holds trainings of the same flags
    :raises ValueError: if the study is of something else
    """
    content = json.loads(report.read_text(encoding="utf-8"))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = open_study(open_storage(storage), study_name, {"sweep": "seeds", "flags": " ".join(flags)})
    runs = content.get("runs", [content])
    for run in runs:
        path = Path(run["run"]["path"]).resolve()
        seed, run_dir = next(each for each in run_dirs.items() if path.is_relative_to(each[1].resolve()))
        diagnoses = [each["id"] for each in run["diagnoses"]]
        attributes = {VERDICT: run["verdict"], DIAGNOSIS: diagnoses[0] if diagnoses else None, "run_dir": str(run_dir)}
        value = _worth(run["metrics"])
        is_told = run["verdict"] != Verdict.NO_GO.value and value is not None
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_told else TrialState.PRUNED,
                value=value if is_told else None,
                params={"seed": seed},
                distributions={"seed": IntDistribution(0, 2**32 - 1)},
                user_attrs=attributes,
            )
        )
    print(f"Study {study_name} in {storage}: {len(runs)} trials more")


def _worth(metrics: Mapping[str, Any]) -> float | None:
    found = [metrics[tag]["last"] for tag in _VALUES if tag in metrics and metrics[tag]["last"] is not None]
    return float(found[0]) if found else None


def write_search(storage: str, study_name: str, folder: Path) -> int:
    """Write one table of all trials of a search, and say it.

    :param storage: what ``--storage`` names
    :param study_name: within it
    :param folder: where ``STUDY.md`` goes
    :return: 0 where a trial was finished that is not NO-GO, 1 where all that were finished are NO-GO
    """
    study = optuna.load_study(study_name=study_name, storage=open_storage(storage, must_exist=True))
    trials = study.get_trials(deepcopy=False)
    path = folder / f"{study_name}.md"
    write_atomically(path, _table(study_name, trials))
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    no_go = [trial for trial in trials if trial.user_attrs.get(VERDICT) == Verdict.NO_GO.value]
    print(f"{len(trials)} trials: {len(complete)} complete, {len(no_go)} NO-GO")
    if complete:
        print(f"Best: trial {study.best_trial.number} with {study.best_value:.6g}")
    print(f"Report: {path}", flush=True)
    return 1 if no_go and not complete else 0


def _table(study_name: str, trials: Sequence[FrozenTrial]) -> str:
    """:return: a row for each trial, the best in front, as Markdown"""
    ranked = sorted(trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number))
    lines = [f"# {study_name}", "", "| trial | state | mean reward | health | cause | hyperparameters |"]
    lines.append("| --- " * 6 + "|")
    for trial in ranked:
        attributes = trial.user_attrs
        health = attributes.get(VERDICT, _NOTHING if trial.state is TrialState.COMPLETE else "-")
        cause = attributes.get(DIAGNOSIS) or attributes.get(FAIL_REASON, "-")
        value = "-" if trial.value is None or trial.state is not TrialState.COMPLETE else f"{trial.value:.6g}"
        drawn = ", ".join(f"{name}={_short(each)}" for name, each in trial.params.items())
        cells = (trial.number, trial.state.name.lower(), value, health, cause, drawn)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
