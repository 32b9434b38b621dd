from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sb3_visual_td3.common.saved_state import StoredArray, fill
from sb3_visual_td3.runs import object_store
from sb3_visual_td3.runs.snapshot import NoSnapshotError, SnapshotError
from sb3_visual_td3.runs.snapshot_store import SnapshotStore
from tests.runs.state_trees import is_same, trees

CHUNK_BYTES = 64


@pytest.fixture(autouse=True)
def small_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def state_of(step: int) -> dict[str, Any]:
    frames = np.arange(100, dtype=np.int32)
    frames[:5] = step
    return {"step": step, "frames": frames, "weights": np.full(3, step / 7), "rng": {"state": 2**100 + step}}


def save(store: SnapshotStore, step: int, **kwargs: Any) -> Any:
    files = {"model.zip": lambda path: path.write_text(f"model {step}")}
    return store.save(step, state_of(step), files, **kwargs)


def is_good(store: SnapshotStore, step: int) -> bool:
    snapshot = store.load(step)
    return is_same(snapshot.state, state_of(step)) and snapshot.file("model.zip").read_text() == f"model {step}"


def n_bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def objects_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "objects").rglob("*") if path.is_file()}


@settings(max_examples=60)
@given(trees, hnp.arrays("<u2", st.integers(0, 200)))
def test_a_state_comes_back_to_the_bit(tree: dict[str, Any], frames: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        SnapshotStore(Path(folder)).save(7, {"tree": tree, "frames": frames}, {})
        read = SnapshotStore(Path(folder)).newest().state
        assert isinstance(read["frames"], StoredArray) == (frames.nbytes >= CHUNK_BYTES)
        assert is_same(read, {"tree": tree, "frames": frames})


def test_two_surrogates_stay_two_characters(tmp_path: Path) -> None:
    state = {"\ud83d\ude00": "\ud83d\ude00"}
    SnapshotStore(tmp_path).save(1, state, {})
    assert SnapshotStore(tmp_path).newest().state == state


def test_a_snapshot_holds_what_was_saved_and_reports_its_size(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "run" / "snapshots")
    saved = save(store, 12000, versions={"torch": "2.9"})
    assert (saved.path, saved.step) == (tmp_path / "run" / "snapshots" / "step_000012000", 12000)
    assert saved.n_bytes_written == saved.n_bytes_total == n_bytes_in(store.folder)
    assert 0 < saved.seconds < 10
    snapshot = store.newest()
    assert is_same(snapshot.state, state_of(12000))
    target = np.zeros(100, np.int32)
    fill(target, snapshot.state["frames"])
    assert (target == state_of(12000)["frames"]).all()
    assert (snapshot.step, snapshot.versions, snapshot.skipped) == (12000, {"torch": "2.9"}, [])
    assert snapshot.file("model.zip").read_text() == "model 12000"
    with pytest.raises(ValueError, match=r"no file '\.\./model.zip'; there are model.zip"):
        snapshot.file("../model.zip")
    assert names_in(saved.path) == {"snapshot.json", "arrays.bin", "model.zip"}


def test_a_second_save_writes_only_what_is_new(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    save(store, 1)
    before = n_bytes_in(tmp_path)
    saved = save(store, 2)
    assert saved.n_bytes_written == n_bytes_in(tmp_path) - before
    assert saved.n_bytes_total == saved.n_bytes_written + 400 - CHUNK_BYTES
    assert len(objects_in(tmp_path)) == 7 + 1


def test_save_keeps_only_the_newest_snapshots_and_the_chunks_they_use(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for step in range(1, 6):
        save(store, step, keep=3)
        steps = list(range(max(1, step - 2), step + 1))
        assert [listed.step for listed in store.all()] == steps
        assert all(is_good(store, kept) for kept in steps)
        assert len(objects_in(tmp_path)) == 6 + len(steps)
    save(store, 6, keep=1)
    assert names_in(tmp_path) == {"step_000000006", "objects"}
    assert len(objects_in(tmp_path)) == 7


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 99)), min_size=1, max_size=8))
def test_only_the_last_snapshots_stay_whatever_is_saved(saves: list[tuple[int, int, int]]) -> None:
    expected: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = SnapshotStore(Path(folder))
        for step, keep, content in saves:
            expected.pop(step, None)
            expected[step] = {"frames": np.full(70, content % 3), "other": np.arange(content * 4)}
            store.save(step, expected[step], {}, keep=keep)
            expected = {old: expected[old] for old in list(expected)[-keep:]}
            assert [listed.step for listed in store.all()] == list(expected)
            assert store.newest().step == step
            assert all(is_same(store.load(old).state, expected[old]) for old in expected)
            flat = [
                array.tobytes()[start : start + CHUNK_BYTES]
                for state in expected.values()
                for array in state.values()
                for start in range(0, array.nbytes if array.nbytes >= CHUNK_BYTES else 0, CHUNK_BYTES)
            ]
            assert objects_in(Path(folder)) == {hashlib.sha256(chunk).hexdigest() for chunk in flat}


def test_a_run_resumed_from_an_older_snapshot_continues_from_its_own_newest(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for step in (1000, 2000, 3000):
        save(store, step, keep=3)
    assert store.load(1000).step == 1000
    save(store, 1500, keep=2)
    assert store.newest().step == 1500
    assert [listed.step for listed in store.all()] == [3000, 1500]


def test_a_state_that_is_not_plain_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path / "snapshots")
    with pytest.raises(ValueError, match=r"^callbacks\.0\.schedule is a function <lambda>"):
        store.save(1, {"callbacks": [{"schedule": lambda x: x}]}, {})
    for name in ("../x", "a/b", "/x", ".x", "", "snapshot.json", "arrays.bin", "a\nb"):
        with pytest.raises(ValueError, match="'files' contains the file name"):
            store.save(1, {}, {name: Path.touch})
    with pytest.raises(ValueError, match="keep=0: expected an integer >= 1"):
        store.save(1, {}, {}, keep=0)
    with pytest.raises(ValueError, match="step=-1: expected an integer >= 0"):
        store.save(-1, {}, {})
    assert not (tmp_path / "snapshots").exists()


def test_no_snapshot_at_all_is_a_separate_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(NoSnapshotError, match="there is no snapshot"):
            SnapshotStore(folder).newest()
        assert SnapshotStore(folder).all() == []
    store = SnapshotStore(tmp_path)
    save(store, 5)
    with pytest.raises(NoSnapshotError, match="no snapshot of step 6; there are: 5"):
        store.load(6)


def rewrite_record(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record and its digest, as an attacker who knows the format would."""
    path = folder / "snapshot.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": digest}, ensure_ascii=False))


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def own_chunk(folder: Path) -> Path:
    record = json.loads((folder / "snapshot.json").read_text())
    digest = record["arrays"][0]["chunks"][0]
    return folder.parent / "objects" / digest[:2] / digest


def set_key(*keys: Any, value: Any) -> Callable[[Path], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return lambda folder: rewrite_record(folder, change)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "model changed": (
        lambda f: flip(f / "model.zip"),
        "model.zip is damaged (its SHA-256 differs from the recorded one)",
    ),
    "model cut": (lambda f: truncate(f / "model.zip"), "model.zip is damaged (it has 6 bytes, not 7)"),
    "model missing": (lambda f: (f / "model.zip").unlink(), "model.zip is missing"),
    "model unreadable": (lambda f: as_folder(f / "model.zip"), "model.zip cannot be read (Is a directory)"),
    "small arrays changed": (
        lambda f: flip(f / "arrays.bin"),
        "arrays.bin is damaged (its SHA-256 differs from the recorded one)",
    ),
    "record changed": (lambda f: flip(f / "snapshot.json"), "snapshot.json is damaged ("),
    "record cut": (lambda f: truncate(f / "snapshot.json"), "snapshot.json is damaged (not JSON"),
    "record empty": (lambda f: (f / "snapshot.json").write_text(""), "snapshot.json is damaged (not JSON"),
    "record missing": (
        lambda f: (f / "snapshot.json").unlink(),
        "snapshot.json is missing, so ",
    ),
    "record unreadable": (lambda f: as_folder(f / "snapshot.json"), "snapshot.json cannot be read (Is a directory)"),
    "record binary": (lambda f: (f / "snapshot.json").write_bytes(b"\xff\x00"), "snapshot.json is damaged (not JSON"),
    "record deep": (lambda f: (f / "snapshot.json").write_text("[" * 10**5), "snapshot.json is damaged (not JSON"),
    "record nan": (
        lambda f: (f / "snapshot.json").write_text(
            '{"format": "sb3_visual_td3 snapshot", "format_version": 1, "sha256": "", "x": NaN}'
        ),
        "snapshot.json is damaged (",
    ),
    "other json": (
        lambda f: (f / "snapshot.json").write_text('{"format_version": 1}'),
        "snapshot.json does not describe a snapshot: expected a JSON object",
    ),
    "other version": (
        set_key("format_version", value=2),
        "snapshot.json has format_version 2, expected 1",
    ),
    "other step": (set_key("step", value=9), "snapshot.json belongs to step 9"),
    "chunk changed": (lambda f: flip(own_chunk(f)), " is damaged (its SHA-256 differs from the file name)"),
    "chunk cut": (lambda f: truncate(own_chunk(f)), " is damaged (it has 63 bytes, not 64)"),
    "chunk missing": (lambda f: own_chunk(f).unlink(), " is missing"),
    "a file outside": (
        set_key("files", "../../x", value={"n_bytes": 1, "sha256": "0" * 64}),
        "snapshot.json has content that this version of sb3_visual_td3 cannot read (ValueError: 'files' has the "
        "entry '../../x'",
    ),
    "an absolute file": (
        set_key("files", "/etc/passwd", value={"n_bytes": 1, "sha256": "0" * 64}),
        "snapshot.json has content that this version of sb3_visual_td3 cannot read (",
    ),
    "a chunk outside": (
        set_key("arrays", 0, "chunks", 0, value="../../../x"),
        "snapshot.json has content that this version of sb3_visual_td3 cannot read (",
    ),
    "a chunk that is a number": (
        set_key("arrays", 0, "chunks", 0, value=7),
        "sb3_visual_td3 cannot read (",
    ),
    "an object array": (set_key("arrays", 1, "dtype", value="O"), "sb3_visual_td3 cannot read ("),
    "no dtype": (set_key("arrays", 1, "dtype", value=None), "sb3_visual_td3 cannot read ("),
    "a shape beyond the file": (
        set_key("arrays", 1, "shape", value=[10**15]),
        "sb3_visual_td3 cannot read (",
    ),
    "a shape beyond numpy": (
        set_key("arrays", 1, "shape", value=[0, 10**30]),
        "sb3_visual_td3 cannot read (",
    ),
    "too few chunks": (set_key("arrays", 0, "shape", value=[1000]), "sb3_visual_td3 cannot read ("),
    "chunks too large": (
        set_key("arrays", 0, "chunk_bytes", value=10**12),
        "sb3_visual_td3 cannot read (",
    ),
    "an unknown mark": (set_key("state", "rng", value={"$code": "x"}), "sb3_visual_td3 cannot read ("),
    "a state that is a list": (set_key("state", value=[]), "sb3_visual_td3 cannot read ("),
    "no files": (lambda f: rewrite_record(f, lambda c: c.pop("files")), "sb3_visual_td3 cannot read ("),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_named_and_skipped(tmp_path: Path, damage: str) -> None:
    do, reason = DAMAGES[damage]
    save(SnapshotStore(tmp_path), 1)
    save(SnapshotStore(tmp_path), 2)
    do(tmp_path / "step_000000002")
    store = SnapshotStore(tmp_path)
    with pytest.raises(SnapshotError) as refused:
        store.load(2)
    assert str(refused.value).startswith(f"{tmp_path}: step_000000002: ")
    assert reason in str(refused.value)
    newest = store.newest()
    assert newest.step == 1
    assert is_same(newest.state, state_of(1))
    (line,) = newest.skipped
    assert line.startswith("step_000000002: ")
    assert reason in line

    # The run continues from step 1 and reaches step 2 a second time.
    save(store, 2)
    for fresh in (store, SnapshotStore(tmp_path)):
        assert is_good(fresh, 1)
        assert is_good(fresh, 2)
        assert fresh.newest().skipped == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_saved_beside_a_damaged_one_keeps_the_good_ones(tmp_path: Path, damage: str) -> None:
    save(SnapshotStore(tmp_path), 10)
    save(SnapshotStore(tmp_path), 20)
    DAMAGES[damage][0](tmp_path / "step_000000020")
    store = SnapshotStore(tmp_path)
    assert store.newest().step == 10
    save(store, 15, keep=2)
    fresh = SnapshotStore(tmp_path)
    assert fresh.newest().step == 15
    assert is_good(fresh, 10)
    assert is_good(fresh, 15)
    # Later saves delete old snapshots as usual, and no unused chunk remains.
    for step in (30, 40):
        save(store, step, keep=2)
    is_foreign = damage == "record missing"
    assert names_in(tmp_path) - {"step_000000020"} == {"step_000000030", "step_000000040", "objects"}
    assert (tmp_path / "step_000000020").exists() == is_foreign
    assert len(objects_in(tmp_path)) == 8


def test_a_save_after_the_only_damaged_snapshot_was_removed_succeeds(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    save(store, 10)
    flip(tmp_path / "step_000000010" / "model.zip")
    with pytest.raises(SnapshotError, match="no usable snapshot"):
        store.newest()
    shutil.rmtree(tmp_path / "step_000000010")
    save(store, 20)
    save(store, 30, keep=1)
    assert store.newest().step == 30
    assert names_in(tmp_path) == {"step_000000030", "objects"}


def test_if_all_snapshots_are_damaged_one_error_gives_the_reasons(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for step in (1, 2, 3):
        save(store, step, keep=3)
    flip(tmp_path / "step_000000001" / "snapshot.json")
    flip(tmp_path / "step_000000002" / "model.zip")
    (tmp_path / "step_000000003" / "model.zip").unlink()
    with pytest.raises(SnapshotError) as refused:
        store.newest()
    assert not isinstance(refused.value, NoSnapshotError)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}: no usable snapshot: step_000000001: snapshot.json is damaged")
    assert "step_000000002: model.zip is damaged (its SHA-256 differs from the recorded one)" in message
    assert "step_000000003: model.zip is missing" in message


def test_an_older_damaged_snapshot_is_not_reported(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    save(store, 1)
    save(store, 2)
    flip(tmp_path / "step_000000001" / "snapshot.json")
    assert store.newest().skipped == []


def test_an_unreadable_snapshot_keeps_its_chunks(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    save(store, 50)
    record = tmp_path / "step_000000050" / "snapshot.json"
    content = record.read_bytes()
    as_folder(record)
    for step in (10, 20, 30):
        save(store, step)
    record.rmdir()
    record.write_bytes(content)
    assert is_good(SnapshotStore(tmp_path), 50)


def test_foreign_files_in_the_folder_stay(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    mine = [tmp_path / name for name in ("notes.txt", ".new-idea", "step_1", "step_0000000001", "step_x")]
    for path in mine:
        path.mkdir()
        (path / "snapshot.json").write_text("{}")
    for step in (1, 2, 3):
        save(store, step)
    assert all((path / "snapshot.json").is_file() for path in mine)
    assert store.newest().step == 3


def test_a_copied_folder_of_snapshots_loads(tmp_path: Path) -> None:
    save(SnapshotStore(tmp_path / "a"), 1)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert is_good(SnapshotStore(tmp_path / "b"), 1)


def test_loading_a_snapshot_does_not_import_torch() -> None:
    modules = ("snapshot_store", "durable_files", "run_lock")
    code = f"import sys; from sb3_visual_td3.runs import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
