"""The executed notebooks in `examples`: run each from its first cell, and write it back with what its cells show.

`python -m pages.notebooks` writes them; with `--check` it only says where a cell shows something else than in the
file. Pictures and progress bars are not compared. Needs the extra `notebook`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ("operator", "reviewer", "researcher")
_SECONDS = 600


def path_of(name: str) -> Path:
    """Return the file of a notebook."""
    return ROOT / "examples" / f"{name}.ipynb"


def executed(path: Path) -> Any:
    """Return a notebook with the outputs of a run in a new kernel; raises what its first failing cell raises."""
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    # Messages go through files that nobody else can read, and not over a network.
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc")
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, km=manager, timeout=_SECONDS, resources=where, record_timing=False).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def shown(notebook: Any) -> list[list[str]]:
    """Return the texts that each cell of code shows: what it prints, however many pieces it came in, and its result."""
    out = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        printed = "".join(
            str(each.text) for each in cell.outputs if each.output_type == "stream" and each.name == "stdout"
        )
        results = [
            str(each.data.get("text/plain", ""))
            for each in cell.outputs
            if each.output_type == "execute_result" and "image/png" not in each.data
        ]
        out.append([printed] * bool(printed) + results)
    return out


def differing(name: str) -> list[str]:
    """Return a line for each cell of a notebook that shows something else than it does in the file."""
    import nbformat

    before = shown(nbformat.read(path_of(name), as_version=4))
    after = shown(executed(path_of(name)))
    return [
        f"{name}, cell {i}: {then!r}, and now {now!r}"
        for i, (then, now) in enumerate(zip(before, after, strict=True), 1)
        if then != now
    ]


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if not word.startswith("-")] or list(NOTEBOOKS)
    if "--check" in sys.argv[1:]:
        found = [line for each in chosen for line in differing(each)]
        print(*found, sep="\n")
        sys.exit(1 if found else 0)
    import nbformat

    for each in chosen:
        made = executed(path_of(each))
        nbformat.write(made, path_of(each))
        print(path_of(each))
