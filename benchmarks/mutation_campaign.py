"""Does a damaged or hostile input file ever make the report crash, hang, or exit with a code other than 0 to 3?

A target is a kind of input file, with the command that reads it. A mutation changes the file of a target and runs the
command. The target and the number of a mutation are its seed, so that a failure can be repeated (--targets NAME --first
NUMBER --count 1). With --first or --count, the outcomes are printed and not kept. The command runs in a forked process
that may take 30 s and 1 GB; the libraries are imported once, in the parent. A mutation fails if the exit code is not 0,
1, 2 or 3, if the command writes a traceback, if a signal ends the process, or if the process exceeds the limits.

A mutated table (progress.csv, monitor.csv, evaluations.npz, or a user's own CSV) is the only file in its folder. Other
targets include the complete folder of a run.

The mutations depend on the format. In JSON and YAML files, values or bytes are changed. In CSV files, cells, rows or
bytes are changed. In .npz files, arrays, their headers or bytes are changed. In event files, messages, records (with
valid checksums) or bytes are changed. --keep DIR keeps the files of failures.

Results are kept in benchmarks/results/mutation_campaign.json. A thousand mutations of each target take some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
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
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from result_rows import read_json, save_json
from tensorboard.compat.proto import event_pb2, summary_pb2
from tqdm import tqdm

from sb3_visual_td3 import cli
from sb3_visual_td3.common import tags
from sb3_visual_td3.report import command as _command  # noqa: F401 - the command line imports it late, in each fork
from sb3_visual_td3.report import render_json, render_markdown  # noqa: F401 - imported once, in the parent
from sb3_visual_td3.report.event_file import masked_crc32c
from sb3_visual_td3.runs.manifest import RunManifest

RESULTS = Path(__file__).parent / "results" / "mutation_campaign.json"
COUNT = 1_000
MAX_SECONDS = 30
MAX_BYTES = 1 << 30
RUNNING_FAILED = 70
MAX_ROW_CHARACTERS = 1_000_000
"""Length up to which a row of a table is repeated."""
EVENTS = "events.out.tfevents.1"


@dataclass(frozen=True)
class Target:
    """A kind of input file.

    :param write: writes good inputs into a folder and returns the file to mutate.
    :param mutate: returns a mutation of the good content.
    :param command: the arguments of ``visual-td3`` for that folder.
    """

    write: Callable[[Path], Path]
    mutate: Callable[[bytes, random.Random], bytes]
    command: Callable[[Path], list[str]]


class Outcome(NamedTuple):
    """How one mutation ended.

    :ivar code: exit code of the process that ran the command; negative if a signal ended the process.
    :ivar peak_bytes: peak memory of this process, including the modules that the parent process had imported.
    """

    code: int
    seconds: float
    peak_bytes: int
    has_traceback: bool

    @property
    def is_good(self) -> bool:
        """Return whether the outcome is acceptable."""
        is_small = self.peak_bytes <= MAX_BYTES and self.seconds <= MAX_SECONDS
        return self.code in (0, 1, 2, 3) and not self.has_traceback and is_small


ODD_VALUES: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: 0,
    lambda: -1,
    lambda: 10**400,
    lambda: -(2**63),
    lambda: 0.5,
    lambda: 1e308,
    lambda: float("nan"),
    lambda: float("-inf"),
    lambda: "",
    lambda: "x" * 20_000,
    lambda: "\0\x1b[31m\u202e",
    lambda: "\ud800",
    lambda: "train/critic_loss",
    lambda: "1e-3",
    lambda: "dict(a=dict(b=[1, " + "9" * 4000 + "]))",
    lambda: "(" * 9000,
    lambda: [],
    lambda: [None, 1, "a", [2]],
    lambda: {},
    lambda: {"a": {"b": [1, {"c": None}]}},
    lambda: {"frequency": "x"},
    lambda: list(range(20_000)),
    lambda: nested(12),
    lambda: nested(300),
)


def nested(depth: int) -> Any:
    """Return deeply nested lists and mappings."""
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def changed_value(value: Any, draw: random.Random) -> Any:
    """Return a copy of plain values in which one value is changed, removed or added."""
    if draw.random() < 0.25 or not (isinstance(value, dict | list) and value):
        return draw.choice(ODD_VALUES)()
    if isinstance(value, list):
        at = draw.randrange(len(value))
        return [*value[:at], changed_value(value[at], draw), *value[at + 1 :]]
    key = draw.choice(list(value))
    what = draw.random()
    if what < 0.1:
        return {name: item for name, item in value.items() if name != key}
    if what < 0.2:
        return {**value, draw.choice(["", "a", "tau", "1", "format_version", "\0", "x" * 5000]): value[key]}
    return {**value, key: changed_value(value[key], draw)}


def changed_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return bytes of which some were flipped, cut off, removed, repeated, overwritten or inserted."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at, to = sorted(draw.randrange(len(changed) + 1) for _ in range(2))
        to = min(to, at + draw.choice([1, 4, 64, 4096]))
        what = draw.randrange(6)
        if what == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif what == 1 and draw.random() < 0.3:
            del changed[at:]
        elif what == 2:
            del changed[at:to]
        elif what == 3:
            changed[at:at] = changed[at:to] * draw.choice([1, 2, 50])
        elif what == 4:
            changed[at:to] = bytes(to - at)
        else:
            changed[at:at] = draw.choice(
                [b"\0", b"\xff\xfe", b"[" * 3000, b"{", b"&a [*a]", b"\n- ", b"!!python/none ", b'"']
            )
    return bytes(changed)


def changed_json(content: bytes, draw: random.Random) -> bytes:
    """Return a JSON file in which a value or some bytes are changed."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    return json.dumps(changed_value(json.loads(content), draw)).encode("utf-8", "surrogatepass")


def changed_yaml(content: bytes, draw: random.Random) -> bytes:
    """Return a YAML file in which a value or some bytes are changed."""
    if draw.random() < 0.3:
        return changed_bytes(content, draw)
    changed = changed_value(yaml.safe_load(content), draw)
    text: str = json.dumps(changed) if draw.random() < 0.5 else yaml.safe_dump(changed)
    return text.encode("utf-8", "surrogatepass")


def framed(body: bytes) -> bytes:
    """Return a record framed as in an event file."""
    header = len(body).to_bytes(8, "little")
    return header + masked_crc32c(header).to_bytes(4, "little") + body + masked_crc32c(body).to_bytes(4, "little")


def bodies_of(content: bytes) -> list[bytes]:
    """Return the records of an undamaged event file."""
    bodies, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        bodies.append(content[at + 12 : at + 12 + length])
        at += length + 16
    return bodies


ODD_NUMBERS = (0.0, -1.0, 1e38, 1e-38, float("nan"), float("inf"), float("-inf"))
ODD_STEPS = (0, -1, 1, 2**53, 2**63 - 1, -(2**63))


def changed_events(content: bytes, draw: random.Random) -> bytes:
    """Return an event file in which messages, records or some bytes are changed."""
    what = draw.random()
    if what < 0.25:
        return changed_bytes(content, draw)
    bodies = bodies_of(content)
    for _ in range(draw.choice([1, 3, 30])):
        at = draw.randrange(len(bodies))
        if what < 0.45:
            bodies[at] = changed_bytes(bodies[at] or b"\0", draw)
        elif what < 0.6:
            bodies[at:at] = draw.choices(bodies, k=draw.choice([1, 5, 200]))
        elif what < 0.65:
            draw.shuffle(bodies)
        else:
            bodies[at] = _changed_event(bodies[at], draw)
    changed = b"".join(map(framed, bodies))
    if draw.random() < 0.1:
        header = draw.choice([0, 5, 1 << 20, 65 << 20, 1 << 40, 2**64 - 1]).to_bytes(8, "little")
        changed += header + masked_crc32c(header).to_bytes(4, "little") + bytes(draw.choice([0, 9, 1 << 21]))
    return changed


def _changed_event(body: bytes, draw: random.Random) -> bytes:
    try:
        event = event_pb2.Event.FromString(body)
    except Exception:  # an earlier mutation has changed it
        return body
    event.step = draw.choice([event.step, *ODD_STEPS])
    event.wall_time = draw.choice([event.wall_time, *ODD_NUMBERS])
    for value in event.summary.value:
        value.tag = draw.choice([value.tag, "", "a\nb", "x" * 9000, *tags.TAGS])
        if draw.random() < 0.5:
            value.simple_value = draw.choice([value.simple_value, *ODD_NUMBERS])
    return bytes(event.SerializeToString())


def write_run(folder: Path) -> Path:
    """Write a run's folder: event file, run.json and rl-zoo's files.

    :return: the path of the event file
    """
    names = [name for name, tag in tags.TAGS.items() if tag.x_axis == "step"]
    points = [(name, 100 * step) for step in range(1, 13) for name in names]
    records = []
    for at, (name, step) in enumerate(points):
        value = summary_pb2.Summary.Value(tag=name, simple_value=1.0 + at % 7 / 10)
        event = event_pb2.Event(wall_time=1.7e9 + at, step=step, summary=summary_pb2.Summary(value=[value]))
        records.append(framed(event.SerializeToString()))
    run = folder / "Env-v0_1"
    (run / "Env-v0").mkdir(parents=True)
    (run / EVENTS).write_bytes(b"".join(records))
    (run / "Env-v0" / "config.yml").write_text(
        "batch_size: 256\nlearning_rate: lin_1e-3\nnormalize: dict(norm_reward=True)\n"
    )
    (run / "Env-v0" / "args.yml").write_text("algo: td3\nenv: Env-v0\nseed: 3\nn_timesteps: 1000\nenv_kwargs: {a: 1}\n")
    RunManifest(
        algo="VisualTD3",
        env_id="Env-v0",
        seed=3,
        n_timesteps=5000,
        hyperparams={"gamma": 0.99, "tau": 0.005, "preset": "visual", "policy_kwargs": {"net_arch": [400, 300]}},
        encoder="shared",
        groups=("actor_mlp", "critic_cnn", "critic_mlp"),
        reward_is_normalized=True,
        versions={"torch": "2.8"},
        git={"commit": "abc", "dirty": False},
        machine={"cores": 2},
        command=("visual-td3", "train"),
        started="2025-01-01T10:00:00+00:00",
        finished="2025-01-01T11:00:00+00:00",
    ).write(run / "run.json")
    return run / EVENTS


def _beside(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_run(folder)
        path = folder / name
        path.write_text(content)
        return path

    return write


def _of_run(name: str) -> Callable[[Path], Path]:
    return lambda folder: write_run(folder).parent / name


def _report(*flags: str) -> Callable[[Path], list[str]]:
    """Return a function that returns the arguments of ``visual-td3 report`` for a folder.

    :param flags: options of the report; the value of an option is the name of a file in the folder
    """
    return lambda folder: [
        "report",
        str(folder / "Env-v0_1"),
        *(flag if flag.startswith("--") else str(folder / flag) for flag in flags),
        *("--output", str(folder / "out"), "--format", "json,md"),
    ]


def changed_csv(content: bytes, draw: random.Random) -> bytes:
    """Return a CSV file in which cells, rows or bytes are changed."""
    if draw.random() < 0.4:
        return changed_bytes(content, draw)
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(draw.choice([1, 3, 30])):
        row = draw.choice(rows)
        what = draw.randrange(5)
        if what == 0:
            rows.insert(draw.randrange(len(rows)), list(row))
        elif what == 1:
            n_times = draw.choice([0, 2, 3000])
            # A row can be repeated more than once: without a limit, it would fill the memory.
            row *= min(n_times, max(1, MAX_ROW_CHARACTERS // (1 + sum(map(len, row)))))
        else:
            cell = draw.choice(
                ["", "nan", "-inf", "1e999", "9" * 5000, "x" * 200_000, '"', "\0", "-1", "value", "step"]
            )
            at = draw.randrange(len(row) + 1)
            row[at : at + 1] = [cell]
    return "\n".join(",".join(row) for row in rows).encode()


def changed_npz(content: bytes, draw: random.Random) -> bytes:
    """Return an .npz file in which an array, the header of an array, or some bytes are changed."""
    if draw.random() < 0.4:
        return changed_bytes(content, draw)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    what = draw.randrange(4)
    if what == 0:
        del members[name]
    elif what == 1:
        members[name] = changed_bytes(members[name], draw)
    elif what == 2:
        shape = draw.choice(["(10000000000000,)", "(-1,)", "()", "(0,)", "(3, 0)", "(True,)"])
        at = members[name].index(b"(")
        members[name] = members[name][:at] + shape.encode() + members[name][at + 4 :]
    else:
        dtype = draw.choice([b"'|O' ", b"'<c16'", b"'<U9'", b"'<f2'", b"'<M8'"])
        members[name] = members[name].replace(b"'<f8'", dtype).replace(b"'<i8'", dtype)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return stream.getvalue()


def _table(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "Env-v0_1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write


def _evaluations() -> bytes:
    stream = io.BytesIO()
    steps = np.arange(100, 1300, 100)
    np.savez(stream, timesteps=steps, results=np.ones((12, 5)), ep_lengths=np.ones((12, 5)))
    return stream.getvalue()


def _csv(heading: str, row: str) -> bytes:
    return "\n".join([heading, *(row.format(at, at / 7) for at in range(100, 1300, 100)), ""]).encode()


CRITERIA = """format_version: 1
criteria:
  policy_drives: {blocking: false}
  critic_loss_mean: {threshold: 300, applies_from_step: 100}
  mine: {title: t, kind: mean_below, tags: [train/critic_loss], threshold: 1, blocking: true, source: me, min_points: 3}
"""
TAGS = """Loss/qf1: train/critic_1_loss
Loss/actor: {tag: train/actor_loss, scale: -1}
agent/buffer_utilization: [{tag: train/episode_reward}, train/episode_length]
"""
HYPERPARAMS = """algo: td3
policy: CnnPolicy
learning_rate: lin_1e-3
actor_lr: 1e-4
train_freq: [4, step]
policy_kwargs: dict(net_arch=[400, 300], encoder='shared')
normalize: "{'norm_obs': False, 'norm_reward': True}"
batch_size: 256
tau: 0.005
noise_type: normal
"""

TARGETS: Mapping[str, Target] = {
    "event files": Target(write_run, changed_events, _report()),
    "progress.csv": Target(
        _table("progress.csv", _csv("time/total_timesteps,rollout/ep_rew_mean,train/actor_loss,x", "{},{:.3f},1e-3,")),
        changed_csv,
        _report(),
    ),
    "monitor.csv": Target(
        _table("monitor.csv", _csv('#{"t_start": 1.7e9, "env_id": "Env-v0"}\nr,l,t', "{1:.3f},{0},{0}.5")),
        changed_csv,
        _report(),
    ),
    "evaluations.npz": Target(_table("evaluations.npz", _evaluations()), changed_npz, _report()),
    "own CSV": Target(_table("mine.csv", _csv("step,key,value,run_id", "{},loss/a,{:.3f},a1")), changed_csv, _report()),
    "run.json": Target(_of_run("run.json"), changed_json, _report()),
    "criteria": Target(_beside("c.yml", CRITERIA), changed_yaml, _report("--criteria", "c.yml")),
    "tags": Target(_beside("t.yml", TAGS), changed_yaml, _report("--tags", "t.yml")),
    "hyperparameters": Target(_beside("h.yml", HYPERPARAMS), changed_yaml, _report("--hyperparams", "h.yml")),
    "rl-zoo's config.yml": Target(_of_run("Env-v0/config.yml"), changed_yaml, _report()),
    "rl-zoo's args.yml": Target(_of_run("Env-v0/args.yml"), changed_yaml, _report()),
}
"""The kinds of input files. More can be added: any file that a command reads."""


def try_mutation(name: str, number: int, keep: Path | None = None) -> Outcome:
    """Mutate the file of a target and run the target's command on the mutated file.

    :param name: the name of the target.
    :param number: the number of the mutation, which is part of its seed.
    :param keep: folder in which to keep a copy of the files if the mutation fails; None to keep nothing.
    """
    target = TARGETS[name]
    draw = random.Random(zlib.crc32(name.encode()) + number)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = target.write(folder)
        file.write_bytes(target.mutate(file.read_bytes(), draw))
        began = time.monotonic()
        # A forked process has all libraries imported already. If it crashes, the campaign continues.
        child = os.fork()
        if child == 0:
            _run_and_exit(target.command(folder), folder)
        _, status, usage = os.wait4(child, 0)
        said = (folder / "stderr").read_text(errors="replace")
        outcome = Outcome(
            os.waitstatus_to_exitcode(status),
            time.monotonic() - began,
            int(usage.ru_maxrss) * 1024,
            "Traceback" in said or "internal error" in said,
        )
        if keep is not None and not outcome.is_good:
            shutil.copytree(folder, keep / f"{name} {number}", dirs_exist_ok=True)
        return outcome


def _run_and_exit(command: list[str], folder: Path) -> None:
    """Run a command in this forked process within the limits, and end the process."""
    code: int = RUNNING_FAILED
    try:
        os.chdir(folder)
        with open("stdout", "w") as stdout, open("stderr", "w") as stderr:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                # The limit is on the address space, of which the parent's libraries take a part already.
                in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (in_use + MAX_BYTES, resource.RLIM_INFINITY))
                signal.alarm(MAX_SECONDS + 1)
                try:
                    code = cli.main(command)
                except SystemExit as ended:
                    code = ended.code if isinstance(ended.code, int) else RUNNING_FAILED
                except BaseException:  # print the traceback, by which the parent recognises a failure
                    sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)  # without the parent's exit handlers


def run_target(name: str, first: int, count: int, keep: Path | None) -> dict[str, Any]:
    """Run ``count`` mutations, starting with the seed ``first``, and return their outcomes."""
    outcomes = {
        number: try_mutation(name, number, keep)
        for number in tqdm(range(first, first + count), desc=name, disable=None)
    }
    return {
        "mutations": count,
        "first": first,
        "exit codes": dict(sorted(Counter(str(outcome.code) for outcome in outcomes.values()).items())),
        "failed": [number for number, outcome in outcomes.items() if not outcome.is_good],
        "longest, s": round(max(outcome.seconds for outcome in outcomes.values()), 2),
        "largest, MB": round(max(outcome.peak_bytes for outcome in outcomes.values()) / 1e6, 1),
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown table, with a row for each target."""
    lines = ["| input | mutations | exit 0 | 1 | 2 | 3 | failed | longest, s | largest, MB |", "| --- " * 9 + "|"]
    for name in [target for target in TARGETS if target in results]:
        found = results[name]
        codes = " | ".join(str(found["exit codes"].get(str(code), 0)) for code in range(4))
        lines.append(
            f"| {name} | {found['mutations']:,} | {codes} | {len(found['failed'])} | {found['longest, s']:.1f} | "
            f"{found['largest, MB']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the requested targets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--count", type=int, help=f"number of mutations of each target (default: {COUNT:,})")
    parser.add_argument("--first", type=int, help="number of the first mutation (default: 0)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for copies of the files that caused a failure")
    parser.add_argument("--again", action="store_true", help="also run targets that have results already")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    settings = parser.parse_args()
    is_trial = settings.first is not None or settings.count is not None
    results = {} if is_trial else read_json(settings.output)
    for name in settings.targets:
        if settings.again or name not in results:
            results[name] = run_target(name, settings.first or 0, settings.count or COUNT, settings.keep)
            if not is_trial:
                save_json(results, settings.output)
    print(table(results))
    return 1 if any(found["failed"] for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
