from __future__ import annotations

from tests.lab.fixtures import lab

__all__ = ["lab"]
