"""Damaged input files: a seeded sample of ``benchmarks/mutation_campaign.py``."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "mutation_campaign.py"


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("mutation_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation_campaign"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutation_campaign"]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here, which the limits are set by")
@pytest.mark.parametrize(
    "target",
    [
        "event files",
        "progress.csv",
        "monitor.csv",
        "evaluations.npz",
        "own CSV",
        "run.json",
        "criteria",
        "tags",
        "hyperparameters",
        "rl-zoo's config.yml",
        "rl-zoo's args.yml",
    ],
)
def test_a_damaged_input_file_gives_an_exit_code_of_0_to_3(campaign, target):
    outcomes = {number: campaign.try_mutation(target, number) for number in range(5000, 5003)}
    # The memory of a fork is its parent's too, which holds all the tests here: RLIMIT_AS bounds what the command adds.
    outcomes = {number: outcome._replace(peak_bytes=0) for number, outcome in outcomes.items()}
    assert {number: outcome for number, outcome in outcomes.items() if not outcome.is_good} == {}


@pytest.mark.parametrize("script", ["mutation_campaign", "resume_mutations"])
def test_repeating_some_mutations_keeps_the_results_of_all(script, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    benchmark = importlib.import_module(script)
    name = next(iter(benchmark.TARGETS))
    made = []

    def run_target(target, first, count, *_):
        made.append((target, first, count))
        found = {"mutations": count, "exit codes": {}, "failed": [], "longest, s": 0.0, "largest, MB": 0.0}
        return {**found, "hostile text was run": 0}

    monkeypatch.setattr(benchmark, "run_target", run_target)
    output = tmp_path / "results.json"
    command = [script, "--targets", name, "--output", str(output)]
    monkeypatch.setattr("sys.argv", command)
    assert benchmark.main() == 0
    everything = output.read_text()
    monkeypatch.setattr("sys.argv", [*command, "--first", "17", "--count", "1"])
    assert benchmark.main() == 0
    assert made == [(name, 0, 1_000), (name, 17, 1)]
    assert output.read_text() == everything


def test_a_row_that_is_repeated_again_and_again_fits_into_memory(campaign, tmp_path):
    target = campaign.TARGETS["own CSV"]
    draw = campaign.random.Random(campaign.zlib.crc32(b"own CSV") + 129)  # repeats a row 3,000 times, three times over
    assert len(target.mutate(target.write(tmp_path).read_bytes(), draw)) < 20_000_000


def test_a_mutation_is_the_same_every_time(campaign, tmp_path):
    for name, target in campaign.TARGETS.items():
        folder = tmp_path / name.replace("/", " ")
        folder.mkdir()
        content = target.write(folder).read_bytes()
        made = [target.mutate(content, campaign.random.Random(seed)) for seed in (1, 1, 2, 3, 4)]
        assert made[0] == made[1]
        assert len(set(made)) > 2
