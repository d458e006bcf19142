"""The command that opens an interactive shell on a device, for a person at a terminal.

A program of this host (adb, ssh, a shell) talks to the terminal; nothing passes through farm.
"""

from __future__ import annotations

import os
import shutil

from farm.core.device import DeviceEntry
from farm.core.errors import ConfigError, ConnectError


def shell_argv(entry: DeviceEntry) -> tuple[str, ...]:
    """Return the arguments of an interactive shell.

    Raises:
        ConnectError: The program that it needs isn't on this host.
        ConfigError: The device has no shell (it is simulated), or its entry is incomplete.
    """
    if entry.transport == "adb":
        return _adb(entry)
    if entry.transport == "ssh":
        return _ssh(entry)
    if entry.transport == "local":
        return (os.environ.get("SHELL") or "/bin/sh",)
    raise ConfigError(f"{entry.name}: a device with transport {entry.transport} has no shell")


def _adb(entry: DeviceEntry) -> tuple[str, ...]:
    from farm.transports import adb_devices  # its package is optional

    host, port = adb_devices.server_address(entry.adb_server)
    program = adb_devices.adb_program()
    return (program, "-H", host, "-P", str(port), "-s", entry.serial or "", "shell")


def _ssh(entry: DeviceEntry) -> tuple[str, ...]:
    from farm.transports import ssh_keys  # its package is optional
    from farm.transports.ssh_config import resolve

    program = shutil.which("ssh")
    if program is None:
        raise ConnectError("there is no ssh program on this host: install OpenSSH's client")
    words = [program, "-o", "StrictHostKeyChecking=yes"]
    # Keys that people trusted with `farm devices trust` count here too.
    files = [
        f'"{path}"'
        for path in ssh_keys.known_hosts_files(entry, resolve(entry).known_hosts)
        if path.is_file()
    ]
    if files:
        words += ["-o", f"UserKnownHostsFile={' '.join(files)}"]
    if entry.identity:
        words += ["-i", os.path.expanduser(entry.identity)]
    if entry.port:
        words += ["-p", str(entry.port)]
    if entry.user:
        words += ["-l", entry.user]
    return (*words, "--", entry.host or "")
