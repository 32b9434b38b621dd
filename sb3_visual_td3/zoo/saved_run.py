"""A run that rl-zoo has left: where it lies, its model, and the environment that it was trained on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, cast

import rl_zoo3.import_envs  # noqa: F401 - registers environments
import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import create_test_env, get_model_path, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_visual_td3.callbacks.snapshot import SNAPSHOTS
from sb3_visual_td3.common.input_files import PlainLoader
from sb3_visual_td3.zoo.environments import env_kwargs_of
from sb3_visual_td3.zoo.plugin import ALGO
from sb3_visual_td3.zoo.plugin_scripts import algorithms_to_watch

MAX_ARGS_BYTES = 1_000_000


class SavedRun(NamedTuple):
    """A run that rl-zoo has left: its algorithm, its environment and where its model lies."""

    algo: str
    env_id: str
    run_dir: Path
    model_path: Path

    def env_kwargs(self) -> dict[str, Any]:
        """:return: what the training environments were made with: of the file, then of the command line"""
        saved = self._saved_args().get("env_kwargs") or {}
        return env_kwargs_of(self._hyperparams().get("env_kwargs"), saved)

    def make_envs(self, n_envs: int, seed: int, env_kwargs: Mapping[str, Any]) -> VecEnv:
        """Make environments as rl-zoo's ``enjoy`` does: wrapped as in training, rewards as they are.

        :param n_envs: how many
        :param seed: of the first; the others follow it
        :param env_kwargs: of each
        :return: the environments
        """
        with redirect_stdout(io.StringIO()):  # it says for every map that it reads VecNormalize's file
            env = create_test_env(
                self.env_id,
                n_envs=n_envs,
                stats_path=str(self._settings_dir()),
                seed=seed,
                should_render=False,
                hyperparams=self._hyperparams(),
                env_kwargs=dict(env_kwargs),
                vec_env_cls=DummyVecEnv,  # a process for each would import torch for each
            )
        return cast(VecEnv, env)

    def load(self, device: str = "auto") -> BaseAlgorithm:
        """:return: the model, with no room for replay

        :param device: where its networks go
        :raises ValueError: if its file was cut off, as by a kill in the final save of an earlier version
        """
        if not is_whole_zip(self.model_path):
            raise ValueError(f"{self.model_path} is not a whole zip file: it was cut off; {_remedy(self.run_dir)}")
        algorithm = algorithms_to_watch(ALGO)[self.algo]
        return algorithm.load(str(self.model_path), device=device)

    def _settings_dir(self) -> Path:
        return self.run_dir / str(EnvironmentName(self.env_id))

    def _hyperparams(self) -> dict[str, Any]:
        hyperparams: dict[str, Any] = get_saved_hyperparams(str(self._settings_dir()), test_mode=True)[0]
        return hyperparams

    def _saved_args(self) -> dict[str, Any]:
        path = self._settings_dir() / "args.yml"
        return read_args(path) if path.is_file() else {}


class _ArgsLoader(PlainLoader):
    """Reads what rl-zoo writes into args.yml: plain containers and values, and the name of a class as text."""


def _name_as_text(_loader: _ArgsLoader, suffix: str, _node: Any) -> str:
    """Read the name of a class or function, which ``-params policy_kwargs:...`` may have left, and import nothing."""
    return suffix


_ArgsLoader.add_multi_constructor("tag:yaml.org,2002:python/name:", _name_as_text)


def read_args(path: Path) -> dict[str, Any]:
    """Read the command line that rl-zoo keeps beside a model, without running anything in it.

    rl-zoo itself reads the file with PyYAML's unsafe loader, which runs what a tag names.

    :param path: of args.yml
    :return: flag to value; ``algo`` and ``env`` are text, ``env_kwargs`` is None or a mapping
    :raises ValueError: if it holds a Python object, is not YAML, or these values are of other types
    :raises OSError: if it cannot be read
    """
    if not path.is_file() or path.stat().st_size > MAX_ARGS_BYTES:
        raise ValueError(f"{path} is not a file of up to {MAX_ARGS_BYTES:,} bytes, so rl-zoo did not write it")
    try:
        args = yaml.load(path.read_text(encoding="utf-8"), Loader=_ArgsLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is refused: {reason}. Only plain values are read from args.yml") from error
    if not isinstance(args, dict):
        raise ValueError(f"{path} holds a {type(args).__name__}: expected the flags of a training by name")
    for flag in ("algo", "env"):
        if not isinstance(args.get(flag), str):
            raise ValueError(f"{path}: {flag} is {args.get(flag)!r}: expected text")
    kwargs = args.get("env_kwargs")
    if kwargs is not None and not (isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)):
        raise ValueError(f"{path}: env_kwargs is {kwargs!r}: expected a mapping of names to values")
    return args


def find_run(folder: str, algo: str, env_id: str, exp_id: int = 0, **which: Any) -> SavedRun:
    """Find a run as rl-zoo does.

    :param folder: the log folder
    :param algo: the algorithm's name
    :param env_id: the environment's
    :param exp_id: the run's number; 0 the latest
    :param which: ``load_best``, ``load_checkpoint``, ``load_last_checkpoint``, as in ``enjoy``
    :return: the run
    :raises AssertionError: if there is no such folder
    :raises ValueError: if it holds no such model
    """
    try:
        _, model, run_dir = get_model_path(exp_id, folder, algo, EnvironmentName(env_id), **which)
    except ValueError as error:
        missing = Path(str(error).rpartition("path: ")[2])
        raise ValueError(f"{error}; {_remedy(missing if missing.is_dir() else missing.parent)}") from error
    return SavedRun(algo, env_id, Path(run_dir), Path(model))


def _remedy(run_dir: Path) -> str:
    """:return: what to do where a run has left no model, or only a part of one"""
    if not (run_dir / SNAPSHOTS).is_dir():
        return "has the run come to its end?"
    best = ", --load-best drives the best so far" if is_whole_zip(run_dir / "best_model.zip") else ""
    return f"if the run was killed, 'visual-td3 resume {run_dir}' goes on and saves it{best}"


def is_whole_zip(path: Path) -> bool:
    """Look whether a zip file can be read to its end.

    :param path: of the file
    :return: whether it is there and every part of it has its checksum
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def read_run(run_dir: Path, **which: Any) -> SavedRun:
    """Find out what lies in a folder.

    :param run_dir: the folder of one run
    :param which: as :func:`find_run`
    :return: the run
    :raises ValueError: if rl-zoo has not left it, or it holds no such model
    """
    found = sorted(run_dir.glob("*/args.yml"))
    if len(found) != 1:
        raise ValueError(f"{run_dir} is no folder of one run: expected such as logs/{ALGO}/LiteDriving-v0_1")
    args = read_args(found[0])
    run_dir = run_dir.resolve()
    name, _, number = run_dir.name.rpartition("_")
    if name == EnvironmentName(args["env"]) and number.isdigit() and run_dir.parent.name == args["algo"]:
        return find_run(str(run_dir.parents[1]), args["algo"], args["env"], int(number), **which)
    model = run_dir / ("best_model.zip" if which.get("load_best") else f"{EnvironmentName(args['env'])}.zip")
    if not model.is_file():
        raise ValueError(f"there is no model {model}: {_remedy(run_dir)}")
    return SavedRun(args["algo"], args["env"], run_dir, model)
