"""Files that a user gives to a command: only regular files are opened, and only plain values are read from them.

To open a FIFO would wait for a writer without end, and a device may never end. YAML and JSON come back as plain values:
nothing in them is run, however it is tagged (see :class:`~sb3_visual_td3.common.literals.PlainLoader`).
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import yaml

from sb3_visual_td3.common.literals import PlainLoader

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000
"""Of one file, each use of a YAML alias counted: a few lines can stand for billions of values."""
MAX_DEPTH = 16
LARGEST_INTEGER = 10**18
MAX_SHOWN_CHARACTERS = 80

_KINDS = (
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularFileError(OSError):
    """What lies at a path can be opened, but it is not a regular file."""


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is not a regular file, for a file that another library opens by its name.

    :param path: of the file; links are followed.
    :raises NotRegularFileError: if it is a FIFO, a socket or a device.
    :raises OSError: if it is a folder, is not there or cannot be looked at.
    """
    _refuse_other_kinds(path, os.stat(path).st_mode)


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> FileIO:
    """Open a regular file without a buffer, in binary mode; nothing else is opened, and the call never waits.

    :param path: of the file; links are followed.
    :param flags: ``os.O_RDONLY``, or ``os.O_RDWR`` to change a file that is there.
    :return: the file, which the caller closes.
    :raises NotRegularFileError: if it is a FIFO, a socket or a device.
    :raises OSError: if it is a folder, is not there or cannot be opened.
    """
    # Looked at first: to open a device can have an effect. O_NONBLOCK and the second look are for a path that is
    # replaced in between.
    require_regular(path)
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _refuse_other_kinds(path, os.fstat(handle).st_mode)
        return FileIO(handle, "r+" if flags & os.O_RDWR else "r")
    except BaseException:
        os.close(handle)
        raise


def _refuse_other_kinds(path: str | os.PathLike[str], mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise NotRegularFileError(errno.EINVAL, f"expected a regular file, got {kind}", os.fspath(path))


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> str:
    """Read a regular text file that is not too large.

    :param path: of the file.
    :param max_bytes: the most that it may hold.
    :return: its text.
    :raises ValueError: if it is larger, or not UTF-8; the message is one line that names the file.
    :raises OSError: if it is not a regular file or cannot be read.
    """
    content = bytearray()
    with open_regular(path) as stream:
        # The size is not asked for: files in /proc say 0, whatever they hold.
        while len(content) <= max_bytes and (chunk := stream.read(max_bytes + 1 - len(content))):
            content += chunk
    if len(content) > max_bytes:
        raise ValueError(f"{path}: more than {max_bytes:,} bytes are too many for a file of settings")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason})") from error


def require_type(value: Any, expected: tuple[type, ...], where: str) -> None:
    """Refuse a value of another type; a bool is not an int here.

    :param value: as it was read.
    :param expected: the types that are accepted.
    :param where: file and key, the begin of the message.
    :raises ValueError: if the value is of none of them.
    """
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in expected)
        raise ValueError(f"{where} is {shown(value)}; expected {wanted}")


def shown(value: Any) -> str:
    """Return a value as a message shows it.

    :param value: a plain value.
    :return: its ``repr``, shortened to 80 characters.
    """
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."


class _BoundedLoader(PlainLoader):
    """Reads plain values, and no further than a file of settings can have them."""

    n_nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, and refuse a document as soon as it has too many: a large one takes a minute to the end."""
        self.n_nodes += 1
        if self.n_nodes > MAX_VALUES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, f"more than {MAX_VALUES:,} values", mark)
        return super().compose_node(parent, index)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping, JSON where its name ends so, else YAML.

    :return: plain values: None, booleans, numbers, text, lists, and mappings of these.
    :raises ValueError: if it is not a mapping, is tagged to run code, or is too large or too deep; the message is one
        line that names the file.
    :raises OSError: if it cannot be read.
    """
    text = read_text(path)
    return parse_mapping(text, str(path), is_json=path.suffix.lower() == ".json")


def parse_mapping(text: str, name: str, *, is_json: bool = False) -> dict[str, Any]:
    """Return the mapping that a text holds; see :func:`read_mapping`.

    :param name: of the file, for errors.
    :raises ValueError: as there.
    """
    try:
        content = json.loads(text) if is_json else yaml.load(text, Loader=_BoundedLoader)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(f"{name}: refused: {_one_line(error)}. Only plain values are read") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        kind = "JSON" if is_json else "YAML"
        raise ValueError(f"{name}: not valid {kind}: {_one_line(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected a mapping of names to values, got {type(content).__name__}")
    return plain_mapping(content, name)


def plain_mapping(content: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Return a mapping with nothing in it but plain values, few enough and not too deep.

    :param name: of the file, for errors.
    :raises ValueError: where there are too many, or they lie too deep.
    """
    plain: dict[str, Any] = plain_value(content, name)
    return plain


def plain_value(content: Any, name: str) -> Any:
    """Return a value with nothing in it but plain values, few enough and not too deep.

    :param name: of the file and the key, for errors.
    :raises ValueError: where there are too many, or they lie too deep; the message names the key.
    """
    n_values = 0

    def plain(value: Any, where: str, depth: int) -> Any:
        nonlocal n_values
        n_values += 1
        if n_values > MAX_VALUES:
            raise ValueError(f"{where}: more than {MAX_VALUES:,} values, which no settings have")
        if depth > MAX_DEPTH:
            raise ValueError(f"{where}: nested deeper than {MAX_DEPTH}, which no setting is")
        if isinstance(value, Mapping):
            read = {}
            for key, item in value.items():
                text = str(plain(key, where, depth))
                read[text] = plain(item, f"{where}: {shown(text)}" if depth == 0 else where, depth + 1)
            return read
        if isinstance(value, list | tuple | set):
            return [plain(item, where, depth + 1) for item in value]
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            return math.inf if value > 0 else -math.inf  # Python refuses to write out very long numbers
        if isinstance(value, str):
            # JSON can hold half of a surrogate pair, which no file takes.
            return value.encode("utf-8", "replace").decode("utf-8")
        return value if value is None or isinstance(value, bool | int | float) else str(value)

    return plain(content, name, 0)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
