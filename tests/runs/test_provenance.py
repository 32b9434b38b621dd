"""What run.json says of where a run comes from."""

import json
import os
import subprocess

from sb3_visual_td3.runs.manifest import RunManifest, command_line, git_state, machine


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_outside_a_repository_there_is_no_git_state(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None


def test_without_git_there_is_no_git_state(tmp_path, monkeypatch):
    git(tmp_path, "init")
    assert git_state(tmp_path) is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_the_commit_and_uncommitted_changes_are_recorded(tmp_path):
    git(tmp_path, "init")
    assert git_state(tmp_path) == {"commit": None, "dirty": False}
    (tmp_path / "a").write_text("1")
    assert git_state(tmp_path) == {"commit": None, "dirty": True}
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "a")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": head, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {"commit": head, "dirty": True}


def test_the_machine_is_described():
    found = machine("a card")
    assert set(found) == {"cpu", "cores", "memory_gb", "gpu", "platform", "python"}
    assert found["gpu"] == "a card"
    assert found["cpu"]
    assert 1 <= found["cores"] <= os.cpu_count()
    assert 0.1 < found["memory_gb"] < 100_000


def test_only_passwords_in_addresses_are_removed_from_the_command_line():
    words = ["train.py", "--storage", "postgresql://me:secret@host:5432/db", "--env", "a@b"]
    kept = ["train.py", "--storage", "postgresql://***@host:5432/db", "--env", "a@b"]
    assert command_line(words) == kept


def test_no_environment_variable_is_recorded(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    assert "hf_verysecret" not in json.dumps([machine(None), command_line(), git_state()])


def test_a_manifest_of_an_earlier_version_still_reads(tmp_path):
    old = {"format_version": 1, "algo": "VisualTD3", "env_id": "LiteDriving-v0", "groups": ["actor_mlp"]}
    (tmp_path / "run.json").write_text(json.dumps(old))
    read = RunManifest.read(tmp_path / "run.json")
    assert (read.git, read.machine, read.command) == (None, {}, ())
    RunManifest("a", "b", git={"commit": "c", "dirty": True}, machine=machine(None), command=("x",)).write(
        tmp_path / "new.json"
    )
    assert RunManifest.read(tmp_path / "new.json").command == ("x",)
