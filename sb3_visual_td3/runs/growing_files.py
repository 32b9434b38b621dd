"""Files that a run appends to: how long they were at a snapshot, and back to that length.

A file inside the run's folder goes by its name relative to it, so that the folder may be moved. One in another folder
that the caller names goes by its absolute name. Links are not followed, neither at the end of a name nor on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from sb3_visual_td3.runs.durable_files import copy_start, cut_own, open_own, sync_file


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
        if file.is_file() and not file.is_symlink():
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
    check_lengths(lengths)
    paths = {_path_of(name, folders): n_bytes for name, n_bytes in lengths.items()}
    begun_since = [file for file in may_remove if _path_of(_name_of(file, folders), folders) not in paths]
    with ExitStack() as opened:
        handles = {}
        for path, n_bytes in paths.items():
            handles[path] = _opened(path, n_bytes, folders)
            opened.callback(os.close, handles[path])
        for path, n_bytes in paths.items():
            cut_own(handles[path], path, n_bytes)
    for file in begun_since:
        file.unlink(missing_ok=True)


def check_lengths(lengths: Mapping[str, int]) -> None:
    """:raises ValueError: if something is not a number of bytes"""
    for name, n_bytes in lengths.items():
        if type(n_bytes) is not int or n_bytes < 0:
            raise ValueError(f"{name!r} has the length {n_bytes!r}: expected a number of bytes")


def why_not_whole(folder: Path, lengths: Mapping[str, int]) -> str | None:
    """Say why files cannot be brought back to the lengths that they had.

    :param folder: where they are
    :param lengths: by their names, without folders
    :return: the reason, of the first that is missing or too short; None where all are there
    """
    for name, n_bytes in lengths.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing, it had {n_bytes} bytes"
        if (n_there := path.stat().st_size) < n_bytes:
            return f"{path} has {n_there} bytes, it had {n_bytes}: it was cut or replaced"
    return None


def copy_back(source: Path, lengths: Mapping[str, int], target: Path) -> None:
    """Write files as they were into another folder, and leave those that are there alone.

    :param source: where they are; it is only read
    :param lengths: by their names, without folders
    :param target: the folder, which has no files of these names
    :raises ValueError: if a file is missing or shorter than it was
    :raises OSError: if one cannot be read or written
    """
    for name, n_bytes in lengths.items():
        copy_start(source / name, target / name, n_bytes)


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


def _opened(path: Path, n_bytes: int, folders: list[Path]) -> int:
    for parent in path.parents:
        if parent in folders:
            break
        if parent.is_symlink():
            raise ValueError(f"{parent} is a link: {path.name} is cut only within the run's own folder")
    if not path.is_file():
        raise ValueError(f"{path} is missing, it had {n_bytes} bytes: the run cannot be continued without it")
    n_there = path.stat().st_size
    if n_there < n_bytes:
        raise ValueError(f"{path} has {n_there} bytes, it had {n_bytes}: it was cut or replaced")
    try:
        return open_own(path, os.O_RDWR)
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror})") from error
