from __future__ import annotations

from tests.lab.fixtures import adb_device, adb_server, lab, machines, ssh_device

__all__ = ["adb_device", "adb_server", "lab", "machines", "ssh_device"]
