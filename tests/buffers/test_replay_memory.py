"""The memory measured by benchmarks/replay_memory.py for a million transitions, checked at a fiftieth of the size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
N = 20_000


@pytest.mark.slow
@pytest.mark.parametrize(("episode", "most_bytes"), [(200, 7500), (10, 8300)])
def test_a_transition_of_four_frames_takes_little_more_memory_than_one_frame(episode, most_bytes):
    code = (
        f"import sys, json; sys.path.insert(0, {str(BENCHMARKS)!r}); import replay_memory as m\n"
        f"print(json.dumps(m.measure_memory('ours', {N}, {episode}, '')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["n"] == N
    assert 84 * 84 < found["growth_bytes"] / N < most_bytes
