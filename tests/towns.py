"""Marks that skip a test if the OpenDRIVE files of towns or CARLA's client are missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOWNS = Path(__file__).resolve().parents[2] / "shared" / "towns"
"""Folder of OpenDRIVE files, which are not part of the repository."""
needs_towns = pytest.mark.skipif(not TOWNS.is_dir(), reason=f"no OpenDRIVE files in {TOWNS}")
needs_carla = pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="CARLA's client is not installed")
