"""``visual-td3 record-video``: rl-zoo's command that films a trained agent."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.enjoy import WHERE_WE_TRAIN
from sb3_visual_td3.zoo.mistakes import need_extra
from sb3_visual_td3.zoo.plugin import ALGO
from sb3_visual_td3.zoo.plugin_scripts import run_watching
from sb3_visual_td3.zoo.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Film an agent as ``python -m rl_zoo3.record_video`` does; the mp4 goes to RUN_DIR/videos by default.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_script("record-video", arguments, _record, WHERE_WE_TRAIN, makes_environments=True)


def _record() -> None:
    need_extra("video")
    run_watching("rl_zoo3.record_video", ALGO)
