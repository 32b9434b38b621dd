"""Files that a run appends to: how long they were at a snapshot, and back to that length.

A file inside the run's folder goes by its name relative to it, so that the folder may be moved. One in another folder
that the caller names (event files that ``-tb`` put elsewhere) goes by its absolute name. Names are compared as they
are written: a folder inside the run's own that is a link to another disk stays a folder inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path, PurePosixPath

from sb3_visual_td3.common.input_files import open_regular
from sb3_visual_td3.runs.durable_files import sync_file


def lengths(root: Path, files: Iterable[Path], also_inside: Iterable[Path] = ()) -> dict[str, int]:
    """Take down how long files are, and wait until the disk has that much of them.

    :param root: the run's folder
    :param files: flushed by whoever writes them; those that are not there are left out
    :param also_inside: other folders where they may be
    :return: name to bytes, sorted by name
    :raises ValueError: if a file is in none of the folders
    """
    folders = [Path(os.path.abspath(folder)) for folder in (root, *also_inside)]
    found = {}
    for file in files:
        name = _name_of(file, folders)
        if file.is_file():
            sync_file(file)
            found[name] = file.stat().st_size
    return dict(sorted(found.items()))


def cut_back(
    root: Path, lengths: Mapping[str, int], may_remove: Iterable[Path] = (), also_inside: Iterable[Path] = ()
) -> None:
    """Take back what was appended since the lengths were taken down; first all is checked, then anything is cut.

    :param root: the run's folder
    :param lengths: as ``lengths`` returned them
    :param may_remove: files that the run may have begun since: those that have no length are removed
    :param also_inside: other folders where files may be; nothing outside is touched, whatever the names say
    :raises ValueError: if a file is shorter than it was, missing, no file, not writable, or in none of the folders
    """
    folders = [Path(os.path.abspath(folder)) for folder in (root, *also_inside)]
    for name, n_bytes in lengths.items():
        if type(n_bytes) is not int or n_bytes < 0:
            raise ValueError(f"{name!r} has the length {n_bytes!r}: expected a number of bytes")
    paths = {_path_of(name, folders): n_bytes for name, n_bytes in lengths.items()}
    begun_since = [file for file in may_remove if _path_of(_name_of(file, folders), folders) not in paths]
    with ExitStack() as opened:
        streams = [(opened.enter_context(_opened(path, n_bytes)), n_bytes) for path, n_bytes in paths.items()]
        for stream, n_bytes in streams:
            stream.truncate(n_bytes)
    for file in begun_since:
        file.unlink(missing_ok=True)


def _name_of(file: Path, folders: list[Path]) -> str:
    path = Path(os.path.abspath(file))
    if path.is_relative_to(folders[0]):
        return path.relative_to(folders[0]).as_posix()
    if not any(path.is_relative_to(folder) for folder in folders):
        raise ValueError(f"{file} is not in {' or '.join(map(str, folders))}: it is no file of this run")
    return path.as_posix()


def _path_of(name: str, folders: list[Path]) -> Path:
    pure = PurePosixPath(name)
    path = folders[0] / pure
    if ".." in pure.parts or "\0" in name or not any(path.is_relative_to(folder) for folder in folders):
        raise ValueError(f"{name!r} is not in {' or '.join(map(str, folders))}: it is no file of this run")
    return path


def _opened(path: Path, n_bytes: int) -> FileIO:
    if not path.is_file():
        raise ValueError(f"{path} is missing, it had {n_bytes} bytes: the run cannot be continued without it")
    n_there = path.stat().st_size
    if n_there < n_bytes:
        raise ValueError(f"{path} has {n_there} bytes, it had {n_bytes}: it was cut or replaced")
    try:
        return open_regular(path, os.O_RDWR)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror})") from error
