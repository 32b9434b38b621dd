"""Examine the environment, the settings and the learner of a model before its training, in about a minute."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from tqdm.auto import tqdm

from sb3_visual_td3.common.errors import in_one_line, show_traceback_if_debugging
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.types import WatchedModel
from sb3_visual_td3.preflight.environment_checks import (
    N_STEPS,
    RewardScaling,
    check_environment,
    discounted_return,
)
from sb3_visual_td3.preflight.findings import STATUSES, Examination
from sb3_visual_td3.preflight.learner_checks import check_learner
from sb3_visual_td3.preflight.probes import PROBES, run_probes
from sb3_visual_td3.preflight.rollouts import EnvironmentFailedError, Rollout, unobserved
from sb3_visual_td3.preflight.settings_checks import check_settings, check_target_clamp
from sb3_visual_td3.training_state.random_state import random_states_kept

DEFAULT_N_TIMESTEPS = 1_000_000
"""Default length of the planned run, in environment steps."""
_N_PARTS = 8
"""Number of parts of an examination without probes, for the progress bar."""


def doctor(
    model: BaseAlgorithm,
    n_timesteps: int = DEFAULT_N_TIMESTEPS,
    n_steps: int = N_STEPS,
    probes: bool = False,
    progress_bar: bool = False,
    name: str | None = None,
) -> Examination:
    """Examine a model and its environment before a training run.

    The environment is reset and stepped with random actions, and afterwards seeded again: with the model's seed, or at
    random if the model has no seed. The model's weights, optimizers and replay buffer stay as they are, and so do the
    global random states.

    :param model: a model that has not been trained yet
    :param n_timesteps: environment steps of the planned run, >= 1
    :param n_steps: maximum number of steps of the long rollout, >= 20. Most checks of the environment use this rollout.
        Some checks compare further rollouts of at most 30 steps.
    :param probes: whether to train the algorithm on five small environments with known answers, in up to 3 minutes
    :param progress_bar: whether to show a progress bar
    :param name: name of the model in the output; if None, the name of its class
    :return: the checks with their results
    :raises ValueError: if an argument is out of range, the model has no environment, or its action space is not a Box
    """
    n_timesteps = to_integer("n_timesteps", n_timesteps, 1)
    n_steps = to_integer("n_steps", n_steps, 20)
    env = model.get_env()
    if env is None:
        raise ValueError(f"this {type(model).__name__} has no environment: call model.set_env(env) first")
    examination = Examination(subject=name or type(model).__name__)
    begin = time.perf_counter()
    n_parts = _N_PARTS + (len(PROBES) if probes else 0)
    with tqdm(total=n_parts, disable=not progress_bar, desc="doctor", leave=False) as bar:

        def progress(part: str) -> None:
            bar.set_postfix_str(part)
            bar.update()

        with random_states_kept(), _action_space_kept(model):
            gamma = float(getattr(model, "gamma", 0.99))
            normalizer = model.get_vec_normalize_env()
            scaled_by: RewardScaling | None = None
            if normalizer is not None and normalizer.norm_reward:
                scaled_by = "VecNormalize"
            elif isinstance(model, WatchedModel) and model.reward_is_normalized:
                scaled_by = "VisualTD3"
            rollout: Rollout | None = None
            try:
                with unobserved(env):
                    rollout = check_environment(env, examination, gamma, n_timesteps, n_steps, scaled_by, progress)
                examination.passed("environment_error")
            except EnvironmentFailedError as failure:
                _found_exception(failure.__cause__, examination)
            progress("the settings")
            lengths = [length for length, _ in rollout.episodes()] if rollout is not None else []
            episode_length = sum(lengths) / len(lengths) if lengths else None
            check_settings(model, examination, n_timesteps, episode_length)
            if rollout is not None and scaled_by != "VecNormalize":
                check_target_clamp(model, examination, discounted_return(rollout, gamma))
            if rollout is not None and isinstance(model, OffPolicyAlgorithm):
                check_learner(model, rollout, examination, progress)
            if probes and isinstance(model, OffPolicyAlgorithm):
                run_probes(model, examination, progress)
            # Restore the seeds that the model's constructor set, which the first reset of the training uses.
            seed = model.seed
            if seed is None:
                # Otherwise the environments would continue from the doctor's seeds, so that all trainings would begin
                # in the same way. env.seed(None) would draw from NumPy's global generator, which the probes seed.
                seed = int(np.random.default_rng().integers(2**31))
            env.seed(seed)
            # The checks have stepped the environment, so learn() has to begin with a reset.
            model._last_obs = None
    examination.seconds = time.perf_counter() - begin
    return examination


def _found_exception(error: BaseException | None, examination: Examination) -> None:
    """Record the exception of an environment, with the line of code that raised it."""
    assert error is not None
    show_traceback_if_debugging(error)
    name = type(error).__name__
    if isinstance(error, EOFError | ConnectionError):
        evidence = f"the process of an environment has ended ({name}); its traceback is on stderr"
    else:
        where = traceback.extract_tb(error.__traceback__)[-1]
        evidence = f"{name}: {in_one_line(error)} ({where.filename}, line {where.lineno}, in {where.name})"
    examination.found("environment_error", evidence, name)


@contextmanager
def _action_space_kept(model: BaseAlgorithm) -> Iterator[None]:
    """Restore the random state of the action space after ``with``, so that the checks do not change the training."""
    generator = model.action_space.np_random.bit_generator
    state = generator.state
    try:
        yield
    finally:
        model.action_space.np_random.bit_generator.state = state


def quick_doctor(model: BaseAlgorithm, n_timesteps: int) -> Examination:
    """Check only the settings, in milliseconds, without stepping an environment or training.

    :param model: a model that has been created
    :param n_timesteps: environment steps of the planned run
    """
    examination = Examination(subject=type(model).__name__)
    begin = time.perf_counter()
    check_settings(model, examination, n_timesteps)
    examination.seconds = time.perf_counter() - begin
    return examination


# ---- how the result is shown


def print_examination(examination: Examination, console: Console | None = None) -> None:
    """Print the findings of an examination with their evidence and remedy, and a table of the checks.

    :param examination: the examination to show
    :param console: console to print to; if None, stdout
    """
    console = console or Console()
    for finding in examination.findings:
        colour = "red" if finding.severity == "problem" else "yellow"
        console.print(f"[bold {colour}]{finding.severity}[/] [bold]{finding.id}[/]: {finding.title}", highlight=False)
        console.print(f"  {finding.evidence}", highlight=False, markup=False)
        console.print(f"  Do: {finding.remedy}", highlight=False, markup=False)
    table = Table(title=None, box=None, pad_edge=False)
    for column in ("check", "status", "value"):
        table.add_column(column, overflow="fold")
    for check in sorted(examination.checks.values(), key=lambda each: STATUSES.index(each.status)):
        table.add_row(check.id, check.status, "" if check.value is None else str(check.value))
    console.print(table, markup=False)
    console.print(summary(examination), highlight=False, markup=False)


def summary(examination: Examination) -> str:
    """Return the last line of a printed examination, which counts the problems and warnings."""
    n_problems = sum(finding.severity == "problem" for finding in examination.findings)
    n_warnings = len(examination.findings) - n_problems
    n_skipped = sum(check.status == "skipped" for check in examination.checks.values())
    words = f"{_counted(n_problems, 'problem')}, {_counted(n_warnings, 'warning')}"
    made = len(examination.checks) - n_skipped
    return f"{examination.subject}: {words}; {made} checks in {examination.seconds:.0f} s, {n_skipped} skipped"


def _counted(n: int, word: str) -> str:
    if n == 1:
        return f"1 {word}"
    return f"{n or 'no'} {word}s"


def write_page(examination: Examination, path: Path, write: Callable[[Path, bytes], None]) -> None:
    """Write an examination as an HTML page in the style of the report.

    :param examination: the examination to show
    :param path: path of the HTML file
    :param write: function that writes bytes to a file
    """
    style = files("sb3_visual_td3.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    text = files(__package__).joinpath("doctor.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(text).render(
        examination=examination,
        checks=sorted(examination.checks.values(), key=lambda each: STATUSES.index(each.status)),
        style=style,
        summary=summary(examination),
    )
    write(path, page.encode())
