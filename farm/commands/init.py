"""The files that a lab begins with: an inventory of what is attached, and a config that uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.config.save import inventory_text, run_config_text
from farm.core.device import Device
from farm.core.errors import ConfigError
from farm.files import write_whole

INVENTORY = "lab.yaml"
CONFIG = "farm.yaml"


@dataclass(frozen=True, slots=True)
class Begun:
    """What was written, and what a person does next."""

    files: tuple[Path, ...]
    devices: tuple[Device, ...]
    #: Public keys that an ssh device could be given; empty where this user has none.
    keys: tuple[Path, ...]


def begin(folder: Path, devices: Sequence[Device], ssh: Path) -> Begun:
    """Write both files into a folder.

    Args:
        folder: Where they go; made where it doesn't exist.
        devices: As a probe of this machine found them.
        ssh: Folder of this user's ssh keys.

    Raises:
        ConfigError: One of them exists, or the folder can't be written. Nothing was written then.
    """
    texts = {
        folder / INVENTORY: inventory_text(devices, INVENTORY),
        folder / CONFIG: run_config_text(folder.resolve().name),
    }
    for path in texts:
        _require_new(path)
    for path, text in texts.items():
        _write(path, text)
    return Begun(tuple(texts), tuple(devices), tuple(sorted(ssh.glob("*.pub"))))


def save(path: Path, devices: Sequence[Device]) -> None:
    """Write devices as an inventory.

    Raises:
        ConfigError: The file exists, or can't be written.
    """
    _require_new(path)
    _write(path, inventory_text(devices, path.name))


def _require_new(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists; it is left as it is: remove it, or give another name")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from error
