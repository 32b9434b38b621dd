"""Test the live window, and how soon after its onset a failure is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import GROUP_NAMES
from sb3_visual_td3.diagnosis.live import LiveWindow, judge
from sb3_visual_td3.diagnosis.rules import LIVE_RULES, RULES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from tests.report.synthetic_runs import healthy

NORM, RATIO = tags.GRADIENT_NORM, tags.UPDATE_RATIO

HEALTHY = {
    tags.ACTOR_LOSS: -2.0,
    tags.CRITIC_LOSS: 1.0,
    tags.Q1_VALUE: 1.9,
    tags.Q2_VALUE: 1.9,
    tags.TARGET_Q_MEAN: 1.9,
    tags.POLICY_Q_VALUE: 2.0,
    tags.Q_GAP: 0.1,
    tags.Q_BOUND: 100.0,
    tags.REWARD_MIN: -1.0,
    tags.REWARD_MAX: 1.0,
    tags.ACTION_SATURATION: 0.05,
    tags.FRAME_STD: 40.0,
    tags.FRAME_CHANGE: 3.0,
    tags.TARGET_MOVED["critic"]: 1.0,
    **{NORM[group]: norm for group, norm in zip(GROUP_NAMES, (0.3, 0.3, 300.0, 30.0), strict=True)},
    **{RATIO[group]: 1e-3 for group in GROUP_NAMES},
    **{tags.CLIP_FRACTION[group]: 0.1 for group in GROUP_NAMES},
}


def times(tag: str, per_update: float) -> Callable[[int], dict[str, float]]:
    """Return a failure that multiplies the healthy value of ``tag`` by ``per_update`` at each update."""
    return lambda n: {tag: HEALTHY[tag] * per_update**n}


# Maps each failure to the rule that finds it and to the values n updates after its onset.
FAILURES: dict[str, tuple[str, Callable[[int], dict[str, float]]]] = {
    "leak": ("feature_leak", lambda n: {NORM["actor_mlp"]: 1e-4, NORM["actor_cnn"]: 1.0 * 1.02**n}),
    "overestimation": ("critic_overestimation", lambda n: {tags.Q1_VALUE: 120.0}),
    "runaway": ("critic_overestimation", lambda n: {tags.Q1_VALUE: 350.0}),
    "extrapolation": ("policy_extrapolation", lambda n: {tags.POLICY_Q_VALUE: 120.0, tags.Q_GAP: 118.0}),
    "wide gap": ("policy_extrapolation", lambda n: {tags.Q_GAP: 5.0}),
    "dead policy": (
        "actor_saturation",
        lambda n: {tags.ACTION_SATURATION: 1.0, NORM["actor_mlp"]: 0.0, NORM["actor_cnn"]: 0.0},
    ),
    "no gradient": ("vanishing_actor_gradient", lambda n: {NORM["actor_mlp"]: 0.0, NORM["actor_cnn"]: 0.0}),
    "growth": ("gradient_explosion", times(NORM["critic_cnn"], 1.1)),
    "clipping": ("constant_clipping", lambda n: {tags.CLIP_FRACTION["actor_mlp"]: 1.0}),
    "rewards x1000": (
        "reward_scale",
        lambda n: {tags.REWARD_MIN: -1000.0, tags.REWARD_MAX: 1000.0, NORM["critic_mlp"]: 30_000.0},
    ),
    "NaN rewards": ("non_finite", lambda n: {tags.REWARD_MAX: float("nan")}),
    "encoder": ("encoder_frozen", lambda n: {NORM["critic_cnn"]: 0.0}),
    "frozen camera": ("dead_camera", lambda n: {tags.FRAME_CHANGE: 0.0}),
    "black camera": ("dead_camera", lambda n: {tags.FRAME_STD: 0.0}),
    "learning rate": ("learning_rate_too_high", lambda n: {RATIO["critic_mlp"]: 1.5 / (1 + n)}),
    "stale targets": ("stale_target_network", lambda n: {tags.TARGET_MOVED["critic"]: 0.0}),
}
CRITICAL = {"leak", "runaway", "no gradient", "extrapolation", "dead policy", "growth", "rewards x1000", "NaN rewards"}
CRITICAL |= {"encoder", "black camera", "learning rate", "stale targets"}


def measured(n: int, onset: int, failure: Callable[[int], dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    values = HEALTHY | (failure(n - onset) if n >= onset else {})
    rng = np.random.default_rng(n)
    return {
        tag: [(n, value * (1 + 0.05 * rng.standard_normal()) if value != 1.0 else value)]
        for tag, value in values.items()
    }


@pytest.mark.parametrize("onset", [1, 151, 1001, 1037])
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_found_within_a_hundred_updates_and_not_before_it_begins(name: str, onset: int) -> None:
    """There is a point every ten updates, and a check every fifty."""
    rule, failure = FAILURES[name]
    window = LiveWindow()
    for n in range(1, onset + 101, 10):
        window.append(measured(n, onset, failure))
        if n % 50 == 1:
            found = {finding.rule: finding for finding in judge(window.data)}
            if n < onset:
                assert found == {}
            elif rule in found:
                break
    assert rule in found
    finding = found[rule]
    assert finding.n_updates - onset <= 100
    if finding.since is not None:
        assert onset - 10 <= finding.since <= finding.n_updates
    assert finding.level == ("critical" if name in CRITICAL else "warning")
    assert finding.meaning.startswith(finding.meaning.split(":")[0])
    assert "\n" not in finding.meaning


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shared_encoder", [False, True])
def test_a_healthy_run_raises_nothing_at_any_check(seed: int, shared_encoder: bool) -> None:
    """A synthetic healthy run is judged after every third point.

    Within a live window, the values of this run change faster than those of a real run.
    """
    window = LiveWindow()
    run = {tag: values for tag, (_, values) in healthy(seed, 10_000, shared_encoder).items()}
    run = {tag: values for tag, values in run.items() if tag in tags.TAGS and tags.TAGS[tag].owner[0] in "GE"}
    for index in range(len(run[tags.Q1_VALUE])):
        window.append({tag: [(10 * index, v[index])] for tag, v in run.items() if len(v) > index})
        if index % 3 == 0:
            assert judge(window.data) == ()


def test_live_rules_are_a_subset_of_all_rules_and_the_non_finite_alert_is_known() -> None:
    assert len(LIVE_RULES) >= 13
    assert LIVE_RULES.keys() < RULES.keys()
    assert tags.is_known(tags.alert_of_rule("non_finite"))
    assert tags.alert_of_rule("non_finite") == "alerts/non_finite"


def test_the_cause_comes_before_its_consequences() -> None:
    steps = np.arange(10, 201, 10)
    values = {RATIO["critic_mlp"]: np.full(20, 5.0), NORM["critic_mlp"]: np.full(20, 1e9)}
    first, second = judge(SeriesSet.of(Series(tag, steps, v) for tag, v in values.items()))
    assert (first.rule, second.rule) == ("learning_rate_too_high", "gradient_explosion")
    assert (first.value, first.threshold, first.tag) == (5.0, 0.5, RATIO["critic_mlp"])
    assert "follows from learning_rate_too_high" in second.meaning


def test_a_window_keeps_the_last_updates_only() -> None:
    window = LiveWindow(n_updates=100)
    for n in range(0, 501, 10):
        window.append({"a": [(n, float(n))]})
    assert window.data["a"].steps.tolist() == list(range(400, 501, 10))
    assert window.newest == 500


def test_tags_logged_at_different_updates_are_kept_in_one_window() -> None:
    window = LiveWindow(n_updates=100)
    window.append({"camera": [(100, 1.0)]})
    window.append({"norm": [(91, 1.0)]})
    window.append({"camera": [(190, 1.0)]})
    window.append({"norm": [(181, 1.0)]})
    assert window.data["camera"].steps.tolist() == [100, 190]
    assert window.data["norm"].steps.tolist() == [91, 181]


def test_a_cleared_window_is_empty() -> None:
    window = LiveWindow()
    window.append({"a": [(500, 1.0)], "b": []})
    assert window.data.names() == ["a"]
    window.clear()
    assert window.newest is None
    assert judge(window.data) == ()


def test_many_points_before_the_first_update_do_not_pile_up() -> None:
    window = LiveWindow(n_updates=50)
    for _ in range(500):
        window.append({"a": [(0, 1.0)]})
    assert len(window.data["a"]) == 50


def test_a_window_of_no_updates_is_refused() -> None:
    with pytest.raises(ValueError, match="n_updates"):
        LiveWindow(n_updates=0)
