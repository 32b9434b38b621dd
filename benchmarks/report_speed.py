"""How long does a report take for a hundred megabytes of events, and how long does reading alone take?

Writes an event file as a training run writes it: one scalar per record, with 40 of the package's tags in turn. The
option --megabytes sets the size of the file. Then each round (see --rounds) runs these programs one after another, in
separate processes:

- report: `visual-td3 report`, from the command to the last file (md, html, json);
- read: the package's reader of event files alone;
- TensorBoard: TensorBoard's EventAccumulator, with all points kept.

The table shows medians of wall time and of processor time. On a busy machine compare the processor time.

Results are kept in benchmarks/results/report_speed.json, by size. To measure again, use --again. A hundred megabytes
take some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_rows import read_json
from tensorboard.compat.proto import event_pb2, summary_pb2
from tqdm import tqdm

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.event_file import masked_crc32c

RESULTS = Path(__file__).parent / "results" / "report_speed.json"
NAMES = [name for name, tag in tags.TAGS.items() if tag.x_axis == "step"][:40]
BATCH = 20_000
Result = dict[str, float]

READ = """
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
(run,) = find_runs(__import__("pathlib").Path({folder!r}))
assert read_run(run.path, run.files).n_points == {n_points}
"""
TENSORBOARD = """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator({folder!r}, size_guidance={{"scalars": 0}}).Reload()
assert sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"]) == {n_points}
"""


def write_events(path: Path, n_bytes: float) -> int:
    """Write an event file.

    :return: the number of its points
    """
    n_points = 0
    with path.open("wb") as stream, tqdm(total=n_bytes, desc="writing", unit="B", unit_scale=True, disable=None) as bar:
        while stream.tell() < n_bytes:
            bodies = [_body(n_points + i) for i in range(BATCH)]
            n_points += BATCH
            bar.update(stream.write(framed(bodies)))
    return n_points


def _body(number: int) -> bytes:
    step = 100 * (1 + number // len(NAMES))
    value = summary_pb2.Summary.Value(tag=NAMES[number % len(NAMES)], simple_value=1.0 + number % 97 / 100)
    event = event_pb2.Event(wall_time=1.7e9 + number / 1000, step=step, summary=summary_pb2.Summary(value=[value]))
    return bytes(event.SerializeToString())


def framed(bodies: list[bytes]) -> bytes:
    """Return records framed as in an event file."""
    headers = (len(body).to_bytes(8, "little") for body in bodies)
    return b"".join(
        header + masked_crc32c(header).to_bytes(4, "little") + body + masked_crc32c(body).to_bytes(4, "little")
        for header, body in zip(headers, bodies, strict=True)
    )


def run(arguments: list[str]) -> Result:
    """Run a process and return the time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in {0, 1, 3}:
        raise RuntimeError(done.stderr)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall_s, "cpu_s": cpu_s}


def measure(megabytes: float, rounds: int) -> dict[str, Result]:
    """Measure every arm and return the times by arm."""
    with tempfile.TemporaryDirectory() as folder:
        events, output = Path(folder) / "run", Path(folder) / "out"
        events.mkdir()
        n_points = write_events(events / "events.out.tfevents.1", megabytes * 1e6)
        arms = {
            "report": ["-m", "sb3_visual_td3", "report", str(events), "--output", str(output)],
            "read": ["-c", READ.format(folder=str(events), n_points=n_points)],
            "TensorBoard": ["-c", TENSORBOARD.format(folder=str(events), n_points=n_points)],
        }
        taken: dict[str, list[Result]] = {arm: [] for arm in arms}
        for _ in tqdm(range(rounds), desc="measuring", unit="round", disable=None):
            for arm, arguments in arms.items():
                taken[arm].append(run(arguments))
        page = float((output / "report.html").stat().st_size)
    found = {
        arm: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for arm, results in taken.items()
    }
    found["report"] |= {"points": float(n_points), "page_bytes": page}
    return found


def table(results: dict[str, dict[str, Result]]) -> str:
    """Return the Markdown table, with a row for each size and arm."""
    lines = ["| events | points | what | wall, s | processor, s | page, MB |", "| --- | --- | --- | --- | --- | --- |"]
    for size, arms in results.items():
        for arm, result in arms.items():
            points, page = result.get("points"), result.get("page_bytes")
            lines.append(
                f"| {size} | {'' if points is None else f'{points:,.0f}'} | {arm} | {result['wall_s']:.1f} | "
                f"{result['cpu_s']:.1f} | {'' if page is None else f'{page / 1e6:.1f}'} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Make the missing measurements and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0, help="size of the event file (default: %(default)g)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of rounds; each measures everything once (default: %(default)s)"
    )
    parser.add_argument(
        "--again", action="store_true", help="discard the stored results of this size and measure again"
    )
    settings = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = read_json(RESULTS)
    size = f"{settings.megabytes:g} MB"
    if settings.again or size not in results:
        results[size] = measure(settings.megabytes, settings.rounds)
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
