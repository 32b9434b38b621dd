"""The policy had learned, and then lost a large part of its gain: the last policy is not the best.

The return rose clearly above its start and ended well below its best level, measured against the noise of the curve
(`diagnosis/return_curve.py`). Whatever the cause is, an earlier checkpoint is better than the last one.

Source: Henderson et al. 2018, arXiv 1709.06560, on runs that learn and then get worse; Fujimoto et al. 2018, arXiv
1802.09477, on overestimation as a cause.
"""

from __future__ import annotations

from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import LARGE_FALL, CurveState, ReturnCurve, judge_learning
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.two_questions import in_or_after_warm_up

ID = "learned_then_fell"
TITLE = "The policy learned, and then lost what it had learned"
REMEDY = (
    "Restore the best checkpoint instead of the last one (EvalCallback and DrivingEvalCallback save it as "
    "best_model.zip), and end the next run at the step of that checkpoint, or lower the learning rate towards the end."
)
IS_LIVE = False
# Each of these causes can make a good policy bad. If several were found, the first in this list is named as the cause.
EXPLAINED_BY = (
    "non_finite",
    "feature_leak",
    "learning_rate_too_high",
    "dead_camera",
    "critic_overestimation",
    "q_beyond_returns",
    "twin_critic_desync",
    "actor_saturation",
    "vanishing_actor_gradient",
    "exploration_schedule",
    "entropy_collapse",
    "reward_scale",
    "reward_imbalance",
)
CURE = Cure(
    changes=(
        SettingChange(
            key="learning_rate",
            times=0.3,
            reason="smaller steps change a good policy less; if no other cause was found, this is a guess",
        ),
    )
)

MIN_STEPS = 10_000.0
"""A run with fewer environment steps is not reported, because the return of an early policy goes up and down."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for a return curve that collapsed after learning; evaluation curves are checked before training curves.

    The confidence is at most 0.7, because a curve shows that the policy fell, but not why.
    """
    n_steps = data.n_steps
    if n_steps is None or n_steps < MIN_STEPS or in_or_after_warm_up(data) is not None:
        return None
    fallen = [curve for curve in judge_learning(data).curves if curve.state is CurveState.COLLAPSED]
    # A fall that is clear in one curve counts, even if the other curve has not fallen.
    curve = max(fallen, key=_confidence, default=None)
    if curve is None or curve.peak_step is None:
        return None
    series = data[curve.tag].finite
    evidence = (
        Evidence(curve.tag, curve.peak_step, curve.peak, "the best level of the run, reached near this step"),
        Evidence(
            curve.tag,
            curve.last_step,
            curve.late,
            f"the level at the end; {min(curve.lost, 1.0):.0%} of what was gained is lost",
        ),
    )
    # The onset is the first point after the peak at which more than half of the gain is lost.
    half = curve.peak - LARGE_FALL * (curve.peak - curve.start)
    below = series.where((series.steps > curve.peak_step) & (series.values < half))
    step = f"{curve.peak_step:,}"
    remedy = (
        f"The best policy was near step {step} ({curve.tag} {rounded(curve.peak)}): restore that checkpoint. {REMEDY}"
    )
    return RuleResult(
        _confidence(curve),
        evidence,
        int(below.steps[0]) if len(below) else None,
        value=curve.lost,
        threshold=LARGE_FALL,
        remedy=remedy,
    )


def _confidence(curve: ReturnCurve) -> float:
    if curve.learning == "no":
        return 0.7
    # Half of the gain is lost, but noise or a short curve may explain that; a smaller loss may be a temporary dip.
    return 0.55 if curve.lost >= LARGE_FALL else 0.4
