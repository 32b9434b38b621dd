"""Run the emulator with ``python -m sb3_visual_td3.envs.carla_emulator``, as ``visual-td3 carla-emulator`` does."""

from __future__ import annotations

import sys

from sb3_visual_td3.envs.carla_emulator.command import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
