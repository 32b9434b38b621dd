"""A window that shows pictures as they are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Window:
    """Opens with the first picture.

    :param title: stands above the picture.
    :raises ImportError: if pygame is missing; the extra ``video`` brings it.
    """

    def __init__(self, title: str) -> None:
        try:
            import pygame
        except ImportError as error:
            raise ImportError(
                "render_mode='human' needs pygame: install the extra, pip install 'sb3-visual-td3[video]'"
            ) from error
        self._pygame: Any = pygame
        self._title = title
        self._screen: Any = None

    def show(self, picture: NDArray[np.uint8], fps: float) -> None:
        """Show ``picture``, ``(height, width, 3) uint8`` RGB, at most ``fps`` times a second."""
        if self._screen is None:
            self._pygame.display.init()
            self._pygame.display.set_caption(self._title)
            self._screen = self._pygame.display.set_mode((picture.shape[1], picture.shape[0]))
            self._clock = self._pygame.time.Clock()
        self._pygame.event.pump()
        self._pygame.surfarray.blit_array(self._screen, picture.swapaxes(0, 1))
        self._pygame.display.flip()
        self._clock.tick(fps)

    def close(self) -> None:
        """Close the window; the next picture opens another."""
        if self._screen is not None:
            self._screen = None
            self._pygame.display.quit()
