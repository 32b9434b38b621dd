"""Write event files that grow while a report reads them."""

from __future__ import annotations

import signal
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2

from sb3_visual_td3.common import tags
from sb3_visual_td3.report.event_file import masked_crc32c

from .synthetic_runs import Values


def frame(body: bytes) -> bytes:
    """Return a record in the form in which it is stored in the file."""
    header = struct.pack("<Q", len(body))
    of_header, of_body = masked_crc32c(header), masked_crc32c(body)
    return header + struct.pack("<I", of_header) + body + struct.pack("<I", of_body)


def event_body(tag: str, step: int, value: float, wall_time: float) -> bytes:
    """Return one scalar as a record without its frame."""
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
    return bytes(event_pb2.Event(wall_time=wall_time, step=step, summary=summary).SerializeToString())


def event(tag: str, step: int, value: float, wall_time: float) -> bytes:
    """Return one scalar as a framed record."""
    return frame(event_body(tag, step, value, wall_time))


def scalars(points: Sequence[tuple[str, int, float]], start_time: float = 1000.0) -> bytes:
    """Return points in the form in which an event file stores them."""
    return b"".join(event(tag, step, value, start_time + i * 1e-3) for i, (tag, step, value) in enumerate(points))


def points_of(run: Values, after: int = -1, last: int = 1 << 60) -> list[tuple[str, int, float]]:
    """Return the points of a run in the order in which a training writes them.

    The length of an episode is written at the environment step at which the episode ends.

    :param after: points up to and including this environment step are left out
    :param last: points after this environment step are left out
    """
    points = []
    for tag, (steps, values) in run.items():
        when = np.cumsum(values) if tag == tags.EPISODE_LENGTH else steps
        rows = zip(when.tolist(), steps.tolist(), values.tolist(), strict=True)
        points += [(at, tag, step, value) for at, step, value in rows if after < at <= last]
    return [(tag, step, value) for _, tag, step, value in sorted(points, key=lambda point: point[0])]


def append(file: Path, content: bytes) -> None:
    """Append to a file, and create it if it does not exist."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as stream:
        stream.write(content)


def hear_ctrl_c() -> None:
    """Reset SIGINT (Ctrl-C) to its default action, because a shell's background jobs ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
