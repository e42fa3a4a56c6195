"""The documentation is true: its programs run, its commands and links lead somewhere."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PACKAGE = ROOT / "src" / "chainrule"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


class Block(NamedTuple):
    """A fenced block: language, the words after it, lines before its text, text."""

    language: str
    info: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    source = page.read_text(encoding="utf-8")
    assert source.count("```") % 2 == 0, f"{page}: a fence is not closed"
    found = re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```[ \t]*$", source, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2].strip(), source.count("\n", 0, m.start(3)), m[3]) for m in found]


@pages
def test_programs_run(page, tmp_path, monkeypatch):
    """The Python blocks of a page run in order, in one namespace, in an empty folder.

    A block marked `no-run: REASON` is compiled only.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in blocks(page):
        if block.language != "python":
            continue
        # Empty lines in front make a traceback show the line of the page.
        code = compile("\n" * block.line + block.text, str(page), "exec")
        if block.info.startswith("no-run"):
            assert re.fullmatch(r"no-run: .+", block.info), f"{page}:{block.line}: give the reason"
            continue
        assert not block.info, f"{page}:{block.line}: unknown mark {block.info!r}"
        exec(code, namespace)


def commands(page: Path) -> list[list[str]]:
    """The calls of `chainrule` in the shell blocks of a page, as words."""
    lines = [
        line
        for block in blocks(page)
        if block.language in {"sh", "bash", "shell", "console"}
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    calls = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [words[1:] for words in calls if words and Path(words[0]).name == "chainrule"]


@pages
def test_commands_exist(page):
    """Every `chainrule COMMAND --option` that a page shows is one that the command line knows."""
    import typer

    from chainrule.cli.entry import app

    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for words in commands(page):
        if words[0].startswith("-"):
            name, command, options = "chainrule", group, words
        else:
            name, *options = words
            command = group.commands.get(name)
            assert command is not None, f"{page.name}: chainrule has no command {name!r}"
        known = {"--help"}.union(*(p.opts + p.secondary_opts for p in command.params))
        for word in options:
            if word.startswith("-"):
                option = word.split("=")[0]
                assert option in known, f"{page.name}: chainrule {name} has no option {option}"


@pages
def test_links_lead_somewhere(page):
    """A relative link names a file of the repository; one with `#part` names a heading of it."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, part = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), f"{page.name} links to {target}, which is not there"
        if part:
            assert part in anchors(linked), f"{page.name} links to {target}: no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def modules_with_examples() -> list[str]:
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(PACKAGE.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules_with_examples())
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert result.attempted > 0
    assert result.failed == 0
