"""Does a run with the recommended settings pass each point of the original run's checklist?

This project began with a CARLA run that exploded, the "original run". The checklist is the end of the report that the
author of the original run wrote: tasks (section 10.2) and criteria (section 10.3) for the next run.

    visual-td3 validate
    python benchmarks/first_checklist.py logs/visual_td3/LiteDriving-v0_1

Numbers about the given run come from its event files and its run.json, which `visual-td3 report` reads. Numbers about
other runs come from the results of benchmarks/explosion_study.py, which tried the first three tasks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from explosion_study import RESULTS

from sb3_visual_td3.cli import main as visual_td3
from sb3_visual_td3.common import tags

FIRST_RUN = "leak, no clip, cnn 1e-5, raw"
"""The arm of ``explosion_study.py`` with the settings of the CARLA run that exploded."""


def report_on(run_dir: Path) -> dict[str, Any]:
    """Write the report of a run, and return its report.json."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        visual_td3(["report", str(run_dir), "--format", "json", "--output", folder])
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    return report


def of_study(study: dict[str, Any], arm: str, *path: str) -> float:
    """Return the median of one figure of the explosion study over an arm's seeds."""
    values = []
    for key, row in study.items():
        if key.rsplit(", seed ", 1)[0] == arm:
            for name in path:
                row = row[name]  # noqa: PLW2901
            values.append(float(row))  # type: ignore[arg-type]
    return statistics.median(values)


def cures(report: dict[str, Any], study: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the changes that section 10.2 of the checklist demands, each with its measurements.

    :param report: ``report.json`` of the given run
    :param study: results of ``benchmarks/explosion_study.py``, which tried the first three changes
    """
    metrics, settings = report["metrics"], report["run"]["manifest"]["hyperparams"]

    def loss(arm: str) -> str:
        return f"{of_study(study, arm, 'actor_loss'):,.3g}"

    clipped = max(m["mean"] for tag, m in metrics.items() if tag.endswith("_clip_fraction"))
    yield (
        "Implement gradient clipping (max_norm=1.0) for actor CNN",
        f"`max_grad_norm={{'actor_cnn': 1.0}}` does this. It does not cure the leak: the actor loss is "
        f"{loss(FIRST_RUN)} without clipping and {loss('leak, clip 1, cnn 1e-5, raw')} with it. In this run the "
        f"limit is {settings['max_grad_norm']:g}, and {clipped:.0%} of the gradients were clipped",
    )
    yield (
        "Increase actor CNN LR to 1e-4",
        f"It makes the leak worse: the actor loss is {loss('leak, no clip, cnn 1e-4, raw')}, and with clipping "
        f"{loss('leak, clip 1, cnn 1e-4, raw')}. In this run the encoder is shared, and only the critics' loss trains "
        f"it, with the learning rate `{settings['critic_cnn_lr']}`",
    )
    yield (
        "Add reward normalization wrapper",
        f"VecNormalize does this: the rewards are between {metrics[tags.REWARD_MIN]['min']:.2f} and "
        f"{metrics[tags.REWARD_MAX]['max']:.2f}. It does not cure the leak either: with all three changes, the actor "
        f"loss is {loss('leak, clip 1, cnn 1e-4, normalised')}",
    )
    yield (
        "Update hyperparameters (buffer size, start_steps)",
        f"`buffer_size` {settings['buffer_size']:,}, `learning_starts` {settings['learning_starts']:,}; at the end the "
        f"buffer was filled to {metrics[tags.BUFFER_UTILIZATION]['last']:.0%}",
    )
    terms = {term: abs(metrics[tag]["mean"]) for term, tag in tags.REWARD_TERM.items() if tag in metrics}
    share = terms["progress"] / sum(terms.values())
    yield (
        "Rebalance reward components",
        f"of the magnitudes of all terms' means, progress has {share:.0%}",
    )


def checks(report: dict[str, Any], study: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each check that section 10.2 of the checklist demands, and its result for the given run."""
    metrics = report["metrics"]
    updates = metrics[tags.TOTAL_ITERATIONS]["last"]
    yield ("Re-run 5K step test", f"{report['run']['n_steps']:,} steps, {updates:,.0f} updates")
    yield ("Analyze new TensorBoard metrics", f"{len(metrics)} tags, {report['run']['n_points']:,} points")
    separate = of_study(study, "correct, no clip, cnn 1e-5, raw", "norms", "actor_cnn", "mean")
    encoder = metrics[tags.GRADIENT_NORM["critic_cnn"]]
    yield (
        "Verify actor CNN gradients < 10K mean",
        f"The actor has no encoder of its own. The gradient norm of the shared encoder has the mean "
        f"{encoder['mean']:.2f} and the maximum {encoder['max']:.2f}. With separate encoders and the right loss, the "
        f"mean for the actor's encoder is {separate:.2g}",
    )
    yield ("Generate updated validation report", f"{report['verdict']}: [the report](validation_report.md)")


def criteria(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the criteria of section 10.3 of the checklist, with the results of the given run.

    :param report: ``report.json`` of the given run
    :return: for each criterion, the list to which it belongs (GO list or NO-GO list), its title, and its result
    """
    for criterion in report["criteria"]:
        if criterion["source"].startswith("first CARLA run"):
            value = criterion["value"]
            found = criterion["status"].replace("_", " ")
            threshold = criterion["threshold"]
            if value is not None:
                found += f": {value:,.4g}"
                if threshold is not None:
                    found += f" (threshold {threshold:,.4g})"
            title = criterion["title"].replace("|", r"\|")  # a bar would end the table's cell
            yield criterion["source"].removeprefix("first CARLA run, "), title, found


def checklist(report: dict[str, Any], study: dict[str, Any]) -> str:
    """Return the tasks and criteria of the checklist with the results of the given run, as Markdown."""
    lines = ["| required before another run | this run |", "| --- | --- |"]
    boxes = [*cures(report, study), *checks(report, study)]
    lines += [f"| {asked} | {answer} |" for asked, answer in boxes]
    lines += ["", "| list | criterion | this run |", "| --- | --- | --- |"]
    lines += [f"| {' | '.join(cells)} |" for cells in criteria(report)]
    return "\n".join(lines)


def main() -> None:
    """Print the checklist for a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="folder of a run that was trained with the recommended settings"
    )
    print(checklist(report_on(parser.parse_args().run_dir), json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
