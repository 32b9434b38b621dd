"""A small sample of benchmarks/resume_mutations.py: damaged and hostile inputs of `resume` and `train`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import resume_mutations


@pytest.mark.parametrize("name", resume_mutations.TARGETS)
def test_a_changed_input_gives_at_most_one_line_of_error(name):
    outcomes = [resume_mutations.try_mutation(name, number) for number in range(5_000, 5_008)]
    assert [outcome.error for outcome in outcomes if not outcome.is_good] == []
    refused = [outcome for outcome in outcomes if outcome.code == 2]
    assert len(refused) >= 3
    for outcome in refused:
        (line,) = [line for line in outcome.error.splitlines() if line.startswith("visual-td3 ")]
        assert len(line) < 25_000


def test_unchanged_inputs_are_resumed_and_trained(tmp_path):
    for name, target in resume_mutations.TARGETS.items():
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        target.write(folder)
        assert resume_mutations.cli.main(target.command(folder)) == 0
