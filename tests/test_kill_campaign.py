"""The kill campaign has enough results, and the README shows its present table."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("kill_campaign", ROOT / "benchmarks" / "kill_campaign.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_enough_results_and_every_killed_run_equals_the_undisturbed_one(campaign):
    results = json.loads(campaign.RESULTS.read_text())
    kinds, moments = Counter(), Counter()
    for each in results.values():
        assert each["differences"] == []
        kinds.update(event["kind"] for event in each["events"] if event["exit_code"] != 0)
        moments.update(event["moment"] for event in each["events"] if event["exit_code"] == -9)
    assert kinds["SIGKILL"] >= 30
    assert kinds["SIGTERM"] >= 10
    assert kinds["full disk"] >= 5
    assert min(moments["before the first snapshot"], moments["in the final save"]) >= 5
    assert {(each["vec_env"], each["has_tb"]) for each in results.values()} == set(campaign.VARIANTS)


def test_the_readme_shows_the_table_of_the_results(campaign):
    results = json.loads(campaign.RESULTS.read_text())
    assert campaign.table(results) in (ROOT / "benchmarks" / "README.md").read_text()
