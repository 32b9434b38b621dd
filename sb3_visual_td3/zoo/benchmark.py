"""``visual-td3 benchmark``: rl-zoo's table of what the trained agents of a folder achieve."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.mistakes import need_extra
from sb3_visual_td3.zoo.plugin_scripts import run_benchmark
from sb3_visual_td3.zoo.script import run_script


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate agents as ``python -m rl_zoo3.benchmark`` does, by default those in ``logs``; from any folder.

    Without ``--no-hub`` all of rl-zoo's agents are fetched from the network and evaluated as well.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_script("benchmark", arguments, _benchmark, ("--log-dir", "logs"), makes_environments=True)


def _benchmark() -> None:
    need_extra("plots")
    run_benchmark()
