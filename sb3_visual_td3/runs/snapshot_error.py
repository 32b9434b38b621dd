"""What is wrong with snapshots, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SnapshotError(ValueError):
    """A snapshot could not be made, or what is there is not one that was made whole."""


class NoSnapshotError(SnapshotError):
    """There is no snapshot at all."""


@contextmanager
def describing_errors(what: str) -> Iterator[None]:
    """Turn what goes wrong with the content of a snapshot into one line.

    A snapshot's digests say that it is as it was written, not that this version has written it: a state of other types,
    or of other names, fails wherever it is used first.

    :param what: how the line begins
    :raises SnapshotError: instead of any other error
    """
    try:
        yield
    except (ValueError, MemoryError, OSError) as error:
        raise SnapshotError(f"{what}: {error or type(error).__name__}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise SnapshotError(
            f"{what}: its state is not one that this version wrote ({type(error).__name__}: {reason})"
        ) from error
