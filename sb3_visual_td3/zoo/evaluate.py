"""Implement ``visual-td3 evaluate``: compare a trained agent on held-out maps with two simple drivers.

In an environment without maps, the agent and a random policy play episodes from held-out seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from stable_baselines3.common.base_class import BaseAlgorithm
from tqdm.auto import tqdm

from sb3_visual_td3.callbacks.drives import (
    Drive,
    Episode,
    drive_episodes,
    full_brake_driver,
    play_episodes,
    random_driver,
    random_policy,
    trained_policy,
)
from sb3_visual_td3.callbacks.driving_score import INFRACTIONS
from sb3_visual_td3.callbacks.policy_eval import EVALUATION_SEED
from sb3_visual_td3.callbacks.saving import BEST_MODEL
from sb3_visual_td3.common.errors import check_output
from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.runs.durable_files import write_atomically
from sb3_visual_td3.zoo.flags import check_device, check_environment, import_packages
from sb3_visual_td3.zoo.hyperparameters import env_kwargs_of
from sb3_visual_td3.zoo.mistakes import answer
from sb3_visual_td3.zoo.plugin import register
from sb3_visual_td3.zoo.saved_run import SavedRun, find_run, read_run
from sb3_visual_td3.zoo.suites import SuitePart, suite_parts

Interval = dict[str, float]
"""Mean of a quantity and the limits of its 95 % interval, under the keys ``mean``, ``low`` and ``high``."""
Table = dict[str, dict[str, dict[str, Interval]]]
"""Intervals in nested dicts: ``table[driver][map][quantity]``. The map ``"all"`` stands for all maps together."""
Episodes = dict[str, dict[str, list[Drive]]] | dict[str, dict[str, list[Episode]]]
"""Episodes by driver and map."""

POLICY, LAST_ACTOR, BEST = "policy", "last actor", "best"
"""Labels of the run's policies: the model that the flags select, the same model with its latest actor instead of the
averaged actor, and the best model."""
DRIVERS = (POLICY, "random", "full brake")
"""Labels of the drivers in an environment with maps, in the order of the table: the run's model, random actions and
full brake. ``--compare`` inserts more models of the run after the first label."""
PLAYERS = (POLICY, "random")
"""Labels of the policies that play in an environment without maps, in the order of the table. ``--compare`` inserts
more models of the run after the first label."""
ALL_MAPS = "all"
HELD_OUT = ("held_out",)
"""Default of ``--maps``."""
_DRIVING_SEED = 1_000
_N_ENVS = 10
"""Number of parallel environments by default, except in CARLA."""
_N_EPISODES = 10
"""Number of episodes on each map with each seed by default."""
_N_RESAMPLES = 2_000
_PERCENTILES = (2.5, 97.5)

Quantity = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Function from episodes to a quantity. It takes an array of shape ``(..., n_episodes, n_fields)``, with the fields of
Drive or Episode, and returns an array of shape ``(...)``."""


def _mean(field: str, kind: type[Drive | Episode] = Drive) -> Quantity:
    column = kind._fields.index(field)
    return lambda rows: np.asarray(rows[..., column].mean(axis=-1))


def _std(field: str, kind: type[Drive | Episode]) -> Quantity:
    column = kind._fields.index(field)
    return lambda rows: np.asarray(rows[..., column].std(axis=-1))


def _per_km(field: str) -> Quantity:
    """Return a function that divides the sum of a count by the kilometres driven; NaN if nothing was driven."""
    column, metres = Drive._fields.index(field), Drive._fields.index("distance_m")

    def rate(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        # In a mean of the episodes' own rates, a crash after two metres would count as 500 per km.
        km = rows[..., metres].sum(axis=-1) / 1_000.0
        count = rows[..., column].sum(axis=-1)
        # ``where`` avoids numpy's warning about a division by zero.
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
    "driving_score": ("driving score", "{:.1f}", _mean("driving_score")),
    "collision_vehicle_per_km": ("vehicles hit/km", "{:.2f}", _per_km("collision_vehicle")),
    "collision_walker_per_km": ("walkers hit/km", "{:.2f}", _per_km("collision_walker")),
    "collision_layout_per_km": ("off road/km", "{:.2f}", _per_km("collision_layout")),
    "red_light_per_km": ("red lights/km", "{:.2f}", _per_km("red_light")),
    "off_route_per_km": ("off route/km", "{:.2f}", _per_km("off_route")),
    "blocked_per_km": ("blocked/km", "{:.2f}", _per_km("blocked")),
    "timeout_per_km": ("timeouts/km", "{:.2f}", _per_km("timeout")),
}
"""Heading, number format and function of each quantity of driving, by its key in the JSON file."""
EPISODE_QUANTITIES: Mapping[str, tuple[str, str, Quantity]] = {
    "return": ("return", "{:.2f}", _mean("reward", Episode)),
    "return_std": ("std of the return", "{:.2f}", _std("reward", Episode)),
    "length": ("steps", "{:.0f}", _mean("length", Episode)),
    "success_rate": ("success", "{:.0%}", _mean("success_rate", Episode)),
}
"""Heading, number format and function of each quantity in an environment without maps."""
SCORE = "driving_score"
ROUTE_QUANTITIES = (SCORE, *(f"{name}_per_km" for name in INFRACTIONS if name != "lane_invasion"))
"""Quantities that only routes to a goal have."""

_INTERVAL = "[low, high] is the 95 % bootstrap interval over episodes."
_EXPLANATION = (
    f"{_INTERVAL} success: the episode ended without collision, and not because the vehicle left the road, drove the "
    "wrong way or stood still. The mean speed along the lane was also at least half the target speed (the default; an "
    "environment may be set to another fraction)."
)
_ROUTE_EXPLANATION = (
    f"{_INTERVAL} success: the vehicle reached the goal. driving score: as in CARLA's leaderboard 2.1, the mean of "
    "completion in percent / (1 + penalties of the infractions)."
)


def summarise(drives: Mapping[str, Mapping[str, Sequence[Drive]]]) -> Table:
    """Summarise episodes by driver and map, and over all maps.

    :param drives: episodes by driver and map, at least one for each pair of driver and map
    :return: mean and 95 % interval of each quantity, by driver and map
    """
    table: Table = {}
    for driver, by_map in drives.items():
        table[driver] = {name: _intervals(rows, QUANTITIES) for name, rows in by_map.items()}
        table[driver][ALL_MAPS] = _intervals([drive for rows in by_map.values() for drive in rows], QUANTITIES)
    return table


def summarise_episodes(episodes: Mapping[str, Mapping[str, Sequence[Episode]]]) -> Table:
    """Summarise the episodes of each policy in an environment without maps.

    :param episodes: ``episodes[policy]["all"]`` is the list of a policy's episodes. The inner dict has only this key,
        :data:`ALL_MAPS`, as there are no maps
    :return: mean and 95 % interval of each quantity, in ``table[policy]["all"]``
    """
    rows = {player: by_map[ALL_MAPS] for player, by_map in episodes.items()}
    # Some environments set ``is_success`` only at the goal. If one episode has the key, the others without it failed.
    if any(not np.isnan(episode.success_rate) for played in rows.values() for episode in played):
        rows = {
            player: [episode._replace(success_rate=float(episode.success_rate > 0)) for episode in played]
            for player, played in rows.items()
        }
    return {player: {ALL_MAPS: _intervals(played, EPISODE_QUANTITIES)} for player, played in rows.items()}


def _intervals(
    episodes: Sequence[Drive] | Sequence[Episode], quantities: Mapping[str, tuple[str, str, Quantity]]
) -> dict[str, Interval]:
    rows = np.array(episodes, dtype=np.float64)  # (episode, field)
    # The bootstrap resamples whole episodes, because the fields of one episode depend on each other. With a fixed seed,
    # all drivers and repeated evaluations have the same resamples.
    draws = np.random.default_rng(0).integers(len(rows), size=(_N_RESAMPLES, len(rows)))
    resampled = rows[draws]  # (resample, episode, field)
    intervals: dict[str, Interval] = {}
    for name, (_, _, quantity) in quantities.items():
        mean = float(quantity(rows))
        if not np.isfinite(mean):
            continue
        values = quantity(resampled)
        low, high = np.percentile(values[np.isfinite(values)], _PERCENTILES).tolist()
        intervals[name] = {"mean": mean, "low": low, "high": high}
    return intervals


def show(table: Table, title: str) -> None:
    """Print a table of driving results, arranged to fit the width of the terminal.

    :param table: the table to show
    :param title: the line to print above the table
    """
    width = shutil.get_terminal_size().columns
    console = Console(width=width)
    console.print(title, markup=False, highlight=False)
    wide = _wide_table(table)
    needed = Measurement.get(console, console.options.update(width=10_000, max_width=10_000), wide).maximum
    if needed <= width:
        console.print(wide)
    else:
        names = list(next(iter(table.values())))
        if len(names) == 2:  # a single map, and "all", which would be the same table again
            names.remove(ALL_MAPS)
        for name in names:
            console.print(_narrow_table(table, name))
    explanation = _ROUTE_EXPLANATION if _has_scores(table) else _EXPLANATION
    console.print(explanation, markup=False, highlight=False)


def _has_scores(table: Table) -> bool:
    """Return whether the episodes of a table have driving scores."""
    return any(SCORE in quantities for by_map in table.values() for quantities in by_map.values())


def _quantities_of(table: Table) -> dict[str, tuple[str, str, Quantity]]:
    """Return the quantities that a table shows."""
    has_scores = _has_scores(table)
    return {key: each for key, each in QUANTITIES.items() if has_scores or key not in ROUTE_QUANTITIES}


def show_routes(drives: Mapping[str, Sequence[Drive]]) -> None:
    """Print one line for each route with its infractions and driving score.

    :param drives: the episodes of one driver, by map
    """
    shown = RichTable(title="routes of the policy", title_justify="left")
    for heading in ("map", "route", "metres", "completed", "score"):
        shown.add_column(heading, justify="left" if heading == "map" else "right")
    shown.add_column("infractions")
    for name, episodes in drives.items():
        for number, drive in enumerate(episodes):
            counts = {kind: int(getattr(drive, kind)) for kind in INFRACTIONS}
            listed = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)
            completed, score = f"{drive.route_completion:.0%}", f"{drive.driving_score:.1f}"
            shown.add_row(name, str(number), f"{drive.route_length_m:.0f}", completed, score, listed)
    Console(width=shutil.get_terminal_size().columns).print(shown)


def show_episodes(table: Table, title: str) -> None:
    """Print the result of ``summarise_episodes`` as a table.

    :param table: the result of ``summarise_episodes``
    :param title: the line to print above the table
    """
    console = Console(width=shutil.get_terminal_size().columns)
    console.print(title, markup=False, highlight=False)
    shown = RichTable()
    shown.add_column("")
    for player in table:
        shown.add_column(player, justify="right")
    for key, (heading, number, _) in EPISODE_QUANTITIES.items():
        cells = [by_map[ALL_MAPS].get(key) for by_map in table.values()]
        # Most environments do not say whether an episode is a success.
        if any(cell is not None for cell in cells):
            shown.add_row(heading, *(_cell(cell, number) for cell in cells))
    console.print(shown)
    console.print(f"{_INTERVAL} All policies play episodes with the same seeds.", markup=False, highlight=False)


def _wide_table(table: Table) -> RichTable:
    shown = RichTable()
    for heading in ("driver", "map"):
        shown.add_column(heading, no_wrap=True)
    quantities = _quantities_of(table)
    for heading, _, _ in quantities.values():
        shown.add_column(heading, justify="right")
    for driver, by_map in table.items():
        for name, intervals in by_map.items():
            cells = [_cell(intervals.get(key), number) for key, (_, number, _) in quantities.items()]
            shown.add_row(driver, name, *cells)
        shown.add_section()
    return shown


def _narrow_table(table: Table, map_name: str) -> RichTable:
    title = "all maps" if map_name == ALL_MAPS else f"map {map_name}"
    shown = RichTable(title=title, title_justify="left")
    shown.add_column("")
    for driver in table:
        shown.add_column(driver, justify="right")
    for key, (heading, number, _) in _quantities_of(table).items():
        shown.add_row(heading, *(_cell(by_map[map_name].get(key), number) for by_map in table.values()))
    return shown


def _cell(interval: Interval | None, number: str) -> str:
    if interval is None:
        return "-"
    low, high = number.format(interval["low"]), number.format(interval["high"])
    return f"{number.format(interval['mean'])} [{low}, {high}]"


def run(settings: argparse.Namespace) -> int:
    """Evaluate an agent, print the table and write the JSON file.

    :param settings: the parsed arguments of ``visual-td3 evaluate``
    :return: the exit code
    """
    register()
    try:
        if settings.output is not None:
            check_output("--output", settings.output)
        check_device(settings.device)
        import_packages(settings.gym_packages)
        saved = _find_saved_run(settings)
        check_environment(saved.env_id, settings.gym_packages, saved.gym_packages)
        has_maps, needs_server = _look_at(saved)
        if not has_maps and settings.maps is not None:
            raise ValueError(
                f"{saved.env_id} has no maps, but --maps names some: leave --maps out, or choose a driving "
                "environment, such as LiteDriving-v0"
            )
        if not has_maps and settings.suite is not None:
            raise ValueError(
                f"{saved.env_id} has no routes, but --suite names some: leave --suite out, or choose a driving "
                "environment, such as LiteRoutes-v0"
            )
        if settings.seeds is None:
            settings.seeds = [_DRIVING_SEED if has_maps else EVALUATION_SEED]
        if settings.n_episodes is None and settings.suite is None:
            settings.n_episodes = _N_EPISODES
        n_envs = settings.n_envs or (1 if needs_server else _N_ENVS)
        parts, episodes, table = _evaluate(saved, has_maps, n_envs, settings)
        _show(saved, has_maps, parts, episodes, table, settings)
        if settings.output is not None:
            content = json.dumps(_as_json(saved, settings, parts, table, episodes), indent=2) + "\n"
            write_atomically(settings.output, content)
            print(f"Written to {settings.output}")
    except Exception as error:
        return answer("evaluate", error)
    return 0


def _show(
    saved: SavedRun,
    has_maps: bool,
    parts: Sequence[SuitePart],
    episodes: Episodes,
    table: Table,
    settings: argparse.Namespace,
) -> None:
    if settings.suite is not None:
        n_routes = sum(part.n_routes for part in parts)
        show(table, f"{saved.model_path}, {n_routes} routes of {settings.suite}")
    else:
        n_episodes = settings.n_episodes * len(settings.seeds)
        if has_maps:
            show(table, f"{saved.model_path}, {n_episodes} episodes on each map")
        else:
            show_episodes(table, f"{saved.model_path}, {n_episodes} episodes")
    if has_maps and _has_scores(table):
        show_routes(episodes[POLICY])  # type: ignore[arg-type]


def _evaluate(
    saved: SavedRun, has_maps: bool, n_envs: int, settings: argparse.Namespace
) -> tuple[list[SuitePart], Episodes, Table]:
    """Play the episodes; return the maps or suite parts (if any), the episodes and a table."""
    if settings.suite is not None:
        parts = suite_parts(settings.suite, settings.maps, settings.n_episodes)
        drives = _drive_all(saved, parts, n_envs, settings)
        return parts, drives, summarise(drives)
    if has_maps:
        maps = _resolve_maps(saved, settings.maps or list(HELD_OUT))
        parts = [SuitePart(name, {"maps": [name]}, settings.n_episodes) for name in maps]
        drives = _drive_all(saved, parts, n_envs, settings)
        return parts, drives, summarise(drives)
    episodes = _play_all(saved, n_envs, settings)
    return [], episodes, summarise_episodes(episodes)


def _find_saved_run(settings: argparse.Namespace) -> SavedRun:
    names = ("load_best", "load_checkpoint", "load_last_checkpoint")
    which = {name: getattr(settings, name) for name in names}
    if settings.run_dir is not None:
        return read_run(settings.run_dir, **which)
    return find_run(settings.folder, settings.algo, settings.env, settings.exp_id, **which)


def _look_at(saved: SavedRun) -> tuple[bool, bool]:
    """Return whether the environment has maps to drive on, and whether it needs a simulator server."""
    env = gym.make(saved.env_id, **saved.env_kwargs())
    has_maps = isinstance(env.unwrapped, DrivingEnv)  # another environment may have an attribute ``maps`` of its own
    # Each CARLA environment needs a server of its own.
    needs_server = hasattr(env.unwrapped, "server_address")
    env.close()
    return has_maps, needs_server


def _resolve_maps(saved: SavedRun, requested: list[str]) -> list[str]:
    """Return the names of the requested maps; a group, such as ``held_out``, is replaced by the maps in it."""
    maps: list[str] = []
    for each in requested:
        env = gym.make(saved.env_id, **env_kwargs_of(saved.env_kwargs(), {"maps": each}))
        maps += [name for name in env.unwrapped.maps if name not in maps]  # type: ignore[attr-defined]
        env.close()
    return maps


def _models_of(saved: SavedRun, settings: argparse.Namespace) -> dict[str, BaseAlgorithm]:
    """Return the models to evaluate, by label; ``--compare`` adds the run's other models."""
    models = {POLICY: saved.load(settings.device)}
    if not settings.compare:
        return models
    if getattr(models[POLICY].policy, "averaged_actor", None) is not None:
        actor: Any = saved.load(settings.device)
        actor.policy.averaged_actor = None
        models[LAST_ACTOR] = actor
    best = saved.run_dir / BEST_MODEL
    if best.is_file() and best.resolve() != saved.model_path.resolve():
        models[BEST] = saved._replace(model_path=best).load(settings.device)
    if len(models) == 1:
        print(
            f"--compare has no effect: {saved.run_dir} has no {BEST_MODEL} and no averaged policy to compare with",
            file=sys.stderr,
        )
    return models


def _drive_all(
    saved: SavedRun, parts: Sequence[SuitePart], n_envs: int, settings: argparse.Namespace
) -> dict[str, dict[str, list[Drive]]]:
    """Let each driver drive on each map, or in each part of a suite, and return the episodes.

    The drivers are the models of the run, a driver with random actions, and a driver that always brakes.

    :return: episodes by driver, and by map or part
    """
    models = _models_of(saved, settings)
    labels = [*models, *DRIVERS[1:]]
    drives: dict[str, dict[str, list[Drive]]] = {label: {part.label: [] for part in parts} for label in labels}
    env_kwargs = saved.env_kwargs()
    if settings.suite is not None:
        # In CARLA, the argument ``spawn`` sets where the training routes begin. It must not change a suite's routes,
        # which are the same for every run.
        env_kwargs.pop("spawn", None)
    n_episodes = len(labels) * len(settings.seeds) * sum(part.n_routes for part in parts)
    with tqdm(total=n_episodes, unit="episode", file=sys.stderr, leave=False, disable=None) as bar:
        for part in parts:
            n_parallel = min(n_envs, part.n_routes)
            env = saved.make_envs(n_parallel, settings.seeds[0], env_kwargs_of(env_kwargs, part.env_kwargs))
            for seed in settings.seeds:
                drivers = (
                    *(trained_policy(model, not settings.stochastic) for model in models.values()),
                    random_driver(env, seed),
                    full_brake_driver(env),
                )
                for label, driver in zip(labels, drivers, strict=True):
                    bar.set_description(f"{part.label}, {label}")
                    # Episode i always starts with seed + i. So all drivers, and evaluations with another --n-envs, have
                    # the same starts.
                    for n_done in range(0, part.n_routes, n_parallel):
                        options = None
                        if settings.suite is not None:
                            options = [{"route": n_done + number} for number in range(n_parallel)]
                        batch = drive_episodes(driver, env, seed + n_done, options=options)
                        batch = batch[: part.n_routes - n_done]
                        drives[label][part.label] += batch
                        bar.update(len(batch))
            env.close()
    return drives


def _play_all(saved: SavedRun, n_envs: int, settings: argparse.Namespace) -> dict[str, dict[str, list[Episode]]]:
    """Return the episodes of the policy and of a random policy, in an environment without maps."""
    trained = _models_of(saved, settings)
    labels = [*trained, *PLAYERS[1:]]
    n_episodes = settings.n_episodes
    env = saved.make_envs(min(n_envs, n_episodes), settings.seeds[0], saved.env_kwargs())
    episodes: dict[str, dict[str, list[Episode]]] = {label: {ALL_MAPS: []} for label in labels}
    for seed in settings.seeds:
        policies = [trained_policy(model, not settings.stochastic) for model in trained.values()]
        for player, policy in zip(labels, [*policies, random_policy(env, seed)], strict=True):
            episodes[player][ALL_MAPS] += play_episodes(policy, env, seed, n_episodes, description=player, quiet=False)
    env.close()
    return episodes


def _as_json(
    saved: SavedRun, settings: argparse.Namespace, parts: Sequence[SuitePart], table: Table, episodes: Episodes
) -> dict[str, Any]:
    """Return the results for JSON.

    ``n_episodes`` is the number of episodes for each seed on each map or part of a suite; None if the parts differ.
    """
    counts = {part.n_routes for part in parts} or {settings.n_episodes}
    return {
        "format_version": 1,
        "algo": saved.algo,
        "env_id": saved.env_id,
        "model": str(saved.model_path),
        "maps": [part.label for part in parts],
        "seeds": settings.seeds,
        "suite": settings.suite,
        "n_episodes": counts.pop() if len(counts) == 1 else None,
        "deterministic": not settings.stochastic,
        "results": table,
        "episodes": {
            driver: {name: [_episode_as_json(episode) for episode in rows] for name, rows in by_map.items()}
            for driver, by_map in episodes.items()
        },
    }


def _episode_as_json(episode: Drive | Episode) -> dict[str, float | None]:
    """Return an episode's fields for JSON; a field that the environment does not report (NaN) becomes null."""
    return {name: None if np.isnan(value) else value for name, value in episode._asdict().items()}
