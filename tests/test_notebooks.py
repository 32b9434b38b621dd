"""The notebooks run from top to bottom."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORTER = {
    "01_quickstart.ipynb": [("N_TIMESTEPS = 4_000", "N_TIMESTEPS = 1_100")],
    "02_anatomy_of_an_explosion.ipynb": [("LEARNING_STARTS = 2_100, 300", "LEARNING_STARTS = 500, 300")],
    # The notebook only shows that the bare log is insufficient. The other policy is dead after a few hundred steps.
    "03_reading_a_run.ipynb": [("bare.learn(2_100", "bare.learn(400"), ("    2_100,", "    900,")],
}
"""Shorter trainings of the notebooks that train for minutes; `make notebooks` trains for as long as they say."""


@pytest.mark.slow
@pytest.mark.minutes(1)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")  # one of them imports an agent from there
    copy = tmp_path / "notebooks" / notebook.name
    copy.parent.mkdir()
    text = notebook.read_text(encoding="utf-8")
    for long, short in SHORTER.get(notebook.name, []):
        assert text.count(long) == 1
        text = text.replace(long, short)
    copy.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=3600", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, str(copy)], capture_output=True, text=True, check=False, timeout=3_600, cwd=copy.parent
    )
    assert result.returncode == 0, result.stdout[-4_000:]


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_defines_no_function_or_class(notebook):
    for cell in code_cells(notebook):
        assert "def " not in cell.source
        assert "class " not in cell.source


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_shows_what_it_made_and_no_error(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert all(cell.execution_count for cell in code_cells(notebook))
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_names_no_machine(notebook):
    text = notebook.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:home|root|work|tmp|Users)/\S*|site-packages", text)


def test_the_notebooks_are_all_named_on_their_page():
    page = (NOTEBOOKS[0].parent / "README.md").read_text(encoding="utf-8")
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert all(f"[`{path.name}`]({path.name})" in page for path in NOTEBOOKS)
