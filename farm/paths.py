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
    name = f"FARM_HOME={value}" if value else "FARM_HOME is unset"
    try:
        folder = Path(value).expanduser() if value else Path(platformdirs.user_data_dir("farm"))
        # Without a home folder platformdirs gives a path that begins with `~`, as a name.
        if value or folder.is_absolute():
            folder = folder.resolve()
            require_utf8(folder, "FARM_HOME")
            _require_folder(folder, name)
            return folder
    except (RuntimeError, FileNotFoundError) as error:
        raise ConfigError(f"{name}: {error}; set it to an absolute path") from error
    raise ConfigError(
        f"user {os.getuid()} has no home folder here; set FARM_HOME to a folder of its own"
    )


def require_utf8(path: Path, name: str) -> None:
    """Refuse a path that reports and journals can't hold.

    Raises:
        ConfigError: Its bytes are another encoding's.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{name}: {path} is not UTF-8; give a path that is") from None


def _require_folder(folder: Path, name: str) -> None:
    """Refuse a place that can't become a folder, before a command fails in the middle of it."""
    there = _existing(folder)
    if not there.is_dir():
        raise ConfigError(f"{name}: {there} is a file; give the path of a folder")
    if there != folder and not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{name}: {folder} isn't there, and user {os.getuid()} may not make it in {there};"
            " set FARM_HOME to a folder that this user may write to"
        )


def _existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that this user can see."""
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def unwritable(path: Path) -> str:
    """Say what keeps this user from writing a file or folder, and the way on; empty: nothing."""
    there, user = _existing(path), os.geteuid()
    if os.access(there, os.W_OK):
        return ""
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        return f"{there} is mounted read-only: set FARM_HOME to another folder"
    owner = there.stat().st_uid
    mend = f"chmod u+w {there}" if owner == user else f"sudo chown -R {user} {there}"
    return (
        f"{there} is user {owner}'s and this is user {user}, who may not write there (was farm"
        f" run with sudo?): {mend}, or set FARM_HOME to another folder"
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


def deployments(home: Path) -> Path:
    """Journals of deployments, one folder each."""
    return home / "deployments"


def outboxes(home: Path, site: str) -> Path:
    """What the agent of a site keeps of runs until their controllers have it."""
    return home / "outboxes" / (site or "local")


def cluster_folder(home: Path) -> Path:
    """What this host keeps of a cluster: its token, and the nodes that were started here."""
    return home / "cluster"
