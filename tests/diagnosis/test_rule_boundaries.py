"""Test the thresholds from which each rule gives a diagnosis.

Most thresholds are tested twice: with points spaced as in a live window, and with points spaced as in a log.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.live import CRITICAL_FROM, judge
from sb3_visual_td3.diagnosis.ranking import MIN_CONFIDENCE
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet

NORM, RATIO = tags.GRADIENT_NORM, tags.UPDATE_RATIO
Values = dict[str, object]
RESOLUTIONS = {
    "live window": np.arange(10, 201, 10),  # a point every 10 updates, over 200 updates
    "logged series": np.arange(100, 5001, 100),  # a point every 100 environment steps, over a whole run
}


def series(values: Values, steps: np.ndarray) -> SeriesSet:
    """Return the series of a test case; a number becomes a constant series."""
    spread = {tag: np.broadcast_to(np.asarray(v, dtype=float), steps.shape) for tag, v in values.items()}
    return SeriesSet.of(Series(tag, steps, v) for tag, v in spread.items())


def ending(last: float, n_last: int, before: float) -> Callable[[int], np.ndarray]:
    return lambda n: np.array([before] * (n - n_last) + [last] * n_last)


def growing(factor: float, end: float) -> Callable[[int], np.ndarray]:
    """Return a function that gives n points, which grow exponentially from ``end / factor`` to ``end``."""
    return lambda n: end * factor ** (np.arange(n) / (n - 1) - 1)


def leak(head: float, encoder: float = 1.0, **others: object) -> Values:
    return {NORM["actor_mlp"]: head, NORM["actor_cnn"]: encoder, NORM["critic_mlp"]: 1.0, **others}


def still_targets(n_still: int, ratio: float = 1e-3, **others: object) -> Values:
    """Return the tags of target networks that do not move at the last ``n_still`` points.

    :param ratio: relative size of the critic's updates; with 0 the critic does not move either
    """
    moved = ending(0.0, n_still, 1.0)
    return {tags.TARGET_MOVED["critic"]: moved, RATIO["critic_mlp"]: ratio, NORM["actor_mlp"]: 1.0, **others}


def counted_from(start: int) -> Callable[[int], np.ndarray]:
    """Return a function that gives the number of updates at n points: one per step after ``start`` steps."""
    by_length = {steps.size: steps for steps in RESOLUTIONS.values()}
    return lambda n: np.maximum(by_length[n] - start, 0)


def rewards(low: object, high: object, **others: object) -> Values:
    return {tags.REWARD_MIN: low, tags.REWARD_MAX: high, **others}


def td3(actor_loss: float) -> Values:
    """Return the tags that stock TD3 logs, with an episode return of 100."""
    return {"rollout/ep_rew_mean": 100.0, "train/actor_loss": actor_loss, "train/critic_loss": 1.0}


def vanished(first: float) -> Values:
    """Return gradient norms; the norm of the actor's head is ``first`` at two points and then 0."""
    return {NORM["actor_mlp"]: lambda n: np.array([first] * 2 + [0.0] * (n - 2)), NORM["critic_mlp"]: 1.0}


def first_losses(loss: float, actor_loss: float) -> Values:
    """Return the losses of a training that has hardly begun."""
    return {tags.CRITIC_LOSS: loss, tags.ACTOR_LOSS: actor_loss}


def weights(encoder: object) -> Values:
    """Return the mean and standard deviation of the weights of an encoder and of a head that learns."""
    mean = {tags.PARAM_MEAN["critic_cnn"]: 0.001, tags.PARAM_MEAN["critic_mlp"]: 0.001}
    return {
        **mean,
        tags.PARAM_STD["critic_cnn"]: encoder,
        tags.PARAM_STD["critic_mlp"]: lambda n: np.linspace(0.03, 0.04, n),
    }


def standing(norm_tag: str, norm: float) -> Values:
    """Return the statistics of weights that do not change, and a gradient norm."""
    return {norm_tag: norm, tags.PARAM_MEAN["critic_mlp"]: 0.01, tags.PARAM_STD["critic_mlp"]: 0.04}


def entropy(late: float) -> Values:
    """Return the tags that PPO logs with discrete actions; the entropy loss is first -1 and then ``late``."""
    return {"train/approx_kl": 0.01, "train/entropy_loss": lambda n: np.array([-1.0] + [late] * (n - 1))}


# (rule, values just short of its threshold, values just beyond it)
TABLE: list[tuple[str, Values, Values]] = [
    ("feature_leak", leak(0.0201), leak(0.02)),
    ("feature_leak", leak(0.0, encoder=1e-3), leak(0.0, encoder=1.01e-3)),
    ("feature_leak", leak(0.0, **{tags.ENCODER_IS_SHARED: 1.0}), leak(0.0, **{tags.ENCODER_IS_SHARED: 0.0})),
    ("feature_leak", {tags.ACTOR_LOSS: -100.0, tags.Q1_VALUE: 1.0}, {tags.ACTOR_LOSS: -100.1, tags.Q1_VALUE: 1.0}),
    (
        "clipping_masks_divergence",
        {NORM["actor_cnn"]: 1.9, tags.ACTOR_LOSS: growing(2.9**2, -1e4), tags.Q1_VALUE: 1.0},
        {NORM["actor_cnn"]: 1.9, tags.ACTOR_LOSS: growing(3.2**2, -1e4), tags.Q1_VALUE: 1.0},
    ),
    ("critic_overestimation", {tags.Q1_VALUE: -10.0, tags.Q_BOUND: 10.0}, {tags.Q1_VALUE: -10.001, tags.Q_BOUND: 10.0}),
    ("critic_overestimation", {tags.Q2_VALUE: 1.0, tags.Q_BOUND: 0.1}, {tags.Q2_VALUE: 1.001, tags.Q_BOUND: 0.1}),
    (
        "critic_overestimation",
        {tags.Q1_VALUE: ending(11.0, 1, 9.0), tags.Q_BOUND: 10.0},
        {tags.Q1_VALUE: ending(11.0, 2, 9.0), tags.Q_BOUND: 10.0},
    ),
    (
        "policy_extrapolation",
        {tags.POLICY_Q_VALUE: 10.0, tags.Q1_VALUE: 1.0, tags.Q_BOUND: 10.0},
        {tags.POLICY_Q_VALUE: 10.001, tags.Q1_VALUE: 1.0, tags.Q_BOUND: 10.0},
    ),
    ("policy_extrapolation", {tags.Q_GAP: 10.0, tags.Q1_VALUE: -20.0}, {tags.Q_GAP: 10.1, tags.Q1_VALUE: -20.0}),
    ("policy_extrapolation", {tags.Q_GAP: -99.0, tags.Q1_VALUE: 0.1}, {tags.Q_GAP: 0.51, tags.Q1_VALUE: 0.1}),
    (
        "policy_extrapolation",
        {tags.ACTOR_LOSS: -3.0, tags.Q1_VALUE: 2.0},
        {tags.ACTOR_LOSS: -3.01, tags.Q1_VALUE: 2.0},
    ),
    ("twin_critic_desync", {tags.Q1_VALUE: 10.0, tags.Q2_VALUE: 13.0}, {tags.Q1_VALUE: 10.0, tags.Q2_VALUE: 13.1}),
    ("actor_saturation", {tags.ACTION_SATURATION: 0.49}, {tags.ACTION_SATURATION: 0.5}),
    ("actor_saturation", vanished(0.9e-3), vanished(1.1e-3)),
    (
        "vanishing_actor_gradient",
        {NORM["actor_mlp"]: 1.1e-5, NORM["critic_mlp"]: 1.0},
        {NORM["actor_mlp"]: 1e-5, NORM["critic_mlp"]: 1.0},
    ),
    (
        "vanishing_actor_gradient",
        {NORM["actor_mlp"]: 0.0, NORM["critic_mlp"]: 1e-5},
        {NORM["actor_mlp"]: 0.0, NORM["critic_mlp"]: 1.1e-5},
    ),
    ("gradient_explosion", {NORM["critic_cnn"]: 50_000.0}, {NORM["critic_cnn"]: 50_001.0}),
    ("gradient_explosion", {NORM["actor_mlp"]: growing(99.0, 5e3)}, {NORM["actor_mlp"]: growing(101.0, 5e3)}),
    ("gradient_explosion", {NORM["actor_mlp"]: growing(1e4, 900.0)}, {NORM["actor_mlp"]: growing(1e4, 9e3)}),
    ("constant_clipping", {tags.CLIP_FRACTION["actor_cnn"]: 0.89}, {tags.CLIP_FRACTION["actor_cnn"]: 0.9}),
    ("constant_clipping", {tags.CLIP_FRACTION["critic_cnn"]: 1.0}, {tags.CLIP_FRACTION["actor_mlp"]: 1.0}),
    ("reward_scale", rewards(-999.0, 1.0), rewards(-1000.0, 1.0)),
    ("reward_scale", rewards(-1.0, 999.0), rewards(-1.0, 1000.0)),
    ("reward_scale", rewards(-1.0, ending(100.0, 3, 1.01)), rewards(-1.0, ending(100.0, 3, 1.0))),
    ("reward_scale", rewards(-1.0, ending(5e3, 1, 60.0)), rewards(-1.0, ending(5e3, 2, 60.0))),
    ("reward_scale", first_losses(1.99e6, -1.0), first_losses(2.01e6, -1.0)),
    ("reward_scale", first_losses(2.01e6, -101.0), first_losses(2.01e6, -100.0)),
    ("learning_rate_too_high", {RATIO["critic_mlp"]: 0.099}, {RATIO["critic_mlp"]: 0.1}),
    ("learning_rate_too_high", {RATIO["actor_cnn"]: ending(0.49, 1, 0.05)}, {RATIO["actor_cnn"]: ending(0.5, 1, 0.05)}),
    (
        "learning_rate_too_high",
        {RATIO["critic_cnn"]: ending(0.1, 1, 0.1 / 29)},
        {RATIO["critic_cnn"]: ending(0.1, 1, 0.1 / 31)},
    ),
    (
        "learning_rate_too_high",
        {**td3(-10.0), "train/learning_rate": 0.049},
        {**td3(-10.0), "train/learning_rate": 0.05},
    ),
    ("stale_target_network", still_targets(4), still_targets(5)),
    # Target networks of a critic that does not move either are not stale.
    ("stale_target_network", still_targets(9, ratio=0.0), still_targets(9)),
    (
        "encoder_frozen",
        {NORM["critic_cnn"]: 1.1e-6, NORM["critic_mlp"]: 1.0},
        {NORM["critic_cnn"]: 1e-6, NORM["critic_mlp"]: 1.0},
    ),
    (
        "encoder_frozen",
        {RATIO["actor_cnn"]: 1.1e-9, RATIO["actor_mlp"]: 1e-3},
        {RATIO["actor_cnn"]: 1e-9, RATIO["actor_mlp"]: 1e-3},
    ),
    (
        "encoder_frozen",
        {RATIO["critic_cnn"]: 0.0, RATIO["critic_mlp"]: 1e-3, tags.GROUP_LR["critic_cnn"]: 0.0},
        {RATIO["critic_cnn"]: 0.0, RATIO["critic_mlp"]: 1e-3, tags.GROUP_LR["critic_cnn"]: 1e-4},
    ),
    (
        "encoder_frozen",
        {NORM["actor_cnn"]: 0.0, NORM["actor_mlp"]: 0.0},
        {NORM["actor_cnn"]: 0.0, NORM["actor_mlp"]: 1.0},
    ),
    (
        "encoder_frozen",
        {NORM["actor_cnn"]: 0.0, NORM["actor_mlp"]: 0.99e-5},
        {NORM["actor_cnn"]: 0.0, NORM["actor_mlp"]: 1e-5},
    ),
    ("encoder_frozen", weights(ending(0.0301, 1, 0.03)), weights(0.03)),
    ("dead_camera", {tags.FRAME_STD: 1.0}, {tags.FRAME_STD: 0.99}),
    ("dead_camera", {tags.FRAME_CHANGE: ending(0.0, 5, 9.0)}, {tags.FRAME_CHANGE: ending(0.0, 6, 9.0)}),
    ("dead_camera", {tags.FRAME_CHANGE: 1e-6}, {tags.FRAME_CHANGE: 0.0}),
    (
        "episode_collapse",
        {tags.EPISODE_LENGTH: lambda n: np.repeat([100.0, 40.0], [n // 4, n - n // 4])},
        {tags.EPISODE_LENGTH: lambda n: np.repeat([100.0, 39.0], [n // 4, n - n // 4])},
    ),
    (
        "reward_imbalance",
        {tags.REWARD_TERM["progress"]: 0.9, tags.REWARD_TERM["safety"]: -0.1},
        {tags.REWARD_TERM["progress"]: 0.09, tags.REWARD_TERM["safety"]: -0.91},
    ),
    ("reward_imbalance", {tags.REWARD_TERM["progress"]: 1.0}, {"reward/comfort": 1.0, "reward/progress": 0.1}),
    ("short_warmup", {tags.TOTAL_ITERATIONS: counted_from(91)}, {tags.TOTAL_ITERATIONS: counted_from(90)}),
    ("non_finite", {tags.CRITIC_LOSS: 1e30}, {tags.CRITIC_LOSS: ending(np.inf, 1, 1.0)}),
    ("non_finite", {tags.REWARD_MAX: 0.0}, {tags.REWARD_MAX: ending(np.nan, 1, 1.0)}),
    ("non_finite", {"train/explained_variance": np.nan}, {"train/value_loss": np.nan}),
    # A rollback turns the alert off again; an alert that is on at the end has ended the training.
    ("non_finite", {"alerts/non_finite": ending(0.0, 1, 1.0)}, {"alerts/non_finite": ending(1.0, 1, 0.0)}),
    ("q_beyond_returns", td3(-149.0), td3(-151.0)),
    ("frozen_by_learning_rate", {"train/learning_rate": 1.1e-9}, {"train/learning_rate": 1e-9}),
    (
        "frozen_by_learning_rate",
        {"train/learning_rate": lambda n: np.repeat([1e-3, 0.0], [n // 2, n - n // 2])},
        {"train/learning_rate": lambda n: np.repeat([1e-3, 0.0], [n // 2 - 1, n - n // 2 + 1])},
    ),
    (
        "frozen_by_learning_rate",
        {tags.GROUP_LR["critic_cnn"]: 0.0, tags.GROUP_LR["critic_mlp"]: 1e-4},
        {tags.GROUP_LR["critic_cnn"]: 0.0, tags.GROUP_LR["critic_mlp"]: 0.0},
    ),
    ("frozen_by_learning_rate", standing(NORM["critic_mlp"], 0.9e-6), standing(NORM["critic_mlp"], 1.1e-6)),
    ("policy_stopped_updating", {"train/approx_kl": 1e-7}, {"train/approx_kl": 0.9e-7}),
    (
        "policy_stopped_updating",
        {"train/explained_variance": 0.5, "train/std": ending(0.9, 1, 1.0)},
        {"train/explained_variance": 0.5, "train/std": 1.0},
    ),
    ("entropy_collapse", entropy(-0.11), entropy(-0.1)),
    ("exploration_schedule", {"rollout/exploration_rate": 0.49}, {"rollout/exploration_rate": 0.5}),
]


def built(values: Values, steps: np.ndarray) -> SeriesSet:
    return series({tag: v(steps.size) if callable(v) else v for tag, v in values.items()}, steps)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize(("rule", "silent", "speaking"), TABLE, ids=[f"{i}-{row[0]}" for i, row in enumerate(TABLE)])
def test_a_rule_fires_only_beyond_its_threshold(resolution: str, rule: str, silent: Values, speaking: Values) -> None:
    steps = RESOLUTIONS[resolution]
    assert RULES[rule].diagnose(built(silent, steps)) is None
    diagnosis = RULES[rule].diagnose(built(speaking, steps))
    assert diagnosis is not None
    assert diagnosis.id == rule
    assert diagnosis.confidence >= MIN_CONFIDENCE
    is_live = RULES[rule].is_live
    assert (rule in [finding.rule for finding in judge(built(speaking, steps))]) == is_live


def curve(*levels: float) -> np.ndarray:
    """Return 60 returns that pass through these levels, with noise of standard deviation 1."""
    noise = np.random.default_rng(0).normal(0.0, 1.0, 60)
    return np.interp(np.linspace(0, 1, 60), np.linspace(0, 1, len(levels)), levels) + noise


# Returns over 120,000 steps: (rule, a curve without its diagnosis, a curve with its diagnosis)
CURVES: list[tuple[str, np.ndarray, np.ndarray]] = [
    ("learned_then_fell", curve(0.0, 100.0, 100.0), curve(0.0, 100.0, 20.0)),
    ("learned_then_fell", curve(0.0, 100.0, 85.0), curve(0.0, 100.0, 60.0)),
    ("learned_then_fell", curve(0.0, 0.0), curve(0.0, 100.0, 100.0, -50.0)),
    ("never_learned", curve(0.0, 100.0), curve(0.0, 0.0)),
    ("never_learned", curve(0.0, 100.0, 20.0), curve(0.0, -40.0)),
]


def returns(values: np.ndarray, spacing: int) -> SeriesSet:
    steps = np.arange(1, values.size + 1) * spacing
    length = Series("rollout/ep_len_mean", steps, np.full(steps.size, 50.0))
    return SeriesSet.of([Series("eval/mean_reward", steps, values), length])


@pytest.mark.parametrize(("rule", "silent", "speaking"), CURVES, ids=[f"{i}-{row[0]}" for i, row in enumerate(CURVES)])
def test_a_return_curve_rule_fires_only_for_its_own_curve_shape(
    rule: str, silent: np.ndarray, speaking: np.ndarray
) -> None:
    assert RULES[rule].diagnose(returns(silent, 2_000)) is None
    assert RULES[rule].diagnose(returns(speaking, 160)) is None  # 9,600 steps are too few for a diagnosis
    diagnosis = RULES[rule].diagnose(returns(speaking, 2_000))
    assert diagnosis is not None
    assert diagnosis.id == rule
    # The diagnosis alone never blocks a verdict: the curve shows that something failed, but not why.
    assert MIN_CONFIDENCE <= diagnosis.confidence < CRITICAL_FROM
    assert not RULES[rule].is_live


# Tags of stock algorithms. The test adds returns of -700 that never rise: 60,000 steps in episodes of 100 steps.
STOCK: list[tuple[str, Values, Values]] = [
    # A tau of 0.03 is the threshold: Q is then the sum of 31 rewards of -7 after 1,000 updates.
    ("fast_target_network", {"train/actor_loss": 212.0}, {"train/actor_loss": 222.0}),
    ("entropy_outweighs_reward", {"train/ent_coef": 6.9}, {"train/ent_coef": 7.1}),
    (
        "too_few_updates",
        {"train/n_updates": lambda n: np.linspace(10.0, 600.0, n)},
        {"train/n_updates": lambda n: np.linspace(10.0, 580.0, n)},
    ),
]


@pytest.mark.parametrize(("rule", "silent", "speaking"), STOCK, ids=[row[0] for row in STOCK])
def test_a_rule_on_sb3_tags_fires_only_beyond_its_threshold(rule: str, silent: Values, speaking: Values) -> None:
    steps = np.arange(1, 61) * 1_000
    flat = {
        "rollout/ep_rew_mean": curve(-700.0, -700.0),
        "rollout/ep_len_mean": 100.0,
        "train/actor_loss": 100.0,
        "train/critic_loss": 1.0,
    }
    assert RULES[rule].diagnose(built({**flat, **silent}, steps)) is None
    diagnosis = RULES[rule].diagnose(built({**flat, **speaking}, steps))
    assert diagnosis is not None
    assert MIN_CONFIDENCE <= diagnosis.confidence < CRITICAL_FROM
    assert not RULES[rule].is_live


def test_every_rule_has_a_test_case() -> None:
    tested = {rule for table in (TABLE, CURVES, STOCK) for rule, _, _ in table}
    assert tested == RULES.keys()


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_hundredfold_jump_of_rewards_gives_more_confidence_than_constantly_large_rewards(resolution: str) -> None:
    steps = RESOLUTIONS[resolution]
    always = RULES["reward_scale"].diagnose(built(rewards(-1.0, 5e3), steps))
    just_not = RULES["reward_scale"].diagnose(built(rewards(-1.0, ending(5e3, 3, 50.1)), steps))
    jumped = RULES["reward_scale"].diagnose(built(rewards(-1.0, ending(5e3, 3, 50.0)), steps))
    assert always is not None
    assert just_not is not None
    assert jumped is not None
    assert jumped.confidence > always.confidence == just_not.confidence
    grown = {NORM["critic_mlp"]: 2e4}
    suffering = RULES["reward_scale"].diagnose(built(rewards(-1.0, 5e3, **grown), steps))
    assert suffering is not None
    assert suffering.confidence > always.confidence


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_saturated_actions_without_a_gradient_are_a_dead_policy(resolution: str) -> None:
    steps = RESOLUTIONS[resolution]
    levels = {}
    for name, norm in {"alive": 0.1, "dead": 0.0}.items():
        values = {tags.ACTION_SATURATION: 1.0, NORM["actor_mlp"]: norm, NORM["critic_mlp"]: 1.0}
        findings = {finding.rule: finding.level for finding in judge(built(values, steps))}
        levels[name] = findings["actor_saturation"]
    assert levels == {"alive": "warning", "dead": "critical"}


def test_unchanged_target_networks_are_not_reported_if_the_actor_is_rarely_updated() -> None:
    """With a policy delay of 100, actor and targets move only twice in a window."""
    steps = RESOLUTIONS["live window"]
    data = built(still_targets(9), steps)
    rarely = Series(NORM["actor_mlp"], steps[9::10], np.ones(2))
    assert RULES["stale_target_network"].diagnose(SeriesSet({**data.series, rarely.name: rarely})) is None


def test_unchanged_frames_give_high_confidence_in_a_dead_camera_after_190_steps() -> None:
    def confidence(steps: np.ndarray, n_still: int) -> float:
        found = RULES["dead_camera"].diagnose(built({tags.FRAME_CHANGE: ending(0.0, n_still, 9.0)}, steps))
        assert found is not None
        return found.confidence

    window, logged = RESOLUTIONS.values()
    assert confidence(window, 19) == 0.65
    assert confidence(window, 20) == 0.9
    assert confidence(logged, 6) == 0.9
