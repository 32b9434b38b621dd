"""The check that holds a run against the rules: a cause that they are sure of stands in its way."""

from __future__ import annotations

from sb3_visual_td3.common import tags as names
from sb3_visual_td3.diagnosis.checks import Measurement, Tags
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import Status

OF_A_CAMERA = (names.FRAME_STD, names.FRAME_CHANGE)


def no_sure_cause(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where no rule names a cause with that confidence, and the tags that the rules read are logged.

    What a policy without an encoder cannot log, or one whose encoder is the critic's, is not asked for; whether there
    is one has to be logged.
    """
    causes = [found for found in diagnose(data) if found.role == "cause"]
    surest = max(causes, key=lambda found: found.confidence, default=None)
    value = 0.0 if surest is None else surest.confidence
    told = "no cause found" if surest is None else _in_words(surest)
    if value >= threshold:
        return Measurement(Status.FAIL, value, told)
    asked_for = [tag for tag in tags if _applies(tag, data)]
    too_few = [tag for tag in asked_for if len(data[tag].finite) < min_points]
    if too_few:
        return Measurement(Status.UNKNOWN, None, f"{told}; not logged, or too few points: {', '.join(too_few)}")
    return Measurement(Status.PASS, value, told)


def _applies(tag: str, data: SeriesSet) -> bool:
    of_actor = tag in (names.GRADIENT_NORM["actor_cnn"], names.UPDATE_RATIO["actor_cnn"])
    of_critic = tag in (names.GRADIENT_NORM["critic_cnn"], names.UPDATE_RATIO["critic_cnn"])
    if of_actor and data.flag(names.ENCODER_IS_SHARED):
        return False
    return not (of_actor or of_critic or tag in OF_A_CAMERA) or data.flag(names.HAS_ENCODER) is not False


def _in_words(found: Diagnosis) -> str:
    speaks = found.evidence[0]
    return f"{found.id} ({found.confidence:.0%}): {speaks.tag} {speaks.note}"
