"""Whether a snapshot holds a healthy training, and which snapshots stay so that there is one to go back to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Health(NamedTuple):
    """What is known of the training in a snapshot.

    :ivar is_healthy: no critical alert lasted, and none that began later had begun to show by then
    :ivar n_updates: gradient updates made
    :ivar n_in_doubt: how many updates an alert that begins later may reach back
    """

    is_healthy: bool
    n_updates: int
    n_in_doubt: int

    @classmethod
    def from_record(cls, read: Mapping[str, Any] | None) -> Health | None:
        """:return: what a record says; None where nobody judged

        :raises ValueError: if it is something else
        """
        if read is None:
            return None
        health = cls(**read)
        if type(health.is_healthy) is not bool or any(type(n) is not int or n < 0 for n in health[1:]):
            raise ValueError(f"{dict(read)} is no health")
        return health


def word_for(health: Health | None) -> str:
    """:return: for a list of snapshots"""
    if health is None:
        return "not judged"
    return "healthy" if health.is_healthy else "unhealthy"


def to_spare(healths: Sequence[Health | None]) -> set[int]:
    """Choose the snapshots that stay, however old, so that there is always a healthy one to go back to.

    They are the newest healthy one beyond doubt, the one that will be so next, and the newest healthy one of all where
    a later one is unhealthy.

    :param healths: of all snapshots, oldest first; None where nobody judged
    :return: their places
    """
    healthy = [(place, health) for place, health in enumerate(healths) if health is not None and health.is_healthy]
    if not healthy:
        return set()
    newest = healths[-1]
    settled = [
        place for place, health in healthy if newest is None or health.n_updates + newest.n_in_doubt <= newest.n_updates
    ]
    waiting = [(-health.n_updates, place) for place, health in healthy if place > max(settled, default=-1)]
    last_healthy, _ = healthy[-1]
    spared = {*settled[-1:], *([max(waiting)[1]] if waiting else [])}
    is_followed = any(health is not None for health in healths[last_healthy + 1 :])
    return spared | {last_healthy} if is_followed else spared
