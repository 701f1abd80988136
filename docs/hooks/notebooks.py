"""Executed notebooks as pages: text, code, printed output and pictures, taken from the .ipynb at build time."""

import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files


def to_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name.

    Args:
        notebook: the parsed .ipynb.
        name: what the pictures' file names start with.

    Raises:
        ValueError: where a code cell was not executed.
    """
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        if cell["execution_count"] is None:
            raise ValueError(f"{name}.ipynb: a cell was not executed; run docs/notebooks/execute.py.")
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}_{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![{_caption(cell)}]({file})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _caption(cell: dict[str, Any]) -> str:
    """What a picture shows, in words: the first comment of the cell that drew it."""
    return "".join(cell["source"]).splitlines()[0].removeprefix("# ").strip()


def on_files(files: Files, config: Any) -> Files:
    """Add a page, and its pictures, for every notebook."""
    for path in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        text, pictures = to_page(json.loads(path.read_text()), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files
