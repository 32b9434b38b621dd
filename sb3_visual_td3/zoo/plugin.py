"""Every edit of rl_zoo3, and nothing else.

rl_zoo3 keeps its algorithms in one shared dict and has no entry points for more (seen in rl_zoo3 2.9); when it has
them, this file can go.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar, cast

import gymnasium as gym
import yaml

# rl_zoo3 patches gymnasium's TimeLimit when it is imported, to let it step on after a time limit.
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
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_visual_td3.callbacks.driving_eval import DrivingEvalCallback
from sb3_visual_td3.callbacks.ending_signals import TrainingInterrupted, checked_signals
from sb3_visual_td3.callbacks.explosion_alert import ExplosionAlertCallback
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.saving import Saver, with_atomic_files, with_retrying_monitor
from sb3_visual_td3.callbacks.snapshot import SnapshotCallback
from sb3_visual_td3.runs.durable_files import atomic_write, write_atomically
from sb3_visual_td3.runs.manifest import RunEnd
from sb3_visual_td3.visual_td3.visual_td3 import VisualTD3
from sb3_visual_td3.zoo.continuation import BeginningCallback, Continued, Learner, beside
from sb3_visual_td3.zoo.environments import env_kwargs_of
from sb3_visual_td3.zoo.experiment import EVALUATED, EXPERIMENT, describe_experiment, keep_experiment
from sb3_visual_td3.zoo.flags import store_pairs
from sb3_visual_td3.zoo.hyperparameters import (
    STOCK,
    VEC_ENVS,
    check_counts,
    check_keys,
    check_numbers,
    check_structure,
    read_kwargs,
)
from sb3_visual_td3.zoo.known_classes import with_classes
from sb3_visual_td3.zoo.plugin_scripts import algorithms_to_watch, hub_errors
from sb3_visual_td3.zoo.sampling import convert_visual_td3_params, sample_visual_td3_params

ALGO = "visual_td3"
CONFIGS = files("sb3_visual_td3.zoo_configs")
_ZOO_EVAL_FREQ = 25_000
_ZOO_EVAL_EPISODES = 5
"""What rl-zoo's flags say where they are not given: then the hyperparameter file decides."""


def register() -> None:
    """Teach rl_zoo3 the algorithm ``visual_td3``; calling it again changes nothing.

    A script of your own needs no more than this and rl_zoo3's ``train()`` or ``enjoy()``.
    """
    ALGOS[ALGO] = VisualTD3
    HYPERPARAMS_SAMPLER[ALGO] = sample_visual_td3_params
    HYPERPARAMS_CONVERTER[ALGO] = convert_visual_td3_params
    zoo_train.ExperimentManager = VisualExperimentManager
    StoreDict.__call__ = store_pairs
    with hub_errors():
        from rl_zoo3 import enjoy as zoo_enjoy
    zoo_enjoy.ALGOS = algorithms_to_watch(ALGO)


class WholeVecNormalizeCallback(SaveVecNormalizeCallback):  # type: ignore[misc]
    """rl-zoo's callback that saves VecNormalize beside a new best model, whose file is whole."""

    state_class: ClassVar[type] = SaveVecNormalizeCallback
    _saver: Saver | None = None

    def _on_step(self) -> bool:
        normalizer = self.model.get_vec_normalize_env()
        if self.n_calls % self.save_freq == 0 and normalizer is not None:
            saver = self._saver = self._saver or Saver()
            saver.save(os.path.join(self.save_path, "vecnormalize.pkl"), lambda begun: normalizer.save(str(begun)))
        return True


def _with_patient_monitor(env: gym.Env[Any, Any], wrapper: Callable[..., Any] | None, **kwargs: Any) -> Any:
    """:return: an environment in the hyperparameters' wrapper, whose Monitor waits where the disk is full"""
    env = with_retrying_monitor(env)
    return env if wrapper is None else wrapper(env, **kwargs)


class SaveError(OSError):
    """What a run leaves at its end could not be written."""


@dataclass(frozen=True)
class RunOptions:
    """What a command asks of a training beside rl-zoo's flags.

    :ivar signals: which signals end a training in order, where neither the command line nor the hyperparameter file
        says it
    :ivar stops_on_critical: whether a critical alert ends the training, whatever the hyperparameter file says
    :ivar resumed_run_dir: the RUN_DIR to go on in, from its newest good snapshot
    :ivar resumed_experiment: how that run was started, as plain data that has been checked
    :ivar resumed_packages: packages of the user's own whose classes that description may name
    :ivar resumes_without_logs: whether that run goes on without log files that are lost
    :ivar begins_again: whether that run has no snapshot yet, so that it begins again there
    """

    signals: tuple[str, ...] = ()
    stops_on_critical: bool = False
    resumed_run_dir: Path | None = None
    resumed_experiment: Mapping[str, Any] | None = None
    resumed_packages: Collection[str] = ()
    resumes_without_logs: bool = False
    begins_again: bool = False


@dataclass
class RunResult:
    """What became of a training, as far as it came; it is filled in while the training runs.

    :ivar run_dir: the folder of the run; None before it is made, and where hyperparameters are searched for
    :ivar has_started: whether training has begun, the environment reset, so that an error is not a mistake of the
        command line
    :ivar end: how it ended; None before it has
    """

    run_dir: Path | None = None
    has_started: bool = False
    end: RunEnd | None = None


class VisualExperimentManager(ExperimentManager):  # type: ignore[misc]
    """rl-zoo's experiment manager, with our hyperparameter files and RUN_DIR.

    - without ``--conf-file``, our file for the algorithm is read where we have one for the environment
    - without ``--tensorboard-log``, event files go to RUN_DIR/tb (rl-zoo would write none)
    - our ``learning_rate`` may be any schedule that we know
    - a misspelt hyperparameter is named before anything is made, and what cannot be set up leaves no RUN_DIR
    - ``--vec-env ray`` steps environments in Ray actors, and ``vec_env_kwargs`` of the hyperparameter file are read
    - callbacks that write into RUN_DIR are told where it is
    - where the hyperparameters hold a DrivingEvalCallback, it takes the place of rl-zoo's evaluation, with its flags
    - ``-i`` makes n more steps: counters, schedules, VecNormalize and, where it was saved, replay go on
    - ``--trial-id 0`` is trial 0; checkpoints hold VecNormalize, and replay with ``--save-replay-buffer``
    - a progress bar is shown on a terminal
    - a SnapshotCallback learns how the run was started; where a run is resumed, its folder is written on
    - files are written beside and renamed; run.json says how the run ended, ``finished`` after all else is saved
    """

    eval_freq: int

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
        self._made: list[Path] = []
        self._end: tuple[RunEnd, str | None] = ("finished", None)
        self._signals_given = _signals_given(args)
        config = _shipped(config) if config else default_config(algo, env_id)
        show_progress = show_progress or sys.stderr.isatty()
        kwargs |= {"show_progress": show_progress, "vec_env_type": vec_env_type if vec_env_type in STOCK else STOCK[0]}
        super().__init__(args, algo, env_id, *rest, config=config, **kwargs)
        if self._options.resumed_experiment is not None:  # rl-zoo's flags for these are text that it evaluates
            given = self._options.resumed_experiment.get("eval_env_kwargs")
            self.env_kwargs: dict[str, Any] = copy.deepcopy(
                dict(self._options.resumed_experiment.get("env_kwargs") or {})
            )
            self._eval_env_kwargs_args: dict[str, Any] | None = copy.deepcopy(given)
            self.eval_env_kwargs: dict[str, Any] = self._eval_env_kwargs_args or self.env_kwargs
        if vec_env_type not in STOCK:
            self.vec_env_class: type[VecEnv] = VEC_ENVS[vec_env_type]
        if self._options.resumed_run_dir is not None:
            self.save_path = str(self._options.resumed_run_dir)
            self.params_path = f"{self.save_path}/{self.env_name}"
        if not args.tensorboard_log:
            self.tensorboard_log: str | None = os.path.join(self.save_path, "tb")

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read them, and remember them as they were read: rl-zoo makes objects of them.

        rl-zoo takes ``--trial-id 0`` for none, so it is not shown any.
        """
        trial_id: int | None = self.__dict__.pop("trial_id")
        self.trial_id = None
        hyperparams, saved = super().read_hyperparameters()
        if trial_id is not None:
            from sb3_visual_td3.zoo.search import with_trial  # imports sqlalchemy, which a training does not need

            hyperparams = with_trial(self, trial_id, hyperparams)
            saved = OrderedDict(sorted(hyperparams.items()))
            print(f"Hyperparameters of trial {trial_id}: {dict(saved)}")
        where = f"{self.config}, {self.env_name.gym_id}"
        check_keys(saved, ALGOS[self.algo], where)
        check_structure(saved, where)
        check_numbers(saved, ALGOS[self.algo], where)
        check_counts(saved, where)
        self._read_hyperparams = copy.deepcopy(dict(saved))
        if self._options.resumed_experiment is not None:  # nothing is left that rl-zoo would evaluate
            hyperparams = with_classes(hyperparams, self._options.resumed_packages, "the hyperparameter")
        return hyperparams, saved

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:
        """Leave our ``learning_rate`` as it is written: rl-zoo makes a line of every string, "cos_1e-4" included."""
        if self.algo != ALGO or "learning_rate" not in hyperparams:
            return cast(dict[str, Any], super()._preprocess_schedules(hyperparams))
        others = {name: value for name, value in hyperparams.items() if name != "learning_rate"}
        return {**super()._preprocess_schedules(others), "learning_rate": hyperparams["learning_rate"]}

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> Any:
        """Evaluate on an environment made as the one of training, where nothing else is said."""
        given, where = hyperparams.pop("vec_env_kwargs", None), f"{self.config}, {self.env_name.gym_id}"
        self.vec_env_kwargs: dict[str, Any] = read_kwargs(given, self.vec_env_class, where)
        code = [name for name in EVALUATED if isinstance(hyperparams.get(name), str)]
        assert not (code and self._options.resumed_experiment is not None)
        try:
            processed = super()._preprocess_hyperparams(hyperparams)
        except ArithmeticError as error:  # of code in the file, such as 1/0, which rl-zoo has run
            raise ValueError(f"{where}: {' or '.join(code)} cannot be evaluated: {error}") from error
        if self._eval_env_kwargs_args is None:
            self.eval_env_kwargs = self.env_kwargs
        return processed

    def setup_experiment(self) -> Any:
        """Set it up; what cannot be set up leaves no RUN_DIR."""
        with self._nothing_left():
            return super().setup_experiment()

    @contextmanager
    def _nothing_left(self) -> Iterator[None]:
        """Remove the RUN_DIR, and the folders above it that were made for it, if it comes to nothing."""
        try:
            yield
        except BaseException:
            for folder in () if self._result.has_started else self._made:
                if folder == Path(self.save_path):
                    shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # another run is there by now
                    folder.rmdir()
            raise

    def create_log_folder(self) -> None:
        """Make RUN_DIR and remember it; a search has none."""
        if self.optimize_hyperparameters:
            return
        run_dir = Path(self.save_path)
        self._made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
        super().create_log_folder()
        self._result.run_dir = run_dir

    def create_callbacks(self) -> None:
        """Tell callbacks where RUN_DIR is; the list holds the hyperparameter file's when this is called."""
        self._refuse_parallel_training()
        if self.optimize_hyperparameters:  # the trials make their own
            return
        for callback in self.callbacks:
            if isinstance(callback, SnapshotCallback):
                callback.run_dir = self.save_path
                callback.experiment = self._options.resumed_experiment or describe_experiment(
                    self.args, self._read_hyperparams
                )
                callback.resume = self._options.resumed_run_dir is not None
                callback.without_logs = self._options.resumes_without_logs
                if self._signals_given is not None:
                    callback.signals = self._signals_given
                elif callback.signals is None:
                    callback.signals = self._options.signals
                if not (Path(self.save_path) / EXPERIMENT).exists():
                    keep_experiment(Path(self.save_path), callback.experiment)
            if isinstance(callback, RunRecorderCallback | ExplosionAlertCallback) and callback.run_dir is None:
                callback.run_dir = self.save_path
            if isinstance(callback, RunRecorderCallback):
                callback.records_the_end = False
            if isinstance(callback, ExplosionAlertCallback) and self._options.stops_on_critical:
                callback.guard.on_critical = "stop"
        self._take_over_evaluation([each for each in self.callbacks if isinstance(each, DrivingEvalCallback)])
        super().create_callbacks()
        for callback in self.callbacks:
            if isinstance(callback, CheckpointCallback) and callback.save_path == self.save_path:
                callback.save_replay_buffer = self.save_replay_buffer
                callback.save_vecnormalize = self.normalize
        self.callbacks[:] = [self._whole(callback) for callback in self.callbacks]

    @staticmethod
    def _whole(callback: BaseCallback) -> BaseCallback:
        """:return: a callback that does the same, whose files are whole, where it is one of those that write files"""
        on_new_best: Any = getattr(callback, "callback_on_new_best", None)
        if isinstance(callback, EvalCallback) and type(on_new_best) is SaveVecNormalizeCallback:
            callback.callback_on_new_best = WholeVecNormalizeCallback(on_new_best.save_freq, on_new_best.save_path)
        return with_atomic_files(callback)

    def _refuse_parallel_training(self) -> None:
        """Say before training that rl-zoo's ParallelTrainCallback is for two algorithms alone."""
        if not issubclass(ALGOS[self.algo], SAC | TQC):
            for callback in self.callbacks:
                if isinstance(callback, ParallelTrainCallback):
                    raise ValueError(
                        f"ParallelTrainCallback trains sac and tqc alone, not {self.algo}: with {ALGO}, overlap: true "
                        "and --vec-env subproc let the simulator step while the learner trains"
                    )

    def _take_over_evaluation(self, callbacks: list[DrivingEvalCallback]) -> None:
        """Have our evaluation obey rl-zoo's flags, and take the place of rl-zoo's."""
        for callback in callbacks:
            if self.eval_freq < 0:
                callback.eval_env.close()
                self.callbacks.remove(callback)
                continue
            callback.best_model_save_path = callback.best_model_save_path or self.save_path
            callback.log_path = callback.log_path or os.path.join(self.save_path, "evaluations")
            given, own = self._eval_env_kwargs_args or {}, callback.eval_env_kwargs
            kwargs = given if own is None else env_kwargs_of(self.env_kwargs, own, given)
            callback.configure(
                None if self.eval_freq == _ZOO_EVAL_FREQ else max(self.eval_freq, 1),
                None if self.n_eval_episodes == _ZOO_EVAL_EPISODES else self.n_eval_episodes,
                kwargs or None,
            )
        if callbacks:
            self.eval_freq = -1

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """Make them; the episodes of a run that is resumed are written after those that are there."""
        if self._options.resumed_run_dir is not None and not self._options.begins_again:
            self.monitor_kwargs: dict[str, Any] = {**self.monitor_kwargs, "override_existing": False}
        given: Callable[..., Any] | None = self.env_wrapper
        self.env_wrapper: Callable[..., Any] | None = partial(_with_patient_monitor, wrapper=given)
        try:
            return cast(VecEnv, super().create_envs(n_envs, eval_env, no_log or self.optimize_hyperparameters))
        finally:
            self.env_wrapper = given

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        """Go on with the VecNormalize that belongs to the model, which of a checkpoint is not that of the run's end."""
        if not self.continue_training:
            return self._normalized(env, eval_env)
        stats = beside(self.trained_agent, str(self.env_name)).vecnormalize
        if not stats.exists():
            return cast(VecEnv, super()._maybe_normalize(env, eval_env))
        print(f"Loading VecNormalize from {stats}")
        normalizer = VecNormalize.load(str(stats), env)
        normalizer.training = not eval_env
        if eval_env:
            normalizer.norm_reward = False
        self.normalize = True
        return normalizer

    def _normalized(self, env: VecEnv, eval_env: bool) -> VecEnv:
        """Begin with fresh statistics.

        rl-zoo (seen in rl_zoo3 2.9) would look for ``ENV/vecnormalize.pkl`` in the current folder, which may be a run's
        own folder or a stranger's, and load it with pickle.
        """
        if not self.normalize:
            return env
        kwargs = {**self.normalize_kwargs, **({"norm_reward": False, "training": False} if eval_env else {})}
        if self.verbose > 0:
            print(f"Normalization activated: {kwargs}" if kwargs else "Normalizing input and reward")
        return VecNormalize(env, **kwargs)

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        """Load it, a checkpoint with the replay buffer of its own, in any number of environments.

        rl-zoo's own method does the same, but hands the replay buffer over as it is.
        """
        print("Loading pretrained agent")
        for name in ("policy", "policy_kwargs"):  # the weights fit no others
            hyperparams.pop(name, None)
        settings = {"seed": self.seed, "tensorboard_log": self.tensorboard_log, "verbose": self.verbose}
        model = ALGOS[self.algo].load(self.trained_agent, env=env, device=self.device, **settings, **hyperparams)
        replay = beside(self.trained_agent, str(self.env_name)).replay_buffer
        if replay.exists() and isinstance(model, OffPolicyAlgorithm):
            print(f"Loading replay buffer from {replay}")
            of_any_number = {"any_n_envs": True} if isinstance(model, VisualTD3) else {}
            model.load_replay_buffer(str(replay), self.truncate_last_trajectory, **of_any_number)
        return cast(BaseAlgorithm, model)

    def _save_config(self, saved_hyperparams: dict[str, Any]) -> None:
        """Save them once, each file whole: a run that is resumed has its own."""
        if self._options.resumed_run_dir is not None and (Path(self.params_path) / "args.yml").is_file():
            return
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
        """Train.

        Whatever happens, rl-zoo ends the first callback of the list: the progress bar, where there is one. A snapshot
        is taken last, when the others have seen the step.

        :raises TrainingInterrupted: if a signal ended the training
        """
        with self._nothing_left():
            for callback in self.callbacks:
                if isinstance(callback, SnapshotCallback):
                    callback.prepare(model)
                if isinstance(callback, ExplosionAlertCallback):
                    callback.guard.prepare(self.callbacks)
            self.callbacks.sort(
                key=lambda each: (isinstance(each, SnapshotCallback), not isinstance(each, ProgressBarCallback))
            )
            first = self.callbacks[0] if self.callbacks else None
            self.callbacks.insert(0, BeginningCallback(first, self._begin))
            learner = Learner(Continued(model) if self.continue_training else model)
            try:
                super().learn(learner)
            except BaseException as error:
                # rl-zoo closes the environments on the way. Where their workers have died with the training, that
                # raises another exception, which must not hide the first.
                cause = learner.error or error
                if isinstance(cause, TrainingInterrupted):
                    raise cause from None
                if not isinstance(cause, KeyboardInterrupt):
                    self._record_end("crashed", _in_words(cause))
                    raise
            finally:
                for callback in self.callbacks:
                    if isinstance(callback, SnapshotCallback):
                        callback.release()
        self._end = self._how_it_ended(learner.error)

    def _how_it_ended(self, error: BaseException | None) -> tuple[RunEnd, str | None]:
        if isinstance(error, KeyboardInterrupt):
            return "interrupted", "by Ctrl-C"
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
                    print(f"run.json: how the run ended could not be written: {error}", file=sys.stderr)

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """Save the model and what belongs to it, and then say in run.json that the run is finished.

        :param model: trained, or as far as it came before Ctrl-C
        :raises SaveError: if something cannot be written; what was there stays
        """
        end, reason = self._end
        if end != "finished":
            self._record_end(end, reason)
        try:
            self._save_each(model)
            if end == "finished":
                self._record_end(end, reason)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where the disk is full
            self._record_end("crashed", f"the end could not be saved: {error}")
            raise SaveError(self._what_failed(error)) from error

    def _save_each(self, model: BaseAlgorithm) -> None:
        print(f"Saving to {self.save_path}")
        if self.save_replay_buffer and isinstance(model, OffPolicyAlgorithm):
            print("Saving replay buffer")
            with atomic_write(Path(self.save_path) / "replay_buffer.pkl") as begun:
                model.save_replay_buffer(begun)
        if self.normalize:
            normalizer = model.get_vec_normalize_env()
            assert normalizer is not None
            with atomic_write(Path(self.params_path) / "vecnormalize.pkl") as begun:
                normalizer.save(str(begun))
        with atomic_write(Path(self.save_path) / f"{self.env_name}.zip") as begun:
            model.save(begun)

    def _what_failed(self, error: Exception) -> str:
        has_snapshots = any(isinstance(callback, SnapshotCallback) for callback in self.callbacks)
        remedy = "the hyperparameters hold no SnapshotCallback, so it cannot be resumed"
        if has_snapshots:
            remedy = f"make room, then 'visual-td3 resume {self.save_path}' saves it"
        return f"the training is done, but {self.save_path} could not be saved: {error}; {remedy}"

    def _begin(self) -> None:
        self._result.has_started = True

    def hyperparameters_optimization(self) -> None:
        """Search for hyperparameters."""
        from sb3_visual_td3.zoo.search import optimize

        optimize(self, self._begin)


def _signals_given(args: argparse.Namespace) -> tuple[str, ...] | None:
    """:return: what ``--end-on`` says; None where it was not given"""
    given = getattr(args, "end_on", None)
    if given is None:
        return None
    return () if given == ["none"] else checked_signals(given)


def _in_words(error: BaseException) -> str:
    """:return: what happened; an end of file or a broken pipe is how the death of a worker process shows"""
    words = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, EOFError | BrokenPipeError | ConnectionResetError):
        return f"a worker process of the environments has died ({words})"
    return words


def _shipped(config: str) -> str:
    """:return: the path of our file of this name, where the name is bare and no such file lies in the current folder"""
    resource = CONFIGS.joinpath(config)
    if os.path.basename(config) != config or os.path.exists(config) or not resource.is_file():
        return config
    with as_file(resource) as path:
        return str(path)


def default_config(algo: str, env_id: str) -> str | None:
    """Find our hyperparameter file.

    :param algo: the algorithm's name
    :param env_id: the environment's
    :return: its path where it speaks of the environment (or the algorithm is ours); None leaves the choice to rl-zoo
    """
    resource = CONFIGS.joinpath(f"{algo}.yml")
    if not resource.is_file():
        return None
    with as_file(resource) as path:
        known = yaml.safe_load(path.read_text(encoding="utf-8"))
        return str(path) if env_id in known or algo == ALGO else None
