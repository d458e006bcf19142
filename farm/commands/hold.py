"""A person's hold of a device: take it, give it back, or work on the device in a shell.

The hold is a file on the device. So every host that runs farm sees it, no run gets the device
meanwhile, and it lasts when this process has ended.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from farm.clock import Deadline
from farm.config.load import load_inventory
from farm.core.command import Command, Completed
from farm.core.device import DeviceEntry
from farm.core.errors import DeviceError, LeaseError, TransportError
from farm.core.lease import Hold, Lease
from farm.core.printable import one_line
from farm.planning.devices import find_entry
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper
from farm.site.device.lease import user_and_host
from farm.transports.interactive import shell_argv

log = logging.getLogger(__name__)

#: A hold of a command that goes on: its end without renewal, and how often it is renewed, seconds.
TTL_S = 60.0
RENEW_AFTER_S = 20.0
#: Pause before a device that somebody has is asked for again, seconds.
ASK_S = 1.0
#: Longest reason that is kept, characters.
REASON_LENGTH = 200


@contextlib.contextmanager
def connected(name: str, inventory: Path | None, home: Path) -> Iterator[Connection]:
    """Connect to a device by its name.

    Raises:
        ConfigError, UnknownName: As `find_entry`.
    """
    connection = Connection(find_entry(load_inventory(inventory), name), home)
    try:
        yield connection
    finally:
        connection.close()


def hold_device(
    home: Path, entry: DeviceEntry, for_s: float, reason: str, me: str, wait_s: float = 0.0
) -> Hold:
    """Take a device for a person, on the host that it hangs on.

    Args:
        home: FARM_HOME of that host.
        entry: The device.
        for_s: How long.
        reason: Why.
        me: The person, as `user_and_host` names them where they sit.
        wait_s: How long to wait for it. The run that has it lets go after the job that it does.

    Raises:
        LeaseError: Somebody else has it; the message says who, why and how long.
        TransportError: It can't be reached.
    """
    limit = Deadline(wait_s)
    with contextlib.closing(Connection(entry, home)) as connection:
        while True:
            try:
                return hold(connection.helper, for_s, reason, me)
            except LeaseError:
                if limit.remaining_s < ASK_S:
                    raise
                time.sleep(ASK_S)


def release_device(
    home: Path, entry: DeviceEntry, owner: str | None, me: str, force: bool = False
) -> Lease | Hold | None:
    """Give a device back, on the host that it hangs on; as `release`."""
    with contextlib.closing(Connection(entry, home)) as connection:
        return release(connection.helper, owner, me, force=force)


def hold(helper: DeviceHelper, for_s: float, reason: str, me: str) -> Hold:
    """Take a device for a person; one that we hold already is held from now on for `for_s`.

    Raises:
        LeaseError: Somebody else has it; the message says who, why and how long.
        TransportError: It can't be reached.
    """
    taken = Hold(me, one_line(reason, REASON_LENGTH), for_s)
    helper.take_hold(taken)
    return taken


def release(
    helper: DeviceHelper, owner: str | None, me: str, *, force: bool = False
) -> Lease | Hold | None:
    """Give a device back; with `owner`, whatever that owner has. Returns what was before.

    Args:
        helper: Helper of the device.
        owner: Whose lease or hold to end; None ends a hold of ours.
        me: The person, as for `hold_device`.
        force: End it although it is another person's. The device keeps who did that, and tells it
            to the run or person that had it.

    Raises:
        LeaseError: It isn't ours (or that owner's) to give back.
        TransportError: It can't be reached.
    """
    before = helper.show_lease()
    if before is None:
        return None
    if owner is not None and before.owner != owner:
        raise LeaseError(
            f"{helper.device} isn't {owner}'s: {before.text}", device=helper.device, code="held"
        )
    if owner is None and not _is_held_by(me, before):
        raise LeaseError(
            f"{helper.device} is {before.text}; {_how_to_end(helper.device, before.owner, me)}",
            device=helper.device,
            code="held",
        )
    if owner not in (None, me) and not force:
        raise LeaseError(
            f"{helper.device} is {before.text}, and you are {me};"
            f" {_how_to_end(helper.device, before.owner, me)}",
            device=helper.device,
            code="held",
        )
    if owner is None:
        helper.release_hold(me)
    else:
        helper.release_from(owner, me, force=force)
    return before


def _how_to_end(device: str, owner: str, me: str) -> str:
    force = "" if owner == me else " --force"
    return (
        f"`farm devices release {device} --from {owner}{force}` ends that, and with it what runs"
        " there"
    )


def _is_held_by(me: str, lease: Lease | Hold | None) -> bool:
    """Whether it is a hold of this person; a run of the same user is another matter."""
    return isinstance(lease, Hold) and lease.owner == me


@contextlib.contextmanager
def borrowed(helper: DeviceHelper, reason: str, me: str) -> Iterator[None]:
    """Have a device for a short while; a hold of ours stays as it is.

    Raises:
        LeaseError: Somebody else has it.
    """
    if _is_held_by(me, helper.show_lease()):
        yield
        return
    hold(helper, TTL_S, reason, me)
    try:
        yield
    finally:
        helper.release_hold(me)


def open_shell(connection: Connection) -> int:
    """Open a shell on a device for the person at this terminal, and hold the device meanwhile.

    A hold that we have already is left as it is. Returns the exit code of the shell.

    Raises:
        LeaseError: Somebody else has the device.
        TransportError: It can't be reached.
        ConfigError: It has no shell.
    """
    argv = shell_argv(connection.entry)
    with kept_hold(connection, "shell", user_and_host()):
        return _attended(argv)


def run_command(
    home: Path, entry: DeviceEntry, words: Sequence[str], me: str, timeout_s: float
) -> Completed:
    """Run a program on a device, on the host that it hangs on, and hold the device meanwhile.

    Args:
        home: FARM_HOME of that host.
        entry: The device.
        words: The program and its arguments, which reach it unchanged.
        me: The person, as `user_and_host` names them where they sit.
        timeout_s: Longest time for it; it is ended then.

    Raises:
        LeaseError: Somebody else has the device.
        TransportError: It can't be reached, or the program took longer.
    """
    with (
        contextlib.closing(Connection(entry, home)) as connection,
        kept_hold(connection, "shell", me),
    ):
        return connection.transport.run(Command(tuple(words), timeout_s=timeout_s))


@contextlib.contextmanager
def kept_hold(
    connection: Connection, reason: str, me: str, *, over_left: bool = False
) -> Iterator[None]:
    """Have a device for as long as the block runs; a hold of ours stays as it is.

    Args:
        connection: To the device.
        reason: Why, for others.
        me: The person.
        over_left: Take over a hold of ours as short as those that a process renews: the one that
            did was killed, and nobody renews it. A longer one is a person's, and stays.

    Raises:
        LeaseError: Somebody else has it.
    """
    before = connection.helper.show_lease()
    left = over_left and before is not None and before.left_s <= TTL_S
    if _is_held_by(me, before) and not left:
        yield
        return
    hold(connection.helper, TTL_S, reason, me)
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(connection, reason, me, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join(timeout=RENEW_AFTER_S)
        fresh = connection.reopen()
        try:
            fresh.helper.release_hold(me)
        except DeviceError as error:
            log.warning("not released, it expires within %.0f s: %s", TTL_S, error)
        finally:
            fresh.close()


def _attended(argv: Sequence[str]) -> int:
    """Run a program on this terminal; Ctrl-C is the program's, not ours."""
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(argv))
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def _keep(connection: Connection, reason: str, me: str, ended: threading.Event) -> None:
    """Renew the hold while the shell is open, over connections of its own."""
    while not ended.wait(RENEW_AFTER_S):
        fresh = connection.reopen()
        try:
            hold(fresh.helper, TTL_S, reason, me)
        except LeaseError as error:
            log.warning("%s is no longer yours: %s", connection.entry.name, error)
            return
        except TransportError as error:
            log.info("%s: hold not renewed: %s", connection.entry.name, error)
        finally:
            fresh.close()
