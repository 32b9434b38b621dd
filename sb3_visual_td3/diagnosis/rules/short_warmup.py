"""Updates began when the replay buffer was nearly empty: the networks overfit to the first few transitions.

How many transitions are enough is a guess.

Source: Nikishin et al. 2022, "The Primacy Bias in Deep Reinforcement Learning", arXiv 2205.07802: agents that overfit
to their first transitions do not recover later.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet

ID = "short_warmup"
TITLE = "Updates began when the replay buffer was nearly empty"
REMEDY = (
    "Let random actions fill the buffer first: learning_starts of 1,000 for a short run from pixels, or 10,000 "
    "(Spinning Up) to 25,000 (the TD3 authors) for a long run. Stable-Baselines3's default of 100 suits observations "
    "that are vectors."
)
IS_LIVE = False
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(
        SettingChange(
            key="learning_starts",
            at_least=1000,
            of_steps=0.1,
            of_steps_at_most=10000,
            reason="random actions for a tenth of the run; 10,000 is Spinning Up's value",
        ),
    )
)

SHORT = 90.0
"""The warm-up is too short if the first update comes at most this many environment steps after the start.
Stable-Baselines3's default of 100 must not count as too short."""

A_BATCH = 32.0
"""The confidence is higher if the first update comes at most this many environment steps after the start. The buffer
then holds fewer transitions than a usual batch."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for updates that began at most ``SHORT`` steps after the start of the run.

    The step of the first update is estimated from the first two logged points with an update count above 0.
    """
    updates = data[tags.TOTAL_ITERATIONS].finite
    first_update = _first_update(updates)
    if first_update is None or first_update > SHORT:
        return None
    trained = updates.where(updates.values > 0)
    note = f"updates by then, so the first was made at about step {rounded(max(first_update, 0.0))}"
    first_point = int(trained.steps[0])
    evidence = Evidence(tags.TOTAL_ITERATIONS, first_point, float(trained.values[0]), note)
    # Low confidences: a short warm-up is a risk for the run, not a proof that it failed.
    confidence = 0.6 if first_update <= A_BATCH else 0.52
    return RuleResult(confidence, (evidence,), first_point, value=max(first_update, 0.0), threshold=SHORT)


def _first_update(updates: Series) -> float | None:
    """Return the number of environment steps before the first update; None if it cannot be estimated."""
    trained = updates.where(updates.values > 0)
    if len(trained) < 2 or trained.steps[0] <= 0:
        return None
    n_steps = float(trained.steps[1] - trained.steps[0])
    n_updates = float(trained.values[1] - trained.values[0])
    if n_steps <= 0 or n_updates <= 0:
        return None
    # Extrapolate the rate of updates between the first two points back to 0 updates.
    estimate = float(trained.steps[0]) - float(trained.values[0]) * n_steps / n_updates
    # A run that was continued from a checkpoint may count updates or steps from the checkpoint on.
    return None if estimate < -0.5 * n_steps else estimate
