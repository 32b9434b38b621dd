"""What an environment of the vector is busy with."""

from __future__ import annotations

from enum import Enum, auto


class Asked(Enum):
    """What an environment was asked for that it has not answered."""

    NOTHING = auto()
    STEP = auto()
    RESET = auto()
    """By the learner."""
    REBIRTH = auto()
    """A reset by us: the environment died in the midst of an episode."""
