"""What the learner is told of a step, and of one that was not made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

INVALID = "invalid_transition"
FAILURE = "simulator_failure"
LATE = "is_late"
"""Keys of ``info``, as an environment in this process uses them: a step that was not made, and why."""


class Reply(NamedTuple):
    """What an environment says of a step."""

    observation: Any
    reward: float
    done: bool
    info: dict[str, Any]


def obituary(first_observation: Any, last_observation: Any, reason: str) -> Reply:
    """:return: of the step in which an environment died: the episode ends, and the next one begins

    :param first_observation: of the next episode
    :param last_observation: before its death
    :param reason: in a line
    """
    info = {
        INVALID: True,
        FAILURE: reason,
        "TimeLimit.truncated": True,
        "terminal_observation": _copy(last_observation),
    }
    return Reply(first_observation, 0.0, True, info)


def not_made(last_observation: Any) -> Reply:
    """:return: of a step that nobody waits for"""
    return Reply(last_observation, 0.0, False, {INVALID: True, LATE: True, "TimeLimit.truncated": False})


def _copy(observation: Any) -> Any:
    """:return: an observation that can be written to"""
    if isinstance(observation, Mapping):
        return {key: np.array(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(np.array(value) for value in observation)
    return np.array(observation)
