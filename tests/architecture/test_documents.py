"""What the written pages promise: links lead somewhere, named modules exist, decisions are numbered."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.repository import ROOT, files, name

PAGES = [name(path) for path in files(".md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADINGS = ("**Proves**", "**Race.**", "**Forging.**", "**Platforms.**", "**Code.**")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    """Every relative link names a file of the repository, and its anchor a heading there."""
    broken = []
    for link in LINK.findall(prose(ROOT / page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str):
    """Every path of the package, the tests, the policy or the documents in code quotes exists."""
    named = re.findall(r"`((?:attestd|tests|docs|policy)/[\w./-]+)`", (ROOT / page).read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/evidence/") and "README" not in page])
def test_evidence_pages_answer_every_question(page: str):
    """What it proves, its race, who can forge it, where it works, where it is in the code; and the index names it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [heading for heading in HEADINGS if heading not in text] == []
    assert f"({Path(page).name})" in (ROOT / "docs/evidence/README.md").read_text(encoding="utf-8")


def test_comments_name_documents_that_exist():
    """Whatever page a Python file refers to is part of the repository, and so is every decision."""
    pages = {Path(page).name for page in PAGES}
    decisions = {path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}
    unknown = [
        f"{name(path)}: {word}"
        for path in files(".py", ".toml", ".c")
        for word in re.findall(
            r"(?<![/\w-])(?:docs/[\w/]+/)?[a-z][\w-]*\.md\b|docs/adr/\d{4}", path.read_text(encoding="utf-8")
        )
        if word.rpartition("/")[2] not in pages | decisions
    ]
    assert unknown == []


def test_decisions_are_numbered():
    """Decisions are 1, 2, 3 …, each says so in its title, has the three parts, and stands in the index."""
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    for number, path in enumerate(pages, 1):
        text = path.read_text(encoding="utf-8")
        assert path.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. ")
        assert [
            part for part in ("Status: ", "## Context\n", "## Decision\n", "## Consequences\n") if part not in text
        ] == []
        assert f"({path.name})" in index


def test_the_rooms_of_the_architecture_are_those_of_the_package():
    """The table of rooms names each room and nothing else."""
    named = set(
        re.findall(r"^\| `([\w.]+)/?` \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    present = {path.name for path in (ROOT / "attestd").iterdir() if path.name not in ("__init__.py", "__pycache__")}
    assert named == {each for each in present if not each.startswith(".")}


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
