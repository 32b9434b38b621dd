"""Test that stability is judged relative to the returns of the run and to its start."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from sb3_visual_td3.diagnosis.own_scale import Stability, judge_stability, q_series, rate_tags, return_scale
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.return_curve import Answer
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.diagnosis.run_kind import recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet, not_finite_from
from sb3_visual_td3.diagnosis.two_questions import ask, verdict_of
from sb3_visual_td3.diagnosis.verdict import Verdict

N = 100
STEPS = np.arange(1, N + 1) * 1_000
RISE = np.linspace(-100.0, 300.0, N)


def run(**values: object) -> SeriesSet:
    """Return a run with these tags. ``__`` stands for a slash, and a number for a constant series."""
    return SeriesSet.of(
        Series(name.replace("__", "/"), STEPS, np.broadcast_to(np.asarray(value, dtype=float), N))
        for name, value in values.items()
    )


TD3 = {
    "rollout__ep_rew_mean": RISE,
    "rollout__ep_len_mean": 500.0,
    "train__actor_loss": np.linspace(0.0, -60.0, N),
    "train__critic_loss": 1.0,
    "train__learning_rate": 1e-3,
}
SAC = {**TD3, "train__ent_coef": 0.01}
PPO = {
    "rollout__ep_rew_mean": RISE,
    "train__approx_kl": 0.01,
    "train__clip_fraction": 0.1,
    "train__explained_variance": 0.8,
    "train__std": np.linspace(1.0, 0.3, N),
    "train__value_loss": 5.0,
    "train__learning_rate": 3e-4,
}


def judged(base: Mapping[str, object], learning: Answer = "unknown", **changes: object) -> Stability:
    data = run(**{**base, **changes})
    return judge_stability(data, recognise(data.names()), learning)


def signs(stability: Stability) -> list[str]:
    return [sign.id for sign in stability.signs]


@pytest.mark.parametrize("base", [TD3, SAC, PPO])
@pytest.mark.parametrize("learning", ["yes", "no", "unknown"])
def test_a_calm_run_is_stable(base: Mapping[str, object], learning: Answer) -> None:
    stability = judged(base, learning)
    assert (stability.answer, stability.signs) == ("yes", ())
    assert len(stability.checks) >= 4


# ---- Every kind


def test_a_run_whose_loss_ends_in_nan_is_unstable_from_the_first_nan() -> None:
    broken = np.where(np.arange(N) < 60, 1.0, np.nan)
    stability = judged(TD3, "yes", train__critic_loss=broken)
    assert (stability.answer, stability.signs[0].id, stability.signs[0].step) == ("no", "non_finite", 61_000)


def test_nan_before_the_first_loss_does_not_hide_nan_at_the_end() -> None:
    broken = np.where((np.arange(N) < 2) | (np.arange(N) >= 60), np.nan, 1.0)
    stability = judged(TD3, "yes", train__critic_loss=broken)
    assert (stability.answer, stability.signs[0].id, stability.signs[0].step) == ("no", "non_finite", 61_000)
    assert not_finite_from(Series("loss", np.arange(5), np.full(5, np.nan))) == 0
    assert not_finite_from(Series("loss", np.arange(5), np.array([np.nan, 1.0, np.nan, 1.0, np.nan]))) is None


def test_a_single_nan_in_a_loss_does_not_make_the_run_unstable() -> None:
    gap = np.where(np.arange(N) == 60, np.nan, 1.0)
    assert judged(TD3, train__critic_loss=gap).answer == "yes"


def test_nan_in_explained_variance_does_not_make_the_run_unstable() -> None:
    values = np.where(np.arange(N) % 2 == 1, np.nan, 0.8)
    assert judged(PPO, train__explained_variance=values).answer == "yes"


def test_a_zero_learning_rate_is_reported_but_a_schedule_down_to_zero_is_not() -> None:
    assert signs(judged(TD3, train__learning_rate=0.0)) == ["frozen_by_learning_rate"]
    assert judged(TD3, train__learning_rate=np.linspace(1e-3, 0.0, N)).answer == "yes"


FROZEN = "frozen_by_learning_rate"


@pytest.mark.parametrize(
    ("rates", "is_frozen"),
    [
        ({"lr-Adam/pg1": 0.0, "lr-Adam/pg2": 1e-3}, False),
        ({"lr-Adam/pg1": 0.0, "lr-Adam/pg2": 0.0}, True),
        ({"lr/alpha": 0.0, "lr/actor": 1e-3, "lr/critic": 1e-3}, False),
        ({"lr/actor": 0.0, "lr/critic": 1e-3}, True),
        ({"lr/actor": 1e-3, "lr/critic": 0.0}, True),
        ({"lr/actor_encoder": 0.0, "lr/actor_head": 1e-3}, False),
    ],
)
def test_one_group_of_a_network_may_have_the_learning_rate_zero(rates: dict[str, float], is_frozen: bool) -> None:
    data = run(**{name: value for name, value in TD3.items() if "rate" not in name}, **rates)
    assert (FROZEN in signs(judge_stability(data, recognise(data.names())))) is is_frozen
    assert (RULES[FROZEN].diagnose(data) is not None) is is_frozen


def test_a_run_that_logs_only_a_return_counts_as_stable_only_if_it_learns() -> None:
    assert judged({"ep_r": RISE}, "yes").answer == "yes"
    assert judged({"ep_r": RISE}, "unknown").answer == "unknown"


# ---- Q and the critic


@pytest.mark.parametrize("scale", [1.0, 1_000.0])
def test_q_values_as_large_as_the_returns_are_stable_at_any_reward_scale(scale: float) -> None:
    changes = {
        "rollout__ep_rew_mean": RISE * scale,
        "train__actor_loss": -RISE * scale,
        "train__critic_loss": scale**2,
    }
    assert judged(TD3, **changes).answer == "yes"


@pytest.mark.parametrize("scale", [1.0, 1_000.0])
def test_q_values_many_times_larger_than_the_returns_are_a_clear_sign_of_instability(scale: float) -> None:
    changes = {
        "rollout__ep_rew_mean": RISE * scale,
        "train__actor_loss": np.linspace(0.0, -3_000.0, N) * scale,
        "train__critic_loss": scale**2,
    }
    stability = judged(TD3, **changes)
    assert (stability.answer, signs(stability)) == ("no", ["q_beyond_returns"])
    assert stability.signs[0].is_clear
    assert stability.signs[0].value == pytest.approx(9.8, rel=0.1)


def test_single_q_outliers_beyond_the_returns_do_not_make_the_run_unstable() -> None:
    spikes = np.where(np.arange(N) % 20 == 0, -1e6, -60.0)
    assert judged(TD3, train__actor_loss=spikes).answer == "yes"


def test_sacs_q_may_exceed_negative_returns_by_the_entropy_bonus() -> None:
    changes = {"rollout__ep_rew_mean": -90.0, "train__actor_loss": -200.0}
    assert signs(judged(SAC, **changes, train__ent_coef=0.2)) == []
    assert signs(judged(SAC, **changes, train__ent_coef=0.002)) == ["q_beyond_returns"]


def test_episodes_that_a_time_limit_cuts_early_allow_larger_q_values() -> None:
    short = return_scale(run(rollout__ep_rew_mean=-500.0, rollout__ep_len_mean=20.0))
    long = return_scale(run(rollout__ep_rew_mean=-500.0, rollout__ep_len_mean=2_000.0))
    assert short is not None
    assert long is not None
    assert (short.allowed_q, long.allowed_q) == (2_500.0, 500.0)


def test_one_weak_instability_sign_gives_unknown_and_two_give_no_unless_the_run_learns() -> None:
    error = {"train__critic_loss": 900.0}
    assert judged(TD3, **error).answer == "unknown"
    both = judged(TD3, **error, train__actor_loss=np.linspace(0.0, -700.0, N))
    assert (both.answer, signs(both)) == ("no", ["q_beyond_returns", "critic_error"])
    # A rising return contradicts both signs, so the answer is "unknown".
    assert judged(TD3, "yes", **error, train__actor_loss=np.linspace(0.0, -700.0, N)).answer == "unknown"


def test_the_critic_error_of_normalised_rewards_is_compared_with_q_instead_of_the_returns() -> None:
    """Returns are about 0.01, but Q is 20, because the critic sees normalised rewards."""
    changes = {"rollout__ep_rew_mean": RISE * 1e-4, "train__actor_loss": -20.0, "train__critic_loss": 0.05}
    assert judged(TD3, **changes).answer == "yes"


def test_q_is_taken_from_a_q_tag_or_otherwise_from_the_negated_actor_loss() -> None:
    data = run(losses__qf1_values=5.0, losses__actor_loss=-7.0, losses__qf1_loss=1.0)
    found = q_series(data, recognise(data.names()))
    assert found is not None
    assert found.values[0] == 5.0
    data = run(train__actor_loss=-7.0, train__critic_loss=1.0)
    found = q_series(data, recognise(data.names()))
    assert found is not None
    assert found.values[0] == 7.0


def test_without_returns_q_is_not_judged() -> None:
    stability = judged({"train__actor_loss": -1e9, "train__critic_loss": 1e9})
    assert "q_within_returns" not in stability.checks


# ---- On-policy


def test_exploding_action_noise_means_unstable_unless_the_run_learns() -> None:
    exploding = np.geomspace(0.5, 6.7, N)
    assert judged(PPO, "no", train__std=exploding).answer == "no"
    assert judged(PPO, "yes", train__std=exploding).answer == "unknown"


@pytest.mark.parametrize(
    ("tag", "is_of_policy"),
    [
        ("train/adv_std", False),
        ("policy/advantage_std", False),
        ("rollout/ep_rew_std", False),
        ("train/log_std", False),
        ("Policy/mean_noise_std", True),
        ("charts/std", True),
        ("std_0", True),
    ],
)
def test_only_the_spread_of_the_policys_actions_is_judged(tag: str, is_of_policy: bool) -> None:
    growing = np.linspace(1.0, 9.0, N)
    base = {name: value for name, value in PPO.items() if name != "train__std"}
    found = signs(judged(base, "no", **{tag: growing}))
    assert found == (["action_noise_explodes"] if is_of_policy else [])
    assert signs(judged(PPO, "no", **{tag: growing})) == []


def test_a_run_with_shrinking_action_noise_is_stable() -> None:
    assert (
        judged(PPO, train__std=np.geomspace(1.0, 0.015, N), train__entropy_loss=np.linspace(-1.4, 2.7, N)).answer
        == "yes"
    )


A2C = {
    "rollout__ep_rew_mean": RISE,
    "train__policy_loss": 0.0,
    "train__value_loss": 1.0,
    "train__entropy_loss": -1.0,
    "train__explained_variance": 0.5,
}


def test_an_entropy_collapse_makes_a_run_unstable_only_together_with_another_sign() -> None:
    collapsed = {"train__entropy_loss": -4.0 * np.exp(-np.linspace(0.0, 8.0, N))}
    assert judged(A2C, **collapsed).answer == "unknown"
    assert judged(A2C, "yes", **collapsed).answer == "yes"
    useless = judged(A2C, **collapsed, train__explained_variance=0.0)
    assert (useless.answer, signs(useless)) == ("no", ["entropy_collapse", "value_explains_nothing"])


def test_a_small_error_of_sac_that_does_not_grow_casts_no_doubt_on_returns_of_about_one() -> None:
    def stable(loss: object, level: float = 1.0) -> str:
        losses = {f"Losses__Q{i} Loss": np.asarray(loss) * level**2 for i in (1, 2)}
        data = run(
            **{"Environment__Cumulative Reward": level * (1.0 - 2.0 * np.exp(-np.linspace(0.0, 5.0, N)))},
            **{"Losses__Policy Loss": -0.5, "Losses__Value Loss": 0.01, **losses},
        )
        return judge_stability(data, recognise(data.names()), "yes").answer

    assert stable(np.full(N, 0.01)) == "yes"
    assert stable(np.geomspace(0.001, 0.01, N)) == "unknown"
    assert stable(np.full(N, 0.05)) == "unknown"
    assert stable(np.full(N, 0.01), level=100.0) == "unknown"


def test_a_value_function_that_diverges_casts_doubt_on_a_run_that_learns() -> None:
    grows = np.geomspace(1.0, 1e6, N)
    small = np.geomspace(1e-6, 1e-4, N)
    cases = ((-50.0, grows, "unknown"), (-50.0, 0.01, "yes"), (0.8, grows, "yes"), (-50.0, small, "yes"))
    for explained, loss, answer in cases:
        data = run(**{**A2C, "train__explained_variance": explained, "train__value_loss": loss})
        assert judge_stability(data, recognise(data.names()), "yes").answer == answer, (explained, answer)


@pytest.mark.parametrize("name", ["entropy_coef", "entropy_coeff", "entropy_coefficient", "Continuous Entropy Coeff"])
def test_a_coefficient_of_the_entropy_that_falls_is_not_an_entropy_that_collapses(name: str) -> None:
    flat = {key: value for key, value in A2C.items() if key != "train__entropy_loss"}
    falling = np.exp(-np.linspace(0.0, 8.0, N))
    assert "entropy_collapse" in signs(judged(flat, train__entropy=falling))
    assert "entropy_collapse" not in signs(judged(flat, **{f"train__{name}": falling}))
    assert RULES["entropy_collapse"].diagnose(run(**flat, **{f"train__{name}": falling})) is None


@pytest.mark.parametrize(
    ("entropy", "collapses"),
    [
        ([1.4, 0.01], True),
        ([1.4, -1e-7], True),
        ([1.4, -0.1], False),
        ([8.5, 0.0], False),
        ([-1.4, -20.0], False),
    ],
)
def test_without_a_logged_std_an_entropy_that_may_be_of_continuous_actions_is_not_judged(
    entropy: list[float], collapses: bool
) -> None:
    flat = {**A2C, "rollout__ep_rew_mean": 50.0 + np.random.default_rng(0).normal(0.0, 1.0, N)}
    del flat["train__entropy_loss"]
    fast = entropy[1] + (entropy[0] - entropy[1]) * np.exp(-np.linspace(0.0, 20.0, N))
    assert ("entropy_collapse" in signs(judged(flat, losses__entropy=fast))) is collapses
    found = RULES["entropy_collapse"].diagnose(run(**flat, losses__entropy=fast))
    assert (found is not None) is collapses


def test_a_value_function_is_judged_by_the_later_half_while_the_policy_explores() -> None:
    late = np.where(np.arange(N) < 52, 0.0, 0.95)
    assert signs(judged(A2C, train__explained_variance=late)) == []
    assert signs(judged(A2C, train__explained_variance=0.0)) == ["value_explains_nothing"]
    collapsed = -4.0 * np.exp(-np.linspace(0.0, 8.0, N))
    found = judged(A2C, train__explained_variance=late, train__entropy_loss=collapsed)
    assert signs(found) == ["entropy_collapse", "value_explains_nothing"]


def test_policy_updates_that_are_too_large_or_have_no_effect_are_signs_of_instability() -> None:
    assert signs(judged(PPO, train__approx_kl=3.0)) == ["updates_too_large"]
    assert signs(judged(PPO, train__approx_kl=1e-9)) == ["policy_stopped_updating"]
    # In one public run that learned, the KL divergence is 0.17 and once reaches 6.5.
    assert judged(PPO, "yes", train__approx_kl=np.where(np.arange(N) == 50, 6.5, 0.17)).answer == "yes"


# ---- Both questions


@pytest.mark.parametrize(
    ("stable", "learning", "expected"),
    [
        ("yes", "yes", Verdict.GO),
        ("no", "yes", Verdict.NO_GO),
        ("yes", "no", Verdict.NO_GO),
        ("no", "unknown", Verdict.NO_GO),
        ("unknown", "yes", Verdict.INSUFFICIENT),
        ("yes", "unknown", Verdict.INSUFFICIENT),
        ("unknown", "unknown", Verdict.INSUFFICIENT),
    ],
)
def test_stability_and_learning_together_give_the_verdict(stable: Answer, learning: Answer, expected: Verdict) -> None:
    assert verdict_of(stable, learning) is expected


def test_a_run_of_sb3_that_learns_is_go_and_one_that_diverges_is_no_go() -> None:
    # With 4 steps per episode, 250 episodes lie between two points.
    changes = {"rollout__ep_len_mean": 4.0, "train__critic_loss": 1.0}
    assert ask(run(**{**TD3, **changes})).verdict is Verdict.GO
    assert ask(run(**{**TD3, "train__actor_loss": np.linspace(0.0, -1e6, N)})).verdict is Verdict.NO_GO
    assert ask(run()).verdict is Verdict.INSUFFICIENT


def test_learning_rate_tags_exclude_alerts_and_rates_of_single_parameter_groups() -> None:
    names = ["alerts/learning_rate_too_high", "agent/actor_cnn_lr", "train/learning_rate", "charts/lr"]
    assert rate_tags(names) == ["train/learning_rate", "charts/lr"]


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("q", "expected"), [(60.0, "yes"), (20_000.0, "no")])
def test_the_reward_unit_does_not_change_stability_if_the_reward_divisor_is_logged(
    unit: float, q: float, expected: Answer
) -> None:
    data = {
        "rollout__ep_rew_mean": unit * RISE,
        "train__actor_loss": np.linspace(0.0, -q, N),
        "train__critic_loss": q / 10,
        # The reward of a step is about as large as the unit.
        "train__reward_divisor": unit * np.linspace(0.5, 1.0, N),
    }
    assert judged(TD3, **data).answer == expected
    scale = return_scale(run(**{**TD3, **data}))
    assert scale is not None
    assert scale.allowed_q == pytest.approx(unit * 300.0, rel=0.05)


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_a_healthy_critic_of_scaled_rewards_has_no_diagnosis(unit: float) -> None:
    flat = run(
        **{
            **TD3,
            "rollout__ep_rew_mean": unit * np.resize([450.0, 500.0, 550.0], N),
            "train__actor_loss": np.linspace(-20.0, -90.0, N),
            "train__reward_divisor": unit,
        }
    )
    found = {diagnosis.id for diagnosis in diagnose(flat)}
    assert found <= {"never_learned"}, "Q is that of rewards of 1 per step, in every unit"


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_the_unit_of_the_rewards_does_not_change_the_diagnoses(unit: float) -> None:
    early = run(
        **{
            **TD3,
            "rollout__ep_rew_mean": unit * np.resize([450.0, 500.0, 550.0], N),
            # Q is already large at the first point.
            "train__actor_loss": -np.linspace(40.0, 90.0, N),
            "train__reward_divisor": unit,
        }
    )
    reference = {"never_learned"}
    assert {diagnosis.id for diagnosis in diagnose(early)} <= reference


def test_a_changing_reward_divisor_does_not_make_healthy_q_values_look_too_large() -> None:
    data = {
        "rollout__ep_rew_mean": np.resize([-1.0, 1.0], N),  # positive and negative rewards cancel
        "rollout__ep_len_mean": 100.0,
        "train__actor_loss": 60.0,
        "train__critic_loss": 5.0,
        "train__reward_divisor": np.linspace(5.0, 0.3, N),
    }
    assert "q_beyond_returns" not in signs(judged(TD3, **data))


def test_evidence_shows_the_number_that_was_logged() -> None:
    diverged = run(
        **{
            **TD3,
            "rollout__ep_rew_mean": 100.0 * np.resize([450.0, 500.0, 550.0], N),
            "train__actor_loss": np.linspace(0.0, 2e4, N),
            "train__reward_divisor": 100.0,
        }
    )
    found = {diagnosis.id: diagnosis for diagnosis in diagnose(diverged)}["q_beyond_returns"]
    assert 1e4 < abs(found.evidence[0].value) <= 2e4
