"""report.html in a real browser: its scripts run under its own policy, and do what they say."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from farm.commands.side_by_side import page as side_by_side
from farm.reports import html
from tests.lab.browser import Browser
from tests.lab.pages import matrix

pytestmark = pytest.mark.lab

#: Fetched by `npm pack` when the test runs; its licence keeps it out of this repository.
AXE = "axe-core@4.10.3"
AXE_SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"
#: Contrast, and what a screen reader and a narrow window need.
RULES = Path(__file__).with_name("page_rules.js").read_text()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all of it."""
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found
        assert found.complaints == []


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page with its cells inside, one with packed ones, one of two runs."""
    folder = tmp_path_factory.mktemp("pages")
    small, large = matrix(24), matrix(2000)
    made = {
        "small": html.render(small),
        "large": html.render(large),
        "two": side_by_side(small, matrix(12)),
    }
    for name, text in made.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in made}


def test_filter_sort_and_links(browser: Browser, pages: dict[str, Path]) -> None:
    browser.look(1280)
    browser.open(pages["small"], "words=recipe-1&without=skipped&sort=-6")
    assert browser.value("document.querySelector('#count').textContent") == "10 of 24 cells"
    rows = "[...document.querySelectorAll('#table tbody tr')].filter((r) => !r.hidden)"
    shown = browser.value(f"{rows}.map((r) => [Number(r.dataset.n), r.dataset.outcome])")
    assert [outcome for _, outcome in shown][:2] == ["passed", "passed"]
    assert all(n >= 12 and outcome != "skipped" for n, outcome in shown)
    sorted_by = browser.value("document.querySelector('#table th[aria-sort]').dataset.column")
    assert sorted_by == "6"
    # By hand: another filter, the other way round, and the address says it.
    browser.value(
        "(() => {const w = document.querySelector('#words'); w.value = 'dev00';"
        " w.dispatchEvent(new Event('input', {bubbles: true}));"
        " document.querySelector('#table th[aria-sort] button').click();})()"
    )
    assert browser.value("location.hash") == "#words=dev00&without=skipped&sort=6"
    assert browser.value("document.querySelector('#count').textContent") == "2 of 24 cells"


def test_a_link_opens_a_cell_of_two_thousand_and_draws_it(
    browser: Browser, pages: dict[str, Path]
) -> None:
    assert pages["large"].stat().st_size < 12e6
    assert "The capital of France" not in pages["large"].read_text()
    browser.look(1280)
    before_s = browser.busy_s()
    browser.open(pages["large"], "cell-model-recipe-1-dev00")
    assert browser.busy_s() - before_s < 3
    cell = "document.querySelector('#cell-model-recipe-1-dev00')"
    browser.settle(f"{cell}.open && {cell}.textContent.includes('The capital of France')")
    browser.settle(f"{cell}.querySelectorAll('.chart .bk-Figure').length >= 5")
    titles = browser.value(f"[...{cell}.querySelectorAll('.chart h4')].map((h) => h.textContent)")
    assert any("over 6 nights" in title for title in titles)
    assert any(title.startswith("temperature") for title in titles)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 768, 400])
@pytest.mark.parametrize("name", ["small", "two"])
def test_everybody_can_read_it(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.look(width, dark=dark)
    browser.open(pages[name])
    browser.value("document.querySelectorAll('details').forEach((d, n) => d.open = n < 9)")
    for rule in ("landmarks", "contrast"):
        assert browser.value(f"(() => {{ {RULES}; return {rule}(); }})()") == []


def _missing(why: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, as its package has it; with CI=true it must be there."""
    npm = shutil.which("npm")
    if npm is None:
        _missing("npm is missing, so axe-core can't be had: run tests/lab/install.sh")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    if done.returncode:
        _missing(f"npm pack {AXE}: {done.stderr.strip()[-200:]}")
    (package,) = folder.glob("*.tgz")
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        content = member.read()
    assert hashlib.sha256(content).hexdigest() == AXE_SHA256
    return content.decode()


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(browser: Browser, pages: dict[str, Path], axe: str, dark: bool) -> None:
    browser.look(1280, dark=dark)
    for name in ("small", "two"):
        browser.open(pages[name], bypass_policy=True)
        browser.value("document.querySelectorAll('details').forEach((d, n) => d.open = n < 9)")
        browser.value(f"{axe}; 1")
        found = browser.value(
            "axe.run({resultTypes: ['violations']}).then((r) => r.violations.map((v) =>"
            " [v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 120))]))"
        )
        assert found == [], json.dumps(found, indent=1)
