"""Test that the kind of algorithm behind a run is recognised from the run's tags."""

from __future__ import annotations

import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.run_kind import Family, RunKind, recognise

SB3 = ["rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/learning_rate"]


@pytest.mark.parametrize(
    ("names", "family", "algorithms"),
    [
        (["train/actor_loss", "train/critic_loss"], Family.OFF_POLICY, "TD3 or DDPG"),
        (["train/actor_loss", "train/critic_loss", "train/ent_coef"], Family.OFF_POLICY, "SAC or TQC"),
        (["train/approx_kl", "train/clip_fraction", "train/value_loss"], Family.ON_POLICY, "PPO"),
        (["train/policy_loss", "train/value_loss", "train/entropy_loss"], Family.ON_POLICY, "A2C or PPO"),
        (["train/kl_divergence_loss", "train/is_line_search_success"], Family.ON_POLICY, "TRPO"),
        (["train/loss", "rollout/exploration_rate"], Family.VALUE_BASED, "DQN"),
    ],
)
def test_the_algorithms_of_sb3_are_recognised(names: list[str], family: Family, algorithms: str) -> None:
    kind = recognise([*SB3, *names])
    assert (kind.family, kind.algorithms) == (family, algorithms)
    assert set(kind.evidence) <= set(names)
    assert kind.evidence


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (["losses/qf1_loss", "losses/qf1_values", "losses/actor_loss", "losses/alpha"], Family.OFF_POLICY),
        (["losses/qf1_loss", "losses/qf1_values", "losses/actor_loss"], Family.OFF_POLICY),
        (["losses/clipfrac", "losses/approx_kl", "losses/value_loss"], Family.ON_POLICY),
        (["losses/td_loss", "losses/q_values"], Family.VALUE_BASED),
    ],
)
def test_the_algorithms_of_cleanrl_are_recognised(names: list[str], family: Family) -> None:
    assert recognise(["charts/SPS", "charts/episodic_return", *names]).family is family


def test_twin_q_values_under_custom_names_indicate_an_off_policy_algorithm() -> None:
    assert recognise(["Episode/Reward", "QValues/Q1", "QValues/Q2"]).family is Family.OFF_POLICY


def test_custom_actor_and_critic_losses_alone_do_not_identify_the_algorithm_family() -> None:
    assert recognise(["actor_loss", "critic_loss"]).family is Family.UNKNOWN
    assert recognise(["actor_loss", "value_loss", "entropy"]).family is Family.ON_POLICY


def test_two_numbered_critics_of_one_actor_indicate_an_off_policy_algorithm() -> None:
    tianshou = ["update/loss/actor", "update/loss/critic1", "update/loss/critic2"]
    assert recognise(tianshou).family is Family.OFF_POLICY
    assert recognise(["actor_loss", "critic_1_loss", "critic_2_loss"]).family is Family.OFF_POLICY
    assert recognise(["actor1_loss", "critic1_loss", "actor2_loss", "critic2_loss"]).family is Family.UNKNOWN
    assert recognise(["actor_loss", "critic1_loss"]).family is Family.UNKNOWN


def test_only_sac_and_tqc_have_an_entropy_bonus() -> None:
    assert recognise(["train/ent_coef"]).has_entropy_bonus
    assert not recognise(["train/actor_loss", "train/critic_loss"]).has_entropy_bonus


def test_a_bare_alpha_identifies_no_algorithm() -> None:
    assert recognise(["loss/policy_loss", "loss/q_loss", "loss/value_loss", "alpha"]).family is Family.OFF_POLICY
    assert recognise(["actor_loss", "critic1_loss", "critic2_loss", "value_loss", "alpha"]).family is Family.OFF_POLICY
    # TD3+BC weighs behaviour cloning with alpha.
    assert not recognise(["actor_loss", "q1_loss", "q2_loss", "alpha"]).has_entropy_bonus
    assert recognise(["actor_loss", "q1_loss", "q2_loss", "alpha", "alpha_loss"]).has_entropy_bonus


ML_AGENTS_SAC = ["Losses/Policy Loss", "Losses/Value Loss", "Losses/Q1 Loss", "Losses/Q2 Loss"]


@pytest.mark.parametrize(
    "names",
    [
        [*ML_AGENTS_SAC, "Policy/Continuous Entropy Coeff", "Policy/Discrete Entropy Coeff"],
        ML_AGENTS_SAC,
        ["policy_loss", "qf1_loss", "qf2_loss", "entropy_coefficient"],
    ],
)
def test_two_losses_of_q_beside_a_value_or_an_entropy_coefficient_are_those_of_sac(names: list[str]) -> None:
    kind = recognise(["Environment/Cumulative Reward", *names])
    assert (kind.family, kind.has_entropy_bonus) == (Family.OFF_POLICY, True)
    assert set(kind.evidence) <= set(names)


def test_the_clip_range_of_ml_agents_is_not_the_exploration_of_dqn() -> None:
    ppo = ["Losses/Policy Loss", "Losses/Value Loss", "Policy/Entropy", "Policy/Epsilon", "Policy/Beta"]
    assert recognise(ppo).family is Family.ON_POLICY
    assert recognise(["policy_net/loss", "epsilon"]).family is Family.VALUE_BASED


def test_the_losses_of_rsl_rl_are_those_of_ppo() -> None:
    names = ["Train/mean_reward", "Loss/surrogate", "Loss/value_function", "Policy/mean_noise_std"]
    assert (recognise(names).family, recognise(names).algorithms) == (Family.ON_POLICY, "PPO")


def test_our_own_tags_are_those_of_td3() -> None:
    kind = recognise(tags.TAGS)
    assert kind.family is Family.OFF_POLICY
    assert not kind.has_entropy_bonus


@pytest.mark.parametrize("names", [[], ["ep_r"], ["time/fps", "custom/anything"]])
def test_the_algorithm_is_unknown_if_no_tag_reveals_it(names: list[str]) -> None:
    assert recognise(names) == RunKind(Family.UNKNOWN)
