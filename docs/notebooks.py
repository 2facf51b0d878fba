"""The notebook of the site: runs it, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["NOTEBOOK", "executed", "printed"]

NOTEBOOK = Path(__file__).parent / "notebook.ipynb"


def executed(folder: Path) -> NotebookNode:
    """The notebook with what its cells print now; raises what a cell raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False,
                            coalesce_streams=True,
                            resources={"metadata": {"path": str(folder)}})
    client.execute()
    for cell in notebook.cells:  # bars of progress, emptied when all was done
        if "outputs" in cell:
            cell["outputs"] = [out for out in cell["outputs"] if out.get("data", {}).get(
                "text/html", "x")]
    return notebook


def printed(notebook: NotebookNode) -> list[str]:
    """The text of each output, without how fast this machine simulates."""
    texts = [out.get("text") or out.get("data", {}).get("text/plain", "")
             for cell in notebook.cells for out in cell.get("outputs", ())]
    return ["\n".join(line for line in text.splitlines() if "cycles per second" not in line)
            for text in texts]
