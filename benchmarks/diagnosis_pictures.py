"""What does each diagnosis look like?

The script draws one picture for each diagnosis into docs/images/diagnoses/. A picture shows the two or three logged
curves on which the diagnosis is based, from two short training runs of `fault_bench.py` with seed 0: a run with the
fault, and a healthy one (dashed). A dotted vertical line marks the step at which the problem first shows, according to
the report. Training runs that are in the log folder already are not repeated.

    python benchmarks/diagnosis_pictures.py                      # all of them, 10 to 20 minutes on one core
    python benchmarks/diagnosis_pictures.py --only feature_leak  # only this picture
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from diagnosis_panels import PICTURES, Panel
from fault_bench import TRAINED, train
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images" / "diagnoses"
SEED = 0
FAULTY, HEALTHY, ONSET = "#D55E00", "#0072B2", "#333333"
FRACTIONS = {tags.ACTION_SATURATION, *tags.CLIP_FRACTION.values(), *tags.TARGET_MOVED.values()}
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "svg.fonttype": "none",  # keep text as text, which makes the file five times smaller
    "svg.hashsalt": "sb3_visual_td3",
    "figure.facecolor": "white",
}


def series_of(training: str, logs: Path) -> SeriesSet:
    """Return what a training run logged; run the training first if its log is missing or incomplete."""
    folder = logs / training.replace(" ", "_").replace(",", "") / str(SEED)
    if not (folder / TRAINED).is_file():
        print(f"training {training!r}: {train(training, SEED, folder):.0f} s")
    (files,) = find_runs(folder)
    return read_run(files.path, files.files).series


def on_steps(data: SeriesSet, tag: str) -> Series:
    """Return a tag's finite points by environment step, even if its own axis counts episodes."""
    series = data[tag]
    if tags.TAGS[tag].x_axis == "episode":
        lengths = data[tags.EPISODE_LENGTH]
        ends = np.cumsum(lengths.values)[np.searchsorted(lengths.steps, series.steps)]
        series = Series(tag, ends.astype(np.int64), series.values)
    return series.finite


def draw_panel(axes: Axes, panel: Panel, faulty: SeriesSet, healthy: SeriesSet, first_step: int | None) -> None:
    """Draw one tag of both training runs."""
    end = faulty.n_steps or 0
    beside = on_steps(healthy, panel.tag)
    pair = [on_steps(faulty, panel.tag), beside.where(beside.steps <= end)]
    floor = _log_floor(pair) if panel.is_log else None
    lines = [(pair[0], FAULTY, "-", 1.8), (pair[1], HEALTHY, "--", 1.4)]
    if panel.against:
        lines.append((on_steps(faulty, panel.against), ONSET, "-.", 1.2))
    for series, colour, dash, width in lines:
        values = series.values
        if floor is not None:
            values = np.maximum(np.abs(values), floor)
        # With few points a line alone hides where they are.
        marker = "." if len(series) < 60 else ""
        axes.plot(series.steps, values, dash, color=colour, lw=width, marker=marker, ms=3)
    if floor is not None:
        _set_log_axis(axes, floor, has_zeros=any((s.values == 0).any() for s in pair))
    elif panel.tag in FRACTIONS:
        axes.set_ylim(-0.04, 1.06)
    if first_step is not None:
        axes.axvline(first_step, color=ONSET, lw=1, ls=":")
    is_magnitude = floor is not None and any((s.values < 0).any() for s in pair)
    title = panel.tag
    if is_magnitude:
        title = f"|{title}|"
    if panel.against:
        title = f"{title} and {panel.against}"
    axes.set_title(title)
    axes.set_xlim(0, end * 1.02)
    axes.set_xlabel("environment step")


def _set_log_axis(axes: Axes, floor: float, has_zeros: bool) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    if has_zeros:
        low, high = axes.get_ylim()
        axes.set_yticks([floor, *(tick for tick in axes.get_yticks() if floor * 3 < tick <= high)])
        axes.set_yticklabels(["0", *(f"$\\mathdefault{{10^{{{round(np.log10(t))}}}}}$" for t in axes.get_yticks()[1:])])
        axes.set_ylim(low, high)


def _log_floor(pair: list[Series]) -> float | None:
    """Return the value at which zeros are drawn on a logarithmic axis.

    :return: a tenth of the smallest positive magnitude, but at least 1e-9 of the largest magnitude; None if a linear
        axis suffices
    """
    magnitudes = np.abs(np.concatenate([series.values for series in pair]))
    positive = magnitudes[magnitudes > 0]
    if positive.size == 0 or (positive.size == magnitudes.size and positive.max() < 30 * positive.min()):
        return None
    return float(max(positive.min() / 10, positive.max() * 1e-9))


def draw(diagnosis_id: str, logs: Path) -> Path:
    """Draw the picture of one diagnosis.

    :raises ValueError: if the report does not find the diagnosis in the training run with the fault
    """
    picture = PICTURES[diagnosis_id]
    faulty, healthy = series_of(picture.training, logs), series_of(picture.beside, logs)
    found = {diagnosis.id: diagnosis for diagnosis in diagnose(faulty)}
    if diagnosis_id not in found:
        raise ValueError(f"{picture.training!r} shows {', '.join(found) or 'nothing'}, and not {diagnosis_id}")
    first_step = found[diagnosis_id].first_step
    n_panels = len(picture.panels)
    with mpl.rc_context(STYLE):
        figure, row = plt.subplots(1, n_panels, figsize=(3.3 * n_panels, 2.5), layout="constrained", squeeze=False)
        for axes, panel in zip(row[0], picture.panels, strict=True):
            draw_panel(axes, panel, faulty, healthy, first_step)
        _legend(figure, first_step)
        path = IMAGES / f"{diagnosis_id}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return path


def _legend(figure: plt.Figure, first_step: int | None) -> None:
    handles = [
        mpl.lines.Line2D([], [], color=FAULTY, lw=1.8, label="this training"),
        mpl.lines.Line2D([], [], color=HEALTHY, lw=1.4, ls="--", label="a healthy training run"),
    ]
    if first_step is not None:
        label = f"first shown at step {first_step:,}"
        handles.append(mpl.lines.Line2D([], [], color=ONSET, lw=1, ls=":", label=label))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False)


def main() -> None:
    """Draw the requested pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PICTURES, metavar="ID", default=list(PICTURES))
    parser.add_argument(
        "-f",
        "--log-folder",
        type=Path,
        default=Path("logs/fault_bench"),
        help="folder of the runs (default: %(default)s)",
    )
    options = parser.parse_args()
    for diagnosis_id in options.only:
        path = draw(diagnosis_id, options.log_folder)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
