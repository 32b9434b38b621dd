"""The return never rises above its own noise, although the run was long enough.

A flat return shows that something is wrong, but not the cause. The rule therefore names the causes that the logged tags
do not rule out, the likeliest first, and the tags to log in order to tell them apart.

Source: the shape of the curve, see `diagnosis/return_curve.py`; Henderson et al. 2018, arXiv 1709.06560, on the
influence of reward scale and learning rates.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.return_curve import CLEAR_GAIN, CurveState, judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.tag_search import words_of
from sb3_visual_td3.diagnosis.two_questions import in_or_after_warm_up

ID = "never_learned"
TITLE = "The return never rises above its own noise"
REMEDY = (
    "Train the same settings on a task that they are known to solve (Pendulum-v1, CartPole-v1). If that works, look at "
    "the environment: does the reward change with the actions, and do the observations show what it depends on?"
)
IS_LIVE = False
# Each of these diagnoses keeps a policy from learning and so explains a flat return. The most certain come first.
EXPLAINED_BY = (
    "non_finite",
    "frozen_by_learning_rate",
    "learning_rate_too_high",
    "feature_leak",
    "dead_camera",
    "too_few_updates",
    "stale_target_network",
    "policy_stopped_updating",
    "encoder_frozen",
    "vanishing_actor_gradient",
    "actor_saturation",
    "reward_scale",
    "critic_overestimation",
    "q_beyond_returns",
    "twin_critic_desync",
    "policy_extrapolation",
    "constant_clipping",
    "gradient_explosion",
    "exploration_schedule",
    "entropy_collapse",
    "entropy_outweighs_reward",
    "fast_target_network",
    "reward_imbalance",
    "episode_collapse",
)
CURE = Cure(
    code="No single hyperparameter cures it: first find out which of the candidates is the cause; the report names "
    "the tags to log."
)

FEWEST_STEPS = 10_000.0
"""A run that is known to have fewer environment steps is not reported."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for a return curve that is flat or declines from its start, in a run that was long enough to learn."""
    n_steps = data.n_steps
    learning = judge_learning(data)
    if learning.answer != "no" or (n_steps is not None and n_steps < FEWEST_STEPS and not _x_axis_is_unknown(data)):
        return None
    if in_or_after_warm_up(data) is not None:
        return None
    flat = [curve for curve in learning.curves if curve.state in (CurveState.FLAT, CurveState.DECLINING)]
    curve = next((curve for curve in flat if curve.learning == "no"), None)
    # A curve that rose before it fell is the diagnosis learned_then_fell.
    if curve is None or any(curve.state is CurveState.COLLAPSED for curve in learning.curves):
        return None
    series = data[curve.tag].finite
    declines = curve.state is CurveState.DECLINING
    note = "the level at the end"
    if declines:
        note = "the level at the end, which is below the first level by more than the noise of the curve"
    evidence = (
        Evidence(curve.tag, int(series.steps[0]), curve.start, "the level at the start"),
        Evidence(curve.tag, curve.last_step, curve.late, note),
    )
    return RuleResult(
        0.65 if declines else 0.6,
        evidence,
        None,
        value=curve.gain,
        threshold=CLEAR_GAIN,
        remedy=f"{candidates(data)} {REMEDY}",
    )


def candidates(data: SeriesSet) -> str:
    """Name the causes that fit a flat return and that the logged tags do not rule out.

    :param data: the series of a run
    :return: a text with up to three causes, the likeliest first, and the tags that would show each of them
    """
    family = recognise(data.names()).family
    possible: list[tuple[str, str]] = []
    if not own_scale.rate_tags(data.names()):
        possible.append(("a learning rate far too high or too low", "the learning rate"))
    if family is Family.ON_POLICY:
        possible += _unseen_on_policy(data)
    elif family is not Family.UNKNOWN:
        possible += _unseen_off_policy(data)
    missing = "" if tags.EVAL_RANDOM_REWARD in data else "the return of random actions"
    possible.append(("a reward that the actions do not change", missing))
    possible = possible[:3]
    causes = " or, less likely, with ".join(cause for cause, _ in possible)
    wanted = "; ".join(tag for _, tag in possible if tag)
    to_log = f" To tell them apart, log: {wanted}." if wanted else ""
    return f"Consistent with {causes}.{to_log}"


def _unseen_off_policy(data: SeriesSet) -> list[tuple[str, str]]:
    # Target networks come first, because nothing that SB3 logs shows whether they move.
    possible = []
    if tags.TARGET_MOVED["critic"] not in data:
        possible.append(("target networks that never move (tau)", tags.TARGET_MOVED["critic"]))
    if not any(tag in data for tag in (*tags.GRADIENT_NORM.values(), *tags.UPDATE_RATIO.values())):
        possible.append(("an encoder or an actor that does not learn", "the norms of the gradients by network"))
        if "train/n_updates" not in data:
            possible.append(("rare updates (train_freq, gradient_steps)", "train/n_updates"))
    return possible


def _unseen_on_policy(data: SeriesSet) -> list[tuple[str, str]]:
    known = [set(words_of(name)) for name in data.names()]
    possible = []
    if not any("kl" in words for words in known):
        possible.append(("updates that do not move the policy, or that replace it", "approx_kl"))
    if not any({"entropy", "std"} & words for words in known):
        possible.append(("a policy that no longer explores", "entropy_loss"))
    if not any({"explained", "variance"} <= words for words in known):
        possible.append(("a value function that explains nothing", "explained_variance"))
    return possible


def _x_axis_is_unknown(data: SeriesSet) -> bool:
    """Return whether the steps of the run may count episodes or updates instead of environment steps."""
    return not any(name in tags.TAGS for name in data.names())
