"""What does a snapshot of a full replay buffer cost: bytes, seconds, and memory while it is saved and restored?

Fills a FrameReplayBuffer with --transitions observations of 4 x 84 x 84 uint8 in episodes of 200 steps, in a separate
process, and saves a snapshot. Then it adds new transitions (by default 5 % of --transitions, see --new) and saves a
second snapshot, which should cost little more than the new transitions. A fresh process then loads and restores the
newest snapshot.

The script resets the kernel's peak memory (VmHWM) before each part of the benchmark. The table shows by how much the
peak exceeds the memory before the part, as a share of the buffer's size. For restoring, the memory of the restored
buffer is subtracted.

Seconds depend on the disk that contains --folder, because each snapshot is synced to this disk. The first snapshot
writes the whole buffer, 0.7 GB for 100,000 transitions. Results are kept in benchmarks/results/snapshot_cost.json.
A result for the same --transitions and --new is not measured again. After a change of the code use --again. Linux only.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch as th
from replay_memory import Result, fill, in_a_fresh_process, make, make_pool
from result_rows import read_json, save_json

from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from sb3_visual_td3.training_state.replay_state import replay_state, set_replay_state

RESULTS = Path(__file__).parent / "results" / "snapshot_cost.json"
EPISODE = 200


def memory_bytes(name: str) -> int:
    """Return the current memory or the peak memory of this process.

    :param name: ``"VmRSS"`` for the current memory, ``"VmHWM"`` for the peak since ``PeakMemory`` last reset the peak
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}: this script needs Linux")


class PeakMemory:
    """Measure by how much the peak memory inside the context exceeds the memory before it."""

    def __enter__(self) -> PeakMemory:
        Path("/proc/self/clear_refs").write_text("5")
        self.before = memory_bytes("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.after = memory_bytes("VmRSS")
        self.growth = memory_bytes("VmHWM") - self.before


def measure_saving(folder: str, n: int, n_new: int, label: str) -> Result:
    """Return the cost of saving two snapshots. Needs a fresh process."""
    th.set_num_threads(1)
    pool = make_pool()
    before = memory_bytes("VmRSS")
    buffer = make("ours", n)
    fill(buffer, n, EPISODE, pool, label)
    found: Result = {"n": buffer.size(), "buffer_bytes": memory_bytes("VmRSS") - before}
    store = SnapshotStore(Path(folder))
    # Frames other than the earlier ones: the same frames in the same places would not be new data.
    for name, step, frames in (("first", n, None), ("second", n + n_new, 0 - pool)):
        if frames is not None:
            fill(buffer, n_new, EPISODE, frames, f"{label}, new ones")
        with PeakMemory() as peak:
            saved = store.save(step, {"replay": replay_state(buffer)}, files={}, keep=2)
        found[f"{name}_bytes"] = saved.n_bytes_written
        found[f"{name}_seconds"] = saved.seconds
        found[f"{name}_peak_growth"] = peak.growth
    return found


def measure_restoring(folder: str, n: int) -> Result:
    """Return the cost of restoring the newest snapshot. Needs a fresh process."""
    th.set_num_threads(1)
    buffer = make("ours", n)
    with PeakMemory() as peak:
        begin = time.perf_counter()
        state = SnapshotStore(Path(folder)).newest().state
        n_seconds_to_load = time.perf_counter() - begin
        set_replay_state(buffer, state["replay"])
        n_seconds = time.perf_counter() - begin
    held = peak.after - peak.before
    return {
        "restored": buffer.size(),
        "load_seconds": n_seconds_to_load,
        "restore_seconds": n_seconds,
        "restored_bytes": held,
        "restore_peak_beyond": peak.growth - held,
    }


def measure(folder: str | None, n: int, n_new: int, label: str) -> Result:
    """Return the costs of saving and of restoring."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="snapshot_cost_") as place:
        saving = in_a_fresh_process(measure_saving, place, n, n_new, label)
        return {**saving, **in_a_fresh_process(measure_restoring, place, n), "n_new": n_new}


def report(result: Result) -> str:
    """Return the Markdown table."""
    whole = result["buffer_bytes"]
    rows = [
        ("buffer, resident, GB", f"{whole / 1e9:.3f} ({result['n']:,.0f} transitions)"),
        ("first snapshot, GB", f"{result['first_bytes'] / 1e9:.3f} in {result['first_seconds']:.1f} s"),
        (
            f"second, after {result['n_new']:,.0f} new transitions, GB",
            f"{result['second_bytes'] / 1e9:.3f} ({result['second_bytes'] / result['first_bytes']:.1%} of the first) "
            f"in {result['second_seconds']:.1f} s",
        ),
        (
            "peak memory while saving, beyond the memory before",
            f"{result['first_peak_growth'] / whole:.1%} of the buffer, then {result['second_peak_growth'] / whole:.1%}",
        ),
        ("restoring, s", f"{result['restore_seconds']:.1f}, of which {result['load_seconds']:.1f} to check every byte"),
        (
            "peak memory while restoring, beyond the buffer",
            f"{result['restore_peak_beyond'] / whole:.1%} of the buffer",
        ),
    ]
    return "\n".join(["| what | cost |", "| --- | --- |", *(f"| {name} | {cost} |" for name, cost in rows)])


def main() -> None:
    """Measure the costs if they are not stored yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--transitions", type=int, default=100_000, help="transitions in the full buffer (default: 100,000)"
    )
    parser.add_argument(
        "--new", type=float, default=0.05, help="share of the buffer that is new in the second snapshot (default: 0.05)"
    )
    parser.add_argument(
        "--folder", help="folder for the temporary snapshots (default: the system's folder for temporary files)"
    )
    parser.add_argument(
        "--again", action="store_true", help="discard the stored results of these settings and measure again"
    )
    settings = parser.parse_args()
    results: dict[str, Result] = read_json(RESULTS)
    n_new = round(settings.transitions * settings.new)
    name = f"{settings.transitions:,} transitions, {n_new:,} new ones"
    if settings.again or name not in results:
        results[name] = measure(settings.folder, settings.transitions, n_new, name)
        save_json(results, RESULTS)
    print(report(results[name]))


if __name__ == "__main__":
    main()
