"""A driving environment whose world can be put aside in the midst of an episode and taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_visual_td3.envs.backend import Control, RestorableBackend
from sb3_visual_td3.envs.driving_env import DrivingEnv, Observation

STATE_FORMAT = 1


class RestorableDrivingEnv(DrivingEnv):
    """``DrivingEnv`` in a world that hands over its state: a run that was killed goes on bit for bit."""

    _backend: RestorableBackend

    def get_state(self) -> dict[str, Any]:
        """Return all that the environment's future depends on: plain Python values, and ``frames`` as an array.

        The time limit belongs to gymnasium's wrapper, which counts for itself.
        """
        return {
            "format": STATE_FORMAT,
            "random": self.np_random.bit_generator.state,
            "frames": np.array(self._frames, dtype=np.uint8),
            "map_name": self._map_name,
            "control": list(self._control),
            "reward_terms": dict(self._reward_terms),
            "task": self._task.get_state(),
            "world": self._backend.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> Observation:
        """Go on from where ``get_state`` was called, in this environment or in one made alike.

        :return: the observation of that moment.
        :raises ValueError: if ``state`` is of another format or of an environment made otherwise.
        """
        frames = np.asarray(state.get("frames", ()), dtype=np.uint8)
        expected = (self.frame_stack, *self._backend.frame_shape)
        if state.get("format") != STATE_FORMAT or frames.shape != expected:
            raise ValueError(
                f"a state of format {state.get('format')!r} with frames {frames.shape}: expected format "
                f"{STATE_FORMAT} with frames {expected}; make the env as the saved one was"
            )
        self._backend.set_state(state["world"])
        self._task.set_state(state["task"], self._backend.state)
        self.np_random.bit_generator.state = state["random"]
        self._map_name = state["map_name"]
        self._control = Control(*state["control"])
        self._reward_terms = dict(state["reward_terms"])
        self._frames.extend(frame.copy() for frame in frames)
        return self._observation()
