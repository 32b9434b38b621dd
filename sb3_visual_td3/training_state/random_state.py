"""The random generators that a process shares, and those that objects own."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th

from sb3_visual_td3.training_state.plain_data import as_given, as_plain

_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def random_state() -> dict[str, Any]:
    """Read the global generators of Python, NumPy and torch; of torch every CUDA device's, once CUDA is in use.

    :return: plain data
    """
    version, words, gauss_next = random.getstate()
    cuda = th.cuda.get_rng_state_all() if th.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {
        "python": {"version": version, "words": np.array(words, np.uint32), "gauss_next": gauss_next},
        "numpy": as_plain(np.random.get_state(legacy=False), "np.random"),
        "torch": th.get_rng_state().numpy(),
        "cuda": [state.numpy() for state in cuda],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the global generators; the last thing to do, since building and loading may draw numbers.

    A CUDA device that is not here is passed over.

    :param state: as returned by :func:`random_state`
    """
    python = state["python"]
    words = tuple(np.asarray(python["words"]).tolist())
    random.setstate((python["version"], words, python["gauss_next"]))
    np.random.set_state(as_given(state["numpy"]))
    th.set_rng_state(_bytes(state["torch"]))
    n_devices = th.cuda.device_count() if th.cuda.is_available() else 0
    for device, device_state in enumerate(state["cuda"][:n_devices]):
        th.cuda.set_rng_state(_bytes(device_state), device)


def _bytes(state: Any) -> th.Tensor:
    return th.from_numpy(np.array(state, np.uint8))


def generator_state(generator: np.random.Generator | None) -> dict[str, Any] | None:
    """:return: a generator's state as plain data; None for one that has not been seeded yet"""
    if generator is None:
        return None
    state: dict[str, Any] = as_plain(dict(generator.bit_generator.state), "bit_generator.state")
    return state


def restored_generator(
    generator: np.random.Generator | None, state: Mapping[str, Any] | None
) -> np.random.Generator | None:
    """Put a generator where another one was.

    :param generator: changed in place where it is of the same kind, so that all who share it see it
    :param state: as returned by :func:`generator_state`
    :return: the generator, or a new one; None where there was none
    :raises ValueError: if the state is of a kind that NumPy does not have
    """
    if state is None:
        return None
    kind = state["bit_generator"]
    if generator is None or type(generator.bit_generator).__name__ != kind:
        if kind not in _BIT_GENERATORS:
            raise ValueError(f"a random generator of kind {kind!r}: expected one of {', '.join(_BIT_GENERATORS)}")
        generator = np.random.Generator(getattr(np.random, kind)(0))
    generator.bit_generator.state = as_given(state)
    return generator
