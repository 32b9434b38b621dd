"""Define the errors of a simulator; each class says whether another attempt may help.

CARLA's client raises a plain RuntimeError for everything, and this package raises these classes instead. After
``SimulatorLostError`` the environment ends the episode and reconnects. ``SimulatorUnusableError`` stops the run.
"""

from __future__ import annotations


class SimulatorLostError(RuntimeError):
    """The simulator failed: it hangs, has died, or sent incomplete data. Another attempt may help."""


class SimulatorAbsentError(SimulatorLostError):
    """There is no simulator: nothing listens on the port, or the started program ended by itself.

    Another attempt helps only if the simulator was there before. Otherwise the port or the command is probably wrong.
    """


class SimulatorUnusableError(RuntimeError):
    """The simulator cannot be used as requested, and another attempt does not help. The message names the fix."""


class UnknownHostError(SimulatorUnusableError):
    """The host name cannot be resolved. If it was known before, the name service may be temporarily down."""
