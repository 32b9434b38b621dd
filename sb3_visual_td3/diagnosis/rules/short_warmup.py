"""Updates began when the replay buffer held next to nothing: the first of them learn a few transitions by heart.

When they began follows from the count of updates: with one update per step, 98 updates at step 100 began at step 2.

Source: Nikishin et al. 2022, "The Primacy Bias in Deep Reinforcement Learning", arXiv 2205.07802: agents that learn
much from their first transitions keep what they have made of them. How many are enough is a guess: Stable-Baselines3
takes 100, DrQ-v2 4,000 frames, Spinning Up 1,000, the TD3 authors 25,000.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, SettingChange, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet

ID = "short_warmup"
TITLE = "Updates began before the replay buffer held anything to learn from"
REMEDY = (
    "Let random actions fill the buffer first: learning_starts of 1,000 for a short run from pixels, 10,000 (Spinning "
    "Up) to 25,000 (the TD3 authors) for a long one; 100, Stable-Baselines3's default, is for vectors."
)
IS_LIVE = False
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(
        SettingChange(
            key="learning_starts",
            at_least=1000,
            of_steps=0.1,
            most=10000,
            reason="random actions first, a tenth of the run; 10,000 are Spinning Up's",
        ),
    )
)

SHORT = 90.0
"""Steps: just below Stable-Baselines3's default of 100, which is met exactly or by a few steps less."""

A_BATCH = 32.0
"""Fewer transitions than a usual batch: it is sampled over and over."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Estimate the step of the first update from the first points of the count of updates."""
    updates = data[tags.TOTAL_ITERATIONS].finite
    begun = _first_update(updates)
    if begun is None or begun > SHORT:
        return None
    trained = updates.where(updates.values > 0)
    note = f"so the first was made at about step {rounded(max(begun, 0.0))}"
    first_point = int(trained.steps[0])
    evidence = Evidence(tags.TOTAL_ITERATIONS, first_point, float(trained.values[0]), note)
    confidence = bounded(0.6 if begun <= A_BATCH else 0.52)
    return Diagnosis(ID, TITLE, confidence, (evidence,), REMEDY, first_point, value=max(begun, 0.0), threshold=SHORT)


def _first_update(updates: Series) -> float | None:
    """:return: environment steps before the first update; None where the points do not tell"""
    trained = updates.where(updates.values > 0)
    if len(trained) < 2 or trained.steps[0] <= 0:
        return None
    n_steps = float(trained.steps[1] - trained.steps[0])
    n_updates = float(trained.values[1] - trained.values[0])
    if n_steps <= 0 or n_updates <= 0:
        return None
    estimate = float(trained.steps[0]) - float(trained.values[0]) * n_steps / n_updates
    # A run that goes on from a checkpoint may count its updates, or its steps, from another start.
    return None if estimate < -0.5 * n_steps else estimate
