"""The files of a report are written like all other files of a run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sb3_visual_td3.report.writing import write_reports


def test_the_umask_decides_who_can_read_a_report(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        (path,) = write_reports([tmp_path / "new"], {"report.md": "GO"})
    finally:
        os.umask(umask)
    assert path.read_text() == "GO"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]
