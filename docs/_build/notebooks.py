"""Show the notebooks as pages: with outputs where build/notebooks has executed ones, else code and text only."""

from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
EXECUTED = ROOT / "build" / "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and its pictures."""
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        executed = EXECUTED / source.name
        notebook = nbformat.read(executed if is_current(executed, source) else source, as_version=4)
        text, resources = MarkdownExporter().from_notebook_node(
            notebook, {"unique_key": source.stem, "output_files_dir": source.stem}
        )
        text = text.replace(".ipynb)", ".md)")  # links between notebooks
        files.append(File.generated(config, f"notebooks/{source.stem}.md", content=text))
        for name, picture in resources["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    return files


def is_current(executed: Path, source: Path) -> bool:
    """Whether an executed notebook has the same cells as its source."""
    if not executed.is_file():
        return False
    cells = [[cell.source for cell in nbformat.read(path, as_version=4).cells] for path in (executed, source)]
    return cells[0] == cells[1]
