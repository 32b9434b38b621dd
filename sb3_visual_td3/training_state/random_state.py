"""Read and set the random generators of the process, of objects, and of gymnasium's spaces.

A resumed run equals an uninterrupted run bit for bit only if all of them are restored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_visual_td3.training_state.plain_data import as_given, as_plain

_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def random_state() -> dict[str, Any]:
    """Read the global random generators of Python, NumPy and torch, and of every CUDA device if CUDA is in use."""
    version, words, gauss_next = random.getstate()
    # Reading the CUDA states would initialise CUDA, which costs seconds and memory even if nothing uses it.
    cuda = th.cuda.get_rng_state_all() if th.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {
        "python": {"version": version, "words": np.array(words, np.uint32), "gauss_next": gauss_next},
        "numpy": as_plain(np.random.get_state(legacy=False), "np.random"),
        "torch": th.get_rng_state().numpy(),
        "cuda": [state.numpy() for state in cuda],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the global random generators of Python, NumPy, torch and the CUDA devices.

    Call this last in a restore, because creating and loading objects may draw numbers. The states of CUDA devices that
    do not exist here are skipped.

    :param state: result of :func:`random_state`
    """
    python = state["python"]
    words = tuple(np.asarray(python["words"]).tolist())
    random.setstate((python["version"], words, python["gauss_next"]))
    np.random.set_state(as_given(state["numpy"]))
    th.set_rng_state(_as_byte_tensor(state["torch"]))
    n_devices = th.cuda.device_count() if th.cuda.is_available() else 0
    for device, device_state in enumerate(state["cuda"][:n_devices]):
        th.cuda.set_rng_state(_as_byte_tensor(device_state), device)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the global random generators of Python, NumPy and torch at the end of a ``with`` block."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


def _as_byte_tensor(state: Any) -> th.Tensor:
    return th.from_numpy(np.array(state, np.uint8))


def generator_state(generator: np.random.Generator | None) -> dict[str, Any] | None:
    """Read the state of a NumPy random generator.

    :param generator: the generator; None if its owner has not created a generator yet
    """
    if generator is None:
        return None
    state: dict[str, Any] = as_plain(dict(generator.bit_generator.state), "bit_generator.state")
    return state


def restored_generator(
    generator: np.random.Generator | None, state: Mapping[str, Any] | None
) -> np.random.Generator | None:
    """Return a NumPy random generator that continues from a saved state.

    If possible, the current generator is changed in place, because several objects may share it.

    :param generator: the current generator; None if its owner has not created a generator yet
    :param state: result of :func:`generator_state`
    :return: the current or a new generator; None if ``state`` is None
    :raises ValueError: if the state belongs to an unknown bit generator
    """
    if state is None:
        return None
    kind = state["bit_generator"]
    if generator is None or type(generator.bit_generator).__name__ != kind:
        # The kind comes from a file and selects an attribute of np.random, so it must be a known name.
        if kind not in _BIT_GENERATORS:
            raise ValueError(
                f"the snapshot has a random generator of kind {kind!r}: expected one of {', '.join(_BIT_GENERATORS)}"
            )
        generator = np.random.Generator(getattr(np.random, kind)(0))
    generator.bit_generator.state = as_given(state)
    return generator


def space_random_state(space: spaces.Space[Any]) -> dict[str, Any]:
    """Read the random generators of a gymnasium space and of its parts, without creating generators.

    :param space: any space of gymnasium
    """
    return {
        "generator": generator_state(getattr(space, "_np_random", None)),
        "parts": [space_random_state(part) for part in _parts(space)],
    }


def set_space_random_state(space: spaces.Space[Any], state: Mapping[str, Any]) -> None:
    """Set the random generators of a gymnasium space and of its parts.

    :param space: a space with the same parts as the saved one
    :param state: result of :func:`space_random_state`
    :raises ValueError: if the space has another number of parts
    """
    parts = _parts(space)
    if len(parts) != len(state["parts"]):
        raise ValueError(
            f"the space {space} has {len(parts)} parts: expected {len(state['parts'])} as in the "
            "snapshot. Use the same environment"
        )
    generator = restored_generator(getattr(space, "_np_random", None), state["generator"])
    # None is valid here: the space creates a generator when it is first sampled.
    space._np_random = generator  # type: ignore[assignment]
    for part, part_state in zip(parts, state["parts"], strict=True):
        set_space_random_state(part, part_state)


def _parts(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.values())
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return list(space.spaces)
    if isinstance(space, spaces.Sequence):
        return [space.feature_space]
    if isinstance(space, spaces.Graph):
        return [part for part in (space.node_space, space.edge_space) if part is not None]
    return []
