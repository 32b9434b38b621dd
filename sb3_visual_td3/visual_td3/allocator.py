"""Memory that is used again and again should not be given back in between."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_KEPT = 2**28
"""Bytes. An update's largest temporaries have some tens of megabytes; replay buffers are far above."""
_PAD = 2**26


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep large blocks that are freed, for the rest of the process.

    By default it gives them back to the system and asks for them anew at every update, and the system clears each page
    before it is touched. Nothing happens with another C library.

    :return: whether the C library took the settings

    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST_KEPT), (_M_TRIM_THRESHOLD, 2 * _LARGEST_KEPT), (_M_TOP_PAD, _PAD))
    taken = [bool(mallopt(name, value)) for name, value in settings]
    return all(taken)
