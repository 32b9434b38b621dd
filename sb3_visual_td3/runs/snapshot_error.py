"""What is wrong with snapshots, in one line."""

from __future__ import annotations


class SnapshotError(ValueError):
    """A snapshot could not be made, or what is there is not one that was made whole."""


class NoSnapshotError(SnapshotError):
    """There is no snapshot at all."""
