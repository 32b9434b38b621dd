"""What a sweep has found: in Optuna's storage, and as one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.runs.durable_files import write_whole
from sb3_visual_td3.zoo.studies import open_storage, open_study
from sb3_visual_td3.zoo.trial_health import DIAGNOSIS, VERDICT
from sb3_visual_td3.zoo.workers import FAIL_REASON

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
    write_whole(path, _table(study_name, trials))
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
