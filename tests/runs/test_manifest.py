from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sb3_visual_td3.runs.manifest import RunManifest

MANIFEST = RunManifest(
    algo="visual_td3",
    env_id="LiteDriving-v0",
    seed=3,
    n_timesteps=5000,
    hyperparams={"gamma": 0.99, "policy_kwargs": {"encoder": "shared", "net_arch": [400, 300]}},
    encoder="shared",
    groups=("actor_mlp", "critic_cnn", "critic_mlp"),
    reward_is_normalized=False,
    versions={"torch": "2.13"},
    started="2025-01-01T10:00:00+00:00",
    event_dir="tb",
)


def test_a_manifest_round_trips(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path / "run.json")
    assert RunManifest.read(tmp_path / "run.json") == MANIFEST
    assert json.loads((tmp_path / "run.json").read_text())["format_version"] == 1


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    MANIFEST.write(path)
    for value in (float("nan"), object()):
        with pytest.raises(ValueError, match="not plain JSON"):
            RunManifest("a", "b", hyperparams={"x": value}).write(path)
    assert RunManifest.read(path) == MANIFEST
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"format_version": 2}', "format_version is 2"),
        ('{"algo": "a", "env_id": "b"}', "format_version is None"),
        ('{"format_version": 1, "algo": "a"}', "env_id"),
        ('{"format_version": 1, "algo": "a", "env_id": "b", "colour": 1}', "unknown keys colour; .* Remove them"),
        ('{"format_version": 1, "algo": "a", "env_id": "b", "encoder": "both"}', "encoder is 'both'"),
        ("[]", "expected a mapping"),
        ("{", "not valid JSON"),
    ],
)
def test_an_invalid_manifest_is_refused_with_file_and_reason(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=reason) as refused:
        RunManifest.read(path)
    assert "run.json" in str(refused.value)


def test_reading_a_manifest_needs_no_torch() -> None:
    code = "import sys, sb3_visual_td3.runs.manifest; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


WRONG = [None, True, 1, -1.5, "text", "", [], [1], ["a"], {}, {"a": 1}, {"a": "b"}, {"a": None}]
RIGHT = {
    "algo": ["text", ""],
    "env_id": ["text", ""],
    "seed": [None, 1],
    "n_timesteps": [None, 1, -1.5],
    "hyperparams": [{}, {"a": 1}, {"a": "b"}, {"a": None}],
    "encoder": [None],
    "groups": [[], ["a"]],
    "reward_is_normalized": [None, True],
    "versions": [{}, {"a": "b"}],
    "git": [None, {}, {"a": 1}, {"a": "b"}, {"a": None}],
    "machine": [{}, {"a": 1}, {"a": "b"}, {"a": None}],
    "command": [[], ["a"]],
    "started": [None, "text", ""],
    "finished": [None, "text", ""],
    "end": [None],
    "ended": [None, "text", ""],
    "end_reason": [None, "text", ""],
    "event_dir": [None, "text", ""],
    "format_version": [1],
}


@pytest.mark.parametrize("key", RIGHT)
def test_a_value_of_the_wrong_type_is_refused_with_the_file_and_the_key(tmp_path: Path, key: str) -> None:
    path = tmp_path / "run.json"
    MANIFEST.write(path)
    content = json.loads(path.read_text())
    assert content.keys() == RIGHT.keys()
    for value in WRONG:
        path.write_text(json.dumps({**content, key: value}))
        if any(type(right) is type(value) and right == value for right in RIGHT[key]):
            RunManifest.read(path)
            continue
        with pytest.raises(ValueError, match=rf"run\.json: .*{key}.* is ") as refused:
            RunManifest.read(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["[" * 100_000, "[" * 400 + "]" * 400, '{"a":' * 50 + "1" + "}" * 50])
def test_a_manifest_that_is_nested_deeply_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"format_version": 1, "algo": "a", "env_id": "b", "hyperparams": {"x": ' + value + "}}")
    with pytest.raises(ValueError, match=r"run\.json: .*nested"):
        RunManifest.read(path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, None),
        ({"finished": "2026"}, "finished at 2026"),
        ({"end": "finished", "finished": "2026", "ended": "2026"}, "finished at 2026"),
        ({"end": "crashed", "ended": "2026", "end_reason": "EOFError"}, "crashed at 2026: EOFError"),
        ({"end": "interrupted"}, "interrupted"),
    ],
    ids=["going on", "of an earlier version", "finished", "crashed", "interrupted"],
)
def test_the_end_of_a_run_is_described_in_words(tmp_path, how, words):
    RunManifest("visual_td3", "LiteDriving-v0", **how).write(tmp_path / "run.json")
    assert RunManifest.read(tmp_path / "run.json").how_it_ended == words


def test_an_unknown_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match="end is 'exploded'; expected one of finished, interrupted, crashed, stopped"):
        RunManifest("visual_td3", "LiteDriving-v0", end="exploded")
    RunManifest("visual_td3", "LiteDriving-v0", end="crashed").write(tmp_path / "run.json")
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace("crashed", "exploded"))
    with pytest.raises(ValueError, match="end is 'exploded'"):
        RunManifest.read(path)
