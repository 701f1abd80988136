"""Execute the paired scripts of this folder and write them, with their outputs, as notebooks.

Run it after a script was changed: `python docs/notebooks/execute.py`. The site shows the notebooks as they are.
"""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient


def execute(script: Path) -> Path:
    """Execute one script; returns the notebook's path."""
    notebook = jupytext.read(script)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = str(number)  # drawn at random otherwise, so that every execution would change the file
        cell.metadata.clear()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    path = script.with_suffix(".ipynb")
    nbformat.write(notebook, path)
    return path


if __name__ == "__main__":
    for script in sorted(Path(__file__).parent.glob("*.py")):
        if script != Path(__file__):
            print(execute(script))
