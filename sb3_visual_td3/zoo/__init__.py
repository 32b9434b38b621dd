"""rl-zoo with ``--algo visual_td3``."""

from __future__ import annotations

__all__ = ["register"]


def register() -> None:
    """Teach rl_zoo3 the algorithm ``visual_td3``; calling it again changes nothing.

    A script of your own needs no more than this and rl_zoo3's ``train()`` or ``enjoy()``. rl_zoo3 and torch are
    imported when this is called, not when the package is imported.
    """
    from sb3_visual_td3.zoo.plugin import register as register_algorithm

    register_algorithm()
