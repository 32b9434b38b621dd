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


def test_a_mutation_is_the_same_every_time(campaign, tmp_path):
    for name, target in campaign.TARGETS.items():
        folder = tmp_path / name.replace("/", " ")
        folder.mkdir()
        content = target.write(folder).read_bytes()
        made = [target.mutate(content, campaign.random.Random(seed)) for seed in (1, 1, 2, 3, 4)]
        assert made[0] == made[1]
        assert len(set(made)) > 2
