"""The edits of rl_zoo3's scripts: some have no function to call, and all know the stock algorithms alone.

Seen in rl_zoo3 2.9: lists of off-policy algorithms written out in enjoy, record_video and push_to_hub; ``env_kwargs``
of the hyperparameter file not read by the last two; ``python enjoy.py`` in the current folder, and
``python -m rl_zoo3.record_video``; names of an older
huggingface_hub and huggingface_sb3. When these are gone, this file can go.
"""

from __future__ import annotations

import logging
import runpy
import shutil
import subprocess
import sys
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import rl_zoo3
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.flags import PACKAGES_FLAG, check_environment, packages_in, replaced
from sb3_visual_td3.zoo.hyperparameters import env_kwargs_of

_OF_A_FILM = {".mp4", ".gif", ".txt"}
"""Suffixes of what rl_zoo3's record_training leaves, the last where it was ended."""


class ModelToWatch:
    """Stands for our algorithm where a model is loaded only to be watched: with no room for replay."""

    __name__ = VisualTD3.__name__

    @staticmethod
    def load(path: str, **kwargs: Any) -> VisualTD3:
        """Load a model, as rl-zoo does with the off-policy algorithms that it knows.

        :param path: of the zip file
        :param kwargs: of :meth:`stable_baselines3.TD3.load`
        :return: the model
        """
        return VisualTD3.load(path, **{"buffer_size": 1, "optimize_memory_usage": False, **kwargs})


def algorithms_to_watch(algo: str) -> ChainMap[str, type[BaseAlgorithm] | ModelToWatch]:
    """:return: rl_zoo3's algorithms, ours as one that is only watched

    :param algo: the name of ours
    """
    return ChainMap({algo: ModelToWatch()}, cast(dict[str, Any], ALGOS))


@contextmanager
def watching(algo: str) -> Iterator[None]:
    """Have rl_zoo3's scripts that load a model know what they have to.

    :param algo: the name of our algorithm
    """
    create = rl_zoo3.utils.create_test_env

    def create_test_env(env_id: str, *args: Any, **kwargs: Any) -> VecEnv:
        """Make the environment as it was in training, what the command line says on top."""
        hyperparams = dict(kwargs.get("hyperparams") or {})
        kwargs["env_kwargs"] = env_kwargs_of(hyperparams.pop("env_kwargs", None), kwargs.get("env_kwargs"))
        return cast(VecEnv, create(env_id, *args, **{**kwargs, "hyperparams": hyperparams}))

    known = algorithms_to_watch(algo)
    with ExitStack() as stack:
        for module in (rl_zoo3, rl_zoo3.utils):
            stack.enter_context(replaced(module, "ALGOS", known))
            stack.enter_context(replaced(module, "create_test_env", create_test_env))
        yield


def run_watching(module: str, algo: str) -> None:
    """Run a script of rl_zoo3 that loads a model.

    :param module: its dotted name
    :param algo: the name of our algorithm
    """
    with watching(algo):
        run_script_of_zoo(module)


def run_script_of_zoo(module: str) -> None:
    """Run a script of rl_zoo3.

    Some have been imported by others before; what runpy says to that is not for the user.

    :param module: its dotted name
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'rl_zoo3.* found in sys.modules", RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=False)


@contextmanager
def calling_ours(zoo_command: tuple[str, ...], ours: str) -> Iterator[None]:
    """Have our command called where a script of rl_zoo3 calls one of its own in another process.

    What it calls a second time, word for word, is not done again: record_training calls once for each file of a
    checkpoint.

    :param zoo_command: how its call begins
    :param ours: the name of our command
    """
    call: Callable[..., int] = subprocess.call
    n_words, done = len(zoo_command), set()

    def call_ours(command: list[str], *args: Any, **kwargs: Any) -> int:
        if tuple(command[:n_words]) != zoo_command:
            return call(command, *args, **kwargs)
        if tuple(command) in done:
            return 0
        done.add(tuple(command))
        packages = packages_in(sys.argv[1:])
        flags = [PACKAGES_FLAG, *packages] if packages else []
        return call([sys.executable, "-m", "sb3_visual_td3", ours, *command[n_words:], *flags], *args, **kwargs)

    with replaced(subprocess, "call", call_ours):
        yield


def run_benchmark() -> None:
    """Run rl_zoo3's benchmark, whose agents are shown by our command, from any folder."""
    be_quiet_about_retries()
    find: Callable[[str], dict[str, tuple[str, str]]] = rl_zoo3.utils.get_trained_models

    def agents_that_can_be_shown(log_folder: str) -> dict[str, tuple[str, str]]:
        """Leave out agents whose environment is not registered; rl_zoo3 would fail to write a table of none."""
        agents, problems = find(log_folder), []
        for name, (_, env_id) in list(agents.items()):
            try:
                check_environment(env_id, packages_in(sys.argv[1:]))
            except UsageError as error:
                problems.append(f"{name} cannot be evaluated ({error})")
                del agents[name]
        if not agents and "--no-hub" in sys.argv:
            raise UsageError(problems[0] if problems else f"there is no trained agent in {log_folder}: --log-dir")
        for problem in problems:
            print(f"visual-td3 benchmark: {problem}", file=sys.stderr)
        return agents

    with (
        calling_ours(("python", "enjoy.py"), "enjoy"),
        replaced(rl_zoo3.utils, "get_trained_models", agents_that_can_be_shown),
    ):
        run_script_of_zoo("rl_zoo3.benchmark")


def run_record_training() -> None:
    """Run rl_zoo3's film of a training, whose parts are filmed by our command.

    :raises ValueError: if the folder of the film holds something else, which rl_zoo3 would delete, or no film was made
    """
    films: list[Path] = []
    remove = shutil.rmtree

    def remove_films(path: str, *args: Any, **kwargs: Any) -> None:
        folder = Path(path)
        others = [each.name for each in folder.iterdir() if each.suffix not in _OF_A_FILM] if folder.is_dir() else []
        if others:
            raise ValueError(f"{folder} holds {others[0]}, and is emptied before it is filmed into: give another -o")
        films.append(folder / "training.mp4")
        remove(path, *args, **kwargs)

    with (
        calling_ours(("python", "-m", "rl_zoo3.record_video"), "record-video"),
        replaced(shutil, "rmtree", remove_films),
    ):
        run_script_of_zoo("rl_zoo3.record_training")
    if not films[0].is_file():
        raise ValueError(f"{films[0]} was not made: is there a model of this run?")


@contextmanager
def hub_errors() -> Iterator[None]:
    """Have rl_zoo3's download find the exception of the huggingface_hub that is there.

    It imports ``requests.exceptions.HTTPError``, of a package that nothing installs any more, to go on where an agent
    has no VecNormalize.
    """
    import huggingface_hub.errors
    import huggingface_sb3  # noqa: F401 - imported now, without what stands in for requests

    exceptions = ModuleType("requests.exceptions")
    exceptions.HTTPError = huggingface_hub.errors.EntryNotFoundError  # type: ignore[attr-defined]
    stand_ins = {"requests": ModuleType("requests"), exceptions.__name__: exceptions}
    replaced = {name: sys.modules[name] for name in stand_ins if name in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]
        sys.modules.update(replaced)


def be_quiet_about_retries() -> None:
    """Have huggingface_hub say once that there is no network, not at each of its trials."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def run_load_from_hub() -> None:
    """Run rl_zoo3's download."""
    be_quiet_about_retries()
    with hub_errors():
        run_script_of_zoo("rl_zoo3.load_from_hub")


def run_push_to_hub(algo: str) -> None:
    """Run rl_zoo3's upload; the agent's page names our commands, for rl_zoo3's do not know the algorithm.

    :param algo: the name of our algorithm
    """
    from huggingface_hub import repocard

    # Of this name the package has a function as well, which hides the module.
    push_to_hub = import_module("huggingface_sb3.push_to_hub")
    be_quiet_about_retries()
    save = repocard.metadata_save

    def metadata_save(path: str | Path, metadata: dict[str, Any]) -> None:
        page = Path(path)
        page.write_text(_with_our_commands(page.read_text(encoding="utf-8"), algo), encoding="utf-8")
        save(path, metadata)

    def generate_metadata(*args: Any) -> dict[str, Any]:
        return cast(dict[str, Any], push_to_hub._generate_metadata(*args).to_dict())

    with ExitStack() as stack:
        stack.enter_context(replaced(repocard, "metadata_save", metadata_save))
        if not hasattr(push_to_hub, "generate_metadata"):  # its name in huggingface_sb3 before 3.2
            stack.enter_context(replaced(push_to_hub, "generate_metadata", generate_metadata))
        run_watching("rl_zoo3.push_to_hub", algo)


def _with_our_commands(page: str, algo: str) -> str:
    if f"--algo {algo} " not in page:
        return page
    for name in ("train", "enjoy", "push_to_hub", "load_from_hub"):
        page = page.replace(f"python -m rl_zoo3.{name} ", f"visual-td3 {name.replace('_', '-')} ")
    return page.replace("`pip install rl_zoo3`", "`pip install sb3-visual-td3`").replace(
        "\npip install rl_zoo3\n", "\npip install sb3-visual-td3\n"
    )
