"""Recovery of a device that doesn't answer: the inventory's steps, in order, bounded per day.

Steps are `reconnect`, `reboot`, and commands of this host such as a USB port cycle. Each is
followed by looks at the device, and reported.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import shlex
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from farm.clock import Deadline, utc_now
from farm.core.command import Command
from farm.core.device import Device, DeviceEntry
from farm.core.errors import ConnectError, FarmError, StoreError, TransportError
from farm.core.events import DeviceRecovery
from farm.site.agent.inventory import probe_all
from farm.site.context import SiteContext
from farm.site.parsers.text import clean_text
from farm.state.json_file import changed_state

log = logging.getLogger(__name__)

#: A device that needs more steps is broken, and more power cycles only wear it.
STEPS_PER_DAY = 12
#: How long a device is looked for after each kind of step, seconds.
BACK_AFTER_S = {"reconnect": 5.0, "reboot": 180.0, "command": 60.0}
#: Limit of a host command, seconds.
COMMAND_S = 120.0
#: Limit of the order to reboot, seconds.
REBOOT_S = 10.0
#: Between two looks, seconds.
LOOK_PAUSE_S = 2.0
COMMAND_PREFIX = "command: "

Emit = Callable[[DeviceRecovery], None]


def recover(
    entry: DeviceEntry, context: SiteContext, emit: Emit, ended: threading.Event
) -> Device | None:
    """Perform the steps of an entry until the device answers.

    Args:
        entry: The device; one without steps is only looked for again.
        context: Folders and factories of this host.
        emit: Called with every step and its result.
        ended: Set to give up.

    Returns:
        The device when it answers, else None.
    """
    for step in entry.recover or ("reconnect",):
        if ended.is_set():
            return None
        # Only the steps that the inventory names are counted: a look alone does no harm.
        if entry.recover and not _allowed(entry, context.home):
            text = f"{STEPS_PER_DAY} recovery steps within a day didn't bring it back: go and"
            emit(DeviceRecovery(entry.name, step, utc_now(), False, f"{text} look at it"))
            return None
        detail = _perform(step, entry, context)
        device = _look(entry, context, _patience_s(step), ended)
        if entry.recover:
            back = "it answers again" if device is not None else "it still doesn't answer"
            note = f"{detail}; {back}" if detail else back
            log.warning("%s: recovery step %s: %s", entry.name, step, note)
            emit(DeviceRecovery(entry.name, step, utc_now(), device is not None, note))
        if device is not None:
            return device
    return None


def _perform(step: str, entry: DeviceEntry, context: SiteContext) -> str:
    """Do one step; return what went wrong with it, for people."""
    if step.startswith(COMMAND_PREFIX):
        return run_command(step.removeprefix(COMMAND_PREFIX), entry)
    if step == "reboot":
        return _reboot(entry, context)
    return ""  # every look opens a connection of its own


def run_command(command: str, entry: DeviceEntry) -> str:
    """Run a command of the inventory on this host, without a shell.

    It finds the device in FARM_DEVICE, FARM_SERIAL and FARM_HOST.
    """
    known = {"FARM_DEVICE": entry.name, "FARM_SERIAL": entry.serial, "FARM_HOST": entry.host}
    env = {**os.environ, **{key: value for key, value in known.items() if value}}
    try:
        done = subprocess.run(
            shlex.split(command),
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"it can't be run: {error}"
    if done.returncode == 0:
        return ""
    return f"exit {done.returncode}: {clean_text(done.stdout[-300:])}"


def _reboot(entry: DeviceEntry, context: SiteContext) -> str:
    if entry.transport not in ("adb", "ssh"):
        return f"a device with transport {entry.transport} is not rebooted"
    answer = ""
    try:
        with contextlib.closing(context.open_transport(entry)) as transport:
            for argv in (("reboot",), ("sudo", "-n", "reboot")):
                done = transport.run(Command(argv, timeout_s=REBOOT_S))
                if done.ok:
                    return ""
                answer = done.error_text or f"exit {done.exit_code}"
    except ConnectError as error:
        return f"the order didn't reach it: {error.message}"
    except TransportError:
        return ""  # a device that goes down takes the connection along
    except FarmError as error:
        return error.message
    return f"it refuses to reboot: {clean_text(answer)[:200]}"


def _look(
    entry: DeviceEntry, context: SiteContext, for_s: float, ended: threading.Event
) -> Device | None:
    limit = Deadline(for_s)
    while True:
        (device,) = probe_all([entry], context)
        if device.facts is not None:
            return device
        if limit.passed or ended.wait(LOOK_PAUSE_S):
            return None


def _patience_s(step: str) -> float:
    return BACK_AFTER_S.get(step, BACK_AFTER_S["command"])


def _allowed(entry: DeviceEntry, home: Path) -> bool:
    """Count a step of the last day; False when there were too many."""
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    try:
        with changed_state(home / "recoveries.json") as data:
            kept = [
                text
                for text in data.get(entry.name, [])
                if now - datetime.datetime.fromisoformat(text) < day
            ]
            allowed = len(kept) < STEPS_PER_DAY
            data[entry.name] = [*kept, now.isoformat()] if allowed else kept
    except StoreError as error:
        # Without the count the bound isn't kept, so the step isn't done.
        log.warning("%s: no recovery: %s", entry.name, error)
        return False
    return allowed
