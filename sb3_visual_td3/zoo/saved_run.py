"""Find a saved run of rl-zoo, load its model, and make the environment of its training.

``visual-td3 evaluate`` and ``export`` use this module.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import rl_zoo3.import_envs  # noqa: F401 - registers environments
import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import ALGOS, get_model_path, get_saved_hyperparams
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_visual_td3.callbacks.event_writer import EVENT_FOLDER
from sb3_visual_td3.callbacks.saving import BEST_MODEL
from sb3_visual_td3.callbacks.snapshot import SNAPSHOTS
from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.input_files import PlainLoader
from sb3_visual_td3.runs.manifest import FILE_NAME
from sb3_visual_td3.visual_td3.checks import check_saved_by
from sb3_visual_td3.zoo.flags import ALGO
from sb3_visual_td3.zoo.hyperparameters import env_kwargs_of
from sb3_visual_td3.zoo.plugin_scripts import algorithms_to_watch, create_env_to_watch, no_numbered_run

MAX_ARGS_BYTES = 1_000_000


class SavedRun(NamedTuple):
    """Describe a saved run of rl-zoo.

    :ivar algo: name of the algorithm in rl-zoo
    :ivar env_id: id of the environment
    :ivar run_dir: the folder of the run
    :ivar model_path: zip file of the model
    """

    algo: str
    env_id: str
    run_dir: Path
    model_path: Path

    def env_kwargs(self) -> dict[str, Any]:
        """Return the arguments of the training environments; the command line overrides the hyperparameter file."""
        saved = self._saved_args().get("env_kwargs") or {}
        return env_kwargs_of(self._hyperparams().get("env_kwargs"), saved)

    def gym_packages(self) -> list[str]:
        """Return the modules that ``--gym-packages`` named in training."""
        packages = self._saved_args().get("gym_packages") or []
        return [str(each) for each in packages] if isinstance(packages, list) else []

    def make_envs(self, n_envs: int, seed: int, env_kwargs: Mapping[str, Any]) -> VecEnv:
        """Make environments that are wrapped as in training, but without an idle limit and without reward scaling.

        :param n_envs: number of environments
        :param seed: seed of the first environment
        :param env_kwargs: arguments of each environment
        """
        with redirect_stdout(io.StringIO()):  # rl-zoo prints a line about VecNormalize for each map
            return create_env_to_watch(
                self.env_id,
                model_path=self.model_path,
                n_envs=n_envs,
                stats_path=str(self._settings_dir()),
                seed=seed,
                should_render=False,
                hyperparams=self._hyperparams(),
                env_kwargs=dict(env_kwargs),
                vec_env_cls=DummyVecEnv,  # each subprocess would import torch
            )

    def load(self, device: str = "auto") -> BaseAlgorithm:
        """Load the run's model to evaluate or export it.

        A VisualTD3 model is loaded with a replay buffer of minimal size, because it is not trained any further.

        :param device: device of the networks, such as ``"cpu"``
        :raises ValueError: if the model's file is missing or truncated, or if another algorithm saved it
        """
        if not is_complete_zip(self.model_path):
            raise ValueError(f"{self.model_path} is not a complete zip file: it is truncated; {_remedy(self.run_dir)}")
        check_saved_by(self.model_path, ALGOS[self.algo])
        algorithm = algorithms_to_watch(ALGO)[self.algo]
        return algorithm.load(str(self.model_path), device=device)

    def scales_observations(self) -> bool:
        """Return whether VecNormalize scaled the observations of the training."""
        hyperparams = self._hyperparams()
        return bool(hyperparams.get("normalize")) and (hyperparams.get("normalize_kwargs") or {}).get("norm_obs", True)

    def _settings_dir(self) -> Path:
        return self.run_dir / str(EnvironmentName(self.env_id))

    def _hyperparams(self) -> dict[str, Any]:
        hyperparams: dict[str, Any] = get_saved_hyperparams(str(self._settings_dir()), test_mode=True)[0]
        return hyperparams

    def _saved_args(self) -> dict[str, Any]:
        path = self._settings_dir() / "args.yml"
        if not path.is_file():
            return {}
        return read_args(path)


class _ArgsLoader(PlainLoader):
    """Load rl-zoo's args.yml as plain values; the name of a class or function becomes text."""


def _name_as_text(_loader: _ArgsLoader, suffix: str, _node: Any) -> str:
    """Return the name of a class or function in args.yml."""
    return suffix


_ArgsLoader.add_multi_constructor("tag:yaml.org,2002:python/name:", _name_as_text)


def read_args(path: Path) -> dict[str, Any]:
    """Read the command line that rl-zoo saves with a model, without executing anything.

    :param path: path of args.yml
    :return: values by flag; ``algo`` and ``env`` are text, ``env_kwargs`` is None or a mapping
    :raises ValueError: if the file is missing, too large or not YAML, or if a value is a Python object or has
        the wrong type
    :raises OSError: if the file cannot be read
    """
    if not path.is_file() or path.stat().st_size > MAX_ARGS_BYTES:
        raise ValueError(
            f"{path} is not a regular file, or is larger than {MAX_ARGS_BYTES:,} bytes: expected the file that rl-zoo "
            "writes"
        )
    try:
        args = yaml.load(path.read_text(encoding="utf-8"), Loader=_ArgsLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = in_one_line(error)
        raise ValueError(f"{path} is refused: {reason}. Expected plain values, as rl-zoo writes them") from error
    if not isinstance(args, dict):
        raise ValueError(
            f"{path} holds a value of type {type(args).__name__}: expected a mapping of training flags to values"
        )
    for flag in ("algo", "env"):
        if not isinstance(args.get(flag), str):
            raise ValueError(f"{path}: {flag} is {args.get(flag)!r}: expected text")
    kwargs = args.get("env_kwargs")
    if kwargs is not None and not (isinstance(kwargs, dict) and all(isinstance(key, str) for key in kwargs)):
        raise ValueError(f"{path}: env_kwargs is {kwargs!r}: expected a mapping of names to values")
    return args


def find_run(folder: str, algo: str, env_id: str, exp_id: int = 0, **which: Any) -> SavedRun:
    """Find a run by its algorithm, environment and number, as rl-zoo does.

    :param folder: the log folder, such as ``logs``
    :param algo: name of the algorithm
    :param env_id: id of the environment
    :param exp_id: number of the run; 0 is the latest
    :param which: flags that choose the model: ``load_best``, ``load_checkpoint``, ``load_last_checkpoint``
    :raises AssertionError: if the run does not exist
    :raises ValueError: if the run has no such model
    """
    try:
        _, model, run_dir = get_model_path(exp_id, folder, algo, EnvironmentName(env_id), **which)
    except (AssertionError, ValueError) as error:
        if text := no_numbered_run(Path(folder, algo), exp_id, EnvironmentName(env_id), "give RUN_DIR,"):
            raise ValueError(text) from error
        if isinstance(error, AssertionError):
            raise
        missing = Path(str(error).rpartition("path: ")[2])
        if which.get("load_checkpoint") is not None or which.get("load_last_checkpoint"):
            raise ValueError(_without_checkpoint(missing)) from error
        raise ValueError(f"{error}; {_remedy(missing.parent)}") from error
    return SavedRun(algo, env_id, Path(run_dir), Path(model))


def _without_checkpoint(missing: Path) -> str:
    """Describe a missing checkpoint.

    :param missing: path of the checkpoint, or the folder of a run without any checkpoint
    """
    if missing.is_dir():
        found = f"{missing} has no checkpoints"
    else:
        found = f"{missing.parent} has no checkpoint {missing.name}"
        if checkpoints := _checkpoints(missing.parent):
            found += f"; it has those of the steps {', '.join(map(str, sorted(checkpoints)))}"
    return f"{found}. 'visual-td3 train --save-freq N' writes a checkpoint every N steps"


def _checkpoints(run_dir: Path) -> dict[int, Path]:
    """Return the checkpoints of a run, by the step at which they were saved."""
    numbered = {each.stem.split("_")[-2]: each for each in run_dir.glob("rl_model_*_steps.zip")}
    return {int(name): path for name, path in numbered.items() if name.isdecimal()}


def _remedy(run_dir: Path) -> str:
    """Return advice on a run whose model is missing or truncated."""
    if not (run_dir / SNAPSHOTS).is_dir():
        return "has the run finished?"
    remedy = f"if the run was killed, 'visual-td3 resume {run_dir}' continues and saves it"
    if is_complete_zip(run_dir / BEST_MODEL):
        remedy += ", and --load-best loads the best model so far"
    return remedy


def is_complete_zip(path: Path) -> bool:
    """Return whether a zip file exists and is complete.

    :param path: path of the file
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def read_run(run_dir: Path, **which: Any) -> SavedRun:
    """Read a run from its folder.

    :param run_dir: the folder of one run
    :param which: flags that choose the model, see :func:`find_run`
    :raises ValueError: if it is not a run's folder, or has no such model
    """
    found = sorted(run_dir.glob("*/args.yml"))
    if not found and any((run_dir / name).exists() for name in (FILE_NAME, EVENT_FOLDER, SNAPSHOTS)):
        raise ValueError(
            f"{run_dir} is a run that 'visual-td3 train' did not start, so this command cannot make its environment. "
            "In a script, load the model with VisualTD3.load; evaluate_policy of Stable-Baselines3 evaluates it, and "
            "exportable_actor of sb3_visual_td3.visual_td3.export makes a torch module of it"
        )
    if len(found) != 1:
        raise ValueError(
            f"{run_dir} is not the folder of one run: expected a folder such as logs/{ALGO}/LiteDriving-v0_1"
        )
    args = read_args(found[0])
    run_dir = run_dir.resolve()
    model = _model_in(run_dir, args["env"], **which)
    if not model.is_file():
        raise ValueError(f"there is no model {model}: {_remedy(run_dir)}")
    return SavedRun(args["algo"], args["env"], run_dir, model)


def _model_in(
    run_dir: Path,
    env_id: str,
    load_best: bool = False,
    load_checkpoint: int | None = None,
    load_last_checkpoint: bool = False,
) -> Path:
    """Return the path of the model that the flags choose, also in a folder that was moved or renamed.

    :raises ValueError: if there is no such checkpoint
    """
    if load_best:
        return run_dir / BEST_MODEL
    if load_checkpoint is not None:
        model = run_dir / f"rl_model_{load_checkpoint}_steps.zip"
        if not model.is_file():
            raise ValueError(_without_checkpoint(model))
        return model
    if load_last_checkpoint:
        checkpoints = _checkpoints(run_dir)
        if not checkpoints:
            raise ValueError(_without_checkpoint(run_dir))
        return checkpoints[max(checkpoints)]
    return run_dir / f"{EnvironmentName(env_id)}.zip"
