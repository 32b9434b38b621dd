"""The section on episodes: their lengths and returns, and how the evaluated policy drives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import factor, number, percent, rounded
from sb3_visual_td3.diagnosis.rules.episode_collapse import COLLAPSED
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import Ends, episode_length_ends
from sb3_visual_td3.report.document import Code, Column, Flag, Section, Sentence, Table, columns, evenly, value_at

_TAGS = (
    tags.EVAL_REWARD,
    tags.EVAL_SUCCESS_RATE,
    tags.EVAL_LENGTH,
    tags.EVAL_COLLISIONS,
    tags.EVAL_LANE_INVASIONS,
    tags.EVAL_DISTANCE,
    tags.EVAL_RANDOM_DISTANCE,
    tags.EVAL_BRAKE_DISTANCE,
)


class EvaluationRow(NamedTuple):
    """One evaluation; None for what was not logged of it."""

    step: int
    reward: float | None
    success_rate: float | None
    length: float | None
    collisions: float | None
    lane_invasions: float | None
    distance_m: float | None
    random_m: float | None
    full_brake_m: float | None


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run, a dozen at most, the last among them."""

    n: int
    rows: tuple[EvaluationRow, ...]


def evaluations(data: SeriesSet) -> Evaluations:
    """Collect the evaluations, by step."""
    series = [data[tag].finite for tag in _TAGS]
    steps = np.unique(np.concatenate([s.steps for s in series]))
    if steps.size == 0:
        return Evaluations(0, ())
    chosen = steps[evenly(steps.size)]
    return Evaluations(
        int(steps.size), tuple(EvaluationRow(step, *(value_at(s, step) for s in series)) for step in chosen.tolist())
    )


def evaluations_section(found: Evaluations) -> Section | None:
    """Return the section; None where the policy was never evaluated."""
    if not found.rows:
        return None
    heads = ("Step", "Reward", "Success", "Length", "Collisions", "Lane marks", "Metres", "Random, m", "Full brake, m")
    rows = tuple(
        (f"{row.step:,}", number(row.reward), percent(row.success_rate), *map(number, row[3:])) for row in found.rows
    )
    lead = f"{found.n:,} evaluation{'s' if found.n != 1 else ''}" + (
        f", {len(rows)} of them here." if found.n > len(rows) else "."
    )
    return Section("evaluation", "Evaluations", ((lead,),), (Table(tuple(Column(h, True) for h in heads), rows),))


N_ENDS = 10
_SB3_LENGTH = "rollout/ep_len_mean"


class Episode(NamedTuple):
    """One episode; None for what was not logged of it.

    :ivar episode: as it was counted, from 0.
    :ivar end_step: environment step at which it ended; None where an episode before it was not logged.
    """

    episode: int
    end_step: int | None
    length: float | None
    reward: float | None
    collisions: float | None
    lane_invasions: float | None

    @property
    def reward_per_step(self) -> float | None:
        """The reward over the length."""
        return self.reward / self.length if self.reward is not None and self.length else None


class Incidents(NamedTuple):
    """Collisions, or marks crossed: per episode, and per 1,000 steps (None where the lengths were not logged)."""

    total: float
    per_episode: float
    per_1000_steps: float | None


@dataclass(frozen=True)
class Episodes:
    """The episodes that were logged.

    :param n_steps: sum of the lengths.
    :param ends: median length of the first and of the last part of the steps; None with too few episodes.
    :param reward_per_step: sum of the rewards over the sum of the lengths, of all episodes, the first ten, the last.
    :param first: the first ten episodes; ``last`` the last ten that are not among them.
    :param moving_mean: first and last of the mean length that SB3 writes; None where it does not stand in the log.
    """

    n: int
    n_steps: float | None
    mean_length: float | None
    median_length: float | None
    shortest: float | None
    longest: float | None
    ends: Ends | None
    mean_reward: float | None
    reward_per_step: float | None
    reward_per_step_first: float | None
    reward_per_step_last: float | None
    collisions: Incidents | None
    lane_invasions: Incidents | None
    first: tuple[Episode, ...]
    last: tuple[Episode, ...]
    moving_mean: tuple[float, float] | None

    @property
    def trend(self) -> float | None:
        """Late median length over the early one."""
        return None if self.ends is None else self.ends.late / self.ends.early

    @property
    def has_collapsed(self) -> bool | None:
        """Whether the late episodes are a fraction of the early ones, by the mark of the rule."""
        return None if self.trend is None else self.trend < COLLAPSED


def episodes(data: SeriesSet) -> Episodes:
    """Measure the episodes; there is one point per episode in each of their tags."""
    length, reward = data[tags.EPISODE_LENGTH].finite, data[tags.EPISODE_REWARD].finite
    collisions, invasions = data[tags.EPISODE_COLLISIONS].finite, data[tags.EPISODE_LANE_INVASIONS].finite
    known = length.where(length.values > 0)
    rows = _rows(length, reward, collisions, invasions)
    both = aligned(reward, known)
    means = data[_SB3_LENGTH].finite.values
    return Episodes(
        n=max(map(len, (length, reward, collisions, invasions))),
        n_steps=float(length.values.sum()) if len(length) else None,
        mean_length=length.mean() if len(length) else None,
        median_length=length.median() if len(length) else None,
        shortest=float(length.values.min()) if len(length) else None,
        longest=float(length.values.max()) if len(length) else None,
        ends=episode_length_ends(length),
        mean_reward=reward.mean() if len(reward) else None,
        reward_per_step=_quotient(*both),
        reward_per_step_first=_quotient(*(_part(s, slice(N_ENDS)) for s in both)),
        reward_per_step_last=_quotient(*(_part(s, slice(-N_ENDS, None)) for s in both)),
        collisions=_incidents(collisions, known),
        lane_invasions=_incidents(invasions, known),
        first=rows[:N_ENDS],
        last=rows[N_ENDS:],
        moving_mean=(float(means[0]), float(means[-1])) if means.size else None,
    )


def _part(series: Series, part: slice) -> Series:
    return Series(series.name, series.steps[part], series.values[part])


def _quotient(above: Series, below: Series) -> float | None:
    total = float(below.values.sum())
    return float(above.values.sum() / total) if total > 0 else None


def _incidents(counts: Series, lengths: Series) -> Incidents | None:
    if len(counts) == 0:
        return None
    per_step = _quotient(*aligned(counts, lengths))
    return Incidents(float(counts.values.sum()), counts.mean(), None if per_step is None else per_step * 1000)


def _rows(length: Series, *others: Series) -> tuple[Episode, ...]:
    """Return the first ten episodes and, behind them, the last ten; none stands in it twice."""
    indices = np.unique(np.concatenate([length.steps, *(s.steps for s in others)]))
    n_first = min(N_ENDS, len(indices))
    chosen = [*indices[:n_first].tolist(), *indices[n_first:][-N_ENDS:].tolist()]
    ends = _end_steps(length)
    return tuple(Episode(i, ends.get(i), *(value_at(s, i) for s in (length, *others))) for i in chosen)


def _end_steps(length: Series) -> dict[int, int]:
    """Return where episodes end; known as long as no episode is left out and every length is one."""
    if len(length) == 0 or length.steps[0] != 0:
        return {}
    follows = np.append(True, np.diff(length.steps) == 1) & (length.values > 0) & (length.values < 1e15)
    n_known = len(length) if follows.all() else int(np.flatnonzero(~follows)[0])
    totals = np.cumsum(length.values[:n_known])
    return dict(zip(length.steps[:n_known].tolist(), totals.astype(np.int64).tolist(), strict=True))


def episodes_section(found: Episodes) -> Section | None:
    """Return the section; None where nothing of the kind was logged."""
    if found.n == 0:
        return None if found.moving_mean is None else _moving_mean_section(*found.moving_mean)
    sentences: list[Sentence] = [_length_sentence(found), *_trend_sentence(found), *_incident_sentences(found)]
    return Section("episodes", "Episodes", tuple(sentences), (_summary_table(found), _episode_table(found)))


def _moving_mean_section(first: float, last: float) -> Section:
    said = f", a moving mean, went from {number(first)} to {number(last)}. The single episodes were not logged: "
    return Section("episodes", "Episodes", ((Code(_SB3_LENGTH), f"{said}DrivingMetricsCallback writes them."),))


def _length_sentence(found: Episodes) -> Sentence:
    if found.mean_length is None or found.n_steps is None:
        return (f"{found.n:,} episodes; their lengths were not logged.",)
    return (
        f"{found.n:,} episodes over {number(found.n_steps)} steps: {number(found.mean_length)} steps on average, "
        f"{number(found.median_length)} in the median, from {number(found.shortest)} to {number(found.longest)}.",
    )


def _trend_sentence(found: Episodes) -> list[Sentence]:
    if found.ends is None:
        return [("Too few episodes to compare early with late ones.",)]
    early, late = number(found.ends.early), number(found.ends.late)
    said = f"The median length is {early} in the first part of the steps and {late} in the last, {factor(found.trend)}"
    if not found.has_collapsed:
        return [(f"{said}.",)]
    lines: list[Sentence] = [(Flag("Collapsed"), f": {said[0].lower()}{said[1:]}.")]
    first, last = found.reward_per_step_first, found.reward_per_step_last
    if first is not None and last is not None and last > first:
        gain = f"The reward per step rose from {number(first)} to {number(last)} meanwhile"
        lines.append((f"{gain} (first and last ten episodes): a step of a short episode pays more.",))
    return lines


def _incident_sentences(found: Episodes) -> list[Sentence]:
    lines: list[Sentence] = []
    for name, counted in (("Collisions", found.collisions), ("Lane invasions", found.lane_invasions)):
        if counted is not None:
            said = f"{name}: {number(counted.total)}, {rounded(counted.per_episode)} per episode"
            per_1000 = counted.per_1000_steps
            lines.append((f"{said}." if per_1000 is None else f"{said}, {rounded(per_1000)} per 1,000 steps.",))
    return lines


def _summary_table(found: Episodes) -> Table:
    first, last = found.first, (*found.first, *found.last)[-N_ENDS:]
    rows = (
        ("First ten", *_means(first), number(found.reward_per_step_first)),
        ("All", number(found.mean_length), number(found.mean_reward), number(found.reward_per_step)),
        ("Last ten", *_means(last), number(found.reward_per_step_last)),
    )
    return Table(columns("Episodes", "Mean length", "Mean reward", "Reward per step"), rows)


def _means(part: tuple[Episode, ...]) -> tuple[str, str]:
    lengths = [e.length for e in part if e.length is not None]
    rewards = [e.reward for e in part if e.reward is not None]
    return number(_mean(lengths)), number(_mean(rewards))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _episode_table(found: Episodes) -> Table:
    rows = tuple(
        (
            f"{episode.episode:,}",
            number(episode.end_step),
            number(episode.length),
            number(episode.reward),
            number(episode.reward_per_step),
            number(episode.collisions),
            number(episode.lane_invasions),
        )
        for episode in (*found.first, *found.last)
    )
    heads = ("Episode", "Ends at step", "Length", "Reward", "Reward per step", "Collisions", "Lane invasions")
    caption = f"The first {len(found.first)} episodes" + (f" and the last {len(found.last)}" if found.last else "")
    return Table(tuple(Column(head, True) for head in heads), rows, (caption,), folded=True)
