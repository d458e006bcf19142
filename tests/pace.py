"""How long a promise of seconds may take on cores that other tests use too."""

from __future__ import annotations

import os


def slack() -> float:
    """Factor for such a limit: 1 on a quiet machine, at most 4."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return max(1.0, min(4.0, load / cores))
