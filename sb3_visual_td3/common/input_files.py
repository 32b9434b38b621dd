"""Read files that a user gives to a command, and the values in them, as data that is never executed.

The files may come from another person. Three rules protect the user:

- Only regular files are opened, because opening a FIFO may wait forever.
- Only plain values are read from YAML, JSON and Python literals.
- Size, number of values and depth are limited, because a few lines of YAML can expand to billions of values.
"""

from __future__ import annotations

import ast
import codecs
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

from sb3_visual_td3.common.errors import in_one_line

MAX_CHARACTERS = 10_000
"""Longest text that is parsed as a Python literal, because a much longer one could crash Python's parser."""
MAX_BYTES = 1_000_000
MAX_VALUES = 10_000
"""Largest number of values in one file. Each use of a YAML alias counts, because aliases can multiply the values."""
MAX_DEPTH = 16
LARGEST_INTEGER = 10**18
MAX_SHOWN_CHARACTERS = 80
"""Longest value that an error message quotes in full."""
_MERGE = "tag:yaml.org,2002:merge"
"""Tag of YAML's merge key, ``<<``."""

_KINDS = (
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class NotRegularFileError(OSError):
    """Report that a path is a FIFO, a socket or a device instead of a regular file."""


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is not a regular file, before another library opens it by name.

    :param path: path of the file; links are followed
    :raises NotRegularFileError: if it is a FIFO, a socket or a device
    :raises OSError: if it is a folder, or cannot be inspected
    """
    _refuse_other_kinds(path, os.stat(path).st_mode)


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> FileIO:
    """Open a regular file in binary mode, unbuffered, without ever blocking.

    :param path: path of the file; links are followed
    :param flags: ``os.O_RDONLY``, or ``os.O_RDWR`` to change an existing file
    :return: the open file, which the caller closes
    :raises NotRegularFileError: if it is a FIFO, a socket or a device
    :raises OSError: if it is a folder, or cannot be opened
    """
    # The kind is checked twice: before opening, because opening a device can have an effect, and after opening, because
    # the path may have been replaced. If a FIFO has replaced it, O_NONBLOCK avoids waiting for a writer.
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
    """Read a regular text file of limited size: UTF-8, or UTF-16 with a byte order mark.

    :param path: path of the file
    :param max_bytes: largest accepted size
    :raises ValueError: if the file is larger, or has another encoding
    :raises OSError: if it is not a regular file or cannot be read
    """
    content = bytearray()
    with open_regular(path) as stream:
        # Read up to the limit instead of using the size, because files in /proc always report 0 bytes.
        while len(content) <= max_bytes and (chunk := stream.read(max_bytes + 1 - len(content))):
            content += chunk
    if len(content) > max_bytes:
        raise ValueError(f"{path}: larger than {max_bytes:,} bytes, the limit for a settings file; shorten the file")
    try:
        return content.decode(encoding_of(content))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason}): expected UTF-8") from error


def encoding_of(content: bytes | bytearray) -> str:
    """Return "utf-16" if a text begins with the byte order mark of UTF-16, as Excel and PowerShell write it."""
    return "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def python_literal(code: str, names: Mapping[str, Any] | None = None) -> Any:
    """Return the value of a Python literal without executing code; ``dict(a=1)`` counts as a literal.

    rl-zoo calls ``eval`` on the literals in hyperparameter files, which would execute any code.

    :param code: the text, such as ``"dict(net_arch=[400, 300])"``
    :param names: values of the names that the text may contain, such as ``nn.ReLU``; None for no names
    :return: the value, such as a number, a string, a list, a tuple or a dict
    :raises ValueError: if the text is not a literal, or is longer than ``MAX_CHARACTERS``
    """
    if len(code) > MAX_CHARACTERS:
        raise ValueError(f"a literal of {len(code):,} characters: expected at most {MAX_CHARACTERS:,}")
    try:
        return _literal_value(ast.parse(code.strip(), mode="eval").body, names or {})
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a literal: {error}; expected numbers, text, lists or dict(name=value)") from error


def _literal_value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) in names:
        return names[ast.unparse(node)]
    if isinstance(node, ast.List):
        return [_literal_value(each, names) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_literal_value(each, names) for each in node.elts)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        # dict(a=1) means {"a": 1}. In both forms, "**" is an entry without a key.
        keys: list[ast.expr | None] = [ast.Constant(each.arg) if each.arg else None for each in node.keywords]
        node = ast.Dict(keys, [each.value for each in node.keywords])
    if isinstance(node, ast.Dict):
        items: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                raise ValueError("'**' is not supported, so give a name to each value")
            items[_literal_value(key, {})] = _literal_value(value, names)
        return items
    try:
        return ast.literal_eval(node)
    except ValueError:
        # The message of literal_eval shows the address of the node instead of its text.
        raise ValueError(f"{shown(ast.unparse(node))} cannot be evaluated") from None


class UniqueKeyLoader(yaml.SafeLoader):
    """Load plain data as PyYAML's safe loader does, but refuse a key that is given twice in one mapping.

    PyYAML would keep the last value. The values of a merge key (``<<``) may be overridden.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping of a YAML document.

        :raises ValueError: if the mapping has a key twice
        """
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in keys:
                raise ValueError(f"line {key.start_mark.line + 1}: {key.value} is given twice; remove one of them")
            keys.add((key.tag, key.value))
        return node


class PlainLoader(UniqueKeyLoader):
    """Load plain data, and also the two tags that rl-zoo writes: OrderedDict and tuple."""

    def flatten_mapping(self, node: Any) -> None:
        """Refuse merge keys (``<<``), with which a short file can expand until memory is full.

        :param node: the mapping to construct
        :raises yaml.constructor.ConstructorError: if it has a merge key
        """
        if any(key.tag == _MERGE for key, _ in node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "merge keys (<<) are not supported: write the values out instead", node.start_mark
            )
        super().flatten_mapping(node)


def _ordered_dict(loader: PlainLoader, node: Any) -> dict[Any, Any]:
    try:
        (pairs,) = loader.construct_sequence(node, deep=True)
        return dict(pairs)
    except (TypeError, ValueError) as error:
        raise yaml.constructor.ConstructorError(
            None, None, "this OrderedDict is not a list of pairs", node.start_mark
        ) from error


def _tuple(loader: PlainLoader, node: Any) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


PlainLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict)
PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


class _BoundedLoader(PlainLoader):
    """Load plain data like :class:`PlainLoader`, and stop reading a document that has too many nodes."""

    n_nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node of a YAML document, and refuse a document with too many nodes.

        :raises yaml.constructor.ConstructorError: if there are more than ``MAX_VALUES`` nodes
        """
        self.n_nodes += 1
        if self.n_nodes > MAX_VALUES:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None, None, f"more than {MAX_VALUES:,} values, the limit for a file; shorten it", mark
            )
        return super().compose_node(parent, index)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a file that holds one mapping.

    :param path: a JSON file if it ends in ``.json``, YAML otherwise
    :return: a mapping with plain values: None, booleans, numbers, text, lists and mappings
    :raises ValueError: if the content is not a mapping, has a tag that would execute code, or is too large or too deep;
        the message is one line
    :raises OSError: if it cannot be read
    """
    text = read_text(path)
    return parse_mapping(text, str(path), is_json=path.suffix.lower() == ".json")


def parse_mapping(text: str, name: str, *, is_json: bool = False) -> dict[str, Any]:
    """Parse a text that holds one mapping.

    :param text: content of a file
    :param name: name of the file, for error messages
    :param is_json: whether the text is JSON; YAML otherwise
    :return: plain values, as from :func:`read_mapping`
    :raises ValueError: as :func:`read_mapping`
    """
    return plain_mapping(load_mapping(text, name, is_json=is_json), name)


def load_mapping(
    text: str, name: str, *, is_json: bool = False, loader: type[UniqueKeyLoader] = _BoundedLoader
) -> dict[Any, Any]:
    """Load a text that holds one mapping, and keep its keys and values as the parser returns them.

    :param text: content of a file
    :param name: name of the file, for error messages
    :param is_json: whether the text is JSON; YAML otherwise
    :param loader: class that loads YAML
    :raises ValueError: if the text is not a mapping, is refused by the loader, or is nested too deeply; the message is
        one line
    """
    try:
        content = json.loads(text) if is_json else yaml.load(text, Loader=loader)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"{name}: refused: {in_one_line(error)}. Only plain values are read: numbers, text, lists and mappings"
        ) from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        kind = "JSON" if is_json else "YAML"
        raise ValueError(f"{name}: not valid {kind}: {in_one_line(error)}") from error
    except RecursionError as error:
        raise ValueError(f"{name}: nested too deeply; expected at most {MAX_DEPTH} levels") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name}: expected a mapping of names to values, got {type(content).__name__}")
    return content


def plain_mapping(content: Mapping[Any, Any], name: str) -> dict[str, Any]:
    """Convert a mapping to plain values; refuse a mapping with too many values or levels.

    :param content: the result of a parser
    :param name: name of the file, for error messages
    :return: a copy with string keys and plain values
    :raises ValueError: if there are too many values or levels
    """
    plain: dict[str, Any] = plain_value(content, name)
    return plain


def plain_value(content: Any, name: str) -> Any:
    """Convert the result of a parser to plain values; refuse a result with too many values or levels.

    :param content: the result of a parser
    :param name: name of the file and the key, for error messages
    :return: a copy that consists of None, booleans, numbers, text, lists and mappings. Tuples and sets become lists,
        and any other value becomes text
    :raises ValueError: if there are too many values or levels
    """
    n_values = 0

    def plain(value: Any, where: str, depth: int) -> Any:
        nonlocal n_values
        n_values += 1
        if n_values > MAX_VALUES:
            raise ValueError(f"{where}: more than {MAX_VALUES:,} values, the limit for settings; remove some")
        if depth > MAX_DEPTH:
            raise ValueError(
                f"{where}: nested deeper than {MAX_DEPTH} levels, the limit for settings; use fewer levels"
            )
        if isinstance(value, Mapping):
            read = {}
            for key, item in value.items():
                text = str(plain(key, where, depth))
                read[text] = plain(item, f"{where}: {shown(text)}" if depth == 0 else where, depth + 1)
            return read
        if isinstance(value, list | tuple | set):
            return [plain(item, where, depth + 1) for item in value]
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            # Python refuses to print integers of more than 4,300 digits, so an error message could not show them.
            return math.inf if value > 0 else -math.inf
        if isinstance(value, str):
            # JSON can hold half of a surrogate pair, which cannot be written to a UTF-8 file.
            return value.encode("utf-8", "replace").decode("utf-8")
        if value is None or isinstance(value, bool | int | float):
            return value
        return str(value)

    return plain(content, name, 0)


def require_type(value: Any, expected: tuple[type, ...], where: str) -> None:
    """Refuse a value of a different type; a bool does not count as an int.

    :param value: the value as it was read
    :param expected: the accepted types
    :param where: file and key, the start of the message
    :raises ValueError: if the value has none of these types
    """
    # bool is a subclass of int, so that "seed: true" would pass as the seed 1.
    if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
        wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in expected)
        raise ValueError(f"{where} is {shown(value)}; expected {wanted}")


def shown(value: Any) -> str:
    """Return a value as an error message shows it.

    :param value: a plain value
    :return: its ``repr``, shortened to 80 characters
    """
    text = repr(value)
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[: MAX_SHOWN_CHARACTERS - 3]}..."
