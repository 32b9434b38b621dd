"""Does a damaged or hostile input file ever make `resume` or `train` raise an exception or exit with a code above 3?

A short run is trained once and copied for each mutation. A target is one of three kinds of input: run.json, the JSON of
a snapshot, or a hyperparameter file for `train`. A mutation changes values or bytes in the file of a target, and runs
`resume` or `train` on it. Among the new values are hostile text (code that would write a file if it were evaluated),
names that would be imported, and paths outside the run. Most mutations of a snapshot change values of its state and
write a valid digest, as an attacker would.

A mutation fails if the exit code is not 0, 1, 2 or 3, if an exception escapes, if the command takes more than 30 s or
more than 1 GB of additional memory, or if `resume` evaluates hostile text. The commands run one after another in a
forked process. Most of them take a fraction of a second. To repeat a mutation, use --targets NAME --first NUMBER
--count 1. With --first or --count, the outcomes are printed and not kept.

Results are kept in benchmarks/results/resume_mutations.json; a new run of a target replaces them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from result_rows import read_json, save_json
from tqdm import tqdm

from sb3_visual_td3 import cli

RESULTS = Path(__file__).parent / "results" / "resume_mutations.json"
ENV = "Pendulum-v1"
COUNT = 1_000
MAX_SECONDS = 30
MAX_BYTES = 1 << 30
BLOCK: Mapping[str, Any] = {
    "policy": "MlpPolicy",
    "n_timesteps": 20,
    "buffer_size": 50,
    "learning_starts": 5,
    "batch_size": 4,
    "learning_rate": "lin_1e-3",
    "noise_type": "normal",
    "noise_std": 0.1,
    "train_freq": [1, "step"],
    "normalize": {"norm_obs": True, "norm_reward": True},
    "policy_kwargs": "dict(net_arch=[4], activation_fn=nn.Tanh)",
    "env_wrapper": [{"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 10}}],
    "callback": [
        "sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback",
        {"sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback": {"log_freq": 5, "sample_freq": 1}},
        {"sb3_visual_td3.callbacks.snapshot.SnapshotCallback": {"save_freq": 10, "keep": 3}},
    ],
}


@functools.cache
def canary() -> Path:
    """Return the path of the file that hostile text would write if it were evaluated."""
    return Path(tempfile.mkdtemp(prefix="mutations_")) / "canary"


def code() -> str:
    """Return hostile text: Python code that creates a file at the path that ``canary()`` returns."""
    return f"__import__('pathlib').Path({str(canary())!r}).touch()"


# Mutations of values and bytes.


def odd_value(draw: random.Random) -> Any:
    """Return a value that is unexpected almost everywhere."""
    deep: Any = 1
    for level in range(draw.choice([3, 60, 300])):
        deep = [deep] if level % 2 else {"a": deep}
    numbers = [0, -1, 0.5, 1e308, 10**400, -(2**63), float("nan"), float("-inf")]
    texts = ["", "x" * 20_000, "\0\x1b[31m\u202e", "\ud800", "1e-3", "(" * 9_000]
    hostile = [code(), f"[{code()}]", "os.system", "os:Env-v0", "../../canary", str(canary()), {"os.system": {}}]
    others = [None, True, [], {}, [None, 1, "a", [2]], {"a": {"b": [1, {"c": None}]}}, list(range(20_000)), deep]
    return draw.choice([*numbers, *texts, *hostile, *others])


def changed_value(value: Any, draw: random.Random) -> Any:
    """Return a copy of plain values in which one value is changed, removed or added."""
    if draw.random() < 0.15 or not (isinstance(value, dict | list) and value):
        return odd_value(draw)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        return [*value[:at], changed_value(value[at], draw), *value[at + 1 :]]
    key, what = draw.choice(list(value)), draw.random()
    if what < 0.1:
        return {name: item for name, item in value.items() if name != key}
    if what < 0.2:
        return {**value, draw.choice(["", "a", "tau", "\0", "x" * 5_000, f"a:{code()} #"]): value[key]}
    return {**value, key: changed_value(value[key], draw)}


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return bytes of which some were flipped, cut off, removed, overwritten or inserted."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(len(changed) + 1)
        to = min(len(changed), at + draw.choice([1, 4, 64, 4096]))
        put_in = draw.choice([b"\0", b"\xff\xfe", b"[" * 3_000, b"{", b"&a [*a]", b"\n- ", b'"'])
        if at < to:
            what = draw.randrange(5)
            if what == 0:
                changed[at] ^= 1 << draw.randrange(8)
            elif what == 1:
                del changed[at : to if draw.random() < 0.7 else len(changed)]
            elif what == 2:
                changed[at:to] = bytes(to - at)
            else:
                changed[at:at] = put_in
    return bytes(changed)


def as_bytes(content: Any) -> bytes:
    """Return JSON as snapshots contain it."""
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")


def changed_json(content: bytes, draw: random.Random) -> bytes:
    """Return a JSON file in which a value or some bytes are changed."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    return as_bytes(changed_value(json.loads(content), draw))


def changed_yaml(content: bytes, draw: random.Random) -> bytes:
    """Return a hyperparameter file in which a value or some bytes are changed."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    changed = changed_value(yaml.safe_load(content), draw)
    if draw.random() < 0.5:
        return as_bytes(changed)  # JSON is YAML too
    return yaml.safe_dump(changed).encode("utf-8", "surrogatepass")


def changed_record(content: bytes, draw: random.Random) -> bytes:
    """Return a snapshot's record with changed values and a valid digest, or with changed bytes."""
    if draw.random() < 0.2:
        return changed_bytes(content, draw)
    record = json.loads(content)
    del record["sha256"]  # the digest covers the record without itself
    if draw.random() < 0.9:
        part = draw.choice(["experiment", "training", "files"])
        state = record["state"][part]
        # Change one part of the state: a change of the whole record would seldom reach deeply nested values.
        inner = draw.choice(list(state))
        if draw.random() < 0.8:
            changed = {**state, inner: changed_value(state[inner], draw)}
        else:
            changed = changed_value(state, draw)
        record["state"] = {**record["state"], part: changed}
    else:
        record = changed_value(record, draw)
    # An attacker can compute a valid digest: it protects against damage only.
    digest = hashlib.sha256(as_bytes(record)).hexdigest()
    if isinstance(record, dict):
        record = {**record, "sha256": digest}
    return as_bytes(record)


# The commands.


def _write_hyperparams(folder: Path) -> Path:
    path = folder / "hyperparams.yml"
    path.write_text(yaml.safe_dump({ENV: dict(BLOCK)}))
    return path


def train_command(folder: Path) -> list[str]:
    """Return the command that trains a few steps with the folder's hyperparameter file."""
    flags = ["--env", ENV, "-n", "20", "--seed", "1", "--verbose", "0", "--eval-freq", "-1", "--num-threads", "1"]
    return ["train", *flags, "-conf", str(folder / "hyperparams.yml"), "-f", str(folder / "logs")]


@functools.cache
def killed_run() -> Path:
    """Return the folder of a run that was killed after its snapshot of step 10.

    The first call trains the run. Later calls in the same process return the same folder.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutations_"))
    _write_hyperparams(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(train_command(folder)) == 0
    run_dir = folder / "logs" / "visual_td3" / f"{ENV}_1"
    (run_dir / f"{ENV}.zip").unlink()
    for path in (run_dir / "snapshots").glob("step_*"):
        if path.name != "step_000000010":
            shutil.rmtree(path)
    manifest = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**manifest, "finished": None}))
    return run_dir


def write_hyperparams(folder: Path) -> Path:
    """Write a hyperparameter file and return its path."""
    killed_run()  # imports the modules of a training before the time limit begins
    return _write_hyperparams(folder)


def write_manifest(folder: Path) -> Path:
    """Copy the run and return its run.json."""
    shutil.copytree(killed_run(), folder / "run")
    return folder / "run" / "run.json"


def write_snapshot(folder: Path) -> Path:
    """Copy the run and return the snapshot.json of its only snapshot."""
    shutil.copytree(killed_run(), folder / "run")
    (snapshot,) = (folder / "run" / "snapshots").glob("step_*")
    return snapshot / "snapshot.json"


def resume_command(folder: Path) -> list[str]:
    """Return the command that resumes the folder's run."""
    return ["resume", str(folder / "run")]


class Target(NamedTuple):
    """A kind of input: the functions that write and change it, and the command that reads it."""

    write: Callable[[Path], Path]
    change: Callable[[bytes, random.Random], bytes]
    command: Callable[[Path], list[str]]


TARGETS: Mapping[str, Target] = {
    "resume: run.json": Target(write_manifest, changed_json, resume_command),
    "resume: snapshot.json": Target(write_snapshot, changed_record, resume_command),
    "train: hyperparameters": Target(write_hyperparams, changed_yaml, train_command),
}


class Outcome(NamedTuple):
    """How a command ended: exit code (None if an exception escaped), output and duration.

    :ivar has_run_text: whether `resume` evaluated hostile text. False for `train`, which is not checked: it evaluates
        text of hyperparameter files by design.
    """

    code: int | None
    error: str
    seconds: float
    has_run_text: bool

    @property
    def is_good(self) -> bool:
        """Return whether the outcome is acceptable."""
        return self.code in (0, 1, 2, 3) and not self.has_run_text


class _TooLongError(BaseException):
    """The time limit was exceeded. No command handles this exception."""


def _stop(*_: object) -> None:
    raise _TooLongError


def try_mutation(name: str, number: int) -> Outcome:
    """Change the input file of a target and run the target's command on the changed file.

    :param name: the name of the target, a key of ``TARGETS``
    :param number: the number of the mutation, which is part of its seed
    :return: how the command ended
    """
    target, draw = TARGETS[name], random.Random(zlib.crc32(name.encode()) + number)
    said, code_or_none = io.StringIO(), None
    where, handler = Path.cwd(), signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as temporary:
        file = target.write(Path(temporary))
        file.write_bytes(target.change(file.read_bytes(), draw))
        os.chdir(temporary)  # paths in the file may be relative
        began = time.monotonic()
        signal.alarm(MAX_SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code_or_none = cli.main(target.command(Path(temporary)))
        except SystemExit as ended:
            code_or_none = ended.code if isinstance(ended.code, int) else None
        except BaseException:
            said.write(traceback.format_exc())
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
            os.chdir(where)
    has_run_text = canary().exists() and not name.startswith("train")
    canary().unlink(missing_ok=True)
    return Outcome(code_or_none, said.getvalue(), time.monotonic() - began, has_run_text)


def _limit_memory() -> None:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MAX_BYTES, resource.RLIM_INFINITY))


def run_target(name: str, first: int, count: int) -> dict[str, Any]:
    """Run ``count`` mutations of a target, starting with the seed ``first``, and return their outcomes."""
    killed_run()
    canary()
    # Each failed run leaves a TensorBoard thread. The process is replaced before the threads use up its memory.
    with get_context("fork").Pool(1, _limit_memory, maxtasksperchild=10) as pool:
        made = pool.imap(functools.partial(try_mutation, name), range(first, first + count))
        outcomes = dict(enumerate(tqdm(made, name, count, disable=None), first))
    for number, outcome in outcomes.items():
        if not outcome.is_good:
            print(f"{name} {number}: {outcome.error.strip()[-400:]}", file=sys.stderr)
    return {
        "mutations": count,
        "first": first,
        "exit codes": dict(sorted(Counter(str(outcome.code) for outcome in outcomes.values()).items())),
        "failed": [number for number, outcome in outcomes.items() if not outcome.is_good],
        "longest, s": round(max(outcome.seconds for outcome in outcomes.values()), 1),
        "hostile text was run": sum(outcome.has_run_text for outcome in outcomes.values()),
    }


def main() -> int:
    """Run the requested targets and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--count", type=int, help=f"number of mutations of each file (default: {COUNT:,})")
    parser.add_argument("--first", type=int, help="number of the first mutation (default: 0)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    settings = parser.parse_args()
    is_trial = settings.first is not None or settings.count is not None
    found = {}
    for name in settings.targets:
        found[name] = run_target(name, settings.first or 0, settings.count or COUNT)
        if not is_trial:
            save_json({**read_json(settings.output), name: found[name]}, settings.output)
        print(f"{name}: {json.dumps(found[name])}")
    return 1 if any(each["failed"] for each in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
