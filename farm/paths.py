"""Where farm keeps its own files on this host: FARM_HOME and its layout."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from farm.core.errors import ConfigError


def farm_home() -> Path:
    """Folder of farm on this host: $FARM_HOME, else the platform's user data folder.

    It is a fact of each host: it never travels from the driver to another machine.

    Raises:
        ConfigError: This user has no home folder, or the working directory is gone, and FARM_HOME
            doesn't say where to go.
    """
    value = os.environ.get("FARM_HOME")
    try:
        folder = Path(value).expanduser() if value else Path(platformdirs.user_data_dir("farm"))
        # Without a home folder platformdirs gives a path that begins with `~`, as a name.
        if value or folder.is_absolute():
            return folder.resolve()
    except (RuntimeError, FileNotFoundError) as error:
        raise ConfigError(f"FARM_HOME={value}: {error}; give an absolute path") from error
    raise ConfigError(
        f"user {os.getuid()} has no home folder here; set FARM_HOME to a folder of its own"
    )


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


def outboxes(home: Path, site: str) -> Path:
    """What the agent of a site keeps of runs until their controllers have it."""
    return home / "outboxes" / (site or "local")


def cluster_folder(home: Path) -> Path:
    """What this host keeps of a cluster: its token, and the nodes that were started here."""
    return home / "cluster"
