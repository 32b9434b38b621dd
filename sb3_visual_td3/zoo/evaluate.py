"""``visual-td3 evaluate``: a trained agent on roads that it has not seen, beside a random and a full-brake driver."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable
from tqdm.auto import tqdm

from sb3_visual_td3.callbacks.drives import Drive, Driver, drive_episodes, full_brake_driver, random_driver
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.zoo.environments import add_packages_argument, check_environment, env_kwargs_of, import_packages
from sb3_visual_td3.zoo.mistakes import answer
from sb3_visual_td3.zoo.plugin import ALGO, register
from sb3_visual_td3.zoo.saved_run import SavedRun, find_run, read_run

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
    """:return: the quantity that counts over all the metres driven; without any metres there is no rate"""
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


_N_ENVS = 10
DRIVERS = ("policy", "random", "full brake")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what an evaluation can be told; the flags that choose a model are rl-zoo's."""
    parser.add_argument("run_dir", type=Path, nargs="?", metavar="RUN_DIR", help="folder of a run; or tell its names:")
    parser.add_argument("--algo", default=ALGO, help="algorithm (default: %(default)s)")
    parser.add_argument("--env", default="LiteDriving-v0", help="environment (default: %(default)s)")
    parser.add_argument("-f", "--folder", default="logs", help="log folder (default: %(default)s)")
    parser.add_argument("--exp-id", type=int, default=0, help="number of the run (default: the latest)")
    parser.add_argument("--load-best", action="store_true", help="the best model instead of the last")
    parser.add_argument("--load-checkpoint", type=int, help="the checkpoint of this step instead")
    parser.add_argument("--load-last-checkpoint", action="store_true", help="the last checkpoint instead")
    parser.add_argument("-n", "--n-episodes", type=_count, default=10, help="for each map and seed (default: 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1_000], help="of the starts (default: 1000)")
    parser.add_argument("--maps", nargs="+", default=["held_out"], help="groups or maps (default: held_out)")
    parser.add_argument("--n-envs", type=_count, help="environments side by side (default: 10; of CARLA, 1)")
    parser.add_argument("--stochastic", action="store_true", help="do not act deterministically")
    parser.add_argument("--device", default="auto", help="of the networks (default: auto)")
    add_packages_argument(parser)
    parser.add_argument("--output", type=Path, help="write everything to this JSON file")


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text!r}")
    return int(text)


def run(settings: argparse.Namespace) -> int:
    """Evaluate.

    :param settings: the parsed arguments
    :return: the exit code
    """
    register()
    try:
        if settings.output is not None and not settings.output.resolve().parent.is_dir():
            raise ValueError(f"--output {settings.output}: there is no folder {settings.output.resolve().parent}")
        import_packages(settings.gym_packages)
        saved = _choose(settings)
        check_environment(saved.env_id, settings.gym_packages)
        maps = _maps(saved, settings.maps)
        drives = _drive_all(saved, maps, settings)
    except Exception as error:
        return answer("evaluate", error)
    table = summarise(drives)
    show(table, f"{saved.model_path}, {settings.n_episodes * len(settings.seeds)} episodes on each map")
    if settings.output is not None:
        write_atomically(settings.output, json.dumps(_as_json(saved, settings, maps, table, drives), indent=2) + "\n")
        print(f"Written to {settings.output}")
    return 0


def _choose(settings: argparse.Namespace) -> SavedRun:
    names = ("load_best", "load_checkpoint", "load_last_checkpoint")
    which = {name: getattr(settings, name) for name in names}
    if settings.run_dir is not None:
        return read_run(settings.run_dir, **which)
    return find_run(settings.folder, settings.algo, settings.env, settings.exp_id, **which)


def _maps(saved: SavedRun, asked: list[str]) -> list[str]:
    """:return: the maps by name, groups resolved by the environment itself"""
    found: list[str] = []
    for each in asked:
        try:
            env = gym.make(saved.env_id, **env_kwargs_of(saved.env_kwargs(), {"maps": each}))
        except TypeError as error:
            if "'maps'" not in str(error):
                raise
            names = None
        else:
            names = getattr(env.unwrapped, "maps", None)
            env.close()
        if names is None:
            raise ValueError(f"{saved.env_id} has no maps: expected a driving environment, such as LiteDriving-v0")
        found += [name for name in names if name not in found]
    return found


def _n_envs(saved: SavedRun) -> int:
    """:return: how many are driven side by side where nobody says it: each of CARLA needs a server of its own"""
    env = gym.make(saved.env_id, **saved.env_kwargs())
    needs_server = hasattr(env.unwrapped, "server_address")
    env.close()
    return 1 if needs_server else _N_ENVS


def _drive_all(saved: SavedRun, maps: list[str], settings: argparse.Namespace) -> dict[str, dict[str, list[Drive]]]:
    """:return: the episodes of each driver on each map"""
    model = saved.load(settings.device)
    drives: dict[str, dict[str, list[Drive]]] = {driver: {name: [] for name in maps} for driver in DRIVERS}
    n_episodes = len(DRIVERS) * len(maps) * len(settings.seeds) * settings.n_episodes
    with tqdm(total=n_episodes, unit="episode", file=sys.stderr, leave=False, disable=None) as bar:
        for name in maps:
            n_envs = min(settings.n_envs or _n_envs(saved), settings.n_episodes)
            env = saved.make_envs(n_envs, settings.seeds[0], env_kwargs_of(saved.env_kwargs(), {"maps": [name]}))
            for seed in settings.seeds:
                drivers: tuple[Driver, ...] = (
                    lambda observations: model.predict(observations, deterministic=not settings.stochastic)[0],
                    random_driver(env, seed),
                    full_brake_driver(env),
                )
                for label, driver in zip(DRIVERS, drivers, strict=True):
                    bar.set_description(f"{name}, {label}")
                    for done in range(0, settings.n_episodes, n_envs):
                        batch = drive_episodes(driver, env, seed + done)[: settings.n_episodes - done]
                        drives[label][name] += batch
                        bar.update(len(batch))
            env.close()
    return drives


def _as_json(
    saved: SavedRun,
    settings: argparse.Namespace,
    maps: list[str],
    table: Table,
    drives: dict[str, dict[str, list[Drive]]],
) -> dict[str, Any]:
    return {
        "format_version": 1,
        "algo": saved.algo,
        "env_id": saved.env_id,
        "model": str(saved.model_path),
        "maps": maps,
        "seeds": settings.seeds,
        "n_episodes": settings.n_episodes,
        "deterministic": not settings.stochastic,
        "results": table,
        "episodes": {
            driver: {name: [drive._asdict() for drive in rows] for name, rows in by_map.items()}
            for driver, by_map in drives.items()
        },
    }
