"""Does a run that is killed, preempted or out of disk space end with the same results as an undisturbed run?

A chain is one run of ``visual-td3 train`` that is interrupted six times at random moments, and resumed by
``visual-td3 resume`` each time, until it is finished. The signals are, in this order: SIGKILL before the first
snapshot; SIGKILL, SIGTERM, SIGKILL, SIGTERM in training; SIGKILL in the final save. Other runs are interrupted once, by
a full disk. At the end of each run, weights, replay buffer, episodes and every scalar of the event files must equal
those of an undisturbed run, bit for bit. Only the values of ``time/fps`` and ``time/time_elapsed`` may differ. Each run
uses DummyVecEnv or SubprocVecEnv. Half of the runs start with the option ``-tb``, which puts the event files outside
RUN_DIR.

    python benchmarks/kill_campaign.py                  # about 15 minutes of one core
    python benchmarks/kill_campaign.py --table          # print the existing results

To simulate a full disk, the benchmark mounts a small file system in memory (tmpfs) for the run, and fills it. Only root
can mount it. Without root, the runs with a full disk are skipped, with a message. Runs in the results file are not
repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from result_rows import read_json

from sb3_visual_td3.cli import main as visual_td3
from sb3_visual_td3.runs.durable_files import write_atomically

RESULTS = Path(__file__).parent / "results" / "kill_campaign.json"
ENV = "LiteDriving-v0"
BLOCK = """
LiteDriving-v0:
  policy: CnnPolicy
  n_timesteps: 240
  n_envs: 2
  normalize: {norm_obs: false, norm_reward: true}
  buffer_size: 150
  learning_starts: 40
  batch_size: 4
  n_steps: 3
  policy_kwargs: {net_arch: [16], trunk_dim: 8}
  env_kwargs: {n_cars: 1, image_size: 48}
  callback:
    - sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
    - sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback: {log_freq: 30, sample_freq: 3}
    - sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback: {warning: 0.01, critical: 1.0, check_freq: 30}
    - sb3_visual_td3.callbacks.driving_metrics.DrivingMetricsCallback: {log_freq: 30}
    - sb3_visual_td3.callbacks.snapshot.SnapshotCallback: {save_freq: 20, verbose: 2}
"""
VARIANTS = [(vec_env, has_tb) for vec_env in ("dummy", "subproc") for has_tb in (False, True)]
KILLS = ("before the first snapshot", "SIGKILL", "SIGTERM", "SIGKILL", "SIGTERM", "in the final save")
"""The six interruptions of a chain (one run that is interrupted and resumed six times), in this order."""
N_CHAINS = 3
"""The number of chains of each variant."""
N_FULL_DISKS = 6
DISK_BYTES = 24 << 20
WALL_CLOCK = {"time/fps", "time/time_elapsed"}
PATIENCE_S = 300.0


class Run:
    """Run one ``visual-td3`` command in a forked process.

    :param arguments: arguments of ``visual-td3``
    :param log_path: the file for the output of the process
    """

    def __init__(self, arguments: list[str], log_path: Path) -> None:
        self.log_path = log_path
        log_path.unlink(missing_ok=True)
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be(arguments, log_path)

    def wait(self, until: Callable[[], bool] = lambda: False, within_s: float = PATIENCE_S) -> bool:
        """Wait until a condition holds, the process ends, or the time limit is reached.

        :return: whether the process still runs
        """
        deadline = time.monotonic() + within_s
        while self.code is None and time.monotonic() < deadline and not until():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.002)
        return self.code is None

    def says(self, words: str) -> bool:
        """Return whether the process has printed these words."""
        return self.log_path.is_file() and words in self.log_path.read_text(errors="replace")

    def finish(self) -> int:
        """Wait until the process ends, kill the rest of its process group, and return the exit code."""
        if self.wait():
            raise RuntimeError(f"a run did not end within {PATIENCE_S:.0f} s:\n{self.log_path.read_text()}")
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        assert self.code is not None
        return self.code


def _be(arguments: list[str], log_path: Path) -> None:
    """Run the command in the forked child, which has all modules imported already."""
    code = 1
    try:
        os.setsid()
        # The child cannot use its parent's fork server and resource tracker, so it starts its own.
        forkserver._forkserver.__init__()  # type: ignore[attr-defined, misc]
        resource_tracker._resource_tracker.__init__()  # type: ignore[misc]
        with log_path.open("w", buffering=1) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout = sys.stderr = log
            try:
                code = visual_td3(arguments)
            except BaseException:
                traceback.print_exc()
    finally:
        os._exit(code)


def train(folder: Path, vec_env: str, has_tb: bool) -> list[str]:
    """Return the command that starts a run in a folder."""
    (folder / "run.yml").write_text(BLOCK)
    arguments = ["train", "--env", ENV, "-conf", str(folder / "run.yml"), "-f", str(folder), "--vec-env", vec_env]
    arguments += ["--seed", "3", "--save-replay-buffer", "--log-interval", "1", "--verbose", "0", "--eval-freq", "-1"]
    arguments += ["--num-threads", "1"]
    return [*arguments, "-tb", str(folder / "elsewhere")] if has_tb else arguments


def run_dir_in(folder: Path) -> Path:
    """Return RUN_DIR of the run in a folder."""
    return folder / "visual_td3" / f"{ENV}_1"


def has_snapshot(folder: Path) -> bool:
    """Return whether the run in a folder has a snapshot."""
    return any((run_dir_in(folder) / "snapshots").glob("step_*"))


def begin(folder: Path, variant: tuple[str, bool], log_path: Path) -> Run:
    """Start the run in a folder, or resume it. A run that was killed before it wrote anything is started again."""
    run_dir = run_dir_in(folder)
    if (run_dir / "experiment.json").exists():
        return Run(["resume", str(run_dir)], log_path)
    if run_dir.exists():
        subprocess.run(["rm", "-r", str(run_dir)], check=True)
    return Run(train(folder, *variant), log_path)


class Times:
    """Hold the durations of the four phases of the undisturbed run.

    The random moments of interruption depend on these durations.

    :param begin_s: seconds from the start of the process until it has written the settings of the run
    :param first_s: seconds from the written settings until the first snapshot
    :param train_s: seconds from the first snapshot until the start of the final save
    :param save_s: seconds from the start of the final save until the end of the process
    """

    def __init__(self, begin_s: float, first_s: float, train_s: float, save_s: float) -> None:
        self.begin_s, self.first_s, self.train_s, self.save_s = begin_s, first_s, train_s, save_s


def leave_alone(folder: Path, variant: tuple[str, bool]) -> Times:
    """Make a training run without interruption, and measure the durations of its phases.

    :param folder: the folder of the run
    :param variant: ``"dummy"`` or ``"subproc"`` environments, and whether event files are written outside RUN_DIR
    :return: the durations
    """
    folder.mkdir()
    run = Run(train(folder, *variant), folder.with_suffix(".log"))
    marks = [time.monotonic()]
    for until in (
        (run_dir_in(folder) / "experiment.json").exists,
        lambda: has_snapshot(folder),
        lambda: run.says("Saving to"),
    ):
        run.wait(until)
        marks.append(time.monotonic())
    code = run.finish()
    if code != 0:
        raise RuntimeError(f"the undisturbed run ended with {code}:\n{run.log_path.read_text()}")
    marks.append(time.monotonic())
    return Times(*(after - before for before, after in pairwise(marks)))


def end(run: Run, folder: Path, kind: str, times: Times, rng: random.Random) -> dict[str, Any]:
    """Interrupt a run at a random moment.

    :param run: the running process
    :param folder: the folder of the run
    :param kind: one of ``KILLS``
    :param times: the durations of the undisturbed run
    :param rng: random generator that chooses the moment, and the receivers of a SIGTERM
    :return: the signal, the phase of the run in which it arrived, its receivers, the exit code of the process, and the
        seconds from the signal until the process ended
    """
    number = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
    # A scheduler signals all processes of a job, a user only the command.
    to_group = kind == "SIGTERM" and rng.random() < 0.5
    if kind == "before the first snapshot":
        run.wait((run_dir_in(folder) / "experiment.json").exists)
        run.wait(within_s=rng.uniform(0.0, times.first_s))
    elif kind == "in the final save":
        run.wait(lambda: run.says("Saving to"))
        run.wait(within_s=rng.uniform(0.0, times.save_s))
    else:
        run.wait(lambda: run.says("snapshot of step") or run.says("resumed at step"))
        run.wait(within_s=rng.uniform(0.0, 0.3 * times.train_s))
    before_first, in_save = not has_snapshot(folder), run.says("Saving to")
    began = time.monotonic()
    if run.code is None:
        if to_group:
            os.killpg(run.pid, number)
        else:
            os.kill(run.pid, number)
    code = run.finish()
    # The phase in which the signal arrived, which may be later than intended on a busy machine.
    moment = "in training"
    if before_first:
        moment = "before the first snapshot"
    elif in_save:
        moment = "in the final save"
    return {
        "kind": number.name,
        "moment": moment,
        "to": "all processes" if to_group else "the process",
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 2),
    }


def fill(run: Run, folder: Path, times: Times, rng: random.Random) -> dict[str, Any]:
    """Fill the disk of a run, wait until its process ends, and free the space again.

    :return: the kind of interruption, the phase of the run, the exit code of the process, and the number of output
        lines about the full disk
    """
    run.wait(lambda: has_snapshot(folder))
    run.wait(within_s=rng.uniform(0.0, 0.8 * times.train_s))
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    code = run.finish()
    lines = [line for line in run.log_path.read_text(errors="replace").splitlines() if "No space left" in line]
    filler.unlink()
    return {"kind": "full disk", "moment": "in training", "exit_code": code, "lines": len(lines)}


def differences(one: Path, other: Path) -> list[str]:
    """Return the differences between two runs; an empty list if the runs are identical, bit for bit."""
    first, second = run_dir_in(one), run_dir_in(other)
    found = []
    for name, read in (("weights", _weights), ("replay buffer", _replay), ("episodes", _episodes)):
        if not _same(read(first), read(second)):
            found.append(name)
    mine, theirs = _scalars(one), _scalars(other)
    if mine.keys() != theirs.keys():
        found.append(f"names of scalars: {sorted(mine.keys() ^ theirs.keys())}")
    for tag in mine.keys() & theirs.keys():
        # Wall-clock scalars, such as frames per second, differ from run to run.
        steps, others = ([step for step, _ in each[tag]] for each in (mine, theirs))
        if steps != others or (tag not in WALL_CLOCK and not _same(np.array(mine[tag]), np.array(theirs[tag]))):
            found.append(f"scalar {tag}")
    ended = json.loads((second / "run.json").read_text())["end"]
    if ended != "finished":
        found.append(f"run.json says {ended}")
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and len(one) > 0 and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, th.Tensor):
        return th.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return bool(one == other)


def _weights(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with zipfile.ZipFile(run_dir / f"{ENV}.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".pth"):
                found[name] = _flat(th.load(BytesIO(archive.read(name)), weights_only=True))
    return found


def _flat(value: Any) -> Any:
    """Return nested values in a form that ``_same`` can compare.

    Keys become strings, tuples become lists, and empty dicts become None.
    """
    if isinstance(value, dict):
        return {str(key): _flat(item) for key, item in value.items()} or None
    if isinstance(value, list | tuple):
        return [_flat(item) for item in value]
    return value


def _replay(run_dir: Path) -> dict[str, Any]:
    with (run_dir / "replay_buffer.pkl").open("rb") as file:
        buffer = pickle.load(file)
    names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    return {"pos": buffer.pos, **{name: np.asarray(getattr(buffer, name)) for name in names}}


def _episodes(run_dir: Path) -> list[tuple[str, str]]:
    rows = []
    for path in sorted(run_dir.glob("*monitor.csv")):
        rows += [(row["r"], row["l"]) for row in csv.DictReader(path.read_text().splitlines()[1:])]
    return rows


def _scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # A resumed run that was started with -tb continues in RUN_DIR/tb.
    here = list((run_dir_in(folder) / "tb").rglob("events.out.tfevents.*"))
    (run,) = {path.parent for path in here or (folder / "elsewhere").rglob("events.out.tfevents.*")}
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: sorted((event.step, event.value) for event in accumulator.Scalars(tag)) for tag in tags}


def chain(folder: Path, alone: Path, variant: tuple[str, bool], times: Times, seed: int) -> dict[str, Any]:
    """Run one chain: interrupt and resume a run until it is finished.

    :param folder: where the chain's folder is created
    :param alone: the folder of the undisturbed run
    :param variant: ``"dummy"`` or ``"subproc"`` environments, and whether event files are written outside RUN_DIR
    :param times: the durations of the undisturbed run
    :param seed: the seed of the moments of interruption
    :return: ``"events"`` with the interruptions, and ``"differences"`` between this run and the undisturbed run
    """
    rng, folder = random.Random(seed), folder / f"chain_{seed}"
    folder.mkdir()
    log_path = folder.with_suffix(".log")
    events = [end(begin(folder, variant, log_path), folder, kind, times, rng) for kind in KILLS]
    return {"events": events, **_brought_to_its_end(folder, alone, variant, log_path)}


def full_disk(folder: Path, alone: Path, variant: tuple[str, bool], times: Times, seed: int) -> dict[str, Any]:
    """Make one training run on a small disk, fill the disk during the run, free the space, and resume the run.

    :return: ``"events"`` with the interruption, and ``"differences"`` between this run and the undisturbed run
    """
    rng, disk = random.Random(seed), folder / f"disk_{seed}"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True)
    try:
        log_path = disk.with_suffix(".log")
        event = fill(begin(disk, variant, log_path), disk, times, rng)
        return {"events": [event], **_brought_to_its_end(disk, alone, variant, log_path)}
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _brought_to_its_end(folder: Path, alone: Path, variant: tuple[str, bool], log_path: Path) -> dict[str, Any]:
    code = begin(folder, variant, log_path).finish()
    if code != 0:
        return {"differences": [f"the last resume ended with {code}: {log_path.read_text()[-2_000:]}"]}
    return {"differences": differences(alone, folder)}


def can_mount() -> bool:
    """Return whether a small file system can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table with a row for each variant."""
    kinds = ("SIGKILL in training", "SIGKILL before the first snapshot", "SIGKILL in the final save", "SIGTERM")
    header = ["environments", "event files", *kinds, "full disk", "runs", "bit-identical"]
    rows = []
    sums: Counter[str] = Counter()
    for vec_env, has_tb in VARIANTS:
        counts: Counter[str] = Counter()
        for each in results.values():
            if (each["vec_env"], each["has_tb"]) != (vec_env, has_tb):
                continue
            counts["runs"] += 1
            counts["bit-identical"] += not each["differences"]
            for event in each["events"]:
                if event["exit_code"] == 0:  # the run had finished before the signal arrived
                    continue
                name = event["kind"]
                if name == "SIGKILL":
                    name = f"SIGKILL {event['moment']}"
                counts[name] += 1
        sums += counts
        rows.append([vec_env, "-tb" if has_tb else "RUN_DIR", *(str(counts[name]) for name in header[2:])])
    rows.append(["all", "", *(str(sums[name]) for name in header[2:])])
    lines = ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]
    return "\n".join(lines)


def jobs() -> list[tuple[str, tuple[str, bool], int]]:
    """Return the name, variant and seed of every interrupted run."""
    chains = [
        (f"chain {variant[0]}{' -tb' if variant[1] else ''} {number}", variant, 100 * place + number)
        for place, variant in enumerate(VARIANTS)
        for number in range(N_CHAINS)
    ]
    disks = [
        (f"full disk {number}", VARIANTS[number % len(VARIANTS)], 1_000 + number) for number in range(N_FULL_DISKS)
    ]
    return [*chains, *disks]


def main() -> int:
    """Make the interrupted runs that are not in the results file yet, and print the table.

    :return: 1 if an interrupted run differs from the undisturbed run, else 0
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    settings = parser.parse_args()
    path: Path = settings.results
    results: dict[str, Any] = read_json(path)
    missing = [] if settings.table else [job for job in jobs() if job[0] not in results]
    has_disks = bool(missing) and can_mount()
    th.set_num_threads(1)
    alone: dict[tuple[str, bool], tuple[Path, Times]] = {}
    with tempfile.TemporaryDirectory() as name:
        for title, variant, seed in missing:
            is_disk = title.startswith("full disk")
            if is_disk and not has_disks:
                print(f"{title}: skipped: mounting a small file system needs root")
                continue
            if variant not in alone:
                whole = Path(name) / f"alone_{len(alone)}"
                alone[variant] = whole, leave_alone(whole, variant)
            began = time.monotonic()
            result = (full_disk if is_disk else chain)(Path(name), alone[variant][0], variant, alone[variant][1], seed)
            results[title] = {"vec_env": variant[0], "has_tb": variant[1], "seed": seed, **result}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(results, indent=1) + "\n")
            how = "bit-identical"
            if result["differences"]:
                how = f"DIFFERS: {'; '.join(result['differences'])}"
            print(
                f"{title}: {len(result['events'])} interruptions, {how} ({time.monotonic() - began:.0f} s)", flush=True
            )
    print(table(results))
    return int(any(each["differences"] for each in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
