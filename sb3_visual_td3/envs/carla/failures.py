"""What a simulator does to those who depend on it."""

from __future__ import annotations


class SimulatorLostError(RuntimeError):
    """The simulator did not do what it was asked: it hangs, is gone, or left something out. Another try may help."""


class SimulatorUnusableError(RuntimeError):
    """The simulator cannot be used as asked, however often one tries; the message names the fix."""
