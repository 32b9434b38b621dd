"""Add our algorithm to rl-zoo as ``--algo visual_td3``, with commands that train, search and evaluate.

Importing this package imports neither rl_zoo3 nor torch.
"""

from __future__ import annotations

__all__ = ["register"]


def register() -> None:
    """Add the algorithm ``visual_td3`` to rl_zoo3; calling it again changes nothing.

    A script of your own calls this function and then rl_zoo3's ``train()`` or ``enjoy()``.
    """
    from sb3_visual_td3.zoo.plugin import register as register_algorithm

    register_algorithm()
