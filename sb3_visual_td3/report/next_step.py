"""Recommend what to do next about a run, with the command or code to type for its algorithm and environment."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, NamedTuple

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.baseline_comparison import MIN_EVALUATIONS
from sb3_visual_td3.diagnosis.criteria import callbacks_that_ran, is_driving_run
from sb3_visual_td3.diagnosis.numerals import counted
from sb3_visual_td3.diagnosis.return_curve import MIN_POINTS, CurveState, ReturnCurve, counts_episodes
from sb3_visual_td3.diagnosis.rules import learned_then_fell
from sb3_visual_td3.diagnosis.run_kind import Family
from sb3_visual_td3.diagnosis.tag_search import STANDARD_PREFIXES, find_returns, is_standard, return_tag
from sb3_visual_td3.diagnosis.two_questions import EARLY_STEPS, in_or_after_warm_up, uncounted_steps
from sb3_visual_td3.diagnosis.verdict import EVIDENCE, LEARNING, STABLE_IN_OWN_SCALE, CriterionResult, Status, Verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.discovery import ZOO_ARGUMENTS, ZOO_CONFIG
from sb3_visual_td3.report.run_axis import axis_of
from sb3_visual_td3.report.table_file import ENVIRONMENT_STEPS

LONG_RUN_FACTOR = 20
"""After a GO, the recommended long run has this many times the steps of the judged run, unless the hyperparameter
file states a length. The factor is arbitrary."""
LARGEST_BUFFER = 1_000_000
"""The largest ``buffer_size`` that is recommended for a long run: SB3's default."""
_EVALUATIONS = 10
"""Recommended number of evaluations per run. Fewer points are not enough to judge a curve as flat."""

_GRADIENTS, _ALERTS = "GradientNormCallback", "ExplosionAlertCallback"
_METRICS, _DRIVING_EVAL, _POLICY_EVAL = "DrivingMetricsCallback", "DrivingEvalCallback", "PolicyEvalCallback"
_PATH_OF = {
    _GRADIENTS: "sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback",
    _ALERTS: "sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback",
    _METRICS: "sb3_visual_td3.callbacks.driving_metrics.DrivingMetricsCallback",
    _DRIVING_EVAL: "sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback",
}
"""Callbacks in the notation of rl-zoo's hyperparameter files. PolicyEvalCallback is missing, because ``train`` adds it
itself."""

# Names and paths come from files of the run. They are shown as part of a command only if they have no special
# characters, not even a space, and do not look like a flag.
_PLAIN = re.compile(r"(?!-)[A-Za-z0-9_./:-]{1,100}")


class Snippet(NamedTuple):
    """Hold lines of code or a command for the user to copy; the caption ends with a colon."""

    caption: str
    language: Literal["console", "python", "yaml"]
    text: str


class NextStep(NamedTuple):
    """Hold the recommended next action for a run.

    :param text: one or more sentences
    :param snippets: the lines to type for this step
    """

    text: str
    snippets: tuple[Snippet, ...] = ()


def _key_value(key: str, value: Any) -> str | None:
    """Format a key and its value for rl-zoo's flags, such as ``tau:0.01``; None if the pair is unsafe in a shell."""
    plain = f"{key}:{value}"
    if _PLAIN.fullmatch(plain):
        return plain
    quoted = f"{key}:{value!r}"
    if quoted.startswith("-") or any(character in quoted for character in '"$`\\!') or not quoted.isprintable():
        return None
    return f'"{quoted}"'


def next_step(analysis: Analysis) -> NextStep:
    """Return the recommended next action for a run."""
    fell = _fall(analysis)
    if analysis.cause is not None:
        # The remedy of this cause already names the checkpoint.
        if analysis.cause.id == learned_then_fell.ID:
            return NextStep(analysis.cause.remedy)
        return NextStep(f"{analysis.cause.remedy} {fell}".strip())
    if analysis.verdict is Verdict.NO_GO:
        return NextStep(fell or "No known cause fits. Start with the failed criteria and the plots of their tags.")
    if analysis.verdict is Verdict.GO:
        advice = _Advice.of(analysis).long_run()
    else:
        without_steps = _how_steps_are_missing(analysis)
        if without_steps is not None:
            return NextStep(without_steps)
        advice = _Advice.of(analysis).what_is_missing()
    return NextStep(f"{fell} {advice.text}".strip(), advice.snippets)


_UNIT_OF_AXIS = {"epochs": "epoch", "updates": "update", "iterations": "iteration"}


def curve_unit(analysis: Analysis, curve: ReturnCurve) -> str:
    """Return the unit of the steps of a return curve: "step", "episode", "epoch", "update" or "iteration"."""
    axis = analysis.data.axis
    if axis in _UNIT_OF_AXIS:
        return _UNIT_OF_AXIS[axis]
    if curve.tag in {tags.EPISODE_REWARD, tags.EPISODE_LENGTH}:
        return "episode"
    if is_standard(curve.tag):
        return "step"
    # The tag names alone do not show environment steps, so a table has stated this unit. The unit holds for all columns
    # of the table.
    if axis == ENVIRONMENT_STEPS and axis_of(analysis.series) != axis:
        return "step"
    tag = return_tag(curve.tag)
    if tag is not None and len(analysis.series[curve.tag]) > 2 and counts_episodes(tag, analysis.series):
        return "episode"
    return "step"


def _fall(analysis: Analysis) -> str:
    curve = analysis.curve
    if curve is None or curve.state is not CurveState.COLLAPSED or curve.peak_step is None:
        return ""
    if in_or_after_warm_up(analysis.series) is not None:
        return ""
    kept = ""
    if _is_of_sb3(analysis):
        kept = " (rl-zoo and EvalCallback keep it as best_model.zip)"
    return (
        f"The run has fallen from its best policy, which was near {curve_unit(analysis, curve)} {curve.peak_step:,} of "
        f"{curve.last_step or 0:,}: restore the checkpoint of this policy{kept}."
    )


def _is_of_sb3(analysis: Analysis) -> bool:
    return analysis.manifest is not None or any(
        name.startswith(("rollout/", "time/")) for name in analysis.series.names()
    )


@dataclass(frozen=True)
class _Advice:
    """Collect the facts about a run that decide which commands or code to suggest.

    :param by_zoo: whether rl-zoo trained the run
    :param drives: whether the environment is a driving environment
    """

    analysis: Analysis
    by_zoo: bool
    env: str | None
    drives: bool

    @classmethod
    def of(cls, analysis: Analysis) -> _Advice:
        settings = analysis.settings
        env = settings.value("env_id")
        is_plain = isinstance(env, str) and _PLAIN.fullmatch(env) is not None and env != "unknown"
        return cls(
            analysis,
            by_zoo=any(layer.source.endswith(ZOO_ARGUMENTS) for layer in settings.given),
            env=env if is_plain else None,
            drives=is_driving_run(analysis.series),
        )

    @property
    def n_steps(self) -> int | None:
        return self.analysis.series.n_steps

    @property
    def stated_length(self) -> int | None:
        """Return n_timesteps from the run's rl-zoo hyperparameter file; None if the file does not state it."""
        for layer in self.analysis.settings.given:
            if layer.source.endswith(ZOO_CONFIG):
                length = _count(layer.values.get("n_timesteps"))
                if length is not None:
                    return length
        return None

    def command(self, name: str, *flags: str, hyperparams: Mapping[str, Any] | None = None) -> str | None:
        """Return a ``visual-td3`` command line with the settings of the run and changed hyperparameters.

        :return: the command; None if rl-zoo did not train the run, if its algorithm or environment is unknown, or if a
            setting is not safe in a shell
        """
        settings = self.analysis.settings
        algo = settings.value("algo")
        key_values: dict[str, Mapping[str, Any]] = {}
        # run.json has the name of the class, args.yml has the name on the command line.
        for layer in settings.given:
            if layer.source.endswith(ZOO_ARGUMENTS):
                algo = layer.values.get("algo", algo)
                key_values.update(layer.key_values)
        if not self.by_zoo or algo is None or self.env is None:
            return None
        conf_file, packages = settings.value("conf_file"), settings.value("gym_packages")
        flags_of_run = [("--algo", [algo]), ("--env", [self.env])]
        if isinstance(conf_file, str):
            flags_of_run.append(("--conf-file", [conf_file]))
        if isinstance(packages, list) and packages:
            flags_of_run.append(("--gym-packages", packages))
        if not all(_PLAIN.fullmatch(str(value)) for _, values in flags_of_run for value in values):
            return None
        parts = [" ".join([flag, *map(str, values)]) for flag, values in flags_of_run]
        # Each of these flags may appear only once on the command line.
        key_values["--hyperparams"] = {**key_values.get("--hyperparams", {}), **(hyperparams or {})}
        for flag, values in key_values.items():
            words = [_key_value(key, value) for key, value in values.items()]
            if None in words:
                return None
            if words:
                parts.append(" ".join([flag, *map(str, words)]))
        return " ".join([f"visual-td3 {name}", *parts, *flags])

    # ---- after a GO

    def long_run(self) -> NextStep:
        """Return the command that starts a longer run with the settings of this run and a suitable buffer size."""
        settings, n_steps = self.analysis.settings, self.n_steps
        if self.analysis.manifest is None and not self.by_zoo:
            adapted = "the buffer size and the schedules"
            if self.analysis.answers.kind.family is Family.ON_POLICY:
                adapted = "the schedules"
            return NextStep(
                f"Start the long run: the same program with more steps, and with {adapted} adapted to them."
            )
        if n_steps is None:
            return NextStep("Start the long run.")
        stated = self.stated_length
        is_stated = stated is not None and stated >= 2 * n_steps
        length = stated if is_stated and stated is not None else _round(LONG_RUN_FACTOR * n_steps)
        buffer = _count(settings.value("buffer_size"))
        long_buffer = buffer
        if buffer is not None and not is_stated and buffer < length:
            long_buffer = min(length, LARGEST_BUFFER)
        told = [f"Start the long run, with {length:,} steps"]
        if is_stated:
            told[0] += " as the hyperparameter file states."
        else:
            told[0] += f" for example, {LONG_RUN_FACTOR} times as many as in this run."
        flags = [] if is_stated else [f"-n {length}"]
        changes = {"buffer_size": long_buffer} if long_buffer != buffer else {}
        command = self.command("train", *flags, hyperparams=changes)
        if long_buffer is not None:
            what = "all these steps" if long_buffer >= length else f"the last {long_buffer:,} steps"
            said = f"The command sets buffer_size to {long_buffer:,}: the replay buffer then holds {what}."
            if not changes:
                said = f"The replay buffer holds {what} (buffer_size {long_buffer:,}, as in this run)."
            elif command is None:
                said = f"With buffer_size {long_buffer:,}, the replay buffer holds {what}."
            told += [said, "If the memory does not suffice, use a smaller buffer."]
        rate = settings.value("learning_rate")
        for layer in settings.file_layers:
            # For algorithms other than VisualTD3, run.json has the repr of the schedule object.
            rate = layer.values.get("learning_rate", rate)
        told += _rate_sentence(rate, length)
        if command is not None:
            return NextStep(" ".join(told), (Snippet("The command:", "console", command),))
        changed = "" if long_buffer is None else f"buffer_size={_code(long_buffer)} and "
        told.append(f"In the script: {changed}model.learn({_code(length)}, ...).")
        return NextStep(" ".join(told))

    # ---- before there is a verdict

    def what_is_missing(self) -> NextStep:
        """Return advice on how to log the missing evidence, for this kind of run and its environment."""
        analysis = self.analysis
        if analysis.early is not None or in_or_after_warm_up(analysis.series) is not None:
            return self._longer_run()
        unknown = analysis.blocking(Status.UNKNOWN)
        ids = {r.id for r in unknown}
        told: list[str] = []
        snippets: list[Snippet] = []
        callbacks = self._missing_callbacks(unknown)
        if callbacks:
            told.append(f"Log what is missing: add {_listed(callbacks)}.")
        told += self._what_ran_and_did_not_write(unknown)
        told += self._what_own_criteria_lack(unknown)
        needs_evaluation = False
        if LEARNING in ids:
            sentence, needs_evaluation = self._what_shows_learning()
            told.append(sentence)
        if EVIDENCE in ids:
            needs_evaluation |= not _is_evaluated(analysis)
            told.append("For more evidence, log the returns of training and of evaluation (Monitor and EvalCallback).")
            if callbacks and not needs_evaluation:
                told.pop()
        is_foreign = not _is_of_sb3(analysis)
        if STABLE_IN_OWN_SCALE in ids and not callbacks:
            told.append(self._what_shows_stability())
        if is_foreign and {LEARNING, STABLE_IN_OWN_SCALE, EVIDENCE} & ids:
            snippets += self._for_own_code()
        elif self.by_zoo:
            snippets += self._for_the_zoo(callbacks, needs_evaluation)
        elif callbacks or needs_evaluation:
            snippets += self._for_a_script(callbacks, needs_evaluation)
        if not told and not unknown:
            told.append(
                "No criterion can decide the verdict, because no blocking criterion applies to this run: remove "
                "'blocking: false' from a criterion in the file of --criteria."
            )
        elif not told:
            told.append(self._more_of_the_run())
            snippets += self._resume() or ()
        return NextStep(" ".join(told), tuple(snippets))

    def _more_of_the_run(self) -> str:
        manifest = self.analysis.manifest
        if manifest is None or (manifest.finished is None and manifest.end is None):
            return "Let the run continue until it can be judged."
        if manifest.finished is not None:
            return "The run is finished: judge a longer run, or look at the criteria that are unknown."
        if self._resume() is not None:
            return "The run has ended early: continue it until it can be judged."
        return "The run has ended early: start a new run, and judge it at its end."

    def _longer_run(self) -> NextStep:
        """Return how to get a run that is long enough to be judged."""
        n_steps = self.n_steps or 0
        begin = _count(self.analysis.settings.value("learning_starts")) or 0
        least = max(EARLY_STEPS, 2 * begin)
        told = f"at least {least:,} environment steps, with {MIN_EVALUATIONS} evaluations or more"
        if _made_no_update(self.analysis) and n_steps <= begin:
            why = f"The run has {n_steps:,} steps. No update is made in the first {begin:,} steps (learning_starts). "
        else:
            why = ""
        manifest = self.analysis.manifest
        if manifest is None or (manifest.finished is None and manifest.end is None):
            return NextStep(f"{why}Let the run continue to {told}, and judge it then.")
        resume = self._resume()
        if resume is not None and (manifest.n_timesteps or 0) >= least:
            return NextStep(f"{why}The run has ended early: continue it to {told}, and judge it then.", resume)
        stated = self.stated_length
        length = stated if stated is not None and least <= stated <= 10 * least else least
        flags = [f"-n {length}"]
        if self.analysis.manifest is not None and "validate" in self.analysis.manifest.command[:5]:
            # ``visual-td3 validate`` starts the updates early enough for a short run, and evaluates often enough.
            command = self.command("validate", *flags)
        else:
            if not self.drives:
                flags.append(f"--eval-freq {max(length // _EVALUATIONS, 1)}")
            command = self.command("train", *flags)
        snippets = () if command is None else (Snippet("The command:", "console", command),)
        return NextStep(f"{why}The run is over: start a new run of {told}.", snippets)

    def _resume(self) -> tuple[Snippet, ...] | None:
        """Return the command that continues a run that ended early; None if the run cannot be continued.

        The result is empty if a name in the command is not safe in a shell.
        """
        manifest, folder = self.analysis.manifest, self.analysis.resumable
        if manifest is None or manifest.finished is not None or manifest.end is None or folder is None:
            return None
        packages = self.analysis.settings.value("gym_packages")
        if not isinstance(packages, list):
            words = list(manifest.command)
            after = words[words.index("--gym-packages") + 1 :] if "--gym-packages" in words else []
            packages = list(takewhile(lambda word: not word.startswith("-"), after))
        allow = ["--allow", *map(str, packages)] if packages else []
        if not all(_PLAIN.fullmatch(word) for word in (str(folder), *allow[1:])):
            return ()
        return (Snippet("The command:", "console", " ".join(["visual-td3 resume", str(folder), *allow])),)

    def _missing_callbacks(self, unknown: Sequence[CriterionResult]) -> list[str]:
        """Return the callbacks of this package that log the missing tags and that the run did not use.

        Callbacks that do not work with the run's algorithm or environment are left out.
        """
        analysis = self.analysis
        ran = callbacks_that_ran(analysis.series)
        wanted = {
            tags.TAGS[tag].owner
            for r in unknown
            for tag in r.tags
            if tag in tags.TAGS and len(analysis.series[tag].finite) == 0
        }
        family = analysis.answers.kind.family
        # The criterion EVIDENCE is unknown if --require-evidence demands more evidence than the run has. Every callback
        # that the run lacks and that would log the tags of any criterion then adds evidence.
        if any(r.id == EVIDENCE for r in unknown):
            wanted |= {r.needs_callback for r in analysis.criteria if r.needs_callback is not None}
        if any(r.id == STABLE_IN_OWN_SCALE for r in unknown) and family is Family.OFF_POLICY:
            wanted.add(_GRADIENTS)
        # Full evidence needs both of these callbacks, so the advice for a run that lacks one of them is to add both.
        if wanted & {_GRADIENTS, _ALERTS}:
            wanted |= {_GRADIENTS, _ALERTS}
        fit = set(_PATH_OF)
        if not self.drives:
            fit -= {_METRICS, _DRIVING_EVAL}
        # Code without SB3 does not call callbacks, and on-policy algorithms have no critics of Q values.
        if family in {Family.ON_POLICY, Family.VALUE_BASED} or not _is_of_sb3(analysis):
            fit -= {_GRADIENTS, _ALERTS}
        return [name for name in _PATH_OF if name in wanted and name in fit and name not in ran]

    def _what_ran_and_did_not_write(self, unknown: Sequence[CriterionResult]) -> list[str]:
        """Return a sentence for each callback of this package that ran but wrote no tag that a criterion reads."""
        analysis = self.analysis
        ran = callbacks_that_ran(analysis.series)
        silent: dict[str, str] = {}
        for r in unknown:
            for tag in r.tags:
                if tag in tags.TAGS and tags.TAGS[tag].owner in ran and len(analysis.series[tag].finite) == 0:
                    silent.setdefault(tags.TAGS[tag].owner, tag)
        return [
            f"{owner} ran, but {tag} is not in the log. This tag is written from the first updates onwards: train "
            "longer, or look for event files that are lost."
            for owner, tag in silent.items()
        ]

    def _what_own_criteria_lack(self, unknown: Sequence[CriterionResult]) -> list[str]:
        """Return a sentence for each criterion of the user's criteria file that reads a tag without a finite value."""
        told = []
        for r in unknown:
            lacking = [tag for tag in r.tags if len(self.analysis.series[tag].finite) == 0]
            if r.is_own and lacking:
                told.append(
                    f"Log {_listed(lacking)}, which the criterion {r.id} reads, or correct its tags in the file of "
                    "--criteria."
                )
        return told

    def _what_shows_learning(self) -> tuple[str, bool]:
        """Return advice on how to find out whether the run learns.

        :return: the advice, and whether the user needs an evaluation callback to follow the advice
        """
        analysis = self.analysis
        curve = analysis.curve
        if curve is None and _is_of_sb3(analysis):
            return (
                "Log the returns of episodes: wrap the environment in Monitor (SB3 then writes rollout/ep_rew_mean), "
                "and evaluate the policy (eval/mean_reward)."
            ), True
        if curve is None:
            return (
                "Log the return of each episode at the environment step at which it ends. If your log has the returns "
                "under another name, write the name into a file for --tags."
            ), False
        if curve.state is CurveState.COLLAPSED:
            return "Evaluate that checkpoint on more episodes before a long run.", False
        comparison = analysis.answers.comparison
        more = ""
        if curve.n_points < MIN_POINTS:
            n_points = counted(curve.n_points, "point")
            more = (
                f"Log more returns: the curve has {n_points}, and needs {MIN_POINTS}. Evaluate the policy more often."
            )
        elif comparison is not None and comparison.n_points < MIN_EVALUATIONS:
            done = counted(comparison.n_points, "evaluation")
            more = (
                f"Evaluate the policy more often: the comparison with random actions has {done}, and needs "
                f"{MIN_EVALUATIONS}."
            )
        if more:
            return more, True
        if any(found.tag.startswith("eval/") for found in analysis.answers.learning.curves):
            return (
                "The returns do not show clearly whether the policy learns: evaluate more episodes each time, or train "
                "longer."
            ), False
        return (
            "The returns do not show clearly whether the policy learns: evaluate the policy without exploration "
            "(eval/mean_reward), or train longer."
        ), True

    def _what_shows_stability(self) -> str:
        if self.analysis.answers.kind.family is Family.ON_POLICY:
            return (
                "Log the losses, approx_kl, explained_variance and the policy's entropy or std, as SB3 does under "
                "train/."
            )
        return (
            "Log losses and Q values. If your log has them under other names, write these names into a file for --tags."
        )

    # ---- the lines to type

    def _for_the_zoo(self, callbacks: Sequence[str], needs_evaluation: bool) -> list[Snippet]:
        snippets = []
        if callbacks:
            lines = ["callback:"]
            for name in callbacks:
                lines.append(f"  - {_PATH_OF[name]}")
                if name == _DRIVING_EVAL:
                    lines[-1] += f": {{eval_env: {self.env or 'LiteDriving-v0'}, eval_freq: {self._eval_freq()}}}"
            where = "Add to the block of the hyperparameter file:"
            snippets.append(Snippet(where, "yaml", "\n".join(lines)))
        if needs_evaluation:
            command = self.command("train", f"--eval-freq {self._eval_freq()}")
            if command is not None:
                snippets.append(Snippet("The command that evaluates more often:", "console", command))
        return snippets

    def _for_a_script(self, callbacks: Sequence[str], needs_evaluation: bool) -> list[Snippet]:
        """Return the lines that add callbacks to a script that calls SB3's ``learn``."""
        named = [*callbacks]
        calls = [f"{name}()" for name in callbacks if name != _DRIVING_EVAL]
        eval_freq = _code(self._eval_freq())
        env = f'"{self.env or "YOUR_ENV_ID"}"'
        if _DRIVING_EVAL in callbacks:
            calls.append(f"{_DRIVING_EVAL}({env}, eval_freq={eval_freq})")
        elif needs_evaluation:
            named.append(_POLICY_EVAL)
            calls.append(f"{_POLICY_EVAL}({env}, eval_freq={eval_freq})")
        if not calls:
            return []
        text = f"from sb3_visual_td3 import {', '.join(sorted(named))}\n\ncallbacks = [{', '.join(calls)}]\n"
        text += f"model.learn({_code(self.n_steps or 100_000)}, callback=callbacks)"
        return [Snippet("Add to the script:", "python", text)]

    def _for_own_code(self) -> list[Snippet]:
        """Return the SummaryWriter calls that log what is missing, for training code that does not use SB3."""
        lines = [
            'writer.add_scalar("charts/episodic_return", episode_return, global_step)  # at the end of each episode',
            'writer.add_scalar("eval/mean_reward", mean_return, global_step)  # of some episodes without exploration',
        ]
        if self.analysis.answers.kind.family is Family.ON_POLICY:
            lines += [
                'writer.add_scalar("train/approx_kl", approx_kl, global_step)',
                'writer.add_scalar("train/entropy_loss", -entropy.mean(), global_step)',
                'writer.add_scalar("train/explained_variance", explained_variance, global_step)',
            ]
        else:
            lines += [
                'writer.add_scalar("train/actor_loss", actor_loss, global_step)',
                'writer.add_scalar("train/critic_loss", critic_loss, global_step)',
                'writer.add_scalar("train/q1_value", q1.mean(), global_step)',
            ]
        what = "What to log; global_step counts environment steps:"
        return [
            Snippet(what, "python", "\n".join(lines)),
            Snippet(
                "Or map the run's names to this package's. The first command writes a file with guesses, which you "
                "correct; the second uses it:",
                "console",
                "visual-td3 report RUN --write-tags tags.yml && visual-td3 report RUN --tags tags.yml",
            ),
        ]

    def _eval_freq(self) -> int:
        n_steps = self.n_steps or 100_000
        return max(n_steps // _EVALUATIONS, 1)


def _rate_sentence(rate: object, length: int) -> list[str]:
    """Return a sentence on how a learning rate changes over ``length`` steps; an empty list if the rate is unknown."""
    if isinstance(rate, int | float):
        return [f"The learning rate stays at {rate:g}."]
    if not isinstance(rate, str) or not rate.startswith(("lin_", "cos_")) or not _PLAIN.fullmatch(rate):
        return []
    # "lin_3e-4_1e-5" goes from 3e-4 to 1e-5; without a second number, a schedule falls to 0.
    _, _, *end = rate.split("_")
    goes = f"goes to {end[0]}" if end else "falls to 0"
    return [f"The learning rate {rate} {goes} over the {length:,} steps."]


def _is_evaluated(analysis: Analysis) -> bool:
    returns = find_returns(analysis.series.names())
    return analysis.answers.comparison is not None or any(tag.source == "evaluation" for tag in returns)


def _how_steps_are_missing(analysis: Analysis) -> str | None:
    """Return advice for a run whose steps cannot be used; None for all other runs."""
    where = uncounted_steps(analysis.series)
    if where is None:
        return None
    return (
        f"All {analysis.data.n_points:,} points are {where}: log each point with its environment step, for example "
        "writer.add_scalar(tag, value, global_step), and judge the new log."
    )


def _made_no_update(analysis: Analysis) -> bool:
    names = analysis.series.names()
    logs_updates = any(name.startswith(STANDARD_PREFIXES[1]) and "loss" in name for name in names)
    n_updates = analysis.series[tags.TOTAL_ITERATIONS].finite
    return not logs_updates and (len(n_updates) == 0 or float(n_updates.values.max()) == 0.0)


def _count(value: object) -> int | None:
    """Return a value from a settings file, such as 1e6, as a number of steps; None if it is not a number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 1:
        return None
    return int(value)


def _round(number: int) -> int:
    """Round a number of steps to two significant digits."""
    scale: int = 10 ** max(len(str(number)) - 2, 0)
    return round(number / scale) * scale


def _code(number: int) -> str:
    """Write a number as Python code, such as 100_000."""
    return f"{number:_}"


def _listed(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
