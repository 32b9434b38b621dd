"""What episodes add up to: means with the interval in which chance alone may have put them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable

from sb3_visual_td3.callbacks.drives import Drive

Interval = dict[str, float]
"""``mean``, and ``low`` and ``high`` of the 95 % interval."""
Table = dict[str, dict[str, dict[str, Interval]]]
"""Driver, map (and ``all``), quantity."""

TOGETHER = "all"
_N_RESAMPLES = 2_000
_COVERED = (2.5, 97.5)

Quantity = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _mean(field: str) -> Quantity:
    column = Drive._fields.index(field)
    return lambda rows: np.asarray(rows[..., column].mean(axis=-1))


def _per_km(field: str) -> Quantity:
    """:return: the quantity that counts over all the metres driven; where nobody moved there is no rate"""
    column, metres = Drive._fields.index(field), Drive._fields.index("distance_m")

    def rate(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        km = rows[..., metres].sum(axis=-1) / 1_000.0
        count = rows[..., column].sum(axis=-1)
        # Of nothing numpy would make a warning as well.
        rates: NDArray[np.float64] = np.divide(count, km, out=np.full(np.shape(km), np.nan), where=km > 0)
        return rates

    return rate


QUANTITIES: Mapping[str, tuple[str, str, Quantity]] = {
    "success_rate": ("success", "{:.0%}", _mean("success_rate")),
    "route_completion": ("route", "{:.0%}", _mean("route_completion")),
    "return": ("return", "{:.1f}", _mean("reward")),
    "length": ("decisions", "{:.0f}", _mean("length")),
    "distance_m": ("metres", "{:.0f}", _mean("distance_m")),
    "speed_mps": ("m/s", "{:.1f}", _mean("speed_mps")),
    "collisions_per_km": ("collisions/km", "{:.1f}", _per_km("collisions")),
    "lane_invasions_per_km": ("invasions/km", "{:.1f}", _per_km("lane_invasions")),
}
"""By the name in the JSON: heading, format, and the number that episodes ``(..., n, field)`` give."""


def summarise(drives: Mapping[str, Mapping[str, Sequence[Drive]]]) -> Table:
    """Add up episodes, by driver and map and over all maps.

    :param drives: by driver and map; at least one each
    :return: the table
    """
    return {
        driver: {
            name: _intervals(rows)
            for name, rows in [*by_map.items(), (TOGETHER, [drive for rows in by_map.values() for drive in rows])]
        }
        for driver, by_map in drives.items()
    }


def _intervals(drives: Sequence[Drive]) -> dict[str, Interval]:
    rows = np.array(drives, dtype=np.float64)
    # The same draws for each driver and each time: a bootstrap over episodes.
    draws = np.random.default_rng(0).integers(len(rows), size=(_N_RESAMPLES, len(rows)))
    resampled = rows[draws]
    found: dict[str, Interval] = {}
    for name, (_, _, quantity) in QUANTITIES.items():
        values = quantity(resampled)
        values = values[np.isfinite(values)]
        mean = float(quantity(rows))
        if np.isfinite(mean):
            low, high = np.percentile(values, _COVERED).tolist()
            found[name] = {"mean": mean, "low": low, "high": high}
    return found


def show(table: Table, title: str) -> None:
    """Print the table.

    :param table: to show
    :param title: above it
    """
    shown = RichTable(title=title, title_justify="left")
    for heading in ("driver", "map"):
        shown.add_column(heading, no_wrap=True)
    for heading, _, _ in QUANTITIES.values():
        shown.add_column(heading, justify="right")
    for driver, by_map in table.items():
        for name, found in by_map.items():
            shown.add_row(driver, name, *(_cell(found.get(key), form) for key, (_, form, _) in QUANTITIES.items()))
        shown.add_section()
    Console(width=None if Console().is_terminal else 160).print(shown)


def _cell(interval: Interval | None, form: str) -> str:
    if interval is None:
        return "-"
    low, high = (form.format(interval[end]) for end in ("low", "high"))
    return f"{form.format(interval['mean'])} [{low}, {high}]"
