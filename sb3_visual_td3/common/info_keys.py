"""Name the keys of ``info`` by which environments, replay buffers and callbacks agree on failed steps."""

from __future__ import annotations

INVALID_TRANSITION = "invalid_transition"
"""Key of ``info``: True if the replay buffer must not store the step, because it failed or its result was late."""
SIMULATOR_FAILURE = "simulator_failure"
"""Key of ``info``: the reason why the simulator or the environment's process failed, as text."""
