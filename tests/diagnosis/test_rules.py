from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import rules
from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.live import CRITICAL_FROM
from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM, diagnose, rank
from sb3_visual_td3.diagnosis.rules import (
    RULES,
    actor_saturation,
    feature_leak,
    gradient_explosion,
    reward_imbalance,
    short_warmup,
)
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.two_questions import ask


def points(tag: str, values: object) -> Series:
    values = np.asarray(values, dtype=float)
    return Series(tag, np.arange(1, values.size + 1) * 100, values)


def found(identifier: str, confidence: float, **keywords: object) -> Diagnosis:
    return Diagnosis(identifier, identifier, confidence, (), "Do this.", 100, **keywords)  # type: ignore[arg-type]


def test_no_rule_fires_without_data() -> None:
    assert [identifier for identifier, rule in RULES.items() if rule.diagnose(SeriesSet()) is not None] == []


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(list(tags.TAGS)), st.lists(st.floats(width=32), min_size=1, max_size=20), max_size=30
    )
)
def test_whatever_the_values_a_diagnosis_is_well_formed(values: dict[str, list[float]]) -> None:
    for diagnosis in diagnose(SeriesSet.of(points(tag, v) for tag, v in values.items())):
        assert diagnosis.id in RULES
        assert 0.3 <= diagnosis.confidence <= 1
        assert diagnosis.evidence
        assert diagnosis.remedy
        for evidence in diagnosis.evidence:
            assert evidence.tag in values


def test_a_cause_is_ranked_before_a_consequence_with_higher_confidence() -> None:
    ranked = rank(
        [
            found("explosion", 0.95, explained_by=("leak",)),
            found("blind", 0.9, role="blind_spot"),
            found("leak", 0.6),
            found("faint", 0.1),
        ]
    )
    assert [(d.id, d.role) for d in ranked] == [
        ("leak", "cause"),
        ("blind", "blind_spot"),
        ("explosion", "consequence"),
    ]
    assert ranked[2].remedy.startswith("A consequence of leak: fix leak first.")


def test_a_cause_with_low_confidence_does_not_explain_another_diagnosis() -> None:
    ranked = rank([found("explosion", 0.95, explained_by=("leak",)), found("leak", 0.4)])
    assert [(d.id, d.role) for d in ranked] == [("explosion", "cause"), ("leak", "cause")]


def test_an_explosion_without_a_known_cause_is_the_cause_itself() -> None:
    norm = points(tags.GRADIENT_NORM["critic_mlp"], np.exp(np.linspace(0, 14, 40)))
    (alone,) = diagnose(SeriesSet.of([norm]))
    assert (alone.id, alone.role) == ("gradient_explosion", "cause")
    assert (
        gradient_explosion.diagnose(SeriesSet.of([points(tags.GRADIENT_NORM["critic_cnn"], np.linspace(80, 630, 40))]))
        is None
    )


def leak(**others: object) -> SeriesSet:
    n = 40
    series = {
        tags.ACTOR_LOSS: -np.exp(np.linspace(1, 14, n)),
        tags.Q1_VALUE: np.full(n, 20.0),
        tags.Q2_VALUE: np.full(n, 20.0),
        **others,
    }
    return SeriesSet.of(points(tag, values) for tag, values in series.items())


def test_a_feature_leak_begins_when_the_actor_loss_exceeds_ten_times_q() -> None:
    diagnosis = feature_leak.diagnose(leak())
    assert diagnosis is not None
    loss = np.exp(np.linspace(1, 14, 40))
    assert diagnosis.first_step == 100 * (int(np.argmax(loss > 200)) + 1)


def test_a_vanishing_head_gradient_and_a_growing_encoder_gradient_raise_feature_leak_confidence() -> None:
    bare = feature_leak.diagnose(leak())
    signature = feature_leak.diagnose(
        leak(
            **{
                tags.GRADIENT_NORM["actor_mlp"]: np.full(40, 1e-6),
                tags.GRADIENT_NORM["actor_cnn"]: np.exp(np.linspace(1, 12, 40)),
            }
        )
    )
    alive_head = feature_leak.diagnose(
        leak(
            **{
                tags.GRADIENT_NORM["actor_mlp"]: np.exp(np.linspace(1, 12, 40)),
                tags.GRADIENT_NORM["actor_cnn"]: np.exp(np.linspace(1, 12, 40)),
                tags.POLICY_Q_VALUE: np.exp(np.linspace(1, 14, 40)),
            }
        )
    )
    assert bare is not None
    assert signature is not None
    assert alive_head is not None
    assert signature.confidence > bare.confidence > alive_head.confidence


def test_a_growing_positive_actor_loss_is_not_a_feature_leak() -> None:
    assert feature_leak.diagnose(leak(**{tags.ACTOR_LOSS: np.exp(np.linspace(1, 14, 40))})) is None


def test_action_saturation_is_reported_only_if_it_persists_at_the_end() -> None:
    recovered = points(tags.ACTION_SATURATION, [1.0] * 20 + [0.05] * 20)
    dying = points(tags.ACTION_SATURATION, [0.05] * 20 + [1.0] * 20)
    assert actor_saturation.diagnose(SeriesSet.of([recovered])) is None
    diagnosis = actor_saturation.diagnose(SeriesSet.of([dying]))
    assert diagnosis is not None
    assert diagnosis.first_step == 2100


def counted(*points: tuple[int, float]) -> SeriesSet:
    steps, values = zip(*points, strict=True)
    return SeriesSet.of([Series(tags.TOTAL_ITERATIONS, np.array(steps), np.array(values))])


def test_the_first_update_is_extrapolated_from_update_counts_at_any_update_frequency() -> None:
    one_a_step = short_warmup.diagnose(counted((100, 98), (200, 198)))
    assert one_a_step is not None
    assert one_a_step.value == 2
    half_a_step = short_warmup.diagnose(counted((100, 20), (200, 70), (300, 120)))
    assert half_a_step is not None
    assert half_a_step.value == 60
    assert half_a_step.confidence < one_a_step.confidence


def test_no_short_warm_up_is_reported_if_the_first_update_cannot_be_determined() -> None:
    """These update counts do not show the step of the first update.

    The run was continued from a checkpoint (first and last case), or the count has a single point, or the count does
    not change.
    """
    for points in ([(100, 50_000), (200, 50_100)], [(100, 98)], [(100, 98), (200, 98)], [(0, 5), (100, 105)]):
        assert short_warmup.diagnose(counted(*points)) is None, points


def test_stable_baselines_default_warm_up_is_not_reported() -> None:
    assert short_warmup.diagnose(counted((200, 99), (300, 199))) is None


def test_reward_imbalance_requires_a_term_that_dominates_at_the_end_and_reports_its_onset() -> None:
    late = [0.5] * 20 + [20.0] * 20
    data = SeriesSet.of([points("reward/progress", late), points("reward/safety", np.full(40, -0.5))])
    diagnosis = reward_imbalance.diagnose(data)
    assert diagnosis is not None
    assert diagnosis.first_step == 2100
    assert diagnosis.value == 20.0 / 20.5
    early = SeriesSet.of([points("reward/progress", late[::-1]), points("reward/safety", np.full(40, -0.5))])
    assert reward_imbalance.diagnose(early) is None


def test_returns_below_reward_are_not_terms_of_the_reward() -> None:
    """A run that logs no other returns may name them reward/train and reward/eval."""
    returns = [points("reward/eval", np.full(40, 20.0)), points("reward/train", np.full(40, 1.0))]
    assert reward_imbalance.diagnose(SeriesSet.of(returns)) is None
    terms = [*returns, points(tags.EPISODE_REWARD, np.full(40, 21.0))]
    assert reward_imbalance.diagnose(SeriesSet.of(terms)) is not None


def test_a_reward_term_that_is_always_zero_does_not_count() -> None:
    distance, grip = points("reward/distance", np.full(40, 1.0)), points("reward/grip", np.zeros(40))
    assert reward_imbalance.diagnose(SeriesSet.of([distance, grip])) is None
    assert reward_imbalance.diagnose(SeriesSet.of([distance, grip, points("reward/energy", np.full(40, -0.01))]))
    late = points("reward/grip", [0.0] * 20 + [0.01] * 20)
    assert reward_imbalance.diagnose(SeriesSet.of([distance, late])) is not None


def collapsing(dominating: float) -> SeriesSet:
    lengths = Series(tags.EPISODE_LENGTH, np.arange(60), np.repeat([100.0, 10.0], [20, 40]))
    terms = [points("reward/progress", np.full(40, dominating)), points("reward/comfort", np.full(40, 0.1))]
    return SeriesSet.of([lengths, *terms])


def test_short_episodes_follow_from_a_dominating_reward_and_cause_a_dominating_penalty() -> None:
    told = {d.id: d.consequence_of for d in diagnose(collapsing(12.0))}
    assert told == {"reward_imbalance": None, "episode_collapse": "reward_imbalance"}
    told = {d.id: d.consequence_of for d in diagnose(collapsing(-12.0))}
    assert told == {"episode_collapse": None, "reward_imbalance": "episode_collapse"}


def test_twin_critic_disagreement_explains_saturated_actions_and_policy_extrapolation() -> None:
    q = {tags.Q1_VALUE: np.full(40, 5.0), tags.Q2_VALUE: np.full(40, 0.1)}
    follows = {tags.ACTION_SATURATION: np.full(40, 0.7), tags.Q_GAP: np.full(40, 4.0)}
    told = {d.id: d.consequence_of for d in diagnose(SeriesSet.of(points(t, v) for t, v in {**q, **follows}.items()))}
    assert told == {
        "twin_critic_desync": None,
        "actor_saturation": "twin_critic_desync",
        "policy_extrapolation": "twin_critic_desync",
    }


def test_overestimation_explains_saturated_actions() -> None:
    beyond = {tags.Q1_VALUE: np.full(40, 30.0), tags.Q2_VALUE: np.full(40, 30.0), tags.Q_BOUND: np.full(40, 10.0)}
    data = {**beyond, tags.ACTION_SATURATION: np.full(40, 1.0)}
    told = {d.id: d.consequence_of for d in diagnose(SeriesSet.of(points(t, v) for t, v in data.items()))}
    assert told == {"critic_overestimation": None, "actor_saturation": "critic_overestimation"}


def run(**values: object) -> SeriesSet:
    """Return a series of sixty points over 60,000 steps for each tag.

    :param values: values of each tag; ``__`` in a name stands for ``/``, and a single number makes a constant series
    """
    steps = np.arange(1, 61) * 1_000
    return SeriesSet.of(
        Series(name.replace("__", "/"), steps, np.broadcast_to(np.asarray(value, dtype=float), 60))
        for name, value in values.items()
    )


NOISE = np.random.default_rng(1).normal(0.0, 1.0, 60)
FLAT = {"rollout__ep_rew_mean": NOISE, "rollout__ep_len_mean": 50.0}
RISING = {"rollout__ep_rew_mean": np.linspace(0.0, 100.0, 60) + NOISE, "rollout__ep_len_mean": 50.0}


def test_the_step_of_the_best_policy_is_named() -> None:
    returns = np.concatenate([np.linspace(0, 100, 30), np.full(10, 100.0), np.linspace(100, 10, 20)]) + NOISE
    diagnosis = RULES["learned_then_fell"].diagnose(run(eval__mean_reward=returns, rollout__ep_len_mean=50.0))
    assert diagnosis is not None
    peak, end = diagnosis.evidence
    assert peak.step is not None
    assert 30_000 <= peak.step <= 42_000
    assert f"{peak.step:,}" in diagnosis.remedy
    assert "restore that checkpoint" in diagnosis.remedy
    assert (end.step, diagnosis.confidence) == (60_000, 0.7)
    assert diagnosis.first_step is not None
    assert 45_000 <= diagnosis.first_step <= 56_000


def test_the_remedy_for_a_flat_return_lists_possible_causes_and_tags_to_log() -> None:
    losses = {"train__actor_loss": -1.0, "train__critic_loss": 1.0}
    stock = RULES["never_learned"].diagnose(run(**FLAT, **losses, train__learning_rate=1e-3))
    assert stock is not None
    assert stock.remedy.startswith(
        "Consistent with target networks that never move (tau) or, less likely, with an encoder"
    )
    assert "log: agent/critic_target_moved; the norms of the gradients" in stock.remedy
    seen = {"agent__critic_target_moved": 1.0, "gradients__critic_mlp_norm": 1.0, "gradients__critic_cnn_norm": 1.0}
    watched = RULES["never_learned"].diagnose(run(**FLAT, **losses, **seen, train__learning_rate=1e-3))
    assert watched is not None
    assert watched.remedy.startswith("Consistent with a reward that the actions do not change.")
    ppo = RULES["never_learned"].diagnose(run(**FLAT, train__clip_fraction=0.1, train__approx_kl=0.01))
    assert ppo is not None
    assert "learning rate" in ppo.remedy
    assert "no longer explores" in ppo.remedy
    assert "target networks" not in ppo.remedy


def test_a_cause_that_is_known_explains_a_flat_return() -> None:
    losses = {"train__actor_loss": -1.0, "train__critic_loss": 1.0}
    told = {d.id: d.consequence_of for d in diagnose(run(**FLAT, **losses, train__learning_rate=0.0))}
    assert told == {"frozen_by_learning_rate": None, "never_learned": "frozen_by_learning_rate"}


def test_q_values_beyond_the_returns_are_not_reported_for_a_run_that_learns() -> None:
    losses = {"train__actor_loss": -300.0, "train__critic_loss": 1.0}
    assert RULES["q_beyond_returns"].diagnose(run(**RISING, **losses)) is None
    assert RULES["q_beyond_returns"].diagnose(run(**FLAT, **losses)) is not None
    # The entropy of SAC is part of its values: the same loss is allowed.
    assert RULES["q_beyond_returns"].diagnose(run(**FLAT, **losses, train__ent_coef=1.0)) is None


ONE_STEP = {
    "rollout__ep_rew_mean": -700.0 + 50.0 * NOISE,
    "rollout__ep_len_mean": 100.0,
    "train__actor_loss": 7.2,
    "train__critic_loss": 0.01,
    "train__learning_rate": 1e-3,
}


def test_q_near_the_reward_of_one_step_suggests_target_networks_that_never_change() -> None:
    stale = RULES["stale_target_network"].diagnose(run(**ONE_STEP))
    assert stale is not None
    assert stale.value == pytest.approx(7.2 / 7.0, rel=0.05)
    assert stale.remedy.startswith(
        "Consistent with targets that never move (tau) or, less likely, with a discount near 0"
    )
    silent: list[dict[str, object]] = [
        {"train__actor_loss": 80.0},  # it looks eleven steps ahead
        {"train__actor_loss": 1.0},  # it has not even learned the reward
        {"train__critic_loss": 50.0},  # its values still change
        {"agent__critic_target_moved": 1.0},  # the targets are seen to move
        {"rollout__ep_rew_mean": np.linspace(-900.0, -500.0, 60)},  # the run learns
    ]
    for change in silent:
        assert RULES["stale_target_network"].diagnose(run(**{**ONE_STEP, **change})) is None, change


def test_training_that_starts_after_half_of_the_run_is_reported_unless_the_run_learns() -> None:
    late = Series("train/critic_loss", np.arange(31, 61) * 1_000, np.ones(30))
    early = Series("train/critic_loss", np.arange(29, 61) * 1_000, np.ones(32))
    actor = {"train__actor_loss": -1.0}
    for returns, loss, expected in ((FLAT, late, True), (FLAT, early, False), (RISING, late, False)):
        data = run(**returns, **actor)
        found = RULES["too_few_updates"].diagnose(SeriesSet({**data.series, loss.name: loss}))
        assert (found is not None) is expected
    # A run that goes on from a checkpoint begins late as a whole.
    data = run(**FLAT, **actor, train__critic_loss=1.0)
    moved = [Series(name, one.steps + 200_000, one.values) for name, one in data.series.items()]
    assert RULES["too_few_updates"].diagnose(SeriesSet.of(moved)) is None


def test_a_no_and_its_causes_wait_until_some_steps_after_the_warm_up_unless_the_run_is_over() -> None:
    """A run of 60,000 steps with a warm-up of 55,000 may be the begin of a run of a million steps."""
    declining = {"rollout__ep_rew_mean": np.linspace(5.0, -5.0, 60) + 0.1 * NOISE, "rollout__ep_len_mean": 50.0}
    collapsed = {
        "rollout__ep_rew_mean": np.concatenate([np.linspace(0, 100, 20), np.linspace(100, 0, 40)]),
        "rollout__ep_len_mean": 50.0,
    }
    logged = Series("train/critic_loss", np.arange(55, 61) * 1_000, np.ones(6))
    for returns in (FLAT, declining, collapsed):
        data = run(**returns)
        actor = replace(logged, name="train/actor_loss")
        data = SeriesSet.of([*data.series.values(), logged, actor])
        for planned, waits in ((1_000_000.0, True), (60_000.0, False), (100_000.0, False), (None, False)):
            judged = replace(data, planned_steps=planned)
            assert ask(judged).learning.answer == ("unknown" if waits else "no"), planned
            found = {d.id for d in diagnose(judged)} & {"too_few_updates", "never_learned", "learned_then_fell"}
            assert (not found) is waits, (planned, found)
    # Without a loss, the settings show the end of the warm-up.
    no_loss = run(**FLAT)
    for starts, answer in ((55_000.0, "unknown"), (80_000.0, "unknown"), (40_000.0, "no"), (None, "no")):
        planned = replace(no_loss, planned_steps=1e6, learning_starts=starts)
        assert ask(planned).learning.answer == answer, starts
    # A return that rises needs no longer training.
    data = run(**RISING)
    assert ask(replace(SeriesSet({**data.series, logged.name: logged}), planned_steps=1e6)).learning.answer == "yes"


def test_rare_updates_are_reported_if_the_update_count_is_logged() -> None:
    losses = {"train__actor_loss": -1.0, "train__critic_loss": 1.0}
    for per_step, expected in ((0.002, True), (0.016, False), (1.0, False)):
        found = RULES["too_few_updates"].diagnose(
            run(**FLAT, **losses, train__n_updates=np.arange(1, 61) * 1_000 * per_step)
        )
        assert (found is not None) is expected, per_step


def test_a_critic_that_has_not_learned_the_reward_of_a_step_was_hardly_updated() -> None:
    hardly: dict[str, object] = {**ONE_STEP, "train__actor_loss": 3.5, "train__critic_loss": 40.0}
    found = RULES["too_few_updates"].diagnose(run(**hardly))
    assert found is not None
    assert found.value == pytest.approx(0.5, rel=0.05)
    assert found.remedy.startswith("Consistent with rare updates (train_freq, gradient_steps)")
    silent: list[dict[str, object]] = [
        {"train__actor_loss": 5.5},  # it has learned most of it
        {"train__critic_loss": 5.0},  # its values have settled
        {"train__n_updates": np.arange(1, 61) * 1_000},  # there was an update for every step
        {"rollout__ep_rew_mean": np.linspace(-900.0, -100.0, 60)},  # the run learns
    ]
    for change in silent:
        assert RULES["too_few_updates"].diagnose(run(**{**hardly, **change})) is None, change


def test_the_first_q_shows_how_fast_the_targets_follow() -> None:
    tags_of_td3 = {**ONE_STEP, "train__critic_loss": 50.0}
    # 7 a step: after a thousand updates the usual targets allow 6 steps, targets that follow without delay all of them.
    for steps_ahead, expected in ((50.0, True), (6.0, False)):
        found = RULES["fast_target_network"].diagnose(run(**{**tags_of_td3, "train__actor_loss": 7.0 * steps_ahead}))
        assert (found is not None) is expected, steps_ahead
        if found is not None:
            assert found.value == pytest.approx((steps_ahead - 1.0) / 1_000.0, rel=0.2)
            assert "Consistent with targets that follow without delay (tau near 1)" in found.remedy
    learns = {**tags_of_td3, "train__actor_loss": 350.0, "rollout__ep_rew_mean": np.linspace(-900.0, -100.0, 60)}
    assert RULES["fast_target_network"].diagnose(run(**learns)) is None
    # SAC's values contain its entropy.
    entropy = {**tags_of_td3, "train__actor_loss": 350.0, "train__ent_coef": 5.0}
    assert RULES["fast_target_network"].diagnose(run(**entropy)) is None


def test_an_entropy_bonus_is_weighed_against_the_reward_of_a_step() -> None:
    for coefficient, expected in ((6.0, False), (8.0, True), (1_000.0, True)):
        found = RULES["entropy_outweighs_reward"].diagnose(run(**{**ONE_STEP, "train__ent_coef": coefficient}))
        assert (found is not None) is expected, coefficient
    learns = {**ONE_STEP, "train__ent_coef": 8.0, "rollout__ep_rew_mean": np.linspace(-900.0, -100.0, 60)}
    assert RULES["entropy_outweighs_reward"].diagnose(run(**learns)) is None
    # Without any reward, no bonus is too large; and an automatic coefficient that has come down is none either.
    nothing = {**ONE_STEP, "train__ent_coef": 1.0, "rollout__ep_rew_mean": 0.0}
    assert RULES["entropy_outweighs_reward"].diagnose(run(**nothing)) is None
    fallen = {**ONE_STEP, "train__ent_coef": np.geomspace(1_000.0, 0.1, 60)}
    assert RULES["entropy_outweighs_reward"].diagnose(run(**fallen)) is None


def test_an_extreme_learning_rate_is_reported_unless_the_run_learns_or_logs_update_ratios() -> None:
    losses = {"train__actor_loss": -1.0, "train__critic_loss": 1.0}
    for rule, rate in (
        ("learning_rate_too_high", 0.3),
        ("learning_rate_too_high", 0.02),
        ("frozen_by_learning_rate", 1e-6),
    ):
        assert RULES[rule].diagnose(run(**RISING, **losses, train__learning_rate=rate)) is None
        failed = RULES[rule].diagnose(run(**FLAT, **losses, train__learning_rate=rate))
        assert failed is not None
        assert failed.confidence < CRITICAL_FROM
    # Tables of Q values are trained with rates of 0.1.
    assert RULES["learning_rate_too_high"].diagnose(run(**FLAT, learning_rate=0.3)) is None
    # Steps that were measured decide, whatever the rate.
    measured = run(**FLAT, **losses, train__learning_rate=0.3, gradients__critic_mlp_update_ratio=1e-3)
    assert RULES["learning_rate_too_high"].diagnose(measured) is None


def test_returns_above_1000_per_step_are_too_large_unless_the_run_learns() -> None:
    lengths = {"rollout__ep_len_mean": 100.0}
    flat = RULES["reward_scale"].diagnose(run(rollout__ep_rew_mean=-120_000.0 + 1_000.0 * NOISE, **lengths))
    assert flat is not None
    assert flat.value == pytest.approx(1_200.0, rel=0.05)
    smaller = run(rollout__ep_rew_mean=-80_000.0 + 1_000.0 * NOISE, **lengths)
    assert RULES["reward_scale"].diagnose(smaller) is None
    rising = run(rollout__ep_rew_mean=1e3 * (120.0 + np.linspace(0.0, 100.0, 60) + 0.3 * NOISE), **lengths)
    assert RULES["reward_scale"].diagnose(rising) is None


def test_q_growth_beyond_the_returns_gives_more_confidence_than_growth_alone() -> None:
    q = {"train__q1_value": np.exp(np.linspace(0.0, 8.0, 60)), "train__q2_value": 1.0}
    alone = RULES["critic_overestimation"].diagnose(run(**q))
    beside = RULES["critic_overestimation"].diagnose(run(**q, **FLAT))
    assert alone is not None
    assert beside is not None
    assert beside.confidence > alone.confidence


def test_an_actor_gradient_that_was_always_0_is_not_diagnosed_as_saturated_actions() -> None:
    critic = {"gradients__critic_mlp_norm": 1.0}
    never = diagnose(run(**critic, gradients__actor_mlp_norm=0.0))
    assert [d.id for d in never] == ["vanishing_actor_gradient"]
    lost = diagnose(run(**critic, gradients__actor_mlp_norm=[0.1] * 5 + [0.0] * 55))
    assert [(d.id, d.consequence_of) for d in lost] == [
        ("actor_saturation", None),
        ("vanishing_actor_gradient", "actor_saturation"),
    ]
    assert "is consistent with a saturated tanh or, less likely, with dead units" in lost[0].remedy


def test_q_beyond_the_returns_but_below_200_is_reported_only_if_critic_loss_grows() -> None:
    runaway = {"train__q1_value": -np.exp(np.linspace(-2.0, 4.6, 60)), "train__q2_value": -1.0, **FLAT}
    growing = run(**runaway, train__critic_loss=np.exp(np.linspace(-4.0, 9.2, 60)))
    found = RULES["critic_overestimation"].diagnose(growing)
    assert found is not None
    assert found.confidence >= LIKELY_FROM
    assert RULES["critic_overestimation"].diagnose(run(**runaway, train__critic_loss=1e4)) is None
    larger_returns = {
        **runaway,
        "rollout__ep_rew_mean": 200.0 + NOISE,
        "train__critic_loss": growing["train/critic_loss"].values,
    }
    assert RULES["critic_overestimation"].diagnose(run(**larger_returns)) is None


def test_the_q_gap_is_not_estimated_from_the_actor_loss_of_sac() -> None:
    td3 = {"train__actor_loss": -10.0, "train__q1_value": 2.0, "train__q2_value": 2.0}
    assert RULES["policy_extrapolation"].diagnose(run(**td3)) is not None
    assert RULES["policy_extrapolation"].diagnose(run(**td3, train__ent_coef=0.5)) is None
    assert RULES["policy_extrapolation"].diagnose(run(**td3, train__policy_q_value=2.1)) is None


def test_a_policy_that_learned_needs_no_exploration() -> None:
    entropy = {"train__entropy_loss": np.linspace(-1.0, -0.01, 60), "train__approx_kl": 0.01}
    assert RULES["entropy_collapse"].diagnose(run(**RISING, **entropy)) is None
    failed = RULES["entropy_collapse"].diagnose(run(**FLAT, **entropy))
    assert failed is not None
    assert failed.confidence == 0.65
    # Continuous actions: the entropy passes through 0, the deviation decides.
    spread = {**entropy, "train__std": np.linspace(1.0, 0.5, 60)}
    assert RULES["entropy_collapse"].diagnose(run(**FLAT, **spread)) is None


def test_too_short_endless_and_exploding_exploration_have_different_evidence() -> None:
    def found(**values: object) -> tuple[str, str] | None:
        diagnosis = RULES["exploration_schedule"].diagnose(run(**values))
        if diagnosis is None:
            return None
        assert diagnosis.id == "exploration_schedule"
        return diagnosis.evidence[0].tag, diagnosis.evidence[0].note

    early = found(**FLAT, train__exploration_noise=[1.0] * 4 + [0.04] * 56)
    assert early == ("train/exploration_noise", "4 % of its first value, after 8% of the run")
    assert found(**FLAT, train__exploration_noise=[1.0] * 12 + [0.04] * 48) is None
    assert found(**FLAT, train__exploration_noise=0.2) is None
    random = found(**FLAT, rollout__exploration_rate=0.9)
    assert random == ("rollout/exploration_rate", "90% of the actions are still random at the end")
    growing = {"train__std": np.linspace(1.0, 9.0, 60), "train__approx_kl": 0.01}
    exploded = found(**FLAT, **growing)
    # The medians of the first and the last tenth are 1.339 and 8.661.
    assert exploded == ("train/std", "6.47 times its first level: the actions turn into noise")
    assert found(**RISING, **growing) is None


def test_a_policy_that_no_longer_changes_at_the_end_is_reported_with_the_step() -> None:
    stopped = RULES["policy_stopped_updating"].diagnose(run(train__approx_kl=[0.01] * 40 + [0.0] * 20))
    assert stopped is not None
    assert stopped.first_step == 41_000
    assert RULES["policy_stopped_updating"].diagnose(run(train__approx_kl=[0.0] * 40 + [0.01] * 20)) is None


@pytest.fixture
def new_cause_is_not_imported() -> Iterator[None]:
    yield
    sys.modules.pop("sb3_visual_td3.diagnosis.rules.new_cause", None)


@pytest.mark.usefixtures("new_cause_is_not_imported")
def test_a_new_file_in_the_folder_is_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(rules.__file__).with_name("short_warmup.py").read_text()
    (tmp_path / "new_cause.py").write_text(source.replace('ID = "short_warmup"', 'ID = "new_cause"'))
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    found = rules._discover()
    assert found.keys() - RULES.keys() == {"new_cause"}
    assert found["new_cause"].title == RULES["short_warmup"].title


@pytest.mark.usefixtures("new_cause_is_not_imported")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("TITLE", "NAME"), "new_cause is not a complete rule: .*TITLE"),
        (('ID = "short_warmup"', 'ID = "other"'), "ID='other'; expected the name of its file"),
    ],
)
def test_an_incomplete_rule_is_refused(
    change: tuple[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(rules.__file__).with_name("short_warmup.py").read_text()
    if "TITLE" in change:
        source = source.replace('ID = "short_warmup"', 'ID = "new_cause"')
    (tmp_path / "new_cause.py").write_text(source.replace(*change, 1))
    monkeypatch.setattr(rules, "__path__", [str(tmp_path)])
    with pytest.raises(TypeError, match=message):
        rules._discover()


def test_an_explanation_without_a_rule_is_refused() -> None:
    wrong = replace(RULES["encoder_frozen"], explained_by=("dead_camera", "no_such_cause"))
    with pytest.raises(ValueError, match=r"EXPLAINED_BY of encoder_frozen names unknown rules \['no_such_cause'\]"):
        rules.check_explanations({**RULES, "encoder_frozen": wrong})
