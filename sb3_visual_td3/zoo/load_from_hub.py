"""``visual-td3 load-from-hub``: rl-zoo's command that fetches a published agent."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.enjoy import WHERE_WE_TRAIN
from sb3_visual_td3.zoo.plugin_scripts import run_load_from_hub
from sb3_visual_td3.zoo.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch an agent as ``python -m rl_zoo3.load_from_hub`` does, into ``logs`` by default.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_script("load-from-hub", arguments, run_load_from_hub, WHERE_WE_TRAIN)
