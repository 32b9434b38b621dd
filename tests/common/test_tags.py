from sb3_visual_td3.common.tags import (
    REWARD_TERM,
    REWARD_TERMS,
    TAGS,
    is_known,
    is_on_episodes,
    is_on_steps,
    reward_term,
)

FIRST_RUN = [
    "train/episode_reward",
    "train/episode_length",
    "train/collisions_per_episode",
    "train/lane_invasions_per_episode",
    "train/actor_loss",
    "train/critic_loss",
    "train/q1_value",
    "train/q2_value",
    "train/exploration_noise",
    "gradients/actor_cnn_norm",
    "gradients/actor_mlp_norm",
    "gradients/critic_cnn_norm",
    "gradients/critic_mlp_norm",
    "alerts/gradient_explosion_warning",
    "alerts/gradient_explosion_critical",
    "agent/total_iterations",
    "agent/is_training",
    "agent/buffer_utilization",
    "agent/actor_lr",
    "agent/critic_lr",
    "agent/actor_cnn_lr",
    "agent/critic_cnn_lr",
    "agent/actor_param_mean",
    "agent/actor_param_std",
    "agent/critic_param_mean",
    "agent/critic_param_std",
    "agent/actor_cnn_param_mean",
    "agent/actor_cnn_param_std",
    "agent/critic_cnn_param_mean",
    "agent/critic_cnn_param_std",
    "progress/buffer_size",
    "progress/episode_steps",
    "progress/current_reward",
    "progress/speed_kmh",
    "eval/mean_reward",
    "eval/success_rate",
    "eval/avg_collisions",
    "eval/avg_lane_invasions",
    "eval/avg_episode_length",
]


def test_the_39_names_of_the_original_run_are_unchanged():
    assert len(FIRST_RUN) == 39
    assert set(FIRST_RUN) <= set(TAGS)


def test_every_tag_has_a_unit_a_meaning_and_an_owner_callback():
    for name, tag in TAGS.items():
        assert tag.name == name
        assert tag.unit
        assert tag.meaning
        assert tag.owner.endswith("Callback")


def test_only_per_episode_tags_have_the_episode_as_x_axis():
    of_an_episode = [*FIRST_RUN[:4], "train/route_completion", "train/success"]
    assert [name for name in TAGS if is_on_episodes(name)] == of_an_episode
    assert {name for name in TAGS if is_on_steps(name)} == set(TAGS) - set(of_an_episode)
    assert not is_on_episodes("their/return")
    assert not is_on_steps("their/return")


def test_each_built_in_reward_term_has_a_tag():
    assert [reward_term(term) for term in REWARD_TERMS] == list(REWARD_TERM.values())
    assert {reward_term(term) for term in REWARD_TERMS} <= set(TAGS)


def test_is_known_accepts_only_listed_tags_and_any_reward_term():
    known = {name: is_known(name) for name in ("reward", "rewards/a", "train/own", "eval/mean_reward", "reward/own")}
    assert [name for name in known if known[name]] == ["eval/mean_reward", "reward/own"]
