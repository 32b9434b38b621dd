"""Puts a whole training aside while it runs, and takes it up again after the process was killed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.ending_signals import EXIT_RESUMABLE, EndingSignals, TrainingInterrupted, checked_signals
from sb3_visual_td3.callbacks.event_writer import run_directory
from sb3_visual_td3.callbacks.run_files import ResumedFiles, find_run_files, run_files_state
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.saving import first_waiting, make_event_files_retry
from sb3_visual_td3.runs.durable_files import refuse_links
from sb3_visual_td3.runs.manifest import package_versions
from sb3_visual_td3.runs.run_lock import RunLock
from sb3_visual_td3.runs.snapshot import Health, NoSnapshotError, Snapshot, SnapshotError, describing_errors
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.training_state.callback_state import callbacks_in, unknown_callbacks
from sb3_visual_td3.training_state.model_settings import settings_of
from sb3_visual_td3.training_state.training import (
    go_back,
    require_same_training,
    require_snapshot_support,
    set_training_state,
    training_state,
)

SNAPSHOTS = "snapshots"
"""Name of the folder in RUN_DIR."""
MODEL = "model.zip"
"""Name of Stable-Baselines3's own file of the model in a snapshot, for ``load()``."""


@runtime_checkable
class HealthJudge(Protocol):
    """A callback that knows whether the training is healthy, such as ExplosionAlertCallback."""

    @property
    def is_healthy(self) -> bool:
        """Whether nothing critical lasts."""

    @property
    def n_updates_in_doubt(self) -> int:
        """How many updates an alert that begins later may reach back."""

    @property
    def has_ended_training(self) -> bool:
        """Whether the next step is the last."""


class SnapshotCallback(BaseCallback):
    """Puts the training aside every ``save_freq`` steps, so that a killed run continues as if nothing had happened.

    A snapshot in ``RUN_DIR/snapshots`` holds weights and optimizers (as Stable-Baselines3's own ``model.zip``, for
    ``load()`` as well), the replay buffer, VecNormalize, every random state, counters, what callbacks have gathered,
    and the environment where it can hand over its state (``get_state()`` and ``set_state()``, as LiteDriving-v0 has).
    The run is then the one that was never killed, bit for bit; another environment begins a new episode, and that is
    said. Snapshots are data, never code; each is complete or not there, and writes only what is new.

    It is the last in the list of callbacks, so that the others have seen a step before it is put aside. A first
    snapshot is taken before the first step, and a last one when all steps are made: a finished script that is called
    again has the model of the end and trains nothing. If one after the first cannot be written (a full disk), that is
    said, the last good one stays and training goes on.

    A signal in ``signals`` ends the training in order: the step and the rollout are finished, a snapshot is taken, and
    the process exits with code 75 (EX_TEMPFAIL: try again). If the rollout does not end within 12 seconds, as in a
    long evaluation, the process exits without a new snapshot. A second signal ends it at once. Workers of a
    SubprocVecEnv ignore these signals meanwhile. The handlers that were there come back when training ends. Python
    handles signals in the main thread alone: training in another thread is not ended in this way.

    With an ExplosionAlertCallback in the list, a snapshot is healthy unless a critical alert lasted when it was taken
    (or less than a window of updates before), or had begun to show by then; ``visual-td3 resume RUN_DIR --list`` says
    so. Beside the last ``keep`` snapshots stay the newest healthy one that no later alert can reach back to, and the
    one that will be so next, where they are none of them.

    A run of ``visual-td3 train`` is continued by ``visual-td3 resume RUN_DIR``. A script is called again with
    ``resume=True``, everything else as the first time::

        model.learn(1_000_000, callback=[GradientNormCallback(), SnapshotCallback(run_dir="runs/a", resume=True)])

    :param save_freq: environment steps between two snapshots; one is taken between two rollouts
    :param run_dir: the run's folder; by default that of its event files
    :param keep: how many snapshots to keep; the replay data that they share is there once
    :param resume: whether to go on from the newest good snapshot in ``run_dir``; where there is none, training starts
    :param verbose: 0 tells about mistakes only, 1 what is resumed, 2 each snapshot
    :param signals: names of the signals that end the training in order, such as ``["SIGTERM", "SIGUSR1"]``. None
        stands for none in a script and for these two under ``visual-td3 train`` and ``resume``
    :raises ValueError: if a number is below 1, a signal is unknown or cannot be handled, or there is to be resumed
        without a ``run_dir``; before training starts, if the model or its replay buffer cannot be put aside, if the
        snapshots there are another run's, or if the model is not made as the one in the snapshot was
    """

    experiment: Mapping[str, Any] | None = None
    """How the run was started, as plain data: told by whoever can start it again."""
    must_resume: bool = False
    """Whether it is a mistake if there is nothing to resume."""
    without_logs: bool = False
    """Whether a run whose log files are lost, cut or cannot be written is resumed without them."""

    def __init__(
        self,
        save_freq: int = 10_000,
        run_dir: str | Path | None = None,
        keep: int = 2,
        resume: bool = False,
        verbose: int = 1,
        signals: Sequence[str] | None = None,
    ) -> None:
        super().__init__(verbose)
        if save_freq < 1 or keep < 1:
            raise ValueError(f"save_freq={save_freq}, keep={keep}: expected numbers >= 1")
        if resume and run_dir is None:
            raise ValueError("SnapshotCallback(resume=True) has no run_dir: give the folder of the run to go on with")
        self.save_freq = save_freq
        self.run_dir = run_dir
        self.keep = keep
        self.resume = resume
        self.signals = None if signals is None else checked_signals(signals)
        self._signals: EndingSignals | None = None
        self._store: SnapshotStore | None = None
        self._lock: RunLock | None = None
        self._snapshot: Snapshot | None = None
        self._files: ResumedFiles | None = None
        self._last_saved: int | None = None
        self._last_failed = 0
        self._judges: list[HealthJudge] = []

    def prepare(self, model: BaseAlgorithm) -> None:
        """Find out, before anything is begun, whether the training can be put aside, and what there is to resume.

        :param model: the model to train
        :raises ValueError: as the class says
        """
        self.release()
        folder = self.run_dir or run_directory(model.logger)
        if folder is None:
            raise ValueError("SnapshotCallback has no folder to write to: give run_dir, or the model a tensorboard_log")
        off_policy = require_snapshot_support(model)
        self._folder = Path(folder)
        store = SnapshotStore(self._folder / SNAPSHOTS)
        store.folder.mkdir(parents=True, exist_ok=True)
        if self.resume:
            refuse_links(self._folder)
        self._lock = RunLock(self._folder / SNAPSHOTS / "lock")
        self._lock.acquire()
        self._snapshot = self._find(store)
        if self._snapshot is not None:
            self._check(self._snapshot, off_policy)
        self._settings = settings_of(off_policy)
        self._store = store

    def _check(self, snapshot: Snapshot, model: OffPolicyAlgorithm) -> None:
        """Refuse a snapshot that another run has left, or that this version has not written.

        :raises ValueError: if it cannot be resumed; nothing has changed then
        """
        with describing_errors(f"{snapshot.path} cannot be resumed"):
            require_same_training(model, snapshot.state["training"])
            self._files = find_run_files(
                self._folder,
                snapshot.state["files"],
                model.tensorboard_log,
                model.logger.dir if model._custom_logger else None,
                self.without_logs,
            )

    def _find(self, store: SnapshotStore) -> Snapshot | None:
        """:return: what to resume, if anything"""
        if self.resume:
            try:
                return store.newest()
            except NoSnapshotError:
                if self.must_resume:
                    raise
                return None
        there = store.all()
        if there:
            raise ValueError(
                f"{store.folder} holds snapshots of another run, up to step {there[-1].step:,}: go on with it by "
                "SnapshotCallback(resume=True) or 'visual-td3 resume', or give another run_dir"
            )
        return None

    def _init_callback(self) -> None:
        if self._store is None:
            self.prepare(self.model)
        if self._files is not None:
            self._files.continue_event_files(self.model)
        make_event_files_retry(self.model.logger)

    def _on_training_start(self) -> None:
        root: BaseCallback = self.locals["callback"]
        vars(root).pop("on_training_end", None)  # of a training before, which an exception ended
        everyone = callbacks_in(root)
        later = [type(callback).__name__ for callback in everyone[everyone.index(self) + 1 :]]
        if set(later) - {"ProgressBarCallback"}:
            raise ValueError(
                f"SnapshotCallback is followed by {', '.join(later)}: put it last in the list of callbacks, so that "
                "the others have seen a step before it is put aside"
            )
        self._root = root
        self._judges = [callback for callback in everyone if isinstance(callback, HealthJudge)]
        for name in unknown_callbacks(root):
            self._say(f"{name} has no get_state() and set_state(): in a resumed run it starts anew")
        self._last_saved = None
        if self._snapshot is not None:
            has_moved = self._go_on_from(self._snapshot)
            # Where event files have moved, the next snapshot says so, and is taken before the first step.
            self._last_saved = self._snapshot.step - (self.save_freq if has_moved else 0)
        self._snapshot = self._files = None
        self._last_failed = 0
        # Stable-Baselines3 tells callbacks of the end in the order of the list, and this one is the last in it. The
        # last snapshot has to be taken before the others have ended, as every other one is.
        self._end_all = root.on_training_end
        root.on_training_end = self._on_end_of_all  # type: ignore[method-assign]
        self._signals = EndingSignals(self.signals or (), self.model, self._end_late)
        evaluated_on = [getattr(callback, "eval_env", None) for callback in everyone]
        envs = [self.training_env, *(env for env in evaluated_on if isinstance(env, VecEnv))]
        self._signals.install(envs)

    def _go_on_from(self, snapshot: Snapshot) -> bool:
        """:return: whether the run logs to another folder from now on"""
        assert self._files is not None
        for line in snapshot.skipped:
            self._say(f"passed over {line}")
        state = snapshot.state
        total = self.locals["total_timesteps"]
        with describing_errors(f"{snapshot.path} cannot be resumed"):
            was_total = int(state["training"]["model"]["counters"]["_total_timesteps"])
        if total != was_total:
            raise SnapshotError(
                f"the run in {self._folder} was to have {was_total:,} steps, this one is to have {total:,}: call "
                "learn() as the first time, for schedules depend on it"
            )
        assert isinstance(self.model, OffPolicyAlgorithm)
        with describing_errors(f"{snapshot.path} cannot be resumed"):
            told = set_training_state(self.model, self._root, state["training"], snapshot.file(MODEL))
            has_moved = self._files.cut_back(self.logger, snapshot.step)
        told += self._files.lines
        if self.verbose and snapshot.step >= total:
            print(f"{self._folder} is finished: all {total:,} steps were made, nothing is trained")
        elif self.verbose:
            print(f"resumed at step {snapshot.step:,} of {total:,} from {snapshot.path}")
        for line in [*_changed_versions(snapshot.versions), *told]:
            self._say(line)
        return has_moved

    def _on_rollout_start(self) -> None:
        if self._signals is not None and self._signals.received is not None:
            self._end_on_signal(self._signals.received)
        if self._judge_has_ended_training():
            return  # there is nothing left to go on with
        if self._last_saved is None:
            self.save()
        elif self.model.num_timesteps - max(self._last_saved, self._last_failed) >= self.save_freq:
            self._save_or_go_on()

    def _judge_has_ended_training(self) -> bool:
        return any(judge.has_ended_training for judge in self._judges)

    def _save_or_go_on(self) -> None:
        try:
            self.save()
        except SnapshotError as error:
            self._last_failed = self.model.num_timesteps
            print(f"snapshot: {error}; training goes on", file=sys.stderr)

    def _end_on_signal(self, signal_name: str) -> None:
        """Take a snapshot and end the process.

        :raises TrainingInterrupted: always
        """
        assert self._signals is not None
        self._signals.begin_snapshot()
        if self.model.num_timesteps != self._last_saved and not self._judge_has_ended_training():
            try:
                self.save()
            except (SnapshotError, EOFError, ConnectionError) as error:  # the last two: a worker has died
                print(f"snapshot: none was taken of step {self.model.num_timesteps:,}: {error!r}", file=sys.stderr)
        self._end_late(signal_name)
        raise TrainingInterrupted(signal_name)

    def _end_late(self, signal_name: str) -> None:
        """Say where the training goes on, and end what has to be ended before the process exits."""
        at = "before the first snapshot" if self._last_saved is None else f"from step {self._last_saved:,}"
        print(
            f"{signal_name}: the training ends at step {self.model.num_timesteps:,} with exit code {EXIT_RESUMABLE}. "
            f"Resumed, it goes on {at}: {self._folder}",
            file=sys.stderr,
            flush=True,
        )
        for callback in callbacks_in(self._root):
            if isinstance(callback, RunRecorderCallback):
                try:
                    callback.record_end("interrupted", f"by {signal_name}")
                except OSError as error:
                    print(f"run.json: how the run ended could not be written: {error}", file=sys.stderr)
        self.release()

    def _on_step(self) -> bool:
        return True

    def _on_end_of_all(self) -> None:
        """Take the last snapshot, then end all callbacks."""
        del self._root.on_training_end
        is_complete = self.model.num_timesteps >= self.locals["total_timesteps"]
        if is_complete and not self._judge_has_ended_training() and self._last_saved != self.model.num_timesteps:
            self._save_or_go_on()
        self._end_all()

    def _on_training_end(self) -> None:
        self.release()

    def save(self) -> None:
        """Put the training aside now; to be called between two rollouts, as ``on_rollout_start`` is.

        :raises SnapshotError: if it cannot be written; what was there stays
        """
        assert self._store is not None
        model = self.model
        assert isinstance(model, OffPolicyAlgorithm)
        waiting = first_waiting()
        if waiting is not None:  # a run that goes on from here would lack what waits
            raise SnapshotError(f"{waiting.path} lacks what has been logged, for it cannot be written")
        state = {
            "experiment": self.experiment,
            "training": training_state(model, self._root, self._settings),
            "files": run_files_state(self._folder, self.logger),
        }
        saved = self._store.save(
            model.num_timesteps, state, {MODEL: model.save}, self.keep, package_versions(), self._health()
        )
        self._last_saved = model.num_timesteps
        if self.verbose >= 2:
            print(
                f"snapshot of step {saved.step:,} in {saved.seconds:.1f} s: {saved.n_bytes_written / 1e6:,.1f} MB new "
                f"of {saved.n_bytes_total / 1e6:,.1f}"
            )

    def newest_healthy(self, n_updates: int) -> Snapshot | None:
        """Find what there is to go back to.

        :param n_updates: gradient updates that it has made at most
        :return: the last healthy snapshot; None if there is none
        """
        assert self._store is not None
        try:
            return self._store.newest_healthy(n_updates)
        except SnapshotError:
            return None

    def mark_unhealthy(self, n_updates: int) -> None:
        """Take back that snapshots are healthy, if they have made more gradient updates than this."""
        assert self._store is not None
        try:
            self._store.mark_unhealthy(n_updates)
        except (OSError, SnapshotError) as error:
            print(f"snapshot: {self._folder / SNAPSHOTS}: unhealthy ones could not be marked: {error}", file=sys.stderr)

    def go_back_to(self, snapshot: Snapshot) -> None:
        """Return to what had been learnt by then; all else goes on.

        :param snapshot: of :meth:`newest_healthy`
        """
        assert isinstance(self.model, OffPolicyAlgorithm)
        go_back(self.model, snapshot.state["training"], snapshot.file(MODEL))

    def _health(self) -> Health | None:
        if not self._judges:
            return None
        assert isinstance(self.model, OffPolicyAlgorithm)
        return Health(
            is_healthy=all(judge.is_healthy for judge in self._judges),
            n_updates=self.model._n_updates,
            n_in_doubt=max(judge.n_updates_in_doubt for judge in self._judges),
        )

    def get_state(self) -> dict[str, Any]:
        """:return: nothing: what it knows is where the snapshots are"""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take up."""

    def _say(self, line: str) -> None:
        if self.verbose:
            print(f"snapshot: {line}")

    def release(self) -> None:
        """Let the run and the signals go; for whoever sees the exception that ended the training."""
        if self._signals is not None:
            self._signals.restore()
        if self._lock is not None:
            self._lock.release()
        self._lock = self._store = None


def _changed_versions(then: Mapping[str, str]) -> list[str]:
    """Compare what is installed with what a snapshot says; snapshots of earlier versions say nothing.

    :param then: package name to version
    :return: one line where a package has changed, which may change the numbers; none otherwise
    """
    now = package_versions()
    changed = [
        f"{name} {then[name]} -> {now.get(name, 'not installed')}" for name in then if then[name] != now.get(name)
    ]
    if not changed:
        return []
    return [f"packages have changed since ({', '.join(changed)}): it may not be the same run bit for bit"]
