"""What the networks compute with while they learn: bfloat16 or float32, and an allocator that keeps its memory."""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Literal

import torch as th

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_KEPT = 2**28
"""Bytes. An update's largest temporaries have some tens of megabytes; replay buffers are far above."""
_PAD = 2**26


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Let glibc keep large blocks that are freed, for the rest of the process.

    By default it gives them back to the system and asks for them again at every update, and the system clears each page
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


Precision = Literal["fp32", "bf16", "auto"]


def has_fast_bf16(device: th.device) -> bool:
    """Tell whether bfloat16 pays.

    :param device: where the networks are
    :return: whether the machine multiplies bfloat16 natively: AVX512_BF16 or AMX on a CPU, Ampere or newer on a GPU.
        Elsewhere it is emulated, several times slower than float32
    """
    if device.type == "cuda":
        return bool(th.cuda.is_bf16_supported(including_emulation=False))
    capabilities = th.cpu.get_capabilities()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class Arithmetic:
    """How the networks compute during an update.

    :param precision: ``"fp32"``, ``"bf16"``, or ``"auto"``: bfloat16 where the machine has it in hardware
    :param device: where the networks are
    :param is_stock: whether float32 has to be Stable-Baselines3's, to the bit: the same layouts in the same order
    """

    def __init__(self, precision: Precision, device: th.device, is_stock: bool) -> None:
        self._device = device
        fast = has_fast_bf16(device) if precision == "auto" else precision == "bf16"
        self.dtype = th.bfloat16 if fast else th.float32
        self.is_exact = is_stock and precision == "fp32"

    def autocast(self) -> AbstractContextManager[None]:
        """:return: a context in which matrix products and convolutions use the dtype in force

        Weights stay in float32, as do losses, optimizers and the last layer of every head.
        """
        # No cache: it would hand weights cast without a gradient to a forward pass that needs one.
        return th.autocast(self._device.type, self.dtype, enabled=self.dtype != th.float32, cache_enabled=False)
