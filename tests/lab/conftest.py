from __future__ import annotations

from tests.lab.fixtures import adb_device, adb_server, lab, machines, ssh_device
from tests.lab.ssh_user import board, home

__all__ = ["adb_device", "adb_server", "board", "home", "lab", "machines", "ssh_device"]
