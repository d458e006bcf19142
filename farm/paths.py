"""Where farm keeps its own files on this host: FARM_HOME and its layout."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def farm_home() -> Path:
    """Folder of farm on this host: $FARM_HOME, else the platform's user data folder.

    It is a fact of each host: it never travels from the driver to another machine.
    """
    value = os.environ.get("FARM_HOME")
    if value:
        return Path(value).expanduser().resolve()
    return Path(platformdirs.user_data_dir("farm"))


def store_root(home: Path) -> Path:
    """Content store: objects, actions, locks."""
    return home / "store"


def model_cache(home: Path) -> Path:
    """Downloaded model files."""
    return home / "models"


def native_cache(home: Path) -> Path:
    """Compiled runners and helpers."""
    return home / "native"


def toolchain_root(home: Path) -> Path:
    """Virtual environments of toolchains."""
    return home / "toolchains"


def device_root(home: Path) -> Path:
    """Root folder of the local device, as /data/local/tmp/farm is on a phone."""
    return home / "device"


def history_db(home: Path) -> Path:
    """Index over finished runs; can be rebuilt from run folders."""
    return home / "history.db"


def quarantine_file(home: Path) -> Path:
    """What is remembered of devices: failures in a row, quarantine."""
    return home / "quarantine.json"


def baselines(home: Path) -> Path:
    """Named baselines, one JSON file each."""
    return home / "baselines"
