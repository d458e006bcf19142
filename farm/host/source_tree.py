"""The hash of farm's own sources: equal on controller and site, or they refuse each other."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

#: The tree that holds farm, models and runners.
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("farm", "models", "runners")
SUFFIXES = frozenset({".py", ".cpp", ".h", ".json", ".txt"})


@cache
def tree_sha256(root: Path = ROOT) -> str:
    """Hash names and contents of all sources, whatever the order of the file system."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                name = path.relative_to(root).as_posix().encode()
                content = hashlib.sha256(path.read_bytes()).digest()
                digest.update(name + b"\0" + content)
    return digest.hexdigest()
