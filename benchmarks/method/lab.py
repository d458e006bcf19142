"""Makes sure that the lab's programs are there before a benchmark uses its devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab.host import why_not

_INSTALL = Path(__file__).resolve().parents[2] / "tests" / "lab" / "install.sh"


def no_lab() -> str | None:
    """Install what the lab needs, as root; return why there can be none, None where there can."""
    if os.geteuid() == 0:
        subprocess.run([_INSTALL], check=True, stdout=sys.stderr)
    return why_not()
