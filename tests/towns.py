"""What tests on real towns need: the OpenDRIVE files, which lie beside the repository, and CARLA's client."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOWNS = Path(__file__).resolve().parents[2] / "shared" / "towns"
"""OpenDRIVE files of others. They are not part of the repository; without them, these tests are skipped."""
needs_towns = pytest.mark.skipif(not TOWNS.is_dir(), reason=f"no OpenDRIVE files of others in {TOWNS}")
needs_carla = pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="CARLA's client is not installed")
