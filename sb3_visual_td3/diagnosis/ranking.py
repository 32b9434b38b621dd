"""Run the rules and order their diagnoses: causes first, then blind spots, then consequences.

A blind spot is a diagnosis that explains why the logged values do not show a problem.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sb3_visual_td3.diagnosis.findings import Diagnosis, Role
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.diagnosis.series import SeriesSet, once_per_run

MIN_CONFIDENCE = 0.3
"""A diagnosis with a lower confidence is left out."""

LIKELY_FROM = 0.5
"""With at least this confidence, a diagnosis can explain others, be named as the cause, and lead to recommendations.

The three uses must share one limit. If a diagnosis below this limit could explain another one, the report might name
neither of them as the cause."""

_ORDER: dict[Role, int] = {"cause": 0, "blind_spot": 1, "consequence": 2}


@once_per_run
def diagnose(data: SeriesSet) -> tuple[Diagnosis, ...]:
    """Run every rule over the series of a run, and order their diagnoses.

    :param data: the series of a run, or of a window of it
    :return: the diagnoses; the one to fix first comes first
    """
    # Near the limits of doubles, sums become infinite and ratios NaN. The rules do not count such values.
    with np.errstate(all="ignore"):
        return rank(found for rule in RULES.values() if (found := rule.diagnose(data)) is not None)


def rank(diagnoses: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Order diagnoses, and mark a diagnosis as a consequence if another diagnosis explains it.

    :param diagnoses: the diagnoses of the rules, in any order
    :return: the diagnoses with a confidence of at least :data:`MIN_CONFIDENCE`; the one to fix first comes first
    """
    kept = {d.id: d for d in diagnoses if d.confidence >= MIN_CONFIDENCE}
    explained = [_explained(diagnosis, kept) for diagnosis in kept.values()]
    return tuple(sorted(explained, key=lambda d: (_ORDER[d.role], -d.confidence, d.id)))


def _explained(diagnosis: Diagnosis, found: dict[str, Diagnosis]) -> Diagnosis:
    # The confidence of the diagnosis itself does not matter: a saturated actor may be certain and still follow from a
    # feature leak. Of several explanations, the one that EXPLAINED_BY lists first counts.
    causes = [found[i] for i in diagnosis.explained_by if i in found and found[i].confidence >= LIKELY_FROM]
    return diagnosis.as_consequence_of(causes[0]) if causes else diagnosis
