"""The notebooks run from top to bottom."""

import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook):
    command = [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=900", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, str(notebook)], capture_output=True, text=True, check=False, timeout=1_000, cwd=notebook.parent
    )
    assert result.returncode == 0, result.stdout[-4_000:]


def test_notebooks_define_nothing_and_carry_no_output():
    import nbformat

    assert NOTEBOOKS
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                assert "def " not in cell.source
                assert "class " not in cell.source
                assert not cell.outputs
