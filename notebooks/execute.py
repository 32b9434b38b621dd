"""Run the notebooks from top to bottom and keep their outputs, without the paths of this machine.

python notebooks/execute.py                      # all of them: `make notebooks`
python notebooks/execute.py 04_carla.ipynb
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
CELL_TIMEOUT_S = 900


def execute(path: Path) -> float:
    """Run one notebook in its folder and write it back.

    :return: seconds that it took
    """
    begin = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=CELL_TIMEOUT_S, resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    text = nbformat.writes(notebook)
    path.write_text(text.replace(f"{HERE}/", "").replace(f"{HERE.parent}/", ""), encoding="utf-8")
    return time.perf_counter() - begin


def main() -> None:
    """Run those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", help="names (default: all)")
    chosen = parser.parse_args().notebooks or sorted(path.name for path in HERE.glob("*.ipynb"))
    missing = [name for name in chosen if not (HERE / name).is_file()]
    if missing:
        sys.exit(f"there is no {', '.join(missing)} in {HERE.name}/")
    for name in chosen:
        print(f"{name}: {execute(HERE / name):.0f} s", flush=True)


if __name__ == "__main__":
    main()
