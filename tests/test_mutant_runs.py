"""The benchmark on wrong settings: its grid of trainings, and the label of each."""

from __future__ import annotations

import math
from pathlib import Path

import gymnasium as gym
import mutant_runs
import pytest
import result_rows
from mutant_runs import BASE, CLASSES, LITE, PENDULUM, causes, confusion, environment, grid, label_of
from stable_baselines3.common.utils import configure_logger


def test_both_halves_of_the_benchmark_have_enough_runs_with_and_without_a_fault() -> None:
    mutants = grid()
    assert [mutant.number for mutant in mutants] == list(range(len(mutants)))
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    for half in (0, 1):
        of_half = [mutant for mutant in mutants if mutant.number % 2 == half]
        assert sum(mutant.fault == "none" for mutant in of_half) == 9
        assert sum(mutant.fault != "none" for mutant in of_half) >= 40
    assert {mutant.algorithm for mutant in mutants} == set(CLASSES) == set(BASE)


def test_both_halves_have_the_same_faults() -> None:
    mutants = grid()
    faults = [{(one.task, one.algorithm, one.fault) for one in mutants if one.number % 2 == half} for half in (0, 1)]
    assert faults[0] == faults[1]


@pytest.mark.parametrize(
    ("mean_return", "label"),
    [(-150.0, "healthy"), (-500.0, "between"), (-1_200.0, "failed"), (math.nan, "failed"), (-800.0, "between")],
)
def test_the_label_depends_on_the_policy_and_not_on_the_setting(mean_return: float, label: str) -> None:
    assert label_of(mean_return) == label


def test_numbers_of_earlier_trainings_never_change() -> None:
    names = [mutant.name for mutant in grid()]
    assert names[17] == "017_TD3_tau_0_17"
    assert names[63] == "063_SAC_ent_coef_1000_63"
    assert names[95] == "095_PPO_reward*0.001_95"
    assert names[96] == "096_TQC_none_96"
    assert names[-1].endswith("_SAC_LiteDriving-v0_tau_0_119")


def test_the_driving_task_has_its_own_return_limits_for_the_labels() -> None:
    assert [label_of(mean_return, LITE) for mean_return in (12.0, 60.0, 400.0)] == ["failed", "between", "healthy"]


def test_the_pictures_of_the_driving_task_fit_a_stock_policy() -> None:
    model = CLASSES["SAC"]("CnnPolicy", environment(LITE, 1.0), buffer_size=10, device="cpu")
    assert model.predict(environment(LITE, 1.0).reset(seed=0)[0])[0].shape == (2,)


def test_scaled_rewards_are_those_that_a_user_would_log() -> None:
    scaled, plain = environment(PENDULUM, 1_000.0), environment(PENDULUM, 1.0)
    for env in (scaled, plain):
        env.reset(seed=1)
    action = plain.action_space.low
    assert scaled.step(action)[1] == pytest.approx(1_000.0 * float(plain.step(action)[1]))
    assert isinstance(plain, gym.Env)


def test_the_table_counts_both_halves() -> None:
    rows = [
        {"number": 0, "label": "healthy", "verdict": "GO"},
        {"number": 1, "label": "failed", "verdict": "NO-GO"},
        {"number": 3, "label": "failed", "verdict": "INSUFFICIENT"},
    ]
    table = confusion(rows)
    assert "| tuning | healthy | 1 | 0 | 0 |" in table
    assert "| test | failed | 0 | 1 | 1 |" in table


def test_the_table_of_causes_counts_failed_runs_only() -> None:
    rows = [
        {"label": "failed", "fault": "tau=0", "algorithm": "SAC", "cause": "stale_target_network"},
        {"label": "failed", "fault": "tau=0", "algorithm": "TD3", "cause": "stale_target_network"},
        {"label": "failed", "fault": "tau=0", "algorithm": "TD3", "cause": "stale_target_network"},
        {"label": "failed", "fault": "tau=0", "algorithm": "TD3", "cause": ""},
        {"label": "healthy", "fault": "gamma=0", "algorithm": "TD3", "cause": "stale_target_network"},
    ]
    assert causes(rows).splitlines()[2:] == [
        "| tau=0 | TD3 (1) | no cause |",
        "| tau=0 | SAC (1), TD3 (2) | stale_target_network |",
    ]


def test_the_leftovers_of_an_interrupted_training_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endings: list[float | BaseException] = [KeyboardInterrupt(), -150.0]

    def train(_: object, folder: Path) -> float:
        logger = configure_logger(0, str(folder), "run")  # as SB3's learn() does, in the folder run_1, run_2, ...
        logger.record("rollout/ep_rew_mean", 0.0)
        logger.dump(1)
        ending = endings.pop(0)
        if isinstance(ending, BaseException):
            raise ending
        return ending

    monkeypatch.setattr(mutant_runs, "train", train)
    output = tmp_path / "rows.csv"
    monkeypatch.setattr("sys.argv", ["_", "--only", "0", "--output", str(output), "--logs", str(tmp_path / "logs")])
    with pytest.raises(KeyboardInterrupt):
        mutant_runs.main()
    mutant_runs.main()
    assert [(row["number"], row["label"]) for row in result_rows.read(output)] == [(0, "healthy")]
