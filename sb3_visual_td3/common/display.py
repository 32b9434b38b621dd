"""Find out whether a window can be opened."""

from __future__ import annotations

import os
import sys

_DRIVERS_WITHOUT_WINDOW = {"dummy", "offscreen"}
"""Values of SDL_VIDEODRIVER with which nothing is shown."""


def has_display() -> bool:
    """Return whether the environment variables name a display on which a window can be opened."""
    driver = os.environ.get("SDL_VIDEODRIVER")
    if driver:
        return driver not in _DRIVERS_WITHOUT_WINDOW
    if sys.platform in {"win32", "darwin"}:
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
