"""Whether what was put aside fits what is to take it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require_same_settings(kept: Mapping[str, Any], here: Mapping[str, Any], what: str) -> None:
    """Refuse the state of something that was made otherwise, before anything is changed.

    :param kept: plain settings by name, as they were put aside
    :param here: the same, of what is to take the state up
    :param what: its name, as the subject of the message
    :raises ValueError: if any differ; the message names each
    """
    differing = [
        f"{name} was {_shown(kept, name)} and is {_shown(here, name)}"
        for name in dict.fromkeys([*here, *kept])
        if _shown(kept, name) != _shown(here, name)
    ]
    if differing:
        raise ValueError(
            f"{what} cannot go on from this state: {'; '.join(differing)}. Make it with the same arguments"
        )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    # As text: the repr of a float is exact, and True is not 1 there.
    return repr(settings[name]) if name in settings else "not there"
