"""Guides say what the code has: every error by its name."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from farm.core import errors

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


def test_every_error_has_its_paragraph() -> None:
    text = (GUIDES / "troubleshooting.md").read_text(encoding="utf-8")
    described = re.findall(r"^### (\w+)\n(?=\S)", text, re.M)
    known = {
        name
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, errors.FarmError)
    }
    assert set(described) == known
    assert len(described) == len(known)
