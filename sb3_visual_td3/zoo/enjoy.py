"""``visual-td3 enjoy``: rl-zoo's command that shows a trained agent."""

from __future__ import annotations

from collections.abc import Sequence

from sb3_visual_td3.zoo.plugin import ALGO
from sb3_visual_td3.zoo.script import run_script

WHERE_WE_TRAIN = ("--algo", ALGO, "--env", "LiteDriving-v0", "-f", "logs")
"""What rl-zoo's commands that load a model look for unless told otherwise: what ``visual-td3 train`` leaves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Show an agent as ``python -m rl_zoo3.enjoy`` does, by default the latest of ours in ``logs``.

    :param arguments: rl-zoo's flags; those of the command line by default
    :return: the exit code
    """
    return run_script("enjoy", arguments, _enjoy, WHERE_WE_TRAIN, makes_environments=True)


def _enjoy() -> None:
    from rl_zoo3.enjoy import enjoy

    enjoy()
