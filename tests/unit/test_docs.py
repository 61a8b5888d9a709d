"""The documentation is built without a warning, and says nothing that the code does not."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted(ROOT.glob("anomalib_logic/models/*/README.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build all pages with warnings, among them of links and anchors, as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_docs_are_built_without_a_warning(site):
    assert "What it finds" in (site / "models" / "glcf.html").read_text(encoding="utf-8")


def test_arguments_come_from_docstrings(site):
    text = (site / "models" / "glcf.html").read_text(encoding="utf-8")
    assert "Attention heads of the bottleneck" in text
    assert ":class:" not in text


def test_notebooks_are_pages(site):
    assert {f"{path.stem}.html" for path in NOTEBOOKS} <= {path.name for path in (site / "notebooks").iterdir()}


def test_pages_are_no_requests_to_other_servers(site):
    loaded = re.compile(r"<(?:script|img)[^>]+src=\"https?:|<link[^>]+rel=\"stylesheet\"[^>]+href=\"https?:")
    assert not [path for path in site.rglob("*.html") if loaded.search(path.read_text(encoding="utf-8"))]


def anchors(page):
    """Anchors of a page's headings as code hosts and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_beside_the_docs_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_ci_runs_the_tests_command_of_the_readme():
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    command = re.search(r"python (-m pytest .*)", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert command in run


def test_messages_of_troubleshooting_are_in_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "anomalib_logic").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert len(messages) > 20
    assert not [message for message in messages if not any(message in text for text in texts)]


def test_files_that_the_docs_name_exist():
    files = re.compile(r"\b((?:benchmarks|configs|examples|tests)/[\w/]+\.(?:yaml|py))")
    for page in [*PAGES, *(ROOT / "docs").rglob("*.md")]:
        missing = [n for n in files.findall(page.read_text(encoding="utf-8")) if not (ROOT / n).is_file()]
        assert not missing, page.name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)


def test_there_are_five_notebooks():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]
