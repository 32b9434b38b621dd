"""Test ``benchmarks/stability.py``: the averages of weights, the changed learners, and the table of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stability
import torch as th
from learning_arms import WORLDS, arguments_of
from learning_study import learner
from result_rows import Row, add, drop, read, write
from stability_table import BEGIN, COLUMNS, END, falls, finished, q_at, summary_of, table, with_table

from sb3_visual_td3 import VisualTD3


def rows_of_a_run(returns: list[float], examined: float | None, **others: Any) -> list[Row]:
    """Return the rows of one run: an evaluation every 1,000 steps, and the final evaluation over 100 episodes.

    :param examined: share of episodes driven to the end in the final evaluation; None omits this evaluation
    """
    key = {"arm": "visual", "seed": 0, "policy": "last", "minutes": 5.0, "distance_m": 1.0, **others}
    rows = [
        {**key, "step": 1_000 * n, "episodes": 10, "driven_to_the_end": 0.0, "return": value, "q1": float(n)}
        for n, value in enumerate(returns, start=1)
    ]
    if examined is not None:
        rows.append({**rows[-1], "episodes": 100, "driven_to_the_end": examined})
    return rows


def test_a_fall_is_counted_after_the_first_evaluation_near_the_best() -> None:
    # The best is 100, the third is the first with 90 or more; of the three after it one has less than 80.
    assert falls([10.0, 50.0, 92.0, 100.0, 79.0, 80.0]) == (3, 1)


def test_no_fall_is_counted_if_only_the_last_evaluation_is_near_the_best() -> None:
    assert falls([1.0, 2.0, 50.0]) == (0, 0)


def test_a_run_without_any_return_has_not_learned() -> None:
    assert falls([-3.0, -1.0, -2.0]) == (0, 0)


def test_runs_are_summed_up_over_their_seeds() -> None:
    steady = rows_of_a_run([0.0, 100.0, 95.0, 92.0], examined=0.97)
    falling = rows_of_a_run([100.0, 70.0, 100.0, 75.0], examined=0.31, seed=1)
    found = summary_of([steady, falling])
    assert (found["later"], found["fallen"]) == (5, 2)
    assert (found["end_well"], found["drive_well"], found["seeds"]) == (1, 1, 2)
    assert found["mean"] == pytest.approx(0.64)
    assert found["min"] == pytest.approx(0.31)
    assert found["q1"] == (2.0, 4.0)


def test_q_is_taken_at_the_requested_share_of_the_steps() -> None:
    assert q_at(rows_of_a_run([0.0] * 9, examined=1.0), 0.6) == 5.0


def test_a_run_without_its_final_evaluation_is_neither_finished_nor_in_the_table() -> None:
    rows = [*rows_of_a_run([1.0], examined=1.0), *rows_of_a_run([1.0], examined=None, seed=1)]
    assert finished(rows) == {("visual", 0)}
    assert "| visual | last | 1 |" in table(rows, ["visual"])


def test_a_run_is_unfinished_until_each_of_its_policies_has_a_final_evaluation() -> None:
    rows = [*rows_of_a_run([1.0], examined=1.0), *rows_of_a_run([1.0], examined=None, policy="target")]
    assert finished(rows) == set()


def test_rows_come_back_from_the_file_as_they_were_added(tmp_path: Path) -> None:
    rows, path = rows_of_a_run([1.5, 2.0], examined=0.5), tmp_path / "made" / "rows.csv"
    assert read(path) == []
    for row in rows:
        add(row, path, COLUMNS)
    assert read(path) == rows


def test_the_rows_of_an_interrupted_run_are_dropped_and_no_others(tmp_path: Path) -> None:
    interrupted, other = rows_of_a_run([1.0], examined=None), rows_of_a_run([1.0], examined=None, seed=1)
    write([*interrupted, *other], tmp_path / "rows.csv", COLUMNS)
    drop({"arm": "visual", "seed": 0}, tmp_path / "rows.csv", COLUMNS)
    assert read(tmp_path / "rows.csv") == other


def test_a_page_gets_the_new_table_in_the_place_of_the_old_one() -> None:
    page = f"# Title\n{BEGIN}\nold\n{END}\nmore\n"
    assert with_table(with_table(page, "| 1 |"), "| 2 |") == f"# Title\n{BEGIN}\n\n| 2 |\n\n{END}\nmore\n"
    with pytest.raises(ValueError, match="does not say where to put the table"):
        with_table("# Title\n", "| 1 |")


def test_the_average_of_constant_weights_equals_them_exactly() -> None:
    average, weights = stability.Average(0.998), [th.randn(3, 2), th.randn(5)]
    for _ in range(50):
        average.add(weights)
    assert all(th.equal(mean, weight) for mean, weight in zip(average.value, weights, strict=True))


def test_the_average_is_corrected_for_its_start() -> None:
    average = stability.Average(0.9)
    for value in (1.0, 3.0):
        average.add([th.tensor([value])])
    # (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9 ** 2)
    assert average.value[0].item() == pytest.approx(0.39 / 0.19)


def test_an_average_does_not_follow_weights_that_move_later() -> None:
    average, weight = stability.Average(0.5), th.ones(2)
    average.add([weight])
    weight += 1.0
    assert average.value[0].tolist() == [1.0, 1.0]


def test_the_checkpoint_is_the_policy_at_the_best_mean_of_the_last_episodes() -> None:
    checkpoint, weight = stability.Checkpoint(window=2), th.zeros(1)
    for episode_return in (100.0, 0.0, 60.0, 70.0, 50.0):  # means of two: 50, 30, 65, 60
        weight += 1.0
        checkpoint.add(episode_return, [weight])
    assert [value.item() for value in checkpoint.value] == [4.0]


def test_one_lucky_episode_makes_no_checkpoint() -> None:
    checkpoint = stability.Checkpoint(window=2)
    checkpoint.add(100.0, [th.zeros(1)])
    assert checkpoint.value == []


@pytest.fixture(scope="module")
def model() -> VisualTD3:
    made = learner(stability.ARMS["visual"], WORLDS["empty road"], seed=0, device="cpu")
    assert isinstance(made, VisualTD3)
    return made


def test_the_averaged_weights_are_those_of_the_actor_and_its_encoder(model: VisualTD3) -> None:
    modules = (model.actor.mu, model.actor.trunk, model.critic.features_extractor)
    expected = {weight.data_ptr() for module in modules for weight in module.parameters()}
    averaged = [weight.data_ptr() for weight in stability.weights_of(model.actor)]
    assert set(averaged) == expected
    assert len(averaged) == len(expected)


def test_other_weights_are_deployed_within_the_context_and_the_policys_own_restored(model: VisualTD3) -> None:
    own = [weight.clone() for weight in stability.weights_of(model.actor)]
    seen = np.random.default_rng(0).integers(0, 256, (1, *model.observation_space.shape), dtype=np.uint8)  # type: ignore[misc]
    before = model.predict(seen, deterministic=True)[0]
    with stability.deployed(model, [weight + 0.1 for weight in own]):
        assert not np.array_equal(model.predict(seen, deterministic=True)[0], before)
    assert all(th.equal(now, then) for now, then in zip(stability.weights_of(model.actor), own, strict=True))
    assert np.array_equal(model.predict(seen, deterministic=True)[0], before)


def test_every_arm_changes_exactly_one_thing_of_its_base_arm() -> None:
    bases = dict.fromkeys(stability.ARMS, "visual")
    # The presets that were changed before policy_average existed are compared with each other.
    bases |= {name: "gamma 0.99" for name, arm in stability.ARMS.items() if arm.changes.get("policy_average") == 0.0}
    bases["gamma 0.99"] = "gamma 0.99, averaged"
    for name, arm in stability.ARMS.items():
        preset = arguments_of((stability.LEARNING_ARMS | stability.ARMS)[bases[name]])
        changed = {key for key, value in arguments_of(arm).items() if preset.get(key, "preset's") != value}
        changed |= {"learner"} if arm.algorithm is not VisualTD3 else set()
        changed |= {"rewards"} if "normalize" in arm.changes else set()
        assert len(changed) == (name != "visual"), name


@pytest.fixture(scope="module")
def noisy() -> stability.NoisyActorLoss:
    made = learner(stability.ARMS["noise in the actor's loss"], WORLDS["empty road"], seed=0, device="cpu")
    assert isinstance(made, stability.NoisyActorLoss)
    return made


def test_noise_on_the_actors_actions_is_clipped_and_lets_the_gradient_pass(noisy: stability.NoisyActorLoss) -> None:
    actions = th.tensor([[0.99, 0.0]]).repeat(64, 1).requires_grad_()
    found = noisy.with_noise(actions)
    found.sum().backward()
    assert found.max() <= 1.0
    assert 0.2 < (found - actions).abs().max() <= noisy.noise_clip + 1e-6
    assert actions.grad is not None
    assert th.equal(actions.grad, th.ones_like(actions))  # clamped or not


def test_the_critic_scores_the_noisy_actions_in_the_actors_loss_alone(
    noisy: stability.NoisyActorLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noisy, "with_noise", lambda actions: 0.0 * actions)
    noisy.learn(8)  # transitions to sample; the first update would come later
    batch = noisy._sample(4)
    with th.no_grad(), noisy._arithmetic.autocast():
        score = th.cat(noisy.critic(batch.observations, 0.0 * batch.actions), dim=1).min(dim=1).values.mean()
    assert noisy.update_actor(batch).item() == pytest.approx(-score.item(), abs=1e-4)
    assert "score" not in vars(noisy.critic)


def test_churn_is_the_change_that_the_last_step_made_on_the_previous_batch() -> None:
    made = learner(stability.ARMS["churn penalty"], WORLDS["empty road"], seed=0, device="cpu")
    assert isinstance(made, stability.ChurnPenalty)
    made.learn(8)
    batches = [made._sample(4) for _ in range(2)]
    made.update_actor(batches[0])
    assert made.churn().item() == 0.0  # there is no batch before
    with th.no_grad(), made._arithmetic.autocast():
        features = made.actor.encode(batches[0].observations)
        before = made.actor.act(features)
    made.update_actor(batches[1])
    with th.no_grad(), made._arithmetic.autocast():
        expected = (made.actor.act(features) - before).pow(2).mean()
    assert expected > 0
    assert made.churn().item() == pytest.approx(expected.item(), rel=1e-3)
    assert made.churn().requires_grad


def test_the_reward_scale_is_constant_after_the_warm_up() -> None:
    made = learner(stability.ARMS["reward scale frozen at 1,000"], WORLDS["empty road"], seed=0, device="cpu")
    normalizer = made.get_vec_normalize_env()
    assert normalizer is not None
    for step, is_learning in ((999, True), (1_000, False)):
        made.num_timesteps = step
        made._on_step()
        assert normalizer.training is is_learning
