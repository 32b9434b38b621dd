"""CARLA's remote procedure calls on the wire: msgpack objects, one after another."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

NOTHING = object()
"""What a call returns that returns nothing."""
_RESPONSE = 1
_MAX_MESSAGE_BYTES = 16_000_000
"""The longest that a client sends is a map's OpenDRIVE, of some megabytes."""
_MAX_LIST_LENGTH = 100_000
"""msgpack makes a list of the length that a message announces before it has read one element."""


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


class CallError(Exception):
    """What a call answers where it fails; the client raises it as a RuntimeError with this text."""


class Call(NamedTuple):
    """One request."""

    number: int
    name: str
    arguments: list[Any]
    wants_answer: bool


class CallReader:
    """Finds requests in what comes in, piece by piece."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(
            raw=False,
            unicode_errors="surrogateescape",
            strict_map_key=False,
            object_pairs_hook=list,  # a key may be a list, which no dict can have
            max_buffer_size=_MAX_MESSAGE_BYTES,
            max_array_len=_MAX_LIST_LENGTH,
            max_map_len=_MAX_LIST_LENGTH,
        )

    def read(self, received: bytes) -> Iterator[Call]:
        """Return the requests that are complete by now.

        :raises ValueError: if it is no request: its sender speaks another language.
        """
        try:
            self._unpacker.feed(received)
        except msgpack.UnpackException as error:  # of a BufferFull
            raise ValueError(f"no request: longer than {_MAX_MESSAGE_BYTES} bytes") from error
        while True:
            try:
                message = next(self._unpacker, NOTHING)
            except Exception as error:  # msgpack raises many kinds of them: none is the sender's to choose
                raise ValueError(f"no request: {shortened(error)}") from error
            match message:
                case [0, int(number), str(name), [[bool(is_asynchronous), *_], *arguments]]:
                    yield Call(number, name, arguments, not is_asynchronous)
                case _ if message is NOTHING:
                    return
                case _:
                    raise ValueError(f"no request: {shortened(message)}")


def shortened(thing: object) -> str:
    """Return what something looks like, in one short line, however large or deep it is."""
    try:
        text = f"{type(thing).__name__}: {thing}" if isinstance(thing, Exception) else _REPR.repr(thing)
    except Exception:  # an error while another error is described
        text = type(thing).__name__
    return text[:160].encode("ascii", "backslashreplace").decode()


def number_of(thing: object, limit: float, what: str = "a number") -> float:
    """Return a number of a message as a float.

    :param thing: what came.
    :param limit: the largest absolute value that makes sense.
    :param what: it is, for the message.
    :raises CallError: if it is not a finite number within the limit. CARLA's world would not survive it either.
    """
    is_number = isinstance(thing, int | float) and not isinstance(thing, bool)
    if not is_number or not math.isfinite(thing) or abs(thing) > limit:  # type: ignore[arg-type]
        raise CallError(f"{shortened(thing)} is not {what} between {-limit:g} and {limit:g}")
    return float(thing)  # type: ignore[arg-type]


def packed(value: Any) -> bytes:
    """Return a value as msgpack; floats stay double, for a step of 0.05 s is to come back as it was sent."""
    # Text that is no UTF-8 goes back as it came.
    data: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return data


def answer(number: int, result: Any) -> bytes:
    """Return the response to the call of this number."""
    return packed([_RESPONSE, number, None, result])


def value(result: Any) -> list[Any]:
    """Return what a call answers that returns something."""
    return [[1, result]]


def void() -> list[Any]:
    """Return what a call answers that returns nothing."""
    return [[False]]


def failure(text: str) -> list[Any]:
    """Return what a call answers that fails, whether or not it returns something."""
    return [[0, [text]]]


def void_failure(text: str) -> list[Any]:
    """Return what a call answers that fails and returns nothing."""
    return [[True, [text]]]
