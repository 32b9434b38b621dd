"""rl-zoo's ``--optimize-hyperparameters``, with workers that survive and studies that say what they are of."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER
from rl_zoo3.utils import ALGOS

from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.sampling import with_sampled
from sb3_visual_td3.zoo.search import Budget, Worker
from sb3_visual_td3.zoo.search_report import write_report
from sb3_visual_td3.zoo.studies import load_study, open_storage, open_study
from sb3_visual_td3.zoo.trials import callbacks_of_a_trial, facts_of, run_trial
from sb3_visual_td3.zoo.workers import WORKER, this_worker


def optimize(manager: ExperimentManager, on_start: Callable[[], None]) -> optuna.Study:
    """Search for hyperparameters as this command line says, and write the report.

    :param manager: rl-zoo's, set up
    :param on_start: called when what can be a mistake of the command line has been found to be none
    :return: the study
    :raises ValueError: if the command line, the storage or the hyperparameter file is at fault
    """
    if importlib.util.find_spec("pandas") is None:
        raise ValueError("a search writes its report with pandas: pip install 'sb3-visual-td3[plots]'")
    manager.specified_callbacks = callbacks_of_a_trial(manager.specified_callbacks)
    is_ours = _is_ours(manager)  # other algorithms' trials are rl-zoo's own, without a look at their health
    objective = partial(run_trial, manager, facts=facts_of(manager)) if is_ours else manager.objective
    storage = open_storage(manager.storage)
    identity = {**_identity(manager), "n_timesteps": str(manager.n_timesteps)}
    pruner = manager._create_pruner(manager.pruner)
    study = open_study(storage, manager.study_name, identity, _sampler(manager), pruner)
    _describe(study, manager._hyperparams)
    _draw_apart(study)
    print(f"Study {study.study_name}: sampler {manager.sampler}, pruner {manager.pruner}", flush=True)
    on_start()
    budget = Budget(manager.n_trials, manager.max_total_trials)
    try:
        Worker(study, storage, objective, budget).run(manager.n_jobs)
    except KeyboardInterrupt:
        print("interrupted: the trial's parameters are queued again", flush=True)
    write_report(manager, study, is_ours)
    return study


def with_trial(manager: ExperimentManager, trial_id: int, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """Take a trial's hyperparameters in place of the file's; the command line's stay.

    :param manager: rl-zoo's, which knows ``--storage`` and ``--study-name``
    :param trial_id: the trial's number
    :param hyperparams: of the file, and of the command line
    :return: all of them
    :raises ValueError: if there is no such trial, or no storage or study is named
    """
    if not manager.storage or not manager.study_name:
        raise ValueError(f"--trial-id {trial_id} needs --storage and --study-name: which study's trial is it?")
    study = load_study(open_storage(manager.storage, must_exist=True), manager.study_name, _identity(manager))
    trials = study.get_trials(deepcopy=False)
    if not 0 <= trial_id < len(trials):
        raise ValueError(f"--trial-id {trial_id}: the study {study.study_name!r} has {len(trials)} trials, from 0 on")
    drawn = HYPERPARAMS_CONVERTER[manager.algo](dict(trials[trial_id].params))
    merged = with_sampled(hyperparams, drawn) if _is_ours(manager) else {**hyperparams, **drawn}
    return {**merged, **(manager.custom_hyperparams or {})}


def _is_ours(manager: ExperimentManager) -> bool:
    return issubclass(ALGOS[manager.algo], VisualTD3)


def _identity(manager: ExperimentManager) -> dict[str, str]:
    return {"algo": manager.algo, "env": str(manager.env_name)}


def _sampler(manager: ExperimentManager) -> BaseSampler:
    try:
        sampler: BaseSampler = manager._create_sampler(manager.sampler)
    except ImportError as error:
        raise ValueError(f"--sampler {manager.sampler}: {error}; pip install optunahub, or take tpe") from error
    return sampler


def _draw_apart(study: optuna.Study) -> None:
    """Let the second worker of a study, and the first one when it comes back, draw what nobody has drawn.

    rl-zoo gives every sampler the ``--seed``: with the same seed they would try the same. All say that they are there
    and then look for others, so that of two that start together one sees the other at least.
    """
    worker = this_worker()
    own = f"{WORKER}:{worker['host']}:{worker['pid']}:{worker['started']}:{uuid.uuid4().hex[:8]}"
    study.set_user_attr(own, True)
    if any(name.startswith(WORKER) and name != own for name in study.user_attrs):
        study.sampler.reseed_rng()


def _describe(study: optuna.Study, hyperparams: Mapping[str, Any]) -> None:
    """Keep what rl-zoo keeps with a study: the command that began it, and what is not searched for."""
    if "command" in study.user_attrs:
        return
    study.set_user_attr("command", " ".join(sys.orig_argv))
    for name in sorted(hyperparams.keys() - study.user_attrs.keys()):
        study.set_user_attr(name, str(hyperparams[name]))
