"""``visual-td3 push-to-hub``: rl-zoo's command that publishes a trained agent."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sb3_visual_td3.zoo.enjoy import WHERE_WE_TRAIN
from sb3_visual_td3.zoo.mistakes import need_extra
from sb3_visual_td3.zoo.plugin import ALGO
from sb3_visual_td3.zoo.plugin_scripts import run_push_to_hub
from sb3_visual_td3.zoo.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish an agent as ``python -m rl_zoo3.push_to_hub`` does.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_script("push-to-hub", arguments, _push, WHERE_WE_TRAIN, makes_environments=True)


def _push() -> None:
    if "--no-render" not in sys.argv:
        need_extra("video")
    run_push_to_hub(ALGO)
