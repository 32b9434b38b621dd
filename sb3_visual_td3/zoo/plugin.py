"""Add our algorithm to rl_zoo3, with an experiment manager of our own.

Changes to rl_zoo3's scripts are in ``zoo.plugin_scripts``, and changes to its command lines in ``zoo.flags``. The
experiment manager uses the wrappers in ``zoo.wrappers``. Most of this module can be removed once rl_zoo3 (now 2.9) has
entry points for algorithms.
"""

from __future__ import annotations

import argparse
import copy
import os
import shlex
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import yaml

# Importing rl_zoo3 replaces gymnasium's TimeLimit. At the limit, the new class sets info["TimeLimit.truncated"].
from rl_zoo3 import exp_manager
from rl_zoo3 import train as zoo_train
from rl_zoo3.callbacks import ParallelTrainCallback, SaveVecNormalizeCallback
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS, StoreDict
from sb3_contrib import TQC
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback, ProgressBarCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_visual_td3.callbacks.driving_eval import DrivingEvalCallback
from sb3_visual_td3.callbacks.ending_signals import TrainingInterrupted, checked_signals
from sb3_visual_td3.callbacks.evaluation import lift_idle_limits, needs_server
from sb3_visual_td3.callbacks.event_writer import EVENT_FOLDER
from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
from sb3_visual_td3.callbacks.policy_eval import PolicyEvalCallback
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.saving import with_atomic_files, with_retrying_monitor
from sb3_visual_td3.callbacks.snapshot import SNAPSHOTS, SnapshotCallback
from sb3_visual_td3.common.errors import ExitCode
from sb3_visual_td3.preflight.doctor import quick_doctor
from sb3_visual_td3.runs.durable_files import atomic_write, write_atomically
from sb3_visual_td3.runs.manifest import RunEnd
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.training_state.plain_data import class_path, map_leaves
from sb3_visual_td3.visual_td3.checks import check_normalizer, check_saved_by
from sb3_visual_td3.visual_td3.policies import require_dict
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.experiment import (
    EVALUATED,
    EXPERIMENT,
    describe_experiment,
    keep_experiment,
    packages_to_allow,
    with_classes,
)
from sb3_visual_td3.zoo.flags import ALGO, store_pairs
from sb3_visual_td3.zoo.hyperparameters import (
    CONFIGS,
    DEFAULT_BLOCK,
    STOCK_VEC_ENVS,
    VEC_ENVS,
    check_classes,
    check_file,
    check_keys,
    check_numbers,
    check_structure,
    env_kwargs_of,
    find_config,
    read_counts,
    read_kwargs,
)
from sb3_visual_td3.zoo.plugin_scripts import algorithms_to_watch, create_env_to_watch, hub_errors
from sb3_visual_td3.zoo.trials import convert_visual_td3_params, sample_visual_td3_params
from sb3_visual_td3.zoo.wrappers import (
    AtomicVecNormalizeCallback,
    BeginningCallback,
    Learner,
    StoredObservations,
    companion_files,
)

# The defaults of rl-zoo's flags --eval-freq and --eval-episodes. rl-zoo does not show whether a flag was given. So if a
# flag has its default value, the hyperparameter file decides.
_ZOO_EVAL_FREQ = 25_000
_ZOO_EVAL_EPISODES = 5
_EVALUATIONS_OF_A_SHORT_RUN = 10
"""Number of evaluations of a short run without ``--eval-freq``, enough for a verdict."""
_LEAST_EVAL_FREQ = 500
"""Smallest number of steps between two evaluations without ``--eval-freq``; a guess."""
_PARTS_OF_A_VALIDATION = 5
"""A validation run is divided into this number of equal parts. Each part ends with an evaluation, and the updates begin
after the first part. The block of LiteDriving-v0 has the same proportions: 5,000 steps, evaluations every 1,000 steps,
and updates from step 1,000 on."""


def register() -> None:
    """Add the algorithm ``visual_td3`` to rl_zoo3; calling it again changes nothing.

    A script of your own calls this function and then rl_zoo3's ``train()`` or ``enjoy()``.
    """
    ALGOS[ALGO] = VisualTD3
    HYPERPARAMS_SAMPLER[ALGO] = sample_visual_td3_params
    HYPERPARAMS_CONVERTER[ALGO] = convert_visual_td3_params
    zoo_train.ExperimentManager = VisualExperimentManager
    StoreDict.__call__ = store_pairs
    with hub_errors():
        from rl_zoo3 import enjoy as zoo_enjoy
    zoo_enjoy.ALGOS = algorithms_to_watch(ALGO)
    zoo_enjoy.create_test_env = create_env_to_watch


# ---- options and result of a training run


class SaveError(OSError):
    """Report that the final files of a run could not be written."""


@dataclass(frozen=True)
class Resumption:
    """Say which run to resume, and how.

    :ivar run_dir: the RUN_DIR to continue in
    :ivar experiment: the run's saved configuration, which has been checked
    :ivar packages: packages that the user has allowed; ``experiment`` may name their classes
    :ivar without_logs: whether the run may be resumed although some of its log files are lost
    :ivar begins_again: True if the run has no snapshot and therefore starts again from step 0
    """

    run_dir: Path
    experiment: Mapping[str, Any]
    packages: Collection[str] = ()
    without_logs: bool = False
    begins_again: bool = False


@dataclass(frozen=True)
class RunOptions:
    """Hold the options of a training run in addition to rl-zoo's flags.

    :ivar signals: names of the signals on which a run with a SnapshotCallback saves a snapshot and ends. They apply if
        neither ``--end-on`` nor the hyperparameter file names signals
    :ivar stops_on_critical: True makes a critical alert end the training
    :ivar is_validation: True for the run of ``visual-td3 validate``. ``eval_freq`` is then at most a fifth of the run's
        steps. If the run has fewer steps than the hyperparameter file says, ``learning_starts`` is also at most a fifth
        of the run's steps
    :ivar resumption: the run to resume; None for a new run
    """

    signals: tuple[str, ...] = ()
    stops_on_critical: bool = False
    is_validation: bool = False
    resumption: Resumption | None = None


@dataclass
class RunResult:
    """Hold the result of a training run.

    :ivar run_dir: the folder of the run; None before it exists, and in a search
    :ivar has_started: whether training has begun
    :ivar end: how the training ended, such as ``finished``; None until it has ended
    """

    run_dir: Path | None = None
    has_started: bool = False
    end: RunEnd | None = None


# ---- the experiment manager


class VisualExperimentManager(ExperimentManager):  # type: ignore[misc]
    """Manage an experiment as rl-zoo does, with our hyperparameter files and RUN_DIR.

    The differences from rl-zoo (2.9) are:

    - without ``--conf-file``, our hyperparameter file is used if it has a block for the environment, and always for
      VisualTD3
    - without ``--tensorboard-log``, event files go to RUN_DIR/tb
    - our ``learning_rate`` may be any schedule that VisualTD3 accepts
    - a run that cannot be set up leaves no RUN_DIR
    - ``--vec-env ray`` runs environments in Ray actors, and the VecEnv is given ``vec_env_kwargs``
    - a DrivingEvalCallback or PolicyEvalCallback among the hyperparameters replaces rl-zoo's evaluation. Flags such as
      ``--eval-freq`` apply to this callback
    - without such a callback, a PolicyEvalCallback evaluates the policy. Without ``--eval-freq``, it evaluates a run of
      fewer than 250,000 steps up to ten times
    - if an environment needs a simulator server, Stable-Baselines3's EvalCallback takes the place of PolicyEvalCallback
    - a stock off-policy algorithm can train with normalized rewards on stacked or channels-last images
    - with ``-i``, ``n_timesteps`` counts the further steps; counters, schedules, VecNormalize and a saved replay buffer
      continue
    - checkpoints include VecNormalize; with ``--save-replay-buffer``, they also include the replay buffer
    - snapshots contain the configuration of the run, and a resumed run continues in its own folder
    - files are written atomically
    - run.json says how the run ended
    """

    eval_freq: int
    n_timesteps: int

    def __init__(
        self,
        args: argparse.Namespace,
        algo: str,
        env_id: str,
        *rest: Any,
        config: str | None = None,
        vec_env_type: str = "dummy",
        show_progress: bool = False,
        options: RunOptions | None = None,
        result: RunResult | None = None,
        **kwargs: Any,
    ) -> None:
        self._options = options or RunOptions()
        self._result = result or RunResult()
        self._new_folders: list[Path] = []
        self._end: tuple[RunEnd, str | None] = ("finished", None)
        self._requested_signals = _requested_signals(args)
        self._has_own_config = bool(config)
        config = find_config(config) if config else default_config(algo, env_id)
        show_progress = show_progress or sys.stderr.isatty()
        # rl-zoo looks the type up in its own dict, which does not contain "ray"; the class is set below.
        stock_type = vec_env_type if vec_env_type in STOCK_VEC_ENVS else STOCK_VEC_ENVS[0]
        kwargs |= {"show_progress": show_progress, "vec_env_type": stock_type}
        super().__init__(args, algo, env_id, *rest, config=config, **kwargs)
        resumption = self._options.resumption
        if resumption is not None:
            # On a command line, rl-zoo would evaluate these as text; here they are data.
            given = resumption.experiment.get("eval_env_kwargs")
            self.env_kwargs: dict[str, Any] = copy.deepcopy(dict(resumption.experiment.get("env_kwargs") or {}))
            self._eval_env_kwargs_args: dict[str, Any] | None = copy.deepcopy(given)
            self.eval_env_kwargs: dict[str, Any] = self._eval_env_kwargs_args or self.env_kwargs
        if vec_env_type not in STOCK_VEC_ENVS:
            self.vec_env_class: type[VecEnv] = VEC_ENVS[vec_env_type]
        self._set_run_dir(self.save_path if resumption is None else str(resumption.run_dir))

    def _set_run_dir(self, run_dir: str) -> None:
        """Set the paths of all files of the run.

        :param run_dir: folder of the run
        """
        self.save_path = run_dir
        self.params_path = f"{run_dir}/{self.env_name}"
        if not self.args.tensorboard_log:
            self.tensorboard_log: str | None = os.path.join(run_dir, EVENT_FOLDER)

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read and check the hyperparameters, and keep a copy of the plain values."""
        # rl-zoo takes ``--trial-id 0`` for "no trial" (``if self.trial_id``), so this method loads the trial.
        trial_id: int | None = self.__dict__.pop("trial_id")
        self.trial_id = None
        block = None
        if str(self.config).endswith((".yml", ".yaml")):
            block = check_file(self.config, self.env_name.gym_id, self.is_atari(self.env_name.gym_id))
        hyperparams, saved = super().read_hyperparameters()
        if trial_id is not None:
            from sb3_visual_td3.zoo.search import with_trial  # imports sqlalchemy, which a training run does not need

            hyperparams = with_trial(self, trial_id, hyperparams)
            saved = OrderedDict(sorted(hyperparams.items()))
            print(f"Hyperparameters of trial {trial_id}: {dict(saved)}")
        where = f"{self.config}, {self.env_name.gym_id}"
        # The model of -i has its policy already.
        check_keys(saved, ALGOS[self.algo], where, has_policy=self.continue_training)
        check_structure(saved, where)
        integers = check_numbers(saved, ALGOS[self.algo], where) | read_counts(saved, where)
        hyperparams.update(integers)
        saved.update(integers)
        check_classes(saved, where)
        if block == DEFAULT_BLOCK != self.env_name.gym_id:
            self._announce_default_block(int(saved["n_timesteps"]))
        if self._options.is_validation:
            self._begin_updates_early(hyperparams, saved)
        # Mappings and lists are copied. A callback in a Python file is not, because it may hold what cannot be copied.
        self._read_hyperparams: dict[str, Any] = map_leaves(saved, lambda leaf, _: leaf)
        if self._options.resumption is not None:
            # After this, no text remains that rl-zoo would evaluate.
            hyperparams = with_classes(hyperparams, self._options.resumption.packages, "the hyperparameter")
        return hyperparams, saved

    def _announce_default_block(self, n_in_block: int) -> None:
        """Print that the hyperparameter file has no block for the environment, because the user may not expect it."""
        n_timesteps = self.n_timesteps if self.n_timesteps > 0 else n_in_block
        line = (
            f"{self.config} has no block for {self.env_name.gym_id}, so its block {DEFAULT_BLOCK!r} is used, and the "
            f"run has {n_timesteps:,} steps"
        )
        if not self._has_own_config:
            line += ". '--conf-file FILE' uses a hyperparameter file of your own"
        print(line, flush=True)

    def _begin_updates_early(self, hyperparams: dict[str, Any], saved: dict[str, Any]) -> None:
        """Lower ``learning_starts`` if the run is shorter than the file says and no flag sets ``learning_starts``."""
        is_shorter = 0 < self.n_timesteps < saved.get("n_timesteps", 0)
        if not is_shorter or "learning_starts" in (self.custom_hyperparams or {}):
            return
        latest, in_file = max(self.n_timesteps // _PARTS_OF_A_VALIDATION, 1), saved.get("learning_starts", 0)
        if in_file > latest:
            print(f"learning_starts is {latest:,} instead of {int(in_file):,}, because this run is short")
            hyperparams["learning_starts"] = saved["learning_starts"] = latest

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:
        """Keep our ``learning_rate`` unchanged; rl-zoo reads every string, even "cos_1e-4", as a linear schedule."""
        if self.algo != ALGO or "learning_rate" not in hyperparams:
            return cast(dict[str, Any], super()._preprocess_schedules(hyperparams))
        others = {name: value for name, value in hyperparams.items() if name != "learning_rate"}
        return {**super()._preprocess_schedules(others), "learning_rate": hyperparams["learning_rate"]}

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        """Take ``vec_env_kwargs`` out of the hyperparameters, and let rl-zoo process the others."""
        given, where = hyperparams.pop("vec_env_kwargs", None), f"{self.config}, {self.env_name.gym_id}"
        self.vec_env_kwargs: dict[str, Any] = read_kwargs(given, self.vec_env_class, where)
        code = [name for name in EVALUATED if isinstance(hyperparams.get(name), str)]
        # The configuration of a resumed run may come from a stranger: rl-zoo must not find any code in it.
        assert not (code and self._options.resumption is not None)
        for name in code:  # rl-zoo would evaluate it without naming the hyperparameter in an error
            try:
                hyperparams[name] = eval(hyperparams[name], dict(vars(exp_manager)))
            except Exception as error:
                raise ValueError(f"{where}: {name} cannot be evaluated: {error}; correct this Python code") from error
        processed = super()._preprocess_hyperparams(hyperparams)
        if self._eval_env_kwargs_args is None:
            self.eval_env_kwargs = self.env_kwargs
        return processed

    def _preprocess_action_noise(self, hyperparams: dict[str, Any], saved: dict[str, Any], env: VecEnv) -> Any:
        """Check that the policy reads the observations, and let rl-zoo create the action noise."""
        kwargs = hyperparams.get("policy_kwargs") or {}
        has_extractor = isinstance(kwargs, Mapping) and kwargs.keys() & {"features_extractor_class", "encoder_arch"}
        if hyperparams.get("policy") == "MultiInputPolicy" and not has_extractor:
            require_dict(env.observation_space)  # Stable-Baselines3's own algorithms would raise an AttributeError
        return super()._preprocess_action_noise(hyperparams, saved, env)

    def setup_experiment(self) -> Any:
        """Set the experiment up, and leave no RUN_DIR if that fails."""
        with self._cleanup_on_failure():
            return super().setup_experiment()

    @contextmanager
    def _cleanup_on_failure(self) -> Iterator[None]:
        """Remove the new folders of the run if the body of ``with`` raises before training starts."""
        try:
            yield
        except BaseException:
            folders = [] if self._result.has_started else self._new_folders
            for folder in folders:
                if folder == Path(self.save_path):
                    shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # another run may have been created there
                    folder.rmdir()
            raise

    def create_log_folder(self) -> None:
        """Create RUN_DIR and record its path in the result; a search has no RUN_DIR."""
        if self.optimize_hyperparameters:
            return
        if self._options.resumption is None:
            self._make_run_dir()
        super().create_log_folder()
        self._result.run_dir = Path(self.save_path)

    def _make_run_dir(self) -> None:
        """Make a new RUN_DIR; if another run has taken its number since rl-zoo chose it, take the next number."""
        self._new_folders = [folder for folder in Path(self.save_path).parents if not folder.exists()]
        while True:
            try:
                os.makedirs(self.save_path)  # fails if RUN_DIR exists, so that no two runs share one
                break
            except FileExistsError:
                name, _, number = self.save_path.rpartition("_")
                self._set_run_dir(f"{name}_{int(number) + 1}")
        # The deepest folder comes first, so that each is empty when _cleanup_on_failure removes it.
        self._new_folders.insert(0, Path(self.save_path))

    def create_callbacks(self) -> None:
        """Create the callbacks, and give them RUN_DIR and the settings of the run."""
        self._refuse_parallel_training()
        if self.optimize_hyperparameters:  # each trial makes its own callbacks
            return
        evaluations = [each for each in self.callbacks if isinstance(each, DrivingEvalCallback | PolicyEvalCallback)]
        if self._options.is_validation:
            self._evaluate_often(evaluations)
        for callback in self.callbacks:
            if isinstance(callback, SnapshotCallback):
                self._prepare_snapshots(callback)
            if isinstance(callback, RunRecorderCallback | ExplosionAlertCallback) and callback.run_dir is None:
                callback.run_dir = self.save_path
            if isinstance(callback, RunRecorderCallback):
                # The manager records the end itself, after the final model has been saved.
                callback.records_the_end = False
            if isinstance(callback, ExplosionAlertCallback) and self._options.stops_on_critical:
                callback.guard.on_critical = "stop"
        self._replace_evaluation(evaluations)
        # With a positive frequency, rl-zoo would create Stable-Baselines3's EvalCallback.
        eval_freq, self.eval_freq = self.eval_freq, -1
        super().create_callbacks()
        if eval_freq > 0:
            self.callbacks.append(self._create_evaluation(eval_freq))
        # rl-zoo's own checkpoints (--save-freq) hold only the model, so -i could not continue from them; see
        # https://github.com/DLR-RM/rl-baselines3-zoo/issues/278
        for callback in self.callbacks:
            if isinstance(callback, CheckpointCallback) and callback.save_path == self.save_path:
                callback.save_replay_buffer = self.save_replay_buffer
                callback.save_vecnormalize = self.normalize
        self.callbacks[:] = [self._with_atomic_files(callback) for callback in self.callbacks]

    def _evaluate_often(self, callbacks: list[DrivingEvalCallback | PolicyEvalCallback]) -> None:
        """Set the steps between two evaluations to a fifth of the run at most, unless the user has set ``--eval-freq``.

        The flag is set too, because snapshots store the flags: a resumed run then keeps the frequency.

        :param callbacks: the evaluations in the hyperparameter file; if it is empty, a PolicyEvalCallback is added
        """
        if self.eval_freq != _ZOO_EVAL_FREQ:
            return
        fifth = max(self.n_timesteps // _PARTS_OF_A_VALIDATION, 1)
        now = min((callback.eval_freq for callback in callbacks), default=_default_eval_freq(self.n_timesteps))
        if now > fifth:
            print(f"eval_freq is {fifth:,} instead of {now:,}, because this run is short")
            self.eval_freq = self.args.eval_freq = fifth

    def _prepare_snapshots(self, callback: SnapshotCallback) -> None:
        """Tell the SnapshotCallback the folder and the configuration of the run."""
        callback.run_dir = self.save_path
        resumption = self._options.resumption
        callback.resume = resumption is not None
        if resumption is not None:
            callback.experiment, callback.without_logs = resumption.experiment, resumption.without_logs
        else:
            callback.experiment = describe_experiment(self.args, self._read_hyperparams)
        command, packages = ["visual-td3", "resume", self.save_path], packages_to_allow(callback.experiment)
        callback.resume_command = shlex.join(command + ["--allow", *packages] * bool(packages))
        # The command line overrides the hyperparameter file, and the file overrides the command's default.
        if self._requested_signals is not None:
            callback.signals = self._requested_signals
        elif callback.signals is None:
            callback.signals = self._options.signals
        # This is written now, so that a run that is killed before its first snapshot can start again.
        if not (Path(self.save_path) / EXPERIMENT).exists():
            keep_experiment(Path(self.save_path), callback.experiment)

    @staticmethod
    def _with_atomic_files(callback: BaseCallback) -> BaseCallback:
        """Return a callback that does the same as the given one, but writes its files atomically."""
        on_new_best: Any = getattr(callback, "callback_on_new_best", None)
        if isinstance(callback, EvalCallback) and type(on_new_best) is SaveVecNormalizeCallback:
            callback.callback_on_new_best = AtomicVecNormalizeCallback(on_new_best.save_freq, on_new_best.save_path)
        return with_atomic_files(callback)

    def _refuse_parallel_training(self) -> None:
        """Refuse rl-zoo's ParallelTrainCallback before training, because it works only with sac and tqc."""
        if issubclass(ALGOS[self.algo], SAC | TQC):
            return
        for callback in self.callbacks:
            if isinstance(callback, ParallelTrainCallback):
                raise ValueError(
                    f"ParallelTrainCallback works only with sac and tqc, not with {self.algo}. With {ALGO}, set "
                    "overlap: true and use --vec-env subproc: the simulator then steps while the learner trains"
                )

    def _replace_evaluation(self, callbacks: list[DrivingEvalCallback | PolicyEvalCallback]) -> None:
        """Apply rl-zoo's flags to the hyperparameter file's evaluation, and use it instead of rl-zoo's evaluation."""
        for callback in callbacks:
            if self.eval_freq <= 0:  # in rl-zoo, this switches evaluation off
                callback.eval_env.close()
                self.callbacks.remove(callback)
                continue
            callback.best_model_save_path = callback.best_model_save_path or self.save_path
            callback.log_path = callback.log_path or os.path.join(self.save_path, "evaluations")
            eval_freq = None if self.eval_freq == _ZOO_EVAL_FREQ else self.eval_freq
            n_episodes = None if self.n_eval_episodes == _ZOO_EVAL_EPISODES else self.n_eval_episodes
            if isinstance(callback, PolicyEvalCallback):
                callback.eval_freq = eval_freq or callback.eval_freq
                callback.n_eval_episodes = n_episodes or callback.n_eval_episodes
                continue
            kwargs, own = self._eval_env_kwargs_args or {}, callback.eval_env_kwargs
            if own is not None:
                kwargs = env_kwargs_of(self.env_kwargs, own, kwargs)
            callback.configure(eval_freq, n_episodes, kwargs or None)
        if callbacks:
            self.eval_freq = -1

    def _create_evaluation(self, eval_freq: int) -> EvalCallback:
        """Create an evaluation callback with rl-zoo's arguments."""
        if self.verbose > 0:
            print("Creating test environment")
        env = self.create_envs(self.n_eval_envs, eval_env=True)
        settings: dict[str, Any] = {
            "callback_on_new_best": SaveVecNormalizeCallback(save_freq=1, save_path=self.params_path),
            "best_model_save_path": self.save_path,
            "n_eval_episodes": self.n_eval_episodes,
            "log_path": self.save_path,
            "deterministic": self.deterministic_eval,
        }
        # PolicyEvalCallback refuses environments that need a server. For EvalCallback, ``env`` has a server of its own.
        # EvalCallback counts eval_freq in calls. It is called once per step of all training environments.
        if needs_server(env):
            return EvalCallback(env, eval_freq=max(eval_freq // self.n_envs, 1), **settings)
        # With few evaluations a short run would get no verdict.
        if eval_freq == _ZOO_EVAL_FREQ:
            eval_freq = _default_eval_freq(self.n_timesteps)
        return PolicyEvalCallback(env, eval_freq=eval_freq, **settings)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Create the environments; a resumed run appends its episodes to the monitor files."""
        # By default, Monitor overwrites its file. A run that starts again from step 0 has no monitor file to keep.
        resumption = self._options.resumption
        if resumption is not None and not resumption.begins_again:
            self.monitor_kwargs: dict[str, Any] = {**self.monitor_kwargs, "override_existing": False}
        monitor_kwargs = self.monitor_kwargs
        if eval_env:  # evaluations also reset in the middle of an episode
            self.monitor_kwargs = dict(monitor_kwargs)
            self.monitor_kwargs.pop("allow_early_resets", None)
        given: Callable[..., Any] | None = self.env_wrapper
        self.env_wrapper: Callable[..., Any] | None = partial(_with_retrying_monitor, wrapper=given)
        try:
            env = cast(VecEnv, super().create_envs(n_envs, eval_env, no_log or self.optimize_hyperparameters))
        finally:
            self.env_wrapper = given
            self.monitor_kwargs = monitor_kwargs
        if eval_env:
            lift_idle_limits(env)
        normalizer = unwrap_vec_normalize(env)
        algorithm = ALGOS[self.algo]
        is_stock = issubclass(algorithm, OffPolicyAlgorithm) and not issubclass(algorithm, VisualTD3)
        if not is_stock or normalizer is None or normalizer is env:
            return env
        if normalizer.norm_obs:
            check_normalizer(env.observation_space, normalizer)  # VisualTD3 does so itself
            return env
        return StoredObservations(env)

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        """Wrap the environments in VecNormalize if requested, or load the VecNormalize of the model to continue."""
        if not self.continue_training:
            return self._with_new_statistics(env, eval_env)
        stats = companion_files(self.trained_agent, str(self.env_name)).vecnormalize
        if not stats.exists():
            return cast(VecEnv, super()._maybe_normalize(env, eval_env))
        print(f"Loading VecNormalize from {stats}")
        normalizer = VecNormalize.load(str(stats), env)
        normalizer.training = not eval_env
        if eval_env:
            normalizer.norm_reward = False
        self.normalize = True
        return normalizer

    def _with_new_statistics(self, env: VecEnv, eval_env: bool) -> VecEnv:
        """Wrap the environments in a new VecNormalize if the hyperparameters request it.

        rl-zoo's own method (2.9) would first look for a ``vecnormalize.pkl`` in a subfolder of the current folder, and
        unpickle it. This method does not, because unpickling a stranger's file can execute code.
        """
        if not self.normalize:
            return env
        kwargs = dict(self.normalize_kwargs)
        if eval_env:
            kwargs |= {"norm_reward": False, "training": False}
        if self.verbose > 0:
            print(f"Normalization activated: {kwargs}" if kwargs else "Normalizing input and reward")
        return VecNormalize(env, **kwargs)

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        """Load the model that ``-i`` names, with its own replay buffer."""
        print("Loading pretrained agent")
        for name in ("policy", "policy_kwargs"):  # other values do not fit the weights
            hyperparams.pop(name, None)
        check_saved_by(self.trained_agent, ALGOS[self.algo])
        settings = {"seed": self.seed, "tensorboard_log": self.tensorboard_log, "verbose": self.verbose}
        model = ALGOS[self.algo].load(self.trained_agent, env=env, device=self.device, **settings, **hyperparams)
        replay = companion_files(self.trained_agent, str(self.env_name)).replay_buffer
        if replay.exists() and isinstance(model, OffPolicyAlgorithm):
            print(f"Loading replay buffer from {replay}")
            any_n_envs = {"any_n_envs": True} if isinstance(model, VisualTD3) else {}
            model.load_replay_buffer(str(replay), self.truncate_last_trajectory, **any_n_envs)
        return cast(BaseAlgorithm, model)

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        """Save the configuration, each file atomically; a resumed run does not save it again."""
        if self._options.resumption is not None and (Path(self.params_path) / "args.yml").is_file():
            return
        saved_hyperparams = OrderedDict(saved_hyperparams)
        if "callback" in saved_hyperparams:
            saved_hyperparams["callback"] = _named(saved_hyperparams["callback"])
        # rl-zoo writes to ``params_path``. This is a temporary folder here, from which the complete files are moved.
        params_path = Path(self.params_path)
        with tempfile.TemporaryDirectory() as folder:
            self.params_path = folder
            try:
                super()._save_config(saved_hyperparams)
            finally:
                self.params_path = str(params_path)
            for written in sorted(Path(folder).iterdir()):
                write_atomically(params_path / written.name, written.read_bytes())

    def learn(self, model: BaseAlgorithm) -> None:
        """Train the model, and record how the training ended.

        :param model: the model to train
        :raises TrainingInterrupted: if a signal ended the training
        """
        with self._cleanup_on_failure():
            if not getattr(self.args, "no_doctor", False) and self._options.resumption is None:
                examination = quick_doctor(model, int(self.n_timesteps))
                if self.verbose > 0 or examination.findings:
                    print(examination.one_line())
            for callback in self.callbacks:
                if isinstance(callback, SnapshotCallback):
                    callback.prepare(model)
                if isinstance(callback, ExplosionAlertCallback):
                    callback.guard.prepare(self.callbacks)
            # A progress bar comes first, because rl-zoo calls on_training_end() of the first callback. A
            # SnapshotCallback comes last, because it saves the state of the other callbacks after the step.
            self.callbacks.sort(
                key=lambda each: (isinstance(each, SnapshotCallback), not isinstance(each, ProgressBarCallback))
            )
            first = self.callbacks[0] if self.callbacks else None
            self.callbacks.insert(0, BeginningCallback(first, self._begin))
            learner = Learner(model, continues=self.continue_training)
            try:
                super().learn(learner)
            except BaseException as error:
                # After an exception, rl-zoo closes the environments. If their workers died, closing raises another
                # exception, which must not hide the first.
                cause = learner.error or error
                if isinstance(cause, TrainingInterrupted):
                    raise cause from None
                if not isinstance(cause, KeyboardInterrupt):
                    self._record_end("crashed", _describe_crash(cause))
                    self._add_to_traceback(error)
                    raise
            finally:
                for callback in self.callbacks:
                    if isinstance(callback, SnapshotCallback):
                        callback.release()
        self._end = self._find_end(learner.error)

    def _how_to_continue(self) -> str | None:
        """Return the command that resumes the run, and from which step; None if the run has no snapshot."""
        for callback in self.callbacks:
            if isinstance(callback, SnapshotCallback):
                snapshots = SnapshotStore(Path(self.save_path) / SNAPSHOTS).all()
                if snapshots:
                    return f"'{callback.resume_command}' continues from step {snapshots[-1].step:,}"
        return None

    def _add_to_traceback(self, error: BaseException) -> None:
        """Make the traceback of an exception end with the command that resumes the run."""
        how = self._how_to_continue()
        if how is None or not self._result.has_started:
            return
        if sys.version_info >= (3, 11):
            error.add_note(how)
        else:
            print(how, file=sys.stderr)

    def _find_end(self, error: BaseException | None) -> tuple[RunEnd, str | None]:
        if isinstance(error, KeyboardInterrupt):
            return "interrupted", "by Ctrl-C"  # rl-zoo catches this exception and saves the model
        for callback in self.callbacks:
            if isinstance(callback, RunRecorderCallback) and callback.end is not None:
                return callback.end, callback.end_reason
        return "finished", None

    def _record_end(self, end: RunEnd, reason: str | None) -> None:
        self._result.end = end
        for callback in self.callbacks:
            if isinstance(callback, RunRecorderCallback):
                try:
                    callback.record_end(end, reason)
                except OSError as error:
                    if end == "finished":
                        raise
                    print(f"run.json: the end of the run could not be recorded: {error}", file=sys.stderr)

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save the model and its companion files, and record in run.json how the run ended.

        :param model: the model to save
        :raises SaveError: if a file cannot be written
        """
        end, reason = self._end
        # "finished" means that the model is saved, and 'visual-td3 resume' then does nothing. So it is written last.
        if end != "finished":
            self._record_end(end, reason)
        try:
            self._save_each(model)
            if end == "finished":
                self._record_end(end, reason)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            self._record_end("crashed", f"the final files could not be saved: {error}")
            raise SaveError(self._describe_save_error(error)) from error
        if end == "interrupted":
            line = f"Ctrl-C: the training ended at step {model.num_timesteps:,} with exit code {ExitCode.INTERRUPTED}"
            how = self._how_to_continue()
            print(line if how is None else f"{line}. {how}", file=sys.stderr, flush=True)

    def _save_each(self, model: BaseAlgorithm) -> None:
        print(f"Saving to {self.save_path}")
        if self.save_replay_buffer and isinstance(model, OffPolicyAlgorithm):
            print("Saving replay buffer")
            with atomic_write(Path(self.save_path) / "replay_buffer.pkl") as temporary:
                model.save_replay_buffer(temporary)
        if self.normalize:
            normalizer = model.get_vec_normalize_env()
            assert normalizer is not None
            with atomic_write(Path(self.params_path) / "vecnormalize.pkl") as temporary:
                normalizer.save(str(temporary))
        with atomic_write(Path(self.save_path) / f"{self.env_name}.zip") as temporary:
            model.save(temporary)

    def _describe_save_error(self, error: Exception) -> str:
        if any(isinstance(callback, SnapshotCallback) for callback in self.callbacks):
            remedy = f"free some disk space, then save the model with 'visual-td3 resume {self.save_path}'"
        else:
            remedy = "the run cannot be resumed, because the hyperparameters contain no SnapshotCallback"
        return f"the training is complete, but {self.save_path} could not be saved: {error}; {remedy}"

    def _begin(self) -> None:
        self._result.has_started = True

    def hyperparameters_optimization(self) -> None:
        """Run the hyperparameter search that ``-optimize`` requests."""
        from sb3_visual_td3.zoo.search import optimize

        optimize(self, self._begin)


def _with_retrying_monitor(env: gym.Env[Any, Any], wrapper: Callable[..., Any] | None, **kwargs: Any) -> Any:
    """Make an environment's Monitor retry failed writes, and then apply the hyperparameter ``env_wrapper``."""
    env = with_retrying_monitor(env)
    if wrapper is None:
        return env
    return wrapper(env, **kwargs)


def _named(callbacks: Any) -> Any:
    """Return the names of callbacks' classes instead of the callbacks that a hyperparameter file in Python creates.

    Some callbacks cannot be written as YAML, for example those that hold a lock.
    """
    if isinstance(callbacks, list):
        return [_named(callback) for callback in callbacks]
    if isinstance(callbacks, BaseCallback):
        return class_path(type(callbacks))
    return callbacks


def _default_eval_freq(n_timesteps: int) -> int:
    """Return the steps between two evaluations without ``--eval-freq``; fewer than rl-zoo's if the run is short."""
    return min(_ZOO_EVAL_FREQ, max(n_timesteps // _EVALUATIONS_OF_A_SHORT_RUN, _LEAST_EVAL_FREQ))


def _requested_signals(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the signals of ``--end-on``; None if the flag was not given."""
    names = getattr(args, "end_on", None)
    if names is None:
        return None
    if names == ["none"]:
        return ()
    return checked_signals(names)


def _describe_crash(error: BaseException) -> str:
    """Describe the exception that ended training."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
        return f"a worker process of the environments has died ({text})"
    return text


def default_config(algo: str, env_id: str) -> str | None:
    """Return the path of our hyperparameter file for an algorithm and an environment.

    :param algo: name of the algorithm
    :param env_id: id of the environment
    :return: the path, if the algorithm is ours or the file has a block for the environment; None leaves the choice to
        rl-zoo
    """
    resource = CONFIGS.joinpath(f"{algo}.yml")
    if not resource.is_file():
        return None
    with as_file(resource) as path:
        blocks = yaml.safe_load(path.read_text(encoding="utf-8"))
        if env_id in blocks or algo == ALGO:
            return str(path)
    return None
