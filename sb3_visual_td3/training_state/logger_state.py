"""What has been recorded and not yet written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.logger import Logger

from sb3_visual_td3.training_state.plain_data import as_given, plain_part


def logger_state(logger: Logger) -> dict[str, Any]:
    """Read the values that wait for the next dump: numbers and strings; figures, videos and the like are left out.

    :return: plain data
    """
    pending: Mapping[str, Any] = logger.name_to_value
    values = plain_part({name: value for name, value in pending.items() if not isinstance(value, list | tuple | dict)})
    return {
        "values": values,
        "counts": {name: count for name, count in logger.name_to_count.items() if name in values},
        "excluded": {name: list(formats) for name, formats in logger.name_to_excluded.items() if name in values},
    }


def set_logger_state(logger: Logger, state: Mapping[str, Any]) -> None:
    """Replace what waits for the next dump.

    :param state: as returned by :func:`logger_state`
    """
    given = as_given(state["values"])
    for name, value in given.items():
        if not isinstance(value, bool | int | float | str | np.generic | np.ndarray):
            raise ValueError(f"the logged value {name} is {value!r}: expected a number or text")
    if not all(type(count) is int for count in state["counts"].values()):
        raise ValueError(f"{state['counts']!r} does not say how often values were logged")
    excluded = {name: tuple(formats) for name, formats in state["excluded"].items()}
    replaced: list[tuple[dict[str, Any], Mapping[str, Any]]] = [
        (logger.name_to_value, given),
        (logger.name_to_count, state["counts"]),
        (logger.name_to_excluded, excluded),
    ]
    for target, values in replaced:  # in place: they are defaultdicts
        target.clear()
        target.update(values)
