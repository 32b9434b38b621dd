from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sb3_visual_td3.runs.object_store import ObjectStore
from sb3_visual_td3.runs.snapshot import SnapshotError


def put(store: ObjectStore, data: bytes) -> tuple[str, int]:
    return store.put(memoryview(data))


def get(store: ObjectStore, digest: str, n_bytes: int) -> bytes:
    target = bytearray(n_bytes)
    store.read_into(digest, memoryview(target))
    return bytes(target)


def test_a_chunk_is_named_by_its_content_and_written_once(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    digest = hashlib.sha256(b"frames").hexdigest()
    assert put(store, b"frames") == (digest, 6)
    path = tmp_path / "objects" / digest[:2] / digest
    assert path.read_bytes() == b"frames"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert put(store, b"frames") == (digest, 0)
    assert put(ObjectStore(tmp_path / "objects"), b"frames") == (digest, 0)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert get(store, digest, 6) == b"frames"
    assert list(store) == [digest]


@pytest.mark.parametrize("damaged", [b"framez", b"fra", b"", b"frames and more"])
def test_a_damaged_chunk_is_written_again_before_it_is_used(tmp_path: Path, damaged: bytes) -> None:
    digest, _ = put(ObjectStore(tmp_path), b"frames")
    ObjectStore(tmp_path).path(digest).write_bytes(damaged)
    store = ObjectStore(tmp_path)
    assert put(store, b"frames") == (digest, 6)
    assert get(store, digest, 6) == b"frames"


def test_a_chunk_found_damaged_is_no_longer_trusted(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest, _ = put(store, b"frames")
    store.path(digest).write_bytes(b"framez")
    with pytest.raises(SnapshotError, match="SHA-256 differs"):
        get(store, digest, 6)
    assert put(store, b"frames") == (digest, 6)


def test_an_unreadable_chunk_is_named(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    digest, _ = put(store, b"frames")
    name = f"objects/{digest[:2]}/{digest}"
    path = store.path(digest)
    for content, reason in [
        (
            b"framez",
            f"{name} is damaged (its SHA-256 differs from the file name), so snapshots that need this chunk cannot be "
            "loaded",
        ),
        (b"frame", f"{name} is damaged (it has 5 bytes, not 6), so snapshots that need this chunk cannot be loaded"),
        (b"frames!", f"{name} is damaged (it has 7 bytes, not 6), so snapshots that need this chunk cannot be loaded"),
    ]:
        path.write_bytes(content)
        with pytest.raises(SnapshotError) as refused:
            get(store, digest, 6)
        assert str(refused.value) == reason
    path.unlink()
    with pytest.raises(SnapshotError, match="is missing"):
        get(store, digest, 6)
    path.mkdir()
    with pytest.raises(SnapshotError, match=r"is damaged|cannot be read"):
        get(store, digest, path.stat().st_size)


def test_only_added_chunks_are_removed_after_an_error(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    old, _ = put(store, b"old")
    store.begin()
    put(store, b"old")
    used, _ = put(store, b"new, in use")
    put(store, b"new")
    (tmp_path / ".new-half").write_bytes(b"")
    store.take_back({used})
    assert set(store) == {old, used}
    assert not list(tmp_path.glob(".new-*"))


def test_removing_chunks_leaves_other_files(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    kept, _ = put(store, b"kept")
    put(store, b"not kept")
    note = tmp_path / kept[:2] / "README"
    note.write_text("mine")
    store.keep_only({kept})
    assert list(store) == [kept]
    assert note.read_text() == "mine"


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:2]))
    store = ObjectStore(tmp_path)
    digest, _ = put(store, b"frames!")
    assert store.path(digest).read_bytes() == b"frames!"


def test_a_chunk_has_its_name_only_when_the_disk_has_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: calls.append(os.readlink(f"/proc/self/fd/{handle}")) or fsync(handle)
    )
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append(str(b)) or replace(a, b))
    store = ObjectStore(tmp_path)
    digest, _ = put(store, b"frames")
    store.sync()
    path = store.path(digest)
    assert calls == [str(tmp_path / f".new-{digest}"), str(path), str(path.parent), str(tmp_path)]
