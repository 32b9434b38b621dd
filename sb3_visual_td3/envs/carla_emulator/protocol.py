"""CARLA's remote procedure calls on the wire: msgpack objects, one after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

NOTHING = object()
"""What a call returns that returns nothing."""
_RESPONSE = 1


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
        self._unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")

    def read(self, received: bytes) -> Iterator[Call]:
        """Return the requests that are complete by now.

        :raises ValueError: if it is no request: whoever sends it speaks another language.
        """
        self._unpacker.feed(received)
        for message in self._unpacker:
            match message:
                case [0, int(number), str(name), [[bool(is_asynchronous), *_], *arguments]]:
                    yield Call(number, name, arguments, not is_asynchronous)
                case _:
                    raise ValueError(f"no request: {str(message)[:80]}")


def packed(value: Any) -> bytes:
    """Return a value as msgpack; floats stay double, for a step of 0.05 s is to come back as it was sent."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
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
