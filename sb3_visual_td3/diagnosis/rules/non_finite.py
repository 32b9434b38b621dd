"""A logged value is NaN or infinite, so everything that is computed from it is wrong as well."""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.series import SeriesSet, ended_not_finite
from sb3_visual_td3.diagnosis.tag_search import words_of

ID = "non_finite"
TITLE = "NaN or infinite values were logged"
REMEDY = (
    "Go back to the last checkpoint before the step named here. Check the observations and rewards for NaN, then "
    "the tag that was non-finite first; torch.autograd.detect_anomaly names the operation."
)
IS_LIVE = True
EXPLAINED_BY = ("feature_leak", "learning_rate_too_high", "critic_overestimation", "gradient_explosion")
CURE = Cure(code=("No hyperparameter cures it: find where the first NaN comes from, observations and rewards first."))


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Find the tags with non-finite values, in the order in which they became non-finite."""
    # A derived tag may be infinite by definition, such as the bound of undiscounted returns. SB3 writes NaN as the
    # explained variance of a rollout whose returns are all equal; minus infinity is possible too.
    measured = [data[name] for name in data.names() if name not in tags.DERIVED and "explained" not in words_of(name)]
    bad = [series.where(~np.isfinite(series.values)) for series in measured]
    # By step and then by name, so that the order does not depend on the order in the log.
    bad = sorted((series for series in bad if len(series)), key=lambda series: (int(series.steps[0]), series.name))
    evidence = tuple(
        Evidence(s.name, int(s.steps[0]), float(s.values[0]), f"{len(s)} such values, the first here") for s in bad[:5]
    )
    ended = ended_not_finite(data)
    if ended is not None:
        alert = tags.alert_of_rule(ID)
        words = "the alert ended the training; its message in alerts.jsonl names the number that was not finite"
        evidence = (*evidence, Evidence(alert, ended, 1.0, words))
    if not evidence:
        return None
    # Only steps of the environment can be the first step of the diagnosis; an episode number would mislead.
    on_steps = [int(s.steps[0]) for s in bad if not tags.is_on_episodes(s.name)]
    if ended is not None:
        on_steps.append(ended)
    return RuleResult(0.95, evidence, min(on_steps, default=None), value=evidence[0].value)
