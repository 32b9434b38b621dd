"""Change rl_zoo3's scripts while they run, so that they work with our algorithm.

This module can be removed when rl_zoo3 (now 2.9) has removed these obstacles:

- enjoy, record_video and push_to_hub have hard-coded lists of off-policy algorithms
- record_video and push_to_hub do not read ``env_kwargs`` of the hyperparameter file
- enjoy, record_video and push_to_hub show a checkpoint with the VecNormalize from the end of the run
- benchmark calls ``python enjoy.py`` in the current folder
- record_training calls ``python -m rl_zoo3.record_video``, which does not accept our algorithm
- the scripts for the hub import names of older releases of huggingface_hub and huggingface_sb3
"""

from __future__ import annotations

import json
import logging
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import rl_zoo3
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import ALGOS, get_latest_run_id
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.evaluation import lift_idle_limits
from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.flags import PACKAGES_FLAG, check_environment, packages_in, replaced
from sb3_visual_td3.zoo.hyperparameters import env_kwargs_of
from sb3_visual_td3.zoo.wrappers import companion_files

_create_test_env = rl_zoo3.utils.create_test_env  # the original, because watching() replaces it
_FILM_SUFFIXES = {".mp4", ".gif", ".txt"}
"""Suffixes of the files that rl_zoo3's record_training writes."""


class ModelToWatch:
    """Load VisualTD3 models only to watch them, with a replay buffer of one transition."""

    __name__ = VisualTD3.__name__

    @staticmethod
    def load(path: str, **kwargs: Any) -> VisualTD3:
        """Load a model as rl-zoo loads its off-policy algorithms.

        :param path: path of the zip file
        :param kwargs: passed to :meth:`stable_baselines3.TD3.load`
        :return: the model
        """
        return VisualTD3.load(path, **{"buffer_size": 1, "optimize_memory_usage": False, **kwargs})


def algorithms_to_watch(algo: str) -> ChainMap[str, type[BaseAlgorithm] | ModelToWatch]:
    """Map the name of each algorithm in rl-zoo to the class that loads its models when the user watches an agent.

    :class:`ModelToWatch` loads VisualTD3 models, and rl-zoo's classes load the models of other algorithms.

    :param algo: name of our algorithm in rl-zoo, ``visual_td3``
    """
    return ChainMap({algo: ModelToWatch()}, cast(dict[str, Any], ALGOS))


def create_env_to_watch(*args: Any, model_path: str | Path | None = None, **kwargs: Any) -> VecEnv:
    """Make an environment for whole episodes, as rl-zoo's ``create_test_env`` does.

    The wrapper ``IdleLimit``, which truncates the training episodes of a stuck agent, is turned off.

    :param args: positional arguments of ``create_test_env``
    :param model_path: the model to watch. If the model is a checkpoint, the environment gets the VecNormalize that was
        saved with the checkpoint. None means the VecNormalize from the end of the run
    :param kwargs: keyword arguments of ``create_test_env``
    """
    with tempfile.TemporaryDirectory() as folder:
        stats_path = kwargs.get("stats_path")
        if model_path is not None and stats_path is not None:
            stats = companion_files(model_path, Path(stats_path).name).vecnormalize
            if stats.is_file():
                # create_test_env expects a folder with a file of this name, and reads nothing else in the folder.
                shutil.copy(stats, Path(folder, "vecnormalize.pkl"))
                kwargs["stats_path"] = folder
        hyperparams = kwargs.get("hyperparams")
        if hyperparams is not None and hyperparams.get("frame_stack", 0) is None:
            # In training, None means no stack. create_test_env cannot compare None with a number.
            kwargs["hyperparams"] = {name: value for name, value in hyperparams.items() if name != "frame_stack"}
        env = cast(VecEnv, _create_test_env(*args, **kwargs))
    lift_idle_limits(env)
    return env


def no_numbered_run(runs: Path, exp_id: int, env_name: EnvironmentName, advice: str) -> str | None:
    """Return a message that explains why rl-zoo finds no run of an environment by its number.

    :param runs: folder of all runs of an algorithm, such as ``logs/visual_td3``
    :param exp_id: number of the run; 0 is the latest
    :param env_name: name of the environment in the names of folders
    :param advice: what to do with runs that have a UUID; the message lists their folders after this text
    :return: the message; None if the run exists, or if rl-zoo's own message names the folder
    """
    pattern = re.compile(re.escape(env_name) + r"_\d+_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    with_uuid = sorted(str(each) for each in runs.glob("*") if pattern.fullmatch(each.name) and each.is_dir())
    if exp_id < 0 or (exp_id == 0 and get_latest_run_id(str(runs), env_name)):
        return None
    if exp_id > 0 and Path(runs, f"{env_name}_{exp_id}").is_dir():
        return None
    if with_uuid:
        return f"{runs} has no numbered run of {env_name}, only runs with a UUID: {advice} {' or '.join(with_uuid)}"
    if exp_id > 0:
        return None  # rl-zoo's message names the folder
    return (
        f"there is no run of {env_name.gym_id} below {runs}: 'visual-td3 train --env {env_name.gym_id}' trains one, "
        "and --folder names another folder"
    )


@contextmanager
def statistics_of_the_model(module: ModuleType) -> Iterator[None]:
    """Inside the ``with`` block, make a script's environment with the VecNormalize of the model that the script found.

    If only runs with a UUID exist, which the scripts cannot load, the error says so.

    :param module: the module from which the script takes ``get_model_path`` and ``create_test_env``. Its
        ``create_test_env`` must accept ``model_path``, as our :func:`create_env_to_watch` does
    """
    find: Callable[..., tuple[str, str, str]] = module.get_model_path
    create: Callable[..., VecEnv] = module.create_test_env
    model_path: str | None = None

    def get_model_path(
        exp_id: int, folder: str, algo: str, env_name: EnvironmentName, *args: Any, **kwargs: Any
    ) -> tuple[str, str, str]:
        nonlocal model_path
        try:
            found = find(exp_id, folder, algo, env_name, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            advice = f"rename one of these folders to {env_name}_1:"
            if text := no_numbered_run(Path(folder, algo), exp_id, env_name, advice):
                raise ValueError(text) from error
            raise
        model_path = found[1]
        return found

    def create_test_env(*args: Any, **kwargs: Any) -> VecEnv:
        return create(*args, model_path=model_path, **kwargs)

    with replaced(module, "get_model_path", get_model_path), replaced(module, "create_test_env", create_test_env):
        yield


@contextmanager
def watching(algo: str) -> Iterator[None]:
    """Let rl_zoo3's scripts that show an agent accept VisualTD3 models inside the ``with`` block.

    The scripts create the environment with the arguments that it had in training.

    :param algo: name of our algorithm in rl-zoo
    """

    def create_test_env(env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
        """Make the environment with its training arguments; arguments on the command line take precedence."""
        hyperparams = dict(kwargs.get("hyperparams") or {})
        kwargs["env_kwargs"] = env_kwargs_of(hyperparams.pop("env_kwargs", None), kwargs.get("env_kwargs"))
        return create_env_to_watch(env_id, *args, **{**kwargs, "hyperparams": hyperparams})

    known = algorithms_to_watch(algo)
    # A script imports these names from one of the two modules when it runs.
    with ExitStack() as stack:
        for module in (rl_zoo3, rl_zoo3.utils):
            stack.enter_context(replaced(module, "ALGOS", known))
            stack.enter_context(replaced(module, "create_test_env", create_test_env))
        stack.enter_context(statistics_of_the_model(rl_zoo3.utils))
        yield


def run_watching(module: str, algo: str) -> None:
    """Run a script of rl_zoo3 that shows an agent, and let the script accept VisualTD3 models.

    :param module: dotted name of the script, such as ``rl_zoo3.record_video``
    :param algo: name of our algorithm in rl-zoo
    """
    with watching(algo):
        run_script_of_zoo(module)


def run_script_of_zoo(module: str) -> None:
    """Run a script of rl_zoo3 as ``python -m`` would.

    :param module: dotted name of the script
    """
    # runpy warns about a script that another script has imported before. The warning does not concern the user.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'rl_zoo3.* found in sys.modules", RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=False)


@contextmanager
def calling_ours(zoo_command: tuple[str, ...], ours: str) -> Iterator[None]:
    """Let a script of rl_zoo3 start a subcommand of ``visual-td3`` in place of another command.

    If rl_zoo3 starts the same command with the same arguments again, the second start does nothing.

    :param zoo_command: first words of the command that rl_zoo3 would start
    :param ours: the subcommand of ``visual-td3`` that runs instead
    """
    call: Callable[..., int] = subprocess.call
    n_words, done = len(zoo_command), set()

    def call_ours(command: list[str], *args: Any, **kwargs: Any) -> int:
        if tuple(command[:n_words]) != zoo_command:
            return call(command, *args, **kwargs)
        if tuple(command) in done:
            return 0
        done.add(tuple(command))
        # The other process has to register the same environments.
        packages = packages_in(sys.argv[1:])
        flags = [PACKAGES_FLAG, *packages] if packages else []
        return call([sys.executable, "-m", "sb3_visual_td3", ours, *command[n_words:], *flags], *args, **kwargs)

    with replaced(subprocess, "call", call_ours):
        yield


def run_benchmark() -> None:
    """Run rl_zoo3's benchmark, which here evaluates each agent with ``visual-td3 enjoy``."""
    hide_retries()
    find: Callable[[str], dict[str, tuple[str, str]]] = rl_zoo3.utils.get_trained_models

    def agents_to_evaluate(log_folder: str) -> dict[str, tuple[str, str]]:
        """Map each trained agent in a folder to (algorithm, environment id); skip unregistered environments."""
        agents, problems = find(log_folder), []
        for name, (_, env_id) in list(agents.items()):
            try:
                check_environment(env_id, packages_in(sys.argv[1:]))
            except UsageError as error:
                problems.append(f"{name} cannot be evaluated ({error})")
                del agents[name]
        if not agents and "--no-hub" in sys.argv:
            if problems:
                raise UsageError(problems[0])
            raise UsageError(
                f"--log-dir {log_folder}: there is no trained agent in this folder; expected folders such as "
                "visual_td3/LiteDriving-v0_1"
            )
        for problem in problems:
            print(f"visual-td3 benchmark: {problem}", file=sys.stderr)
        return agents

    with (
        calling_ours(("python", "enjoy.py"), "enjoy"),
        replaced(rl_zoo3.utils, "get_trained_models", agents_to_evaluate),
    ):
        run_script_of_zoo("rl_zoo3.benchmark")


def run_record_training() -> None:
    """Run rl_zoo3's script record_training, which here films each checkpoint with ``visual-td3 record-video``.

    :raises ValueError: if the film's folder holds other files, which rl_zoo3 would delete, or if no film was made
    """
    films: list[Path] = []
    remove = shutil.rmtree

    def remove_films(path: str, *args: Any, **kwargs: Any) -> None:
        if films:  # rl_zoo3's own call is the first one; later calls remove temporary folders
            remove(path, *args, **kwargs)
            return
        folder = Path(path)
        if folder.is_dir():
            for each in folder.iterdir():
                if each.suffix not in _FILM_SUFFIXES:
                    raise ValueError(
                        f"{folder} holds {each.name}: expected an empty folder, because rl-zoo empties the folder. "
                        "Choose another folder with -o"
                    )
        films.append(folder / "training.mp4")
        remove(path, *args, **kwargs)

    with (
        calling_ours(("python", "-m", "rl_zoo3.record_video"), "record-video"),
        replaced(shutil, "rmtree", remove_films),
    ):
        run_script_of_zoo("rl_zoo3.record_training")
    if not films[0].is_file():
        raise ValueError(f"{films[0]} was not made: check that the run has a saved model")


@contextmanager
def hub_errors() -> Iterator[None]:
    """Let rl_zoo3's script load_from_hub import ``requests.exceptions.HTTPError`` even without requests.

    Inside the ``with`` block, placeholders replace the modules ``requests`` and ``requests.exceptions``. The
    placeholder's ``HTTPError`` is huggingface_hub's EntryNotFoundError, which a download raises if a file is missing.
    """
    import huggingface_hub.errors
    import huggingface_sb3  # noqa: F401 - imported before the placeholder exists, so that it does not find it

    exceptions = ModuleType("requests.exceptions")
    exceptions.HTTPError = huggingface_hub.errors.EntryNotFoundError  # type: ignore[attr-defined]
    placeholders = {"requests": ModuleType("requests"), exceptions.__name__: exceptions}
    originals = {name: sys.modules[name] for name in placeholders if name in sys.modules}
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name in placeholders:
            del sys.modules[name]
        sys.modules.update(originals)


def hide_retries() -> None:
    """Make huggingface_hub report only its final error, not each retry, if there is no network."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def run_load_from_hub() -> None:
    """Run rl_zoo3's script that downloads an agent from the Hugging Face hub."""
    hide_retries()
    with hub_errors():
        run_script_of_zoo("rl_zoo3.load_from_hub")


def run_push_to_hub(algo: str) -> None:
    """Run rl_zoo3's script that uploads an agent to the Hugging Face hub.

    :param algo: name of our algorithm in rl-zoo
    """
    from huggingface_hub import repocard

    # huggingface_sb3 also has a function push_to_hub, which a normal import would return instead of the module.
    push_to_hub = import_module("huggingface_sb3.push_to_hub")
    hide_retries()
    # rl_zoo3 writes the model card and then calls metadata_save with its path, so the text is changed there.
    save = repocard.metadata_save

    def metadata_save(path: str | Path, metadata: dict[str, Any]) -> None:
        page = Path(path)
        text = _with_our_commands(page.read_text(encoding="utf-8"), algo)
        text += "\n" + card_of_run(Path(run_dirs[-1]))
        page.write_text(text, encoding="utf-8")
        for report in ("report.md", "report.html"):
            if Path(run_dirs[-1], report).is_file():
                shutil.copy(Path(run_dirs[-1], report), page.with_name(report))
        save(path, metadata)

    run_dirs: list[str] = []
    find: Callable[..., tuple[str, str, str]] = rl_zoo3.utils.get_model_path

    def get_model_path(*args: Any, **kwargs: Any) -> tuple[str, str, str]:
        found = find(*args, **kwargs)
        run_dirs.append(found[2])
        return found

    def generate_metadata(*args: Any) -> dict[str, Any]:
        return cast(dict[str, Any], push_to_hub._generate_metadata(*args).to_dict())

    with ExitStack() as stack:
        stack.enter_context(replaced(repocard, "metadata_save", metadata_save))
        stack.enter_context(replaced(rl_zoo3.utils, "get_model_path", get_model_path))
        # Rl_zoo3 uses the function's name from before huggingface_sb3 3.2.
        if not hasattr(push_to_hub, "generate_metadata"):
            stack.enter_context(replaced(push_to_hub, "generate_metadata", generate_metadata))
        run_watching("rl_zoo3.push_to_hub", algo)


def card_of_run(run_dir: Path) -> str:
    """Return a Markdown section for a Hub model card: verdict, likely cause, last evaluation and best evaluation.

    :param run_dir: folder of the run, with report.json if the run was judged
    """
    lines = ["## The training", ""]
    report = run_dir / "report.json"
    if report.is_file():
        content = json.loads(report.read_text(encoding="utf-8"))
        lines.append(f"- Verdict of `visual-td3 report`: **{content['verdict']}** ([report](report.md))")
        lines += [f"- Likely cause: {each['title']}" for each in content["diagnoses"][:1]]
    else:
        lines.append("- The training was not judged. To add a verdict, run `visual-td3 report RUN_DIR` first.")
    evaluations = run_dir / "evaluations.npz"
    if evaluations.is_file():
        with np.load(evaluations) as saved:
            steps, returns = saved["timesteps"], saved["results"].mean(axis=1)
        best = int(returns.argmax())
        lines.append(f"- Return of the last evaluation: {returns[-1]:.1f}, at step {steps[-1]:,}")
        lines.append(f"- Return of the best evaluation: {returns[best]:.1f}, at step {steps[best]:,}")
    return "\n".join(lines) + "\n"


def _with_our_commands(page: str, algo: str) -> str:
    if f"--algo {algo} " not in page:
        return page
    for name in ("train", "enjoy", "push_to_hub", "load_from_hub"):
        page = page.replace(f"python -m rl_zoo3.{name} ", f"visual-td3 {name.replace('_', '-')} ")
    # The package may not be on PyPI.
    return page.replace("`pip install rl_zoo3`", "`pip install .` in a clone of sb3_visual_td3").replace(
        "\npip install rl_zoo3\n", "\npip install .  # in a clone of sb3_visual_td3\n"
    )
