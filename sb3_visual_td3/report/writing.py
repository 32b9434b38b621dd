"""Where the reports are written, and how: whole files only, only inside the chosen folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sb3_visual_td3.report.visible import escaped_in_json, visible
from sb3_visual_td3.runs.manifest import FILE_NAME


def output_folders(output: Path | None, paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders to try, in order.

    An explicit folder is the only one. Without it, a single path that is a run's own folder (it holds a
    run.json) takes its reports; everything else is someone's data and stays as it is: the current folder.
    """
    if output is not None:
        return (output,)
    if len(paths) == 1 and (paths[0] / FILE_NAME).is_file():
        return (paths[0], Path())
    return (Path(),)


def write_reports(folders: Sequence[Path], contents: dict[str, str]) -> tuple[Path, ...]:
    """Write all files into the first folder that takes them.

    :param contents: file name to text.
    :raises OSError: the last folder's error, if none takes them.
    """
    error: OSError | None = None
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return tuple(_write(folder / name, text) for name, text in contents.items())
        except OSError as refused:
            error = refused
    assert error is not None
    raise error


def _write(path: Path, text: str) -> Path:
    if path.suffix == ".json":
        text = escaped_in_json(text)
    elif path.suffix != ".html":
        # A page holds plotly's source; its renderer sees to the text of the log.
        text = visible(text)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
