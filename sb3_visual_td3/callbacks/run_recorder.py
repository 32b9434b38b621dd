"""Write ``run.json``: the settings of a run and how it ended, for the report and for later readers.

The format is in :mod:`~sb3_visual_td3.runs.manifest`.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.callbacks.event_writer import run_directory
from sb3_visual_td3.common.types import STOCK_ARGUMENTS, WatchedModel
from sb3_visual_td3.runs.manifest import (
    FILE_NAME,
    EncoderKind,
    RunEnd,
    RunManifest,
    command_line,
    git_state,
    machine,
    package_versions,
)
from sb3_visual_td3.training_state.callback_state import stoppers_in
from sb3_visual_td3.training_state.plain_data import map_leaves


class _RunRecord:
    """Write the ``run.json`` of one run, also when the process exits.

    Python keeps this object until the end of the run is recorded. It holds no model, so the memory of a failed training
    can be freed.

    :param manifest: content of the file, which is written at once
    :param folder: folder of the file
    """

    def __init__(self, manifest: RunManifest, folder: Path) -> None:
        self.manifest = manifest
        self._path = folder / FILE_NAME
        self._pid = os.getpid()
        self.write()
        atexit.register(self._write_at_exit)

    def write(self) -> None:
        """Write the file of a run that has not ended."""
        self.manifest.write(self._path)

    def write_end(self, end: RunEnd, reason: str | None) -> None:
        """Write how the run ended; the parameters are those of :meth:`RunRecorderCallback.record_end`."""
        self.forget_exit()
        now = _now()
        finished = now if end == "finished" else None
        ended = dataclasses.replace(self.manifest, finished=finished, end=end, ended=now, end_reason=reason)
        ended.write(self._path)

    def forget_exit(self) -> None:
        """Write nothing when the process exits."""
        atexit.unregister(self._write_at_exit)

    def _write_at_exit(self) -> None:
        """Record that an exception ended the run; Python calls this method when the process exits."""
        # A forked child process exits, but the training continues in its parent.
        if os.getpid() != self._pid:
            return
        # Python stores an uncaught exception here before it runs the exit handlers.
        error = getattr(sys, "last_value", None)
        try:
            if isinstance(error, KeyboardInterrupt):
                self.write_end("interrupted", "by Ctrl-C")
            else:
                words = "an exception left learn()"
                if error is not None:
                    words = f"{type(error).__name__}: {error}"
                self.write_end("crashed", words)
        except OSError as problem:
            print(f"run.json: the end of the run could not be recorded: {problem}", file=sys.stderr)


class RunRecorderCallback(BaseCallback):
    """Write ``run.json`` when training starts, and again when it ends.

    The entry ``end`` is ``"finished"`` if all steps were made, ``"stopped"`` if a callback ended the training early,
    ``"interrupted"`` after Ctrl-C or a signal, and ``"crashed"`` after another exception. The last two are written when
    the process exits, or earlier by ``visual-td3 train`` and SnapshotCallback. Only a finished run has the key
    ``finished``.

    :param run_dir: folder of the file; None takes the folder of the run that the event files belong to
    :param verbose: verbosity level, as in Stable-Baselines3
    :raises ValueError: when training starts, if there is neither a ``run_dir`` nor a log folder
    """

    records_the_end = True
    """Whether this callback calls ``record_end`` as soon as training ends. ``visual-td3 train`` sets this to False and
    calls ``record_end`` itself: it saves the model before it records a finished run."""

    def __init__(self, run_dir: str | Path | None = None, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.run_dir = run_dir
        self.end: RunEnd | None = None
        """How the latest training ended; None if the training has not ended, or if an exception ended it."""
        self.end_reason: str | None = None
        self._record: _RunRecord | None = None

    def _on_training_start(self) -> None:
        folder = self.run_dir or run_directory(self.logger)
        if folder is None:
            raise ValueError(
                "RunRecorderCallback has no folder to write to: pass run_dir, or give the model a tensorboard_log"
            )
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._record is not None:
            self._record.forget_exit()
        self.end = self.end_reason = None
        # The file is written now, because a killed run should have a run.json, and the report also reads runs that
        # still train.
        self._record = _RunRecord(self._describe_run(), self._folder)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        # If an environment cannot be created, rl-zoo calls this method for a training run that never started.
        if self._record is None:
            return
        self.end, self.end_reason = self._how_training_ended()
        if self.records_the_end:
            self.record_end(self.end, self.end_reason)

    def _how_training_ended(self) -> tuple[RunEnd, str | None]:
        # SB3 does not report why learn() returned.
        n_steps, n_wanted = self.model.num_timesteps, self.locals["total_timesteps"]
        stoppers = stoppers_in(self.locals["callback"])
        if stoppers:
            return "stopped", f"by {type(stoppers[0]).__name__}, at step {n_steps:,} of {n_wanted:,}: see alerts.jsonl"
        if n_steps < n_wanted:
            return "stopped", f"by a callback, at step {n_steps:,} of {n_wanted:,}"
        return "finished", None

    def record_end(self, end: RunEnd, reason: str | None = None) -> None:
        """Write to ``run.json`` how the run ended; do nothing if training has not started.

        :param end: kind of the end
        :param reason: cause of the end; None for a finished run
        :raises OSError: if the file cannot be written; it then stays as it was
        """
        if self._record is not None:
            self._record.write_end(end, reason)

    def get_state(self) -> dict[str, Any]:
        """Return the time at which the run started."""
        assert self._record is not None
        return {"started": self._record.manifest.started}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Write the original start time of a resumed run to ``run.json``; call this after training has started.

        :param state: the state returned by ``get_state``
        """
        assert self._record is not None
        self._record.manifest = dataclasses.replace(self._record.manifest, started=state["started"])
        self._record.write()

    def _describe_run(self) -> RunManifest:
        model = self.model
        hyperparams = {name: getattr(model, name) for name in STOCK_ARGUMENTS if hasattr(model, name)}
        encoder: EncoderKind | None = None
        groups: tuple[str, ...] = ()
        is_normalized = None
        if isinstance(model, WatchedModel):
            described = {name: value for name, (value, _) in model.describe().items()}
            described.pop("action_noise", None)  # an object
            hyperparams = {**described, **hyperparams}
            if model.encoder_is_shared is not None:
                encoder = "shared" if model.encoder_is_shared else "separate"
            groups = tuple(model.groups)
            is_normalized = model.reward_is_normalized
        hyperparams = {name: _named_fields(value) for name, value in hyperparams.items()}
        gpu = None
        if model.device.type == "cuda":
            gpu = th.cuda.get_device_name(model.device)
        event_dir = None
        if self.logger.dir is not None:
            # Relative, so that a run whose folder is moved or copied still names its event files.
            event_dir = os.path.relpath(self.logger.dir, self._folder)
        return RunManifest(
            algo=type(model).__name__,
            env_id=_env_id(self.training_env),
            seed=model.seed,
            n_timesteps=model._total_timesteps,
            hyperparams=map_leaves(hyperparams, _json_leaf),
            encoder=encoder,
            groups=groups,
            reward_is_normalized=is_normalized,
            versions=package_versions(),
            git=git_state(),
            machine=machine(gpu),
            command=tuple(command_line()),
            started=_now(),
            event_dir=event_dir,
        )


def _env_id(env: VecEnv) -> str:
    try:
        spec = env.get_attr("spec")[0]
    except (AttributeError, NotImplementedError):
        # A user's VecEnv may not implement get_attr, or its environments may lack the attribute.
        return "unknown"
    return "unknown" if spec is None else str(spec.id)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _named_fields(value: Any) -> Any:
    """Return a NamedTuple, such as SB3's TrainFreq, as a dict of its fields; any other value as it is."""
    return value._asdict() if isinstance(value, tuple) and hasattr(value, "_asdict") else value


def _json_leaf(value: Any, _place: str) -> Any:
    """Return a value unchanged if JSON can hold it, and otherwise as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # NaN fails this comparison too.
        return value if abs(value) < float("inf") else repr(value)
    # An Enum whose value is text, such as the unit of a TrainFreq.
    text = getattr(value, "value", None)
    return text if isinstance(text, str) else repr(value)
