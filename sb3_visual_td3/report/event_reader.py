"""From event files to series: all points, all files of a run, whatever state they are in."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto import event_pb2, types_pb2

from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.records import DamagedRecordError, read_records

OnBytes = Callable[[int], None]

_TENSOR_TYPES: dict[int, tuple[str, str]] = {
    types_pb2.DT_FLOAT: ("<f4", "float_val"),
    types_pb2.DT_DOUBLE: ("<f8", "double_val"),
    types_pb2.DT_INT32: ("<i4", "int_val"),
    types_pb2.DT_INT64: ("<i8", "int64_val"),
    types_pb2.DT_HALF: ("<f2", ""),
}


class UnreadableRunError(ValueError):
    """There is nothing to judge here; the message is one line that says why."""


@dataclass(frozen=True)
class RunData:
    """Everything that the event files of one run say.

    :param path: the folder or the file that was asked for.
    :param n_points: scalar points kept.
    :param notes: what the reader had to leave out or to decide, in words.
    """

    path: Path
    series: SeriesSet
    files: tuple[Path, ...]
    n_points: int
    notes: tuple[str, ...] = ()


@dataclass
class _Points:
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class _FileContent:
    path: Path
    first_wall_time: float = math.inf
    last_wall_time: float = -math.inf
    points: dict[str, _Points] = field(default_factory=dict)
    note: str | None = None


def read_run(path: Path, files: Sequence[Path], on_bytes: OnBytes | None = None) -> RunData:
    """Read the event files of one run.

    A later file of a resumed run repeats the steps from its checkpoint on: per tag, its points replace
    the earlier file's points from the first repeated step. Files whose clocks overlap are merged by step.

    :param files: the run's event files.
    :raises UnreadableRunError: if they hold not a single scalar.
    :raises OSError: if one cannot be read.
    """
    contents = sorted((_read_file(file, on_bytes) for file in files), key=lambda c: (c.first_wall_time, c.path.name))
    notes = [content.note for content in contents if content.note]
    merged: dict[str, Series] = {}
    n_replaced = 0
    end = -math.inf
    for content in contents:
        is_later = content.first_wall_time >= end
        for tag, points in content.points.items():
            new = _series(tag, points)
            old = merged.get(tag)
            if old is not None and is_later:
                kept = old.where(old.steps < new.steps[0])
                n_replaced += len(old) - len(kept)
                old = kept
            merged[tag] = new if old is None else _joined(old, new)
        end = max(end, content.last_wall_time)
    if not merged:
        raise UnreadableRunError(_why_empty(path, files, notes))
    if n_replaced:
        notes.append(f"{n_replaced:,} points of an earlier file were replaced by a later file that repeats their steps")
    n_points = sum(map(len, merged.values()))
    return RunData(path, SeriesSet(merged), tuple(content.path for content in contents), n_points, tuple(notes))


def _read_file(path: Path, on_bytes: OnBytes | None) -> _FileContent:
    content = _FileContent(path)
    if path.stat().st_size == 0:
        content.note = f"{path.name} is empty (0 bytes)"
        return content
    try:
        for record in read_records(path, on_bytes):
            _take(event_pb2.Event.FromString(record), content)
    except DamagedRecordError as error:
        content.note = f"{path.name} is {error}; judged up to there"
        if error.n_whole == 0:
            content.note = f"{path.name} is no event file, or its first record is {error.reason}"
    except DecodeError:
        content.note = f"{path.name} holds a record that is no event; judged up to there"
    return content


def _take(event: Any, content: _FileContent) -> None:
    for value in event.summary.value:
        number = _scalar(value)
        if number is not None:
            content.first_wall_time = min(content.first_wall_time, event.wall_time)
            content.last_wall_time = max(content.last_wall_time, event.wall_time)
            points = content.points.setdefault(value.tag, _Points())
            points.steps.append(event.step)
            points.values.append(number)


def _scalar(value: Any) -> float | None:
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or value.metadata.plugin_data.plugin_name not in {"", "scalars"}:
        return None
    tensor = value.tensor
    if tensor.dtype not in _TENSOR_TYPES or any(dim.size != 1 for dim in tensor.tensor_shape.dim):
        return None
    dtype, attribute = _TENSOR_TYPES[tensor.dtype]
    if tensor.tensor_content:
        if len(tensor.tensor_content) != np.dtype(dtype).itemsize:
            return None
        return float(np.frombuffer(tensor.tensor_content, dtype)[0])
    single: Sequence[float] = getattr(tensor, attribute) if attribute else ()
    return float(single[0]) if len(single) == 1 else None


def _series(tag: str, points: _Points) -> Series:
    return Series(tag, np.array(points.steps, dtype=np.int64), np.array(points.values, dtype=np.float64))


def _joined(old: Series, new: Series) -> Series:
    return Series(old.name, np.concatenate([old.steps, new.steps]), np.concatenate([old.values, new.values]))


def _why_empty(path: Path, files: Iterable[Path], notes: Sequence[str]) -> str:
    reason = "; ".join(notes) if notes else "the event files hold no scalar"
    n_files = len(tuple(files))
    return f"{path}: nothing to judge in {n_files} event file{'s' if n_files != 1 else ''}: {reason}"
