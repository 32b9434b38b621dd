"""Reading an event file piece by piece gives what one reading of the whole gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from sb3_visual_td3.report import event_file
from sb3_visual_td3.report.event_file import DamagedRecordError, masked_crc32c, read_records
from sb3_visual_td3.report.event_reader import RunData, RunReader, UnreadableRunError, read_run

from .growing_runs import append, event, frame


def content_of(data: RunData) -> dict[str, tuple[list[int], list[float]]]:
    return {name: (data.series[name].steps.tolist(), data.series[name].values.tolist()) for name in data.series.names()}


def read_or_refused(read: object) -> object:
    try:
        data = read()  # type: ignore[operator]
    except UnreadableRunError as error:
        return str(error)
    return content_of(data), data.notes


OPERATIONS = st.sampled_from(
    ["append", "append part", "append rest", "cut", "cut and go on", "replace", "new file", "rm"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(operations=st.lists(st.tuples(OPERATIONS, st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=12))
def test_reading_in_parts_equals_reading_at_once(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    paths = [folder / "tfevents.1", folder / "tfevents.2"]
    reader = RunReader(folder)
    rest = dict.fromkeys(paths, b"")
    clock = 1000.0
    for number, (operation, which, part) in enumerate(operations):
        path = paths[which]
        clock += 1.0
        new = event("ab"[number % 2], number, clock, clock)
        if operation == "append part":
            at = int(part * len(new))
            append(path, rest[path] + new[:at])
            rest[path] = new[at:]
        elif operation in {"append", "new file"}:
            append(path, rest[path] + new)
            rest[path] = b""
        elif operation == "append rest":
            append(path, rest[path])
            rest[path] = b""
        elif path.exists() and operation == "rm":
            path.unlink()
            rest[path] = b""
        elif path.exists():
            # Cut at the end of a record, as a resumed run does; then it may write as much again, or more.
            whole = path.read_bytes()[: len(path.read_bytes()) - len(rest[path])]
            kept = whole[: len(new) * int(part * (len(whole) // len(new)))]
            rest[path] = b""
            if operation == "replace":
                path.unlink()
            path.write_bytes(kept if operation != "cut and go on" else kept + new * 3)
        files = [file for file in paths if file.exists()]
        reader.read_new(files)
        assert read_or_refused(reader.data) == read_or_refused(lambda files=files: read_run(folder, files))


def test_reading_again_returns_whether_anything_is_new(tmp_path: Path) -> None:
    file = tmp_path / "tfevents.1"
    reader = RunReader(tmp_path)
    append(file, b"")
    assert not reader.read_new([file])
    append(file, event("a", 1, 1.0, 1.0))
    assert reader.read_new([file])
    assert not reader.read_new([file])
    append(file, event("a", 2, 1.0, 2.0)[:9])
    assert not reader.read_new([file])
    file.write_bytes(b"")
    assert reader.read_new([file])
    assert not reader.read_new([file])
    append(file, event("a", 1, 1.0, 1.0))
    assert reader.read_new([file])
    assert reader.read_new([])


def test_the_records_read_do_not_depend_on_the_read_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    bodies = [rng.bytes(int(size)) for size in (0, 1, 3, 4, 63, 64, 65, 5000, 0, 100_000, 7)]
    file = tmp_path / "records"
    file.write_bytes(b"".join(map(frame, bodies)))
    for n_bytes in (1 << 20, 4096, 17, 1):
        monkeypatch.setattr(event_file, "READ_BYTES", n_bytes)
        assert [body for batch in read_records(file) for body in batch.records] == bodies


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 63, 64, 1000, 4097])
def test_the_checksum_equals_that_of_tensorboard(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(size).bytes(size)
    for n_bytes in (1 << 20, 64, 7):
        monkeypatch.setattr(event_file, "READ_BYTES", n_bytes)
        assert masked_crc32c(data) == masked_crc32c(bytearray(data)) == pywrap_tensorflow.masked_crc32c(data)


def test_the_checksum_matches_the_test_vectors_of_rfc_3720() -> None:
    """RFC 3720, appendix B.4, unmasked: 32 zeros, 32 ones, and 0 to 31."""
    for data, expected in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        rotated = (masked_crc32c(data) - 0xA282EAD8) % (1 << 32)
        assert ((rotated >> 17) | (rotated << 15)) % (1 << 32) == expected


@settings(max_examples=200)
@given(bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=6), data=st.data())
def test_every_flipped_bit_is_found_in_its_record(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], data: st.DataObject
) -> None:
    content = bytearray(b"".join(map(frame, bodies)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    file = tmp_path_factory.mktemp("records") / "file"
    file.write_bytes(bytes(content))
    ends = np.cumsum([len(frame(body)) for body in bodies])
    n_whole = int((ends <= at).sum())
    found: list[bytes] = []
    with pytest.raises(DamagedRecordError) as refused:
        found.extend(bytes(body) for batch in read_records(file) for body in batch.records)
    assert found == bodies[:n_whole]
    assert (refused.value.n_whole, refused.value.offset) == (n_whole, ([0, *ends.tolist()])[n_whole])


def test_a_file_cut_at_any_byte_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    whole = [event("a", step, float(step), 1000.0 + step) for step in range(5)]
    content = b"".join(whole)
    ends = np.cumsum([len(record) for record in whole])
    file = tmp_path / "tfevents.1"
    for n_bytes in range(len(content) + 1):
        file.write_bytes(content[:n_bytes])
        n_whole = int((ends <= n_bytes).sum())
        if n_whole == 0:
            with pytest.raises(UnreadableRunError, match="nothing to judge"):
                read_run(tmp_path, [file])
            continue
        data = read_run(tmp_path, [file])
        assert data.series["a"].steps.tolist() == list(range(n_whole))
        is_whole = n_bytes in ends
        assert data.notes == (
            ()
            if is_whole
            else (
                f"tfevents.1 is cut off at byte {ends[n_whole - 1]:,}, after "
                f"{n_whole} whole records; only the records before it are judged",
            )
        )
