"""The pages for people: links lead somewhere, commands exist, the reference is the code's."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from farm.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), ROOT / "examples/README.md"]
    + [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
)
#: Where commands stand besides pages.
SCRIPTS = sorted(
    path
    for folder in (ROOT / "examples/ci", ROOT / "configs/nightly")
    for path in folder.iterdir()
    if path.suffix not in (".timer",)
)


@cache
def farm() -> Any:
    return get_command(app)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Names of the headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return frozenset(
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles
    )


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        named = not anchor or target.suffix != ".md"
        if not target.exists() or not (named or anchor in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_a_wrong_link_is_found() -> None:
    assert "what-there-is" in anchors(DOCS / "python.md")
    assert "farm-devices-check" in anchors(DOCS / "reference/cli.md")


def test_the_site_has_every_page_and_no_other() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def listed(entries: Any) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else listed(value)

    nav = list(listed(site["nav"]))
    assert [page for page in nav if not (DOCS / page).is_file()] == []
    assert len(nav) == len(set(nav))
    others = site["not_in_nav"].split()
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    lost = [p for p in pages if p not in nav and not any(fnmatch.fnmatch(p, o) for o in others)]
    assert lost == []


def test_the_readme_is_short_and_shows_what_there_is() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 2
    assert all((ROOT / picture).stat().st_size > 1000 for picture in pictures)


def test_the_reference_is_as_the_code_is() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def commands(text: str) -> Iterator[list[str]]:
    """Every farm command of a text that a shell would start."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines():
        start = re.search(r"(?:^|[\s;&'\"=])((?:[\w./]*/)?farm|\"\$farm\") (?=[a-z-])", line)
        if start is None or line.lstrip().startswith(("#", "//")):
            continue
        rest = re.split(r"\s#\s|\s#$|;|&&|\s\|\s|\s>+\s|\|\|", line[start.end(1) :])[0]
        rest = re.sub(r"'\s*$", "", rest) if rest.count("'") % 2 else rest
        yield shlex.split(rest)


def parse(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    """Parse as the command line does, and start nothing.

    Raises:
        Exception: No such command, or not with such arguments.
    """
    context = command.make_context(name, list(words), parent=parent)
    if not hasattr(command, "commands"):
        return
    rest = [*getattr(context, "_protected_args", ()), *context.args]
    if rest:
        child = command.get_command(context, rest[0])
        assert child is not None, f"no command {name} {rest[0]}"
        parse(child, rest[0], rest[1:], context)


def shown(path: Path) -> str:
    """What of a file a shell would get."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return "\n".join(_blocks(text))
    if path.suffix == ".yml":  # folded lines are one
        return "\n".join(_texts(yaml.safe_load(text)))
    return text


def _blocks(text: str) -> Iterator[str]:
    """Lines of the blocks of a page that are shell, or of no language."""
    language = None
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            language = line.strip("` ") if language is None else None
        elif language in ("", "sh"):
            yield line


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=ids)
def test_every_command_exists_with_its_options(path: Path) -> None:
    wrong = []
    for words in commands(shown(path)):
        try:
            parse(farm(), "farm", words)
        except Exception as error:
            wrong.append(f"farm {' '.join(words)}: {error}")
    assert wrong == []


def test_a_wrong_command_is_found_and_the_examples_have_some() -> None:
    with pytest.raises(Exception, match="--no-such"):
        parse(farm(), "farm", ["devices", "check", "phone", "--no-such"])
    with pytest.raises(AssertionError, match="no command farm nightlyy"):
        parse(farm(), "farm", ["nightlyy"])
    for path in SCRIPTS:
        if path.name not in ("crontab",):
            assert list(commands(shown(path))), path


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_that_a_text_names_exist(page: Path) -> None:
    known = set(farm().commands)
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    named = set(re.findall(r"`farm ([a-z]+)", text))
    assert named - known == set()
