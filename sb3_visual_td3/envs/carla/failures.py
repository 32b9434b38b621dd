"""What can go wrong with a simulator, sorted by whether another try may help."""

from __future__ import annotations


class SimulatorLostError(RuntimeError):
    """The simulator did not do what it was asked: it hangs, is gone, or left something out. Another try may help."""


class SimulatorAbsentError(SimulatorLostError):
    """No simulator is there: nothing listens, or the program that was started has ended by itself.

    Another try helps where the simulator has been there before. Where it has never been, the port or the command is
    more likely to be wrong.
    """


class SimulatorUnusableError(RuntimeError):
    """The simulator cannot be used as asked, however often one tries; the message names the fix."""


class UnknownHostError(SimulatorUnusableError):
    """The name of the host is not known. Where it was known before, the name service may only be down."""
