"""What the settings answer where the event file is silent, and what that did to the verdict. Never silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import Criterion, judge
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, decide
from sb3_visual_td3.report.hyperparams_found import RunSettings

_OF_THE_ACTORS_ENCODER = tuple(
    by_group["actor_cnn"]
    for by_group in (
        tags.GRADIENT_NORM,
        tags.GRADIENT_NORM_CLIPPED,
        tags.CLIP_FRACTION,
        tags.UPDATE_RATIO,
        tags.GROUP_LR,
        tags.PARAM_MEAN,
        tags.PARAM_STD,
    )
)
"""A run that logged one of these has an actor's encoder, whatever its settings say."""


@dataclass(frozen=True)
class Answer:
    """A question that the event file left open and a setting answers with yes.

    :param tag: the 0/1 name that would have told.
    :param meaning: what is so.
    """

    tag: str
    meaning: str
    source: str


def answers(settings: RunSettings, series: SeriesSet) -> tuple[tuple[Answer, ...], tuple[str, ...]]:
    """Return what the settings answer, and notes on what they say against the event file.

    A "no" changes nothing and is not told: criteria apply unless something speaks against it.
    """
    found, notes = [], []
    shared = settings.encoder_is_shared
    if shared is not None and shared.value and series.flag(tags.ENCODER_IS_SHARED) is None:
        logged = [tag for tag in _OF_THE_ACTORS_ENCODER if tag in series]
        if logged:
            notes.append(
                f"{shared.source} says that actor and critic share one encoder, but the event file has {logged[0]}: "
                "the event file is believed"
            )
        else:
            found.append(Answer(tags.ENCODER_IS_SHARED, "actor and critic share one encoder", shared.source))
    scaled = settings.reward_is_normalized
    if scaled is not None and scaled.value and series.flag(tags.REWARD_IS_NORMALIZED) is None:
        found.append(Answer(tags.REWARD_IS_NORMALIZED, "the rewards are normalised", scaled.source))
    gamma = next((setting for _, setting in settings._each("gamma")), None)
    if gamma is not None and gamma.value == 1 and series.flag(tags.RETURN_IS_UNDISCOUNTED) is None:
        found.append(Answer(tags.RETURN_IS_UNDISCOUNTED, "returns are not discounted", gamma.source))
    return tuple(found), tuple(notes)


def effect(
    given: Sequence[Answer],
    series: SeriesSet,
    criteria: Sequence[Criterion],
    results: Sequence[CriterionResult],
    diagnoses: Sequence[Diagnosis],
) -> tuple[str, ...]:
    """Return notes on what the answers changed: criteria, diagnoses, and the verdict where it is another one.

    :param series: what the event file alone says.
    :param results: of the criteria, with the answers.
    :param diagnoses: with the answers.
    """
    if not given:
        return ()
    alone = judge(criteria, series)
    said = "; ".join(f"{answer.meaning}, says {answer.source}" for answer in given)
    changed = [
        after.id
        for before, after in zip(alone, results, strict=True)
        if (before.status, before.blocking) != (after.status, after.blocking)
    ]
    changed += sorted({d.id for d in diagnose(series)} ^ {d.id for d in diagnoses})
    otherwise = (
        f" Judged otherwise for it: {', '.join(changed)}." if changed else " Nothing is judged otherwise for it."
    )
    notes = [f"The event file does not tell, so the settings do: {said}.{otherwise}"]
    verdict, without = decide(results), decide(alone)
    if verdict is not without:
        notes.append(f"By the event file alone the verdict would be {without.value}, not {verdict.value}")
    return tuple(notes)
