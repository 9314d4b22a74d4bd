import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
PROSE = {page: re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL) for page in PAGES}
LINKS = [(page, link) for page, text in PROSE.items() for link in re.findall(r"\]\(([^):]+)\)", text)]


def test_every_block_of_python_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 4
    names = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "8000 -> 4800" in printed
    assert "teddy: 4,800 of 8,000 entries" in printed
    assert (tmp_path / "out" / "ticket.safetensors").is_file()


def anchors(page):
    """Return the anchors of the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def test_every_page_is_linked():
    linked = {link.partition("#")[0] for page, link in LINKS if page == "README.md"}
    assert set(PAGES[1:]) <= linked


def test_commands_are_those_of_the_makefile_and_of_ci():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^make (\w+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
