"""Test that the tags of other programs, such as CleanRL, are found by the words in their names."""

from __future__ import annotations

import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.tag_search import (
    find_actor_losses,
    find_critic_losses,
    find_lengths,
    find_q_values,
    find_returns,
    is_standard,
    return_tag,
    words_of,
)


def test_words_are_split_at_separators_and_where_the_case_changes() -> None:
    assert words_of("Average Episodic Reward/(t)") == ("average", "episodic", "reward", "t")
    assert words_of("charts/episodicReturn_100") == ("charts", "episodic", "return", "100")


@pytest.mark.parametrize(
    ("name", "source", "averaged_over"),
    [
        ("rollout/ep_rew_mean", "training", 100),
        ("eval/mean_reward", "evaluation", 5),
        ("evaluation/Average Returns", "evaluation", 5),
        ("Test/return", "evaluation", 1),
        ("charts/episodic_return", "training", 1),
        ("train/episode_reward", "training", 1),
        ("Episode/Reward", "training", 1),
        ("Reward/info", "training", 1),
        ("ep_r", "training", 1),
        ("EpRet", "training", 1),
        ("train_ep_reward", "training", 1),
        ("avg_reward", "training", 100),
        ("ray/tune/episode_reward_mean", "training", 100),
        ("Mean Reward (100 episodes)", "training", 100),
        ("return", "training", 1),
        ("reward", "training", 1),
    ],
)
def test_returns_are_found_under_the_names_of_other_programs(name: str, source: str, averaged_over: int) -> None:
    found = return_tag(name)
    assert found is not None
    assert (found.source, found.averaged_over) == (source, averaged_over)


@pytest.mark.parametrize(
    "name",
    [
        "reward_step",
        "rewards/step",
        "step/reward",
        "normalized_reward",
        "reward_norm",
        "normalized/reward",
        "train/reward_max",
        "progress/current_reward",
        "reward/progress",
        "Reward/speed",
        "custom/reward_dist",
        "eval/std_reward",
        "best_avg_return",
        "final_avg_return",
        "agent/reward_is_normalized",
        "eval/random_reward",
        "losses/value",
        "eval/mean_ep_length",
    ],
)
def test_step_rewards_reward_terms_extremes_and_normalised_rewards_are_not_returns(name: str) -> None:
    assert return_tag(name) is None


def test_only_two_of_our_own_tags_are_recognised_as_returns() -> None:
    assert {tag.name for tag in find_returns(tags.TAGS)} == {tags.EPISODE_REWARD, tags.EVAL_REWARD}


@pytest.mark.parametrize("returns", [tags.EPISODE_REWARD, "rollout/ep_rew_mean"])
def test_terms_of_the_reward_are_not_returns_beside_a_known_return(returns: str) -> None:
    assert [tag.name for tag in find_returns(["reward/total", returns])] == [returns]
    assert [tag.name for tag in find_returns(["reward/total", "eval/mean_reward"])] == [
        "eval/mean_reward",
        "reward/total",
    ]


def test_return_tags_are_sorted_by_reliability() -> None:
    names = [
        "reward",
        "Cumulative Reward/info",
        "avg_reward",
        "episode_reward",
        "rollout/ep_rew_mean",
        "eval/mean_reward",
    ]
    assert [tag.name for tag in find_returns(names)] == [
        "eval/mean_reward",
        "rollout/ep_rew_mean",
        "episode_reward",
        "avg_reward",
        "reward",
        "Cumulative Reward/info",
    ]


def test_an_episode_length_in_seconds_is_not_used_as_a_length_in_steps() -> None:
    assert find_lengths(["Episode Length (s)/info", "loss"]) is None
    assert find_lengths(["eval/mean_ep_length", "rollout/ep_len_mean"]) == "rollout/ep_len_mean"
    assert find_lengths(["Episode/Length"]) == "Episode/Length"


def test_q_values_critic_losses_and_actor_losses_are_distinguished() -> None:
    names = [
        "losses/qf1_values",
        "losses/qf1_loss",
        "losses/actor_loss",
        "train/q_gap",
        "QValues/Q1",
        "train/value_loss",
    ]
    assert find_q_values(names) == ("QValues/Q1", "losses/qf1_values")
    assert find_critic_losses(names) == ("losses/qf1_loss",)
    assert find_actor_losses(names) == ("losses/actor_loss",)
    assert find_critic_losses(["update/loss/critic1", "update/critic1"]) == ("update/loss/critic1",)
    assert find_q_values([tags.Q1_VALUE, tags.POLICY_Q_VALUE, tags.Q_GAP, tags.TARGET_Q_MEAN]) == (
        tags.POLICY_Q_VALUE,
        tags.Q1_VALUE,
    )


def test_sb3_and_cleanrl_return_tags_are_standard_and_custom_names_are_not() -> None:
    assert is_standard("rollout/ep_rew_mean")
    assert is_standard("charts/episodic_return")
    assert not is_standard("ep_r")


def test_the_return_of_rl_games_is_used_over_its_steps() -> None:
    names = ["rewards/step", "rewards/iter", "rewards/time", "losses/a_loss", "shaped_rewards/step"]
    assert [tag.name for tag in find_returns(names)] == ["rewards/step"]
    # Alone, the tag may hold the reward of a step.
    assert find_returns(["rewards/step"]) == ()
