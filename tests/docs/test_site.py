"""The site builds strictly: no dead link, no orphan, nothing fetched from elsewhere; generated parts are up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import DOCS, ROOT, blocks, pages, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_LANGUAGES = {"console", "sh", "python", "toml", "text", "json", "yaml"}


def _build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Not quietly: mkdocs counts only the warnings that it shows."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = _build(ROOT, folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


@pytest.mark.parametrize(
    ("page", "text"),
    [("orphan.md", "# Nobody leads here\n"), ("README.md", "# Home\n\n[gone](nowhere.md)\n")],
    ids=["orphan", "dead link"],
)
def test_it_does_not_build_with(page: str, text: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(DOCS, source / "docs")
    shutil.copy(ROOT / "mkdocs.yml", source)
    (source / "docs" / page).write_text(text, "utf-8")
    assert _build(source, tmp_path / "site").returncode != 0


def test_it_builds_strictly_with_every_page_and_a_search(site: Path) -> None:
    for page in pages():
        relative = page.relative_to(DOCS)
        html = (
            relative.with_name("index.html")
            if relative.name == "README.md"
            else relative.with_suffix(".html")
        )
        assert (site / html).is_file(), f"{relative} is not in the site"
    assert (site / "search" / "search_index.json").is_file()


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|link rel="stylesheet"|img)[^>]+(?:src|href)="(https?://[^"]+)"')
    for path in site.rglob("*.html"):
        assert not loaded.findall(path.read_text("utf-8")), path.name


def test_generated_parts_are_what_the_generator_gives() -> None:
    import docs_generate

    for page in pages():
        text = page.read_text("utf-8")
        assert docs_generate.generated(text) == text, (
            f"{page.name} is old: run `python scripts/docs_generate.py`"
        )


def test_every_generated_part_stands_on_one_page() -> None:
    import docs_generate

    named = [
        name for page in pages() for name in re.findall(r"<!-- generated: ([a-z-]+) -->", page.read_text())
    ]
    assert sorted(named) == sorted(docs_generate._PARTS)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in _anchors(target), f"{page.name} links to {link}, and there is no such heading"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_reads_well_as_it_stands(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith("# "), f"{page.name} begins with its title"
    assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1
    unknown = {block.language for block in blocks(page)} - _LANGUAGES
    assert not unknown, f"{page.name} has blocks that no test looks at: {unknown}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")
        for heading in headings
    }
