"""The page of all nights in a real browser: a chart is drawn when it comes into view."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from farm.commands.history import write_page
from farm.state.history import EVERY, History
from tests.lab.browser import Browser
from tests.unit.reports.test_dashboard import index

pytestmark = pytest.mark.lab

__all__ = ["index"]


def test_the_page_of_all_nights_draws_each_metric(index: History, tmp_path: Path) -> None:
    page = write_page(index, None, EVERY, tmp_path)
    (link,) = re.findall(r'<section id="(nightly-[^"]+)"', page.read_text(encoding="utf-8"))
    with Browser(tmp_path / "profile") as browser:
        browser.look(1280)
        browser.open(page, link)
        browser.settle("document.querySelectorAll('.nights .bk-Figure').length === 2")
        assert browser.complaints == []
