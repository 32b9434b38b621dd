"""Save snapshots of a whole training run, and resume a killed run from them.

``training_state`` collects and restores the state, :mod:`~sb3_visual_td3.runs.snapshot_store` reads and writes the
files, and :mod:`~sb3_visual_td3.callbacks.run_files` handles the log files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.ending_signals import EndingSignals, TrainingInterrupted, checked_signals
from sb3_visual_td3.callbacks.event_writer import run_directory
from sb3_visual_td3.callbacks.run_files import ResumedFiles, find_run_files, run_files_state
from sb3_visual_td3.callbacks.run_recorder import RunRecorderCallback
from sb3_visual_td3.callbacks.saving import first_waiting, make_event_files_retry
from sb3_visual_td3.common.errors import ExitCode
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.runs.durable_files import refuse_links
from sb3_visual_td3.runs.manifest import package_versions
from sb3_visual_td3.runs.run_lock import RunLock
from sb3_visual_td3.runs.snapshot import Health, NoSnapshotError, Snapshot, SnapshotError, describing_errors
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.training_state.callback_state import callbacks_in, unknown_callbacks
from sb3_visual_td3.training_state.model_settings import described_arguments
from sb3_visual_td3.training_state.model_state import noises_in_part
from sb3_visual_td3.training_state.training import (
    go_back,
    require_same_training,
    require_snapshot_support,
    set_training_state,
    training_state,
)

SNAPSHOTS = "snapshots"
"""Name of the snapshots' folder in RUN_DIR."""
MODEL = "model.zip"
"""Name of Stable-Baselines3's own model file in a snapshot, which ``load()`` accepts."""


def run_lock(run_dir: Path) -> RunLock:
    """Return the lock that keeps other processes from training a run.

    :param run_dir: folder of the run
    """
    return RunLock(run_dir / SNAPSHOTS / "lock")


@runtime_checkable
class HealthJudge(Protocol):
    """Define what SnapshotCallback needs from a callback that judges the health of the training."""

    @property
    def is_healthy(self) -> bool:
        """Return False during a critical alert and shortly after it, and if the callback has ended the training."""

    @property
    def n_updates_in_doubt(self) -> int:
        """Return the detection delay: a problem may begin up to this many updates before its first alert."""

    @property
    def has_ended_training(self) -> bool:
        """Return whether the callback has decided to end the training. SB3 then stops after the next step."""


class SnapshotCallback(BaseCallback):
    """Save the whole training every ``save_freq`` steps, so a killed run can continue as if it had not been killed.

    A snapshot in ``RUN_DIR/snapshots`` holds the model (``model.zip``, which ``load()`` accepts as well), the replay
    buffer, VecNormalize, every random state, and the state of all callbacks and of the environment. If the
    environment has ``get_state()`` and ``set_state()``, the resumed run is equal, bit for bit, to a run that was never
    killed. Otherwise, the resumed run begins with a new episode. A snapshot contains data and never code.

    Put this callback last in the list: the other callbacks must have processed a step before it is saved. If a snapshot
    after the first one cannot be written, a message says so, and training continues.

    A signal in ``signals`` ends the training after the current rollout: a snapshot is taken, and the process exits with
    code 75 (EX_TEMPFAIL: try again). If the rollout does not end within 12 seconds, the process exits without a new
    snapshot. A second signal ends the process at once. Signals are handled in the main thread only.

    With an ExplosionAlertCallback in the list, each snapshot is marked as healthy or unhealthy; ``visual-td3 resume
    RUN_DIR --list`` shows the marks. A snapshot is unhealthy if a critical alert was active when the snapshot was
    taken, or in the 200 updates before. A critical alert in the 210 updates (by default) after the snapshot can also
    make it unhealthy. Up to three healthy snapshots are kept for a rollback, besides the last ``keep`` snapshots.

    ``visual-td3 resume RUN_DIR`` continues a run of ``visual-td3 train``. To continue your own script, set
    ``resume=True`` and run the script again without other changes::

        model.learn(1_000_000, callback=[GradientNormCallback(), SnapshotCallback(run_dir="runs/a", resume=True)])

    :param save_freq: environment steps between two snapshots, each taken between two rollouts
    :param run_dir: folder of the run; None takes the folder of the run that the event files belong to
    :param keep: number of newest snapshots to keep; they share replay data
    :param resume: whether to continue from the newest good snapshot in ``run_dir``; without such a snapshot, training
        starts from the beginning
    :param verbose: 0 prints errors only, 1 also what is resumed, 2 also a line for each snapshot
    :param signals: names of the signals that end the training. With None, ``visual-td3 train`` and ``resume``
        use SIGTERM and SIGUSR1, but a script uses no signals.
    :raises ValueError: if an argument is out of range, or ``resume`` is set without ``run_dir``. ``learn()`` raises it
        if the model cannot be saved, or if the snapshots in the folder belong to another run or other settings.
    """

    experiment: Mapping[str, Any] | None = None
    """Flags and hyperparameters of the run, as plain data. ``visual-td3 train`` sets this attribute, and ``visual-td3
    resume`` starts the run again with these values."""
    resume_command: str | None = None
    """Command that resumes the run; ``visual-td3 train`` sets this attribute."""
    must_resume: bool = False
    """Whether to raise an error if a resumed run has no snapshot. If False, training starts from the beginning."""
    without_logs: bool = False
    """Whether to resume a run even if its log files are missing, truncated or not writable."""

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
        if resume and run_dir is None:
            raise ValueError("SnapshotCallback(resume=True) has no run_dir: give the folder of the run to resume")
        self.save_freq = to_integer("save_freq", save_freq, 1)
        self.run_dir = run_dir
        self.keep = to_integer("keep", keep, 1)
        self.resume = resume
        self.signals = None if signals is None else checked_signals(signals)
        self._signals: EndingSignals | None = None
        self._store: SnapshotStore | None = None
        self._has_begun = False
        self._lock: RunLock | None = None
        self._snapshot: Snapshot | None = None
        self._files: ResumedFiles | None = None
        self._last_saved: int | None = None
        self._last_failed = 0
        self._judges: list[HealthJudge] = []

    def prepare(self, model: BaseAlgorithm) -> None:
        """Check, before training starts, whether the training can be saved, and find what to resume.

        :param model: the model to train
        :raises ValueError: as described for the class
        """
        self.release()
        self._has_begun, self._files = False, None
        folder = self.run_dir or run_directory(model.logger)
        if folder is None:
            raise ValueError(
                "SnapshotCallback has no folder to write to: pass run_dir, or set the model's tensorboard_log"
            )
        off_policy = require_snapshot_support(model)
        self._folder = Path(folder)
        store = SnapshotStore(self._folder / SNAPSHOTS)
        store.folder.mkdir(parents=True, exist_ok=True)
        if self.resume:
            refuse_links(self._folder)
        # The lock keeps other processes from training this run.
        self._lock = run_lock(self._folder)
        try:
            self._lock.acquire()
        except OSError as error:
            raise SnapshotError(
                f"{store.folder} cannot be written: {error.strerror}. Free some space on the disk, or change the "
                "permissions of the folder"
            ) from error
        try:
            self._snapshot = self._find(store)
            if self._snapshot is not None:
                self._check(self._snapshot, off_policy)
            self._settings = described_arguments(off_policy)
        except BaseException:
            # Otherwise, no other process could train the run until this process ends.
            self.release()
            raise
        self._store = store

    def _check(self, snapshot: Snapshot, model: OffPolicyAlgorithm) -> None:
        """Refuse a snapshot that belongs to another run, or that this version cannot read.

        :raises ValueError: if the snapshot cannot be resumed; nothing has changed then
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
        """Return the snapshot from which to resume; None if training starts from the beginning."""
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
                f"{store.folder} holds snapshots of another run, up to step {there[-1].step:,}: continue that run with "
                "SnapshotCallback(resume=True) or 'visual-td3 resume', or give another run_dir. A run is one call of "
                "learn(), so each call needs its own run_dir"
            )
        return None

    def _init_callback(self) -> None:
        # The callbacks of an earlier training must not be searched.
        self._judges = []
        # If an exception ended an earlier training, the store is still that of the earlier run.
        if self._store is None or self._has_begun:
            self.prepare(self.model)
        self._has_begun = True
        if self._files is not None:
            self._files.continue_event_files(self.model)
        make_event_files_retry(self.model.logger)

    def _on_training_start(self) -> None:
        root = self._root
        # The code below replaces the root callback's method on_training_end during training. If an exception ended an
        # earlier training, the replacement is still in place.
        vars(root).pop("on_training_end", None)
        all_callbacks = callbacks_in(root)
        later = [type(callback).__name__ for callback in all_callbacks[all_callbacks.index(self) + 1 :]]
        if set(later) - {"ProgressBarCallback"}:
            raise ValueError(
                f"SnapshotCallback is followed by {', '.join(later)}: put SnapshotCallback last in the list of "
                "callbacks, because all other callbacks must process a step before a snapshot is saved"
            )
        self._judges = [callback for callback in all_callbacks if isinstance(callback, HealthJudge)]
        assert isinstance(self.model, OffPolicyAlgorithm)
        for name in [*unknown_callbacks(root), *noises_in_part(self.model.action_noise)]:
            self._say(f"{name} has no get_state() and set_state(), so a resumed run starts it from the beginning")
        self._last_saved = None
        if self._snapshot is not None:
            has_moved = self._resume(self._snapshot)
            # If event files were copied to a new folder, a snapshot before the first step notes the new folder.
            self._last_saved = self._snapshot.step
            if has_moved:
                self._last_saved -= self.save_freq
        self._snapshot = self._files = None
        self._last_failed = 0
        # At the end, Stable-Baselines3 calls on_training_end() in the order of the list, and this callback is the last.
        # But like all snapshots, the last one must be taken before the other callbacks end. So the method of the root
        # callback is replaced for this training.
        root.on_training_end = self._on_end_of_all  # type: ignore[method-assign]
        self._signals = EndingSignals(self.signals or (), self.model, self._end_run)
        evaluated_on = [getattr(callback, "eval_env", None) for callback in all_callbacks]
        envs = [self.training_env, *(env for env in evaluated_on if isinstance(env, VecEnv))]
        self._signals.install(envs)

    @property
    def _root(self) -> BaseCallback:
        """Return the callback of ``learn()``, which holds all callbacks."""
        root: BaseCallback = self.locals["callback"]
        return root

    def _resume(self, snapshot: Snapshot) -> bool:
        """Restore the training, and return whether its event files were copied to another folder.

        :param snapshot: the snapshot to resume
        """
        assert self._files is not None
        for line in snapshot.skipped:
            self._say(f"skipped {line}")
        state = snapshot.state
        total = self.locals["total_timesteps"]
        with describing_errors(f"{snapshot.path} cannot be resumed"):
            was_total = int(state["training"]["model"]["counters"]["_total_timesteps"])
        if total != was_total:
            raise SnapshotError(
                f"the run in {self._folder} was started with {was_total:,} steps, but this call has {total:,}: call "
                f"learn() with total_timesteps={was_total}, because schedules depend on the number of steps"
            )
        assert isinstance(self.model, OffPolicyAlgorithm)
        with describing_errors(f"{snapshot.path} cannot be resumed"):
            messages = set_training_state(self.model, self._root, state["training"], snapshot.file(MODEL))
            has_moved = self._files.cut_back(self.logger, snapshot.step)
        messages += self._files.lines
        if self.verbose and snapshot.step >= total:
            print(f"{self._folder} is finished: all {total:,} steps were made, so there is nothing left to train")
        elif self.verbose:
            print(f"resumed at step {snapshot.step:,} of {total:,} from {snapshot.path}")
        for line in [*_changed_versions(snapshot.versions), *messages]:
            self._say(line)
        return has_moved

    def _on_rollout_start(self) -> None:
        if self._signals is not None and self._signals.received is not None:
            self._end_on_signal(self._signals.received)
        # The guard has ended the training because the weights are unhealthy, so a snapshot of them would be useless.
        if self._judge_has_ended_training():
            return
        # The very first snapshot may raise an error: if it cannot be written now, later snapshots probably cannot be
        # written either.
        if self._last_saved is None:
            self.save()
        elif self.model.num_timesteps - max(self._last_saved, self._last_failed) >= self.save_freq:
            self._save_or_continue()

    def _judge_has_ended_training(self) -> bool:
        return any(judge.has_ended_training for judge in self._judges)

    def _save_or_continue(self) -> None:
        try:
            self.save()
        except SnapshotError as error:
            self._last_failed = self.model.num_timesteps
            print(f"snapshot: {error}; training continues", file=sys.stderr)

    def _end_on_signal(self, signal_name: str) -> None:
        """Take a snapshot and end the process.

        :param signal_name: name of the received signal
        :raises TrainingInterrupted: always
        """
        assert self._signals is not None
        self._signals.begin_snapshot()
        if self.model.num_timesteps != self._last_saved and not self._judge_has_ended_training():
            try:
                self.save()
            except (SnapshotError, EOFError, ConnectionError) as error:
                # EOFError and ConnectionError: a worker process has died.
                print(f"snapshot: step {self.model.num_timesteps:,} was not saved: {error!r}", file=sys.stderr)
        self._end_run(signal_name)
        raise TrainingInterrupted(signal_name)

    def _end_run(self, signal_name: str) -> None:
        """Print the step to resume from, record the end of the run in ``run.json``, and release the lock of the run."""
        start = "from the beginning"
        if self._last_saved is not None:
            start = f"from step {self._last_saved:,}"
        resumed = "When it is resumed, it"
        if self.resume_command is not None:
            resumed = f"'{self.resume_command}'"
        print(
            f"{signal_name}: the training ends at step {self.model.num_timesteps:,} with exit code "
            f"{ExitCode.RESUMABLE}. {resumed} continues {start}. Its snapshots are in {self._folder}",
            file=sys.stderr,
            flush=True,
        )
        for callback in callbacks_in(self._root):
            if isinstance(callback, RunRecorderCallback):
                try:
                    callback.record_end("interrupted", f"by {signal_name}")
                except OSError as error:
                    print(f"run.json: the end of the run could not be recorded: {error}", file=sys.stderr)
        self.release()

    def _on_step(self) -> bool:
        return True

    def _on_end_of_all(self) -> None:
        """Take the last snapshot, and then call ``on_training_end`` of all callbacks."""
        del self._root.on_training_end
        is_complete = self.model.num_timesteps >= self.locals["total_timesteps"]
        if is_complete and not self._judge_has_ended_training() and self._last_saved != self.model.num_timesteps:
            self._save_or_continue()
        self._root.on_training_end()

    def _on_training_end(self) -> None:
        self.release()

    def save(self) -> None:
        """Take a snapshot now; call this between two rollouts, as in ``on_rollout_start``.

        :raises SnapshotError: if the snapshot cannot be written, or a value is not plain data; earlier snapshots stay
        """
        assert self._store is not None
        model = self.model
        assert isinstance(model, OffPolicyAlgorithm)
        waiting = first_waiting()
        # The snapshot would record the length of an incomplete log file, and the log of the resumed run would have a
        # gap.
        if waiting is not None:
            raise SnapshotError(
                f"the log file {waiting.path} is incomplete, because it cannot be written: free some space on its disk"
            )
        try:
            state = {
                "experiment": self.experiment,
                "training": training_state(model, self._root, self._settings),
                "files": run_files_state(self._folder, self.logger),
            }
            saved = self._store.save(
                model.num_timesteps, state, {MODEL: model.save}, self.keep, package_versions(), self._health()
            )
        except SnapshotError:
            raise
        except ValueError as error:  # a value that is not plain data may appear at any step
            raise SnapshotError(f"step {model.num_timesteps:,} cannot be saved: {error}") from error
        self._last_saved = model.num_timesteps
        if self.verbose >= 2:
            print(
                f"snapshot of step {saved.step:,} saved in {saved.seconds:.1f} s: {saved.n_bytes_total / 1e6:,.1f} MB "
                f"in all, {saved.n_bytes_written / 1e6:,.1f} MB newly written"
            )

    def newest_healthy(self, n_updates: int) -> Snapshot | None:
        """Return the newest healthy snapshot, for a rollback.

        :param n_updates: snapshots with more gradient updates than this are not considered
        :return: the snapshot; None without such a snapshot
        """
        assert self._store is not None
        try:
            return self._store.newest_healthy(n_updates)
        except SnapshotError:
            return None

    def mark_unhealthy(self, n_updates: int) -> None:
        """Mark as unhealthy all snapshots that were taken after a problem began.

        :param n_updates: snapshots with more gradient updates than this are marked
        """
        assert self._store is not None
        try:
            self._store.mark_unhealthy(n_updates)
        except (OSError, SnapshotError) as error:
            print(
                f"snapshot: {self._folder / SNAPSHOTS}: snapshots could not be marked as unhealthy: {error}",
                file=sys.stderr,
            )

    def go_back_to(self, snapshot: Snapshot) -> None:
        """Restore from a snapshot what the model has learned, such as its weights; everything else stays as it is.

        :param snapshot: result of :meth:`newest_healthy`
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
        """Return an empty state, because the snapshots' folder already contains everything that this callback needs."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing; see :meth:`get_state`.

        :param state: an empty state
        """

    def _say(self, line: str) -> None:
        if self.verbose:
            print(f"snapshot: {line}")

    def release(self) -> None:
        """Release the lock of the run and restore the signal handlers.

        Call it after an exception has left ``learn()``, if the process continues.
        """
        if self._signals is not None:
            self._signals.restore()
        if self._lock is not None:
            self._lock.release()
        self._lock = self._store = None


def _changed_versions(then: Mapping[str, str]) -> list[str]:
    """Return the packages whose version has changed since a snapshot was taken, as a message for the user.

    :param then: version of each package when the snapshot was taken; empty if unknown
    :return: a list with one message; empty if no version has changed
    """
    now = package_versions()
    changed = [
        f"{name} {then[name]} -> {now.get(name, 'not installed')}" for name in then if then[name] != now.get(name)
    ]
    if not changed:
        return []
    return [
        f"packages have changed since the snapshot ({', '.join(changed)}): the resumed run may not be equal bit for bit"
    ]
