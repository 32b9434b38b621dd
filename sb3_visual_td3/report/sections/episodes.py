"""Compute the numbers about a run's episodes and evaluations: lengths, returns and incidents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import counted, factor, number, of_or_none, percent, rounded
from sb3_visual_td3.diagnosis.rules.episode_collapse import COLLAPSED
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import Ends, episode_length_ends
from sb3_visual_td3.report.document import (
    Code,
    Flag,
    Section,
    Sentence,
    Table,
    columns,
    evenly,
    number_columns,
    value_at,
)

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
    """Hold one evaluation, with None for every number that was not logged."""

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
    """Hold the evaluations of a run.

    :param n: number of evaluations
    :param rows: at most a dozen of them, with the first and the last
    """

    n: int
    rows: tuple[EvaluationRow, ...]


def evaluations(data: SeriesSet) -> Evaluations:
    """Collect the evaluations of a run by their steps."""
    series = [data[tag].finite for tag in _TAGS]
    steps = np.unique(np.concatenate([s.steps for s in series]))
    if steps.size == 0:
        return Evaluations(0, ())
    chosen = steps[evenly(steps.size)]
    return Evaluations(
        int(steps.size), tuple(EvaluationRow(step, *(value_at(s, step) for s in series)) for step in chosen.tolist())
    )


def evaluations_section(found: Evaluations) -> Section | None:
    """Return the section on evaluations; None if the policy was never evaluated."""
    if not found.rows:
        return None
    heads = ("Step", "Reward", "Success", "Length", "Collisions", "Lane marks", "Metres", "Random, m", "Full brake, m")
    rows = tuple(
        (f"{row.step:,}", number(row.reward), percent(row.success_rate), *map(number, row[3:])) for row in found.rows
    )
    lead = counted(found.n, "evaluation")
    if found.n > len(rows):
        lead += f", {len(rows)} of them here"
    return Section("evaluation", "Evaluations", ((f"{lead}.",),), (Table(number_columns(*heads), rows),))


N_ENDS = 10
"""The tables show this many episodes from the start of the run, and as many from its end."""
_SB3_LENGTH = "rollout/ep_len_mean"


class Episode(NamedTuple):
    """Hold one episode, with None for every number that was not logged.

    :ivar episode: number of the episode, from 0
    :ivar end_step: environment step at its end; None if an earlier episode was not logged
    :ivar length: length in environment steps
    :ivar reward: sum of the rewards
    """

    episode: int
    end_step: int | None
    length: float | None
    reward: float | None
    collisions: float | None
    lane_invasions: float | None

    @property
    def reward_per_step(self) -> float | None:
        """Return the reward divided by the length; None if one of them is not known."""
        if self.reward is None or not self.length:
            return None
        return self.reward / self.length


class Incidents(NamedTuple):
    """Count collisions or lane invasions: in total, per episode, and per 1,000 environment steps.

    :ivar per_1000_steps: None if no episode length is known
    """

    total: float
    per_episode: float
    per_1000_steps: float | None


@dataclass(frozen=True)
class Episodes:
    """Hold the numbers about the episodes; a number is None if it was not logged.

    :param n_steps: sum of the lengths
    :param ends: median length of the episodes in the first and in the last third of the run's steps. Halves are used if
        a third holds fewer than three episodes. None if a half holds fewer than two episodes
    :param reward_per_step: sum of the rewards divided by the sum of the lengths
    :param reward_per_step_first: reward per step over the first ten episodes
    :param reward_per_step_last: reward per step over the last ten episodes
    :param first: the first ten episodes
    :param last: the last ten episodes, without those in ``first``
    :param moving_mean: first and last value of SB3's mean length
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
        """Return the median length of late episodes divided by that of early ones; None for too few episodes."""
        return None if self.ends is None else self.ends.late / self.ends.early

    @property
    def has_collapsed(self) -> bool | None:
        """Return whether the episodes have become much shorter, by the threshold of the rule episode_collapse."""
        return None if self.trend is None else self.trend < COLLAPSED


def episodes(data: SeriesSet) -> Episodes:
    """Compute the numbers of the report's section on episodes, from tags that have one point per episode."""
    length, reward = data[tags.EPISODE_LENGTH].finite, data[tags.EPISODE_REWARD].finite
    collisions, invasions = data[tags.EPISODE_COLLISIONS].finite, data[tags.EPISODE_LANE_INVASIONS].finite
    # A logged length that is not positive is wrong, so the ratios per step leave out its episode.
    known = length.where(length.values > 0)
    rows = _rows(length, reward, collisions, invasions)
    # The reward per step counts episodes of which both reward and length were logged.
    both = aligned(reward, known)
    means = data[_SB3_LENGTH].finite.values
    n_steps = shortest = longest = None
    if len(length):
        n_steps = float(length.values.sum())
        shortest, longest = float(length.values.min()), float(length.values.max())
    return Episodes(
        n=max(map(len, (length, reward, collisions, invasions))),
        n_steps=n_steps,
        mean_length=of_or_none(length.mean()),
        median_length=of_or_none(length.median()),
        shortest=shortest,
        longest=longest,
        ends=episode_length_ends(length),
        mean_reward=of_or_none(reward.mean()),
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
    """Return the ratio of two sums; None if the denominator is not positive."""
    total = float(below.values.sum())
    if total <= 0:
        return None
    return float(above.values.sum() / total)


def _incidents(counts: Series, lengths: Series) -> Incidents | None:
    if len(counts) == 0:
        return None
    per_step = _quotient(*aligned(counts, lengths))
    per_1000_steps = None if per_step is None else per_step * 1000
    return Incidents(float(counts.values.sum()), counts.mean(), per_1000_steps)


def _rows(length: Series, *others: Series) -> tuple[Episode, ...]:
    """Return the first ten and the last ten episodes; in a short run, each episode is returned once."""
    indices = np.unique(np.concatenate([length.steps, *(s.steps for s in others)]))
    n_first = min(N_ENDS, len(indices))
    chosen = [*indices[:n_first].tolist(), *indices[n_first:][-N_ENDS:].tolist()]
    ends = _end_steps(length)
    return tuple(Episode(i, ends.get(i), *(value_at(s, i) for s in (length, *others))) for i in chosen)


def _end_steps(length: Series) -> dict[int, int]:
    """Return the step at which each episode ends, up to the first episode without a valid length."""
    if len(length) == 0 or length.steps[0] != 0:
        return {}
    # An episode continues the sequence if its number is the next number and its length is positive and plausible. Up to
    # the first episode that breaks the sequence, the running sum of the lengths is the step at which each episode ends.
    follows = np.append(True, np.diff(length.steps) == 1) & (length.values > 0) & (length.values < 1e15)
    n_known = len(length) if follows.all() else int(np.flatnonzero(~follows)[0])
    totals = np.cumsum(length.values[:n_known])
    return dict(zip(length.steps[:n_known].tolist(), totals.astype(np.int64).tolist(), strict=True))


def episodes_section(found: Episodes) -> Section | None:
    """Return the section on episodes; None if no tag with one point per episode was logged."""
    if found.n == 0 and found.moving_mean is None:
        return None
    if found.n == 0 and found.moving_mean is not None:
        first, last = found.moving_mean
        said = f", a moving mean, went from {number(first)} to {number(last)}. The lengths of single episodes were not "
        return Section("episodes", "Episodes", ((Code(_SB3_LENGTH), f"{said}logged."),))
    sentences: list[Sentence] = [_length_sentence(found), *_trend_sentence(found), *_incident_sentences(found)]
    return Section("episodes", "Episodes", tuple(sentences), (_summary_table(found), _episode_table(found)))


def _length_sentence(found: Episodes) -> Sentence:
    if found.mean_length is None or found.n_steps is None:
        return (f"{found.n:,} episodes; their lengths were not logged.",)
    return (
        f"{found.n:,} episodes over {number(found.n_steps)} steps. Their mean length is {number(found.mean_length)} "
        f"steps, the median {number(found.median_length)}, and the range {number(found.shortest)} to "
        f"{number(found.longest)}.",
    )


def _trend_sentence(found: Episodes) -> list[Sentence]:
    if found.ends is None:
        return [("There are too few episodes to compare early and late episodes.",)]
    early, late, part = number(found.ends.early), number(found.ends.late), found.ends.part
    said = f"The median length is {early} in the first {part} of the run's steps and {late} in the last {part}"
    said += f" ({factor(found.trend)})"
    if not found.has_collapsed:
        return [(f"{said}.",)]
    lines: list[Sentence] = [(Flag("Collapsed"), f": {said[0].lower()}{said[1:]}.")]
    first, last = found.reward_per_step_first, found.reward_per_step_last
    if first is not None and last is not None and last > first:
        gain = f"from {number(first)} in the first ten episodes to {number(last)} in the last ten"
        lines.append((f"The reward per step rose {gain}. So the short episodes earn more per step.",))
    return lines


def _incident_sentences(found: Episodes) -> list[Sentence]:
    lines: list[Sentence] = []
    for name, incidents in (("Collisions", found.collisions), ("Lane invasions", found.lane_invasions)):
        if incidents is not None:
            said = f"{name}: {number(incidents.total)}, {rounded(incidents.per_episode)} per episode"
            if incidents.per_1000_steps is not None:
                said += f", {rounded(incidents.per_1000_steps)} per 1,000 steps"
            lines.append((f"{said}.",))
    return lines


def _summary_table(found: Episodes) -> Table:
    # In a short run the last ten episodes overlap with the first ten.
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
    if not values:
        return None
    return sum(values) / len(values)


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
    caption = f"The first {len(found.first)} episodes"
    if found.last:
        caption += f" and the last {len(found.last)}"
    return Table(number_columns(*heads), rows, (caption,), folded=True)
