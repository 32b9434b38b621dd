"""Is the verdict right on other people's runs, whose tags and rewards are unknown?

Judges public runs that were labelled by hand: TensorBoard files of SB3, CleanRL and other code, for TD3, SAC, DDPG,
PPO, A2C and TRPO. The folder --runs must hold `labels.tsv` (columns `run` and `label`) and one folder per run; the runs
themselves are not part of this repository. --margins also needs the column `source`, the repository of each run. The
labels:

- H: healthy, the policy learned; F: failed;
- A: ambiguous, any verdict is right; S: too short to say; M: several runs in one folder; U: nothing readable.

Prints a line for each run and the confusion table, and writes benchmarks/results/foreign_runs.csv. Takes seconds.

With --stress, every healthy and failed run is judged again after changes that should not matter (half of the points
left out, rewards times 100, some noise) and after changes that may matter (the last tenth, fifth or half cut off). A
table of the new verdicts is printed.

With --over-time, the first 5 %, 10 %, ... and 100 % of each run's steps are also judged, as `visual-td3 report --until`
does. A table of these verdicts is printed, and the verdicts are written to
benchmarks/results/foreign_runs_over_time.csv.

With --margins, each threshold of the verdict is changed alone, by factors from 1/4 to 4. The new verdict of a run is
worse if it contradicts the label, or if it is INSUFFICIENT and the old verdict was right. A table with a line for each
threshold is printed:

- "allowed range": the range of the threshold in which no healthy or failed run gets a worse verdict;
- "worse below" and "worse above": the runs whose verdict is worse just outside this range;
- "worse in cross-validation": for each repository, the threshold is chosen without the repository's runs, as the
  middle of the range that all other runs allow. The column lists the left-out runs that then get a worse verdict.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.diagnosis import own_scale, return_curve
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.return_curve import episode_spread
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_returns
from sb3_visual_td3.diagnosis.two_questions import Answers, ask
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Verdict, decide
from sb3_visual_td3.report.discovery import RunFiles, find_runs
from sb3_visual_td3.report.event_reader import RunData, UnreadableRunError, read_run
from sb3_visual_td3.report.over_time import VerdictOverTime, verdict_over_time
from sb3_visual_td3.report.tag_mapping import with_our_names

RUNS = Path(__file__).parents[2] / "shared" / "foreign"
RESULTS = Path(__file__).parent / "results" / "foreign_runs.csv"
RESULTS_OVER_TIME = Path(__file__).parent / "results" / "foreign_runs_over_time.csv"
COLUMNS = (
    "run",
    "label",
    "verdict",
    "stable",
    "learning",
    "state",
    "peak_step",
    "last_step",
    "gain_in_spreads",
    "part_of_gain_lost",
    "kind",
    "checks",
    "signs",
)
COLUMNS_OVER_TIME = ("run", "label", "last_step", "verdicts", "no_go_from", "part_after")
LETTERS = {Verdict.GO: "G", Verdict.NO_GO: "N", Verdict.INSUFFICIENT: "I", None: "-"}
"""Letters for the verdicts on the first 5 %, 10 %, ... and 100 % of a run; "-" if this part has no point.

The column ``verdicts`` contains one such letter for each part.
"""
UNREADABLE = "unreadable"
LABELS = "HFASMU"
VERDICTS = (*(verdict.value for verdict in Verdict), UNREADABLE)


class Judged(NamedTuple):
    """Hold a labelled run, and what the report says about it.

    :param run: name of the run in ``labels.tsv``
    :param label: one of ``LABELS``
    :param answers: answers to "is it stable?" and "is it learning?"; None if the run has no readable data
    :param criteria: results of the criteria, which decide the verdict; if empty, ``answers`` decide it
    """

    run: str
    label: str
    answers: Answers | None
    criteria: tuple[CriterionResult, ...] = ()

    @property
    def verdict(self) -> str:
        """Return the verdict of ``visual-td3 report`` in words, or ``"unreadable"``.

        The verdict comes from ``criteria``. If ``criteria`` is empty, it comes from ``answers``.
        """
        if self.answers is None:
            return UNREADABLE
        return (decide(self.criteria) if self.criteria else self.answers.verdict).value


def labelled(folder: Path) -> dict[str, str]:
    """Return the label of every run."""
    with (folder / "labels.tsv").open(newline="", encoding="utf-8") as file:
        return {row["run"]: row["label"] for row in csv.DictReader(file, delimiter="\t")}


def read(folder: Path, label: str) -> RunData | None:
    """Read the data of one labelled run; return None if nothing is readable.

    Folders below the run's folder hold its final values (hparams) and are read after the run's own files. With the
    label M (several runs in one folder), only the last file of each folder is read.
    """
    whole: RunData | None = None
    for found in find_runs(folder):
        part = RunFiles(found.path, found.files[-1:]) if label == "M" else found
        try:
            data = read_run(part.path, part.files)
        except UnreadableRunError:
            continue
        if whole is None:
            whole = data
            continue
        series = {**data.series.series, **whole.series.series}
        n_points = sum(map(len, series.values()))
        positions = {**data.positions, **whole.positions}
        whole = replace(whole, series=SeriesSet(series), n_points=n_points, positions=positions)
    return whole


def judge_all(folder: Path) -> Iterator[tuple[Judged, RunData | None]]:
    """Judge every labelled run."""
    criteria = load_criteria()
    for run, label in labelled(folder).items():
        data = read(folder / run, label)
        if data is None:
            yield Judged(run, label, None), None
        else:
            yield Judged(run, label, ask(data.series), judge(criteria, data.series)), data


def row_of(judged: Judged) -> dict[str, object]:
    """Return the line of the results for one run."""
    row: dict[str, object] = {"run": judged.run, "label": judged.label, "verdict": judged.verdict}
    if judged.answers is None:
        return row
    kind, stability, learning, _ = judged.answers
    row |= {
        "stable": stability.answer,
        "learning": learning.answer,
        "kind": kind.family.value,
        "checks": len(stability.checks),
        "signs": " ".join(sign.id for sign in stability.signs),
    }
    curve = learning.curve
    if curve is not None:
        row |= {
            "state": curve.state.value,
            "peak_step": curve.peak_step,
            "last_step": curve.last_step,
            "gain_in_spreads": f"{curve.gain:.2f}",
            "part_of_gain_lost": f"{curve.lost:.2f}",
        }
    return row


def line_of(judged: Judged) -> str:
    """Return the line that is printed for one run."""
    head = f"{judged.label} {judged.run:<12} {judged.verdict:<12}"
    if judged.answers is None:
        return head
    _, stability, learning, _ = judged.answers
    state = learning.curve.state.value if learning.curve else "no return logged"
    words = "; ".join([*(sign.words for sign in stability.signs), *learning.reasons])
    return f"{head} stable {stability.answer:<7} learning {learning.answer:<7} {state}: {words}"


def confusion(judged: list[Judged]) -> str:
    """Return the table of labels against verdicts, in markdown."""
    counts = Counter((one.label, one.verdict) for one in judged)
    lines = [f"| label | {' | '.join(VERDICTS)} |", "| --- |" + " --- |" * len(VERDICTS)]
    for label in LABELS:
        cells = " | ".join(str(counts[label, verdict]) for verdict in VERDICTS)
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


# ---- Changes that should not matter

Change = Callable[[SeriesSet, np.random.Generator], SeriesSet]


def _of_returns(change: Callable[[Series, int, np.random.Generator], Series]) -> Change:
    """Return a function that modifies all return series of a run.

    :param change: function that modifies one return series. Its arguments are the series, the number of episodes over
        which each point of the series is averaged, and a random generator.
    """

    def changed(data: SeriesSet, rng: np.random.Generator) -> SeriesSet:
        series = dict(data.series)
        for tag in find_returns(data.names()):
            series[tag.name] = change(series[tag.name], tag.averaged_over, rng)
        return SeriesSet(series)

    return changed


def _of_all(change: Callable[[Series, np.random.Generator], Series]) -> Change:
    return lambda data, rng: SeriesSet({name: change(series, rng) for name, series in data.series.items()})


def _thinned(part: float) -> Change:
    return _of_all(lambda series, rng: series.where(rng.random(len(series)) < part))


def _cut(part: float) -> Change:
    """Cut each series after the fraction ``part`` of the series' own steps."""

    def cut(series: Series, _rng: np.random.Generator) -> Series:
        if len(series) == 0:
            return series
        return series.where(series.offsets <= part * series.offsets[-1])

    return _of_all(cut)


def _times(factor: float) -> Change:
    """Change the logged values as if all rewards were multiplied by ``factor``.

    Returns, Q, the actor's loss and the entropy coefficient are multiplied by ``factor``. The critic's loss is
    multiplied by ``factor**2``.
    """

    def scaled(series: Series, _rng: np.random.Generator) -> Series:
        name = series.name.lower()
        power = 0
        if find_returns([series.name]) or "actor_loss" in name or "policy" in name or "q1" in name or "q2" in name:
            power = 1
        if ("critic" in name or "qf" in name or "value_loss" in name) and "loss" in name:
            power = 2
        if "ent_coef" in name and "loss" not in name:
            power = 1
        return Series(series.name, series.steps, series.values * factor**power)

    return _of_all(scaled)


def _shifted(times: float) -> Change:
    """Add ``times * max(|return|)`` to each value of a return series."""

    def shifted(series: Series, _averaged_over: int, _rng: np.random.Generator) -> Series:
        return Series(series.name, series.steps, series.values + times * series.abs_max())

    return _of_returns(shifted)


def _noisy(times: float) -> Change:
    """Add normal noise to each return series.

    :param times: standard deviation of the added noise, divided by that of the noise in the series
    """

    def noisy(series: Series, _averaged_over: int, rng: np.random.Generator) -> Series:
        if len(series.finite) < 2:
            return series
        noise = times * episode_spread(series.finite.values)
        return Series(series.name, series.steps, series.values + rng.normal(0.0, noise, len(series)))

    return _of_returns(noisy)


CHANGES: Mapping[str, Change] = {
    "half of the points": _thinned(0.5),
    "a tenth of the points": _thinned(0.1),
    "cut at 90 %": _cut(0.9),
    "cut at 80 %": _cut(0.8),
    "cut at 50 %": _cut(0.5),
    "rewards times 100": _times(100.0),
    "rewards times 0.01": _times(0.01),
    "returns + their largest magnitude": _shifted(1.0),
    "returns - their largest magnitude": _shifted(-1.0),
    "returns + 10 times their largest magnitude": _shifted(10.0),
    "noise doubled": _noisy(np.sqrt(3.0)),
}
REPEATS = 5
"""Each change is made with this many random seeds. Each seed counts as ``1 / REPEATS`` of a run in the table."""


def stress(runs: list[tuple[Judged, SeriesSet]]) -> str:
    """Modify the logged data of healthy and failed runs, and return a Markdown table of the new verdicts.

    The table has a row for each entry of ``CHANGES``.
    """
    columns = [(label, verdict.value) for label in "HF" for verdict in Verdict]
    lines = [
        "| change | " + " | ".join(f"{label} {verdict}" for label, verdict in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name, change in CHANGES.items():
        counts: Counter[tuple[str, str]] = Counter()
        for judged, data in runs:
            for seed in range(REPEATS):
                changed = change(data, np.random.default_rng(seed))
                counts[judged.label, ask(changed).verdict.value] += 1
        lines.append(f"| {name} | " + " | ".join(f"{counts[column] / REPEATS:g}" for column in columns) + " |")
    return "\n".join(lines)


# ---- The verdict over time


def over_time(data: RunData) -> VerdictOverTime | None:
    """Return the verdicts of ``visual-td3 report`` on the first 5 %, 10 %, ... and 100 % of a run's steps."""
    criteria = load_criteria()
    return verdict_over_time(data, lambda part: decide(judge(criteria, with_our_names(part).series)))


def over_time_row(judged: Judged, found: VerdictOverTime) -> dict[str, object]:
    """Return the line of the results for one run."""
    row: dict[str, object] = {
        "run": judged.run,
        "label": judged.label,
        "last_step": found.end,
        "verdicts": "".join(LETTERS[prefix.verdict] for prefix in found.prefixes),
    }
    if found.no_go_from is not None and found.part_after is not None:
        row |= {"no_go_from": found.no_go_from, "part_after": f"{found.part_after:.2f}"}
    return row


def over_time_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a Markdown table of the verdicts over time, with a row for each label.

    In a run that ends with NO-GO, ``no_go_from`` is the first step from which all verdicts are NO-GO. The last column
    is the fraction of steps that come after ``no_go_from``, averaged over the runs with the label. A run that does not
    end with NO-GO counts as 0.

    :param rows: return values of :func:`over_time_row`, one for each run
    """
    lines = [
        "| label | runs | verdicts | NO-GO verdicts | runs with NO-GO | NO-GO at the end | steps after lasting NO-GO |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label in LABELS:
        of_label = [row for row in rows if row["label"] == label]
        if not of_label:
            continue
        verdicts = [str(row["verdicts"]) for row in of_label]
        n_no_go = sum(each.count("N") for each in verdicts)
        n_with_one = sum("N" in each for each in verdicts)
        n_at_end = sum("no_go_from" in row for row in of_label)
        # A run that does not end with NO-GO would not be stopped early, so it saves no steps.
        saved = float(np.mean([float(str(row.get("part_after", 0.0))) for row in of_label]))
        cells = [len(of_label), sum(map(len, verdicts)), n_no_go, n_with_one, n_at_end, f"{saved:.0%}"]
        lines.append(f"| {label} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# ---- How far each threshold can change

THRESHOLDS: Mapping[ModuleType, tuple[str, ...]] = {
    return_curve: (
        "CLEAR_GAIN",
        "SURE_GAIN",
        "LONE_GAIN",
        "NO_GAIN",
        "LARGE_PART",
        "LEAST_GAIN",
        "SMALL_PART",
        "WANDER",
        "SURE_WANDER",
        "RISE",
        "LARGE_FALL",
        "NOTED_FALL",
        "LONGEST_GAP",
        "STILL_NEGATIVE",
        "MIN_EPISODES_FOR_NO",
        "MIN_STEPS_FOR_NO",
    ),
    own_scale: (
        "ENTROPY_BONUS",
        "NORMALISED_Q",
        "Q_NOTED",
        "Q_CLEAR",
        "ERROR_NOTED",
        "ERROR_CLEAR",
        "SPREAD_CLEAR",
        "ENTROPY_LEFT",
        "EXPLAINED_NOTED",
        "KL_NOTED",
    ),
}
FACTORS = (0.25, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
RIGHT = {"H": Verdict.GO, "F": Verdict.NO_GO}


def sources(folder: Path) -> dict[str, str]:
    """Return the repository of every run."""
    with (folder / "labels.tsv").open(newline="", encoding="utf-8") as file:
        return {row["run"]: row["source"] for row in csv.DictReader(file, delimiter="\t")}


def worse_runs(runs: list[tuple[Judged, SeriesSet]], module: ModuleType, name: str, factor: float) -> list[str]:
    """Return the runs whose verdict gets worse if one threshold is multiplied by a factor.

    The new verdict is worse if it contradicts the label, or if it is INSUFFICIENT and the old verdict was right.

    :param runs: for each healthy or failed run, its result with the present thresholds, and its data
    :param module: module of the threshold
    :param name: name of the threshold in the module
    :param factor: factor on the threshold
    """
    value = getattr(module, name)
    worse = []
    setattr(module, name, type(value)(value * factor))
    try:
        for judged, data in runs:
            # Make a new SeriesSet, because a SeriesSet caches results, which depend on the threshold.
            verdict = ask(SeriesSet(data.series)).verdict
            was_right = judged.answers is not None and judged.answers.verdict is RIGHT[judged.label]
            is_opposite = verdict is RIGHT["F" if judged.label == "H" else "H"]
            if is_opposite or (was_right and verdict is not RIGHT[judged.label]):
                worse.append(judged.run)
    finally:
        setattr(module, name, value)
    return worse


def allowed(worse: Mapping[float, list[str]], without: frozenset[str] = frozenset()) -> tuple[float, float]:
    """Return the smallest and the largest factor by which a threshold can be multiplied before a verdict gets worse.

    :param worse: for each factor, the result of ``worse_runs``
    :param without: runs that do not count
    """
    lowest = highest = 1.0
    for factor in sorted((f for f in worse if f < 1.0), reverse=True):
        if set(worse[factor]) - without:
            break
        lowest = factor
    for factor in sorted(f for f in worse if f > 1.0):
        if set(worse[factor]) - without:
            break
        highest = factor
    return lowest, highest


def _nearest_factor(wanted: float) -> float:
    return FACTORS[int(np.argmin(np.abs(np.log(np.array(FACTORS) / wanted))))]


def margins(runs: list[tuple[Judged, SeriesSet]], source: Mapping[str, str]) -> str:
    """Return a Markdown table of how far each threshold can change before a verdict gets worse (see ``worse_runs``).

    :param runs: for each healthy or failed run, its result with the present thresholds, and its data
    :param source: the repository of each run
    """
    lines = ["| threshold | value | allowed range | worse below | worse above | worse in cross-validation |"]
    lines.append("| --- " * 6 + "|")
    for module, names in THRESHOLDS.items():
        for name in names:
            worse = {factor: worse_runs(runs, module, name, factor) for factor in FACTORS}
            lowest, highest = allowed(worse)
            value = getattr(module, name)
            cells = [name, f"{value:g}", f"{value * lowest:.3g} to {value * highest:.3g}"]
            for factor in (
                max((f for f in FACTORS if f < lowest), default=None),
                min((f for f in FACTORS if f > highest), default=None),
            ):
                cells.append(", ".join(worse[factor]) if factor is not None else "none")
            wrong = []
            for repository in sorted({source[judged.run] for judged, _ in runs}):
                own = frozenset(run for run, one in source.items() if one == repository)
                # Choose the threshold without these runs: the middle of the range that all other runs allow.
                low, high = allowed(worse, own)
                middle = _nearest_factor(float(np.sqrt(low * high)))
                wrong += [run for run in worse[middle] if run in own]
            lines.append("| " + " | ".join([*cells, ", ".join(wrong) or "none"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Judge the labelled runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder with labels.tsv (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="results file (default: %(default)s)")
    parser.add_argument(
        "--stress",
        action="store_true",
        help="also judge modified copies of the runs, for example with half of the points left out",
    )
    parser.add_argument(
        "--over-time", action="store_true", help="also judge each run as if it had ended at earlier steps"
    )
    parser.add_argument(
        "--output-over-time",
        type=Path,
        default=RESULTS_OVER_TIME,
        help="results file of --over-time (default: %(default)s)",
    )
    parser.add_argument(
        "--margins",
        action="store_true",
        help="also find how far each threshold can change before a verdict gets worse (takes minutes)",
    )
    options = parser.parse_args()
    if not (options.runs / "labels.tsv").is_file():
        parser.error(f"{options.runs}: expected a folder with labels.tsv; the labelled runs are not in this repository")
    found = sorted(judge_all(options.runs), key=lambda pair: (LABELS.index(pair[0].label), pair[0].run))
    judged = [one for one, _ in found]
    for one in judged:
        print(line_of(one))
    print(f"\n{confusion(judged)}")
    write_rows(options.output, COLUMNS, [row_of(one) for one in judged])
    read_ones = [(one, data) for one, data in found if data is not None]
    runs = [(one, data.series) for one, data in read_ones if one.label in RIGHT]
    if options.stress:
        print(f"\n{stress(runs)}")
    if options.margins:
        print(f"\n{margins(runs, sources(options.runs))}")
    if options.over_time:
        rows = []
        for one, data in read_ones:
            verdicts = over_time(data)
            if verdicts is not None:
                rows.append(over_time_row(one, verdicts))
        write_rows(options.output_over_time, COLUMNS_OVER_TIME, rows)
        print("\n" + "\n".join(f"{row['label']} {row['run']:<12} {row['verdicts']}" for row in rows))
        print(f"\n{over_time_table(rows)}")


if __name__ == "__main__":
    main()
