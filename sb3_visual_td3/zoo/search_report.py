"""What a search leaves behind: rl-zoo's report files, and the best trial as a block for a hyperparameter file."""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.visualization import plot_optimization_history, plot_param_importances
from rl_zoo3.exp_manager import ExperimentManager

from sb3_visual_td3.runs.durable_files import replacing, write_whole
from sb3_visual_td3.zoo.sampling import convert_visual_td3_params, with_sampled
from sb3_visual_td3.zoo.search import FINISHED


def write_report(manager: ExperimentManager, study: optuna.Study, is_ours: bool) -> Path:
    """Print the best trial and write the report where rl-zoo writes it.

    :param manager: rl-zoo's, which knows the folder
    :param study: the study
    :param is_ours: whether the trials are VisualTD3's, which a yml block can be made of
    :return: the report's path without its ending
    """
    trials = study.get_trials(deepcopy=False)
    n_of_state = Counter(trial.state.name.lower() for trial in trials)
    told = ", ".join(f"{n} {state}" for state, n in n_of_state.items())
    print(f"{sum(trial.state in FINISHED for trial in trials)} trials are finished: {told or 'none begun'}")
    path = _report_path(manager)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(Path(f"{path}.csv")) as begun:
        study.trials_dataframe().to_csv(begun)
    write_whole(Path(f"{path}.pkl"), pickle.dumps(study))
    _write_best(manager, study, path, is_ours)
    if not manager.no_optim_plots:
        _write_plots(study, path)
    print(f"Report: {path}.csv", flush=True)
    return path


def _report_path(manager: ExperimentManager) -> Path:
    """:return: as rl-zoo names it, and the process: workers may end in the same second"""
    name = (
        f"report_{manager.env_name}_{manager.n_trials}-trials-{manager.n_timesteps}-{manager.sampler}-{manager.pruner}"
        f"_{int(time.time())}"
    )
    path = Path(manager.log_folder, manager.algo, name)
    return path.with_name(f"{name}_{os.getpid()}") if Path(f"{path}.csv").exists() else path


def _write_best(manager: ExperimentManager, study: optuna.Study, path: Path, is_ours: bool) -> None:
    try:
        best = study.best_trial
    except ValueError:
        print("No trial is complete: there is no best one")
        return
    print(f"Best trial: {best.number}, with {best.value}")
    if not is_ours:
        print("".join(f"    {name}: {value}\n" for name, value in best.params.items()), end="")
        return
    try:
        block = best_block(manager.env_name.gym_id, manager._read_hyperparams, best.params)
    except (ValueError, yaml.YAMLError) as error:
        print(f"No yml block: {' '.join(str(error).split())}\n    {convert_visual_td3_params(best.params)}")
        return
    header = f"# trial {best.number} of the study {study.study_name}, {best.value} at {manager.n_timesteps} steps\n"
    write_whole(Path(f"{path}.yml"), header + block)
    print(f"{header}{block}Train with it: visual-td3 train --env {manager.env_name.gym_id} --conf-file {path}.yml")


def best_block(env_id: str, hyperparams: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Make a hyperparameter file of a trial.

    :param env_id: the environment's
    :param hyperparams: as read from the file that the search began with
    :param params: what the trial has drawn
    :return: YAML that trains what the trial trained
    :raises ValueError: if the file's ``policy_kwargs`` are Python code
    :raises yaml.YAMLError: if the file's hyperparameters hold more than plain data
    """
    block = with_sampled(hyperparams, convert_visual_td3_params(params))
    return str(yaml.safe_dump({env_id: block}, sort_keys=False))


def _write_plots(study: optuna.Study, path: Path) -> None:
    """Write rl-zoo's two plots; it opens a browser for them, which a server has not."""
    for name, plot in (("history", plot_optimization_history), ("importances", plot_param_importances)):
        try:
            plot(study).write_html(f"{path}_{name}.html", include_plotlyjs="directory")
        except (ValueError, ImportError, RuntimeError) as error:  # too few trials, or all alike
            print(f"No plot of the {name}: {' '.join(str(error).split())}")
