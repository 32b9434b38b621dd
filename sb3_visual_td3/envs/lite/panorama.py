"""What stands on the horizon all around: sky, hills, houses and trees."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

PANORAMA_ROWS = 240
PANORAMA_COLUMNS = 2048


def build_panorama(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return ``(240, 2048) uint8``: columns are directions, one turn to the left; the last row is the horizon.

    A row's height above the horizon is the tangent of its elevation; the first row is 45 degrees up.
    """
    panorama = np.linspace(rng.uniform(195, 215), rng.uniform(160, 180), PANORAMA_ROWS)[:, None] + _clouds(rng)
    turn = np.linspace(0.0, 2.0 * np.pi, PANORAMA_COLUMNS, endpoint=False)
    waves = [rng.uniform(2, 9) * np.sin(n * turn + rng.uniform(0.0, 2.0 * np.pi)) for n in (2, 3, 5, 9)]
    hills = np.clip(30.0 + np.sum(waves, axis=0), 5.0, 90.0)
    rows_up = np.arange(PANORAMA_ROWS, 0, -1)[:, None]
    panorama[rows_up <= hills] = rng.uniform(110, 130)
    for _ in range(int(rng.integers(20, 40))):
        left, width, up = int(rng.integers(PANORAMA_COLUMNS)), int(rng.integers(6, 32)), int(rng.integers(18, 86))
        columns = np.arange(left, left + width) % PANORAMA_COLUMNS
        panorama[-up:, columns] = rng.uniform(60, 150)
    return np.asarray(np.clip(panorama, 0, 255), dtype=np.uint8)


def _clouds(rng: np.random.Generator) -> NDArray[np.float64]:
    nodes = np.tile(rng.normal(0.0, 6.0, (12, 32)), 3)
    turns = cv2.resize(nodes, (3 * PANORAMA_COLUMNS, PANORAMA_ROWS), interpolation=cv2.INTER_CUBIC)
    return np.asarray(turns[:, PANORAMA_COLUMNS : 2 * PANORAMA_COLUMNS])  # the middle turn closes without a seam
