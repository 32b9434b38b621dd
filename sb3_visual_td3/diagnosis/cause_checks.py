"""The check that holds a run against the rules: a cause that they are sure of stands in its way."""

from __future__ import annotations

from sb3_visual_td3.diagnosis.checks import Measurement, Tags
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import Status


def no_sure_cause(data: SeriesSet, tags: Tags, threshold: float, min_points: int) -> Measurement:
    """Pass where no rule names a cause with that confidence, and the tags that the rules read are logged.

    A cause counts where the tag that speaks for it is one of those: what may be absent, such as the length of
    episodes, must not decide by being there, and has criteria of its own.
    """
    causes = [found for found in diagnose(data) if found.role == "cause" and found.evidence[0].tag in tags]
    surest = max(causes, key=lambda found: found.confidence, default=None)
    value = 0.0 if surest is None else surest.confidence
    told = "no cause found" if surest is None else _in_words(surest)
    if value >= threshold:
        return Measurement(Status.FAIL, value, told)
    too_few = [tag for tag in tags if len(data[tag].finite) < min_points]
    if too_few:
        return Measurement(Status.UNKNOWN, None, f"{told}; not logged, or too few points: {', '.join(too_few)}")
    return Measurement(Status.PASS, value, told)


def _in_words(found: Diagnosis) -> str:
    speaks = found.evidence[0]
    return f"{found.id} ({found.confidence:.0%}): {speaks.tag} {speaks.note}"
