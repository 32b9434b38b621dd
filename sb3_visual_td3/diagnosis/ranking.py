"""Which diagnosis to read first: causes, then what made the monitor blind, then consequences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sb3_visual_td3.diagnosis.findings import Diagnosis, Role
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.diagnosis.series import SeriesSet

MIN_CONFIDENCE = 0.3
"""Weaker diagnoses are not told at all."""

EXPLAINS_FROM = 0.5
"""A cause of at least this confidence makes what follows from it a consequence."""

_ORDER: dict[Role, int] = {"cause": 0, "blind_spot": 1, "consequence": 2}


def diagnose(data: SeriesSet) -> tuple[Diagnosis, ...]:
    """Run every rule over the series and rank what they find."""
    # At the limits of doubles a sum is infinite and a ratio NaN: the rules' comparisons know what to do with both.
    with np.errstate(all="ignore"):
        return rank(found for rule in RULES.values() if (found := rule.diagnose(data)) is not None)


def rank(diagnoses: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return the diagnoses worth telling, the one to remedy first in front.

    A diagnosis that another, confident one explains becomes its consequence, however sure it is.
    """
    kept = {d.id: d for d in diagnoses if d.confidence >= MIN_CONFIDENCE}
    told = [_explained(diagnosis, kept) for diagnosis in kept.values()]
    return tuple(sorted(told, key=lambda d: (_ORDER[d.role], -d.confidence, d.id)))


def _explained(diagnosis: Diagnosis, found: dict[str, Diagnosis]) -> Diagnosis:
    causes = [found[i] for i in diagnosis.explained_by if i in found and found[i].confidence >= EXPLAINS_FROM]
    return diagnosis.as_consequence_of(causes[0]) if causes else diagnosis
