"""The benchmarks: which measurements are missing in a results file, and what happens after a failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import carla_soak
import diagnosis_pictures
import explosion_study
import explosion_table
import fault_bench
import learning_study
import learning_table
import monitor_cost
import overlap
import pytest
import result_rows
import route_cloning
import route_scores
import update_speed
from stable_baselines3.common.utils import configure_logger


def test_a_trial_with_fewer_routes_does_not_replace_the_scores_of_all_routes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven: list[int] = []

    def row_of(name: str, suite: str, part: Any, _: object) -> result_rows.Row:
        driven.append(part.n_routes)
        words = {"driver": name, "suite": suite, "part": part.label, "episodes": part.n_routes}
        return {**dict.fromkeys(route_scores.COLUMNS, 0.0), **words}

    monkeypatch.setattr(route_scores, "drive", lambda *_: [])
    monkeypatch.setattr(route_scores, "row_of", row_of)
    for flags in (["--routes", "1"], [], [], ["--routes", "1"]):
        monkeypatch.setattr("sys.argv", ["route_scores.py", "--output", str(tmp_path / "scores.csv"), *flags])
        route_scores.main()
    assert driven == [1, 1, 50, 50]


def test_a_trial_with_fewer_samples_or_updates_does_not_replace_the_run_of_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, ...]] = []

    def run(*settings: int) -> result_rows.Row:
        made.append(settings)
        named = dict(zip(("seed", "samples", "updates"), settings, strict=True))
        return {**dict.fromkeys(route_cloning.COLUMNS, 0), **named}

    monkeypatch.setattr(route_cloning, "run", run)
    for flags in (["--samples", "100"], ["--updates", "10"], [], []):
        monkeypatch.setattr("sys.argv", ["route_cloning.py", "--output", str(tmp_path / "clones.csv"), *flags])
        route_cloning.main()
    assert made == [(0, 100, 1_500), (0, 12_000, 10), (0, 12_000, 1_500)]


@pytest.mark.parametrize("benchmark", [route_scores, route_cloning])
def test_the_stored_results_count_as_measured(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a stored result is measured again")

    monkeypatch.setattr(result_rows, "add", refuse)
    monkeypatch.setattr(benchmark, "drive" if benchmark is route_scores else "run", refuse)
    monkeypatch.setattr("sys.argv", [benchmark.__name__])
    benchmark.main()


@pytest.mark.parametrize("benchmark", [monitor_cost, overlap, update_speed])
def test_stored_times_are_not_printed_under_the_readers_version_of_torch(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [benchmark.__name__])
    benchmark.main()
    heading = capsys.readouterr().out.splitlines()[0]
    assert "torch unknown" in heading  # the stored results are older than this entry


def test_the_version_of_torch_is_that_of_the_results() -> None:
    assert result_rows.torch_versions([{"torch": "2.8"}, {"off": {}}, {"torch": "2.8"}]) == "2.8, unknown"


def fail(*_: object) -> Any:
    """Raise an error, like a training run that fails."""
    raise RuntimeError("out of memory")


def test_the_fault_bench_counts_failed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fault_bench, "train", fail)
    pool = SimpleNamespace(Pool=lambda n_jobs, maxtasksperchild: ThreadPool(n_jobs))
    monkeypatch.setattr(fault_bench.mp, "get_context", lambda _: pool)
    flags = ["--only", "leak", "--seeds", "0", "1", "--output", str(tmp_path / "new.json"), "-f", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["fault_bench.py", *flags])
    assert fault_bench.main() == 1
    assert capsys.readouterr().out.endswith("2 runs failed, and the table leaves them out\n")


@pytest.mark.parametrize("study", [learning_study, explosion_study])
def test_a_study_counts_failed_runs(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "run", fail)
    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda n_jobs, mp_context: ThreadPoolExecutor(n_jobs))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = ["--arms", "visual", "--seeds", "0", "--output", str(tmp_path / "new.json"), "-f", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["study.py", *flags])
    assert study.main() == 1
    assert capsys.readouterr().out.endswith("1 run failed, and the table leaves it out\n")


@pytest.mark.parametrize("tables", [learning_table, explosion_table])
def test_a_brief_table_leaves_out_arms_without_results(tables: Any) -> None:
    assert "VisualTD3" not in tables.brief({})
    assert "preset" not in tables.brief({})


def test_a_picture_is_not_drawn_from_an_interrupted_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "leak" / str(diagnosis_pictures.SEED)

    def log(*_: object) -> float:
        logger = configure_logger(0, str(folder), "tb")
        logger.record("train/actor_loss", 1.0)
        logger.dump(1)
        return 1.0

    log()
    monkeypatch.setattr(diagnosis_pictures, "train", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        diagnosis_pictures.series_of("leak", tmp_path)
    (folder / fault_bench.TRAINED).touch()
    assert "train/actor_loss" in diagnosis_pictures.series_of("leak", tmp_path)


def test_the_soak_refuses_too_few_steps_before_it_trains(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(carla_soak, "soak", fail)
    monkeypatch.setattr("sys.argv", ["carla_soak.py", "--steps", "2000"])
    with pytest.raises(SystemExit) as ended:
        carla_soak.main()
    assert ended.value.code == 2
    assert "--steps 2000: expected more than 2,001" in capsys.readouterr().err
