"""Whether what an environment gave, and what is replayed of it, is finite: in words where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np


class Broken(NamedTuple):
    """Something in a step that is not finite; ``by_weights`` says that the policy's own weights are to blame."""

    words: str
    by_weights: bool


def broken_step(locals_: Mapping[str, Any]) -> Broken | None:
    """Look for NaN and infinity in what a step was made of; images are whole numbers and are not looked at.

    :param locals_: of ``collect_rollouts``: ``actions``, ``new_obs`` (an array, or a dict of arrays) and ``rewards``
    :return: what is not finite: the first in the order of cause and effect; None if all is
    """
    observations = locals_["new_obs"]
    by_key = observations if isinstance(observations, Mapping) else {"": observations}
    parts = {
        "the policy's action is {}: the weights are, too": locals_["actions"],
        **{f"the observation{f' {key!r}' if key else ''} holds {{}}": part for key, part in by_key.items()},
        "the reward is {}: every target would be": locals_["rewards"],
    }
    for number, (words, part) in enumerate(parts.items()):
        if not _is_finite(part):
            return Broken(words.format(part[~np.isfinite(part)].flat[0]), by_weights=number == 0)
    return None


def replay_is_finite(replay_buffer: Any) -> bool:
    """Look through what a replay buffer holds, which takes a moment.

    :param replay_buffer: any; what it does not keep as arrays is not looked at
    :return: whether rewards, actions and observations are finite; rows that were not written yet count as well
    """
    names = ("rewards", "actions", "observations", "next_observations")
    return all(_is_finite(part) for name in names for part in _arrays_in(getattr(replay_buffer, name, None)))


def _arrays_in(value: Any) -> Iterator[Any]:
    parts = value.values() if isinstance(value, Mapping) else [value]
    yield from (part for part in parts if isinstance(part, np.ndarray))


def _is_finite(part: Any) -> bool:
    return not np.issubdtype(part.dtype, np.floating) or bool(np.isfinite(part).all())
