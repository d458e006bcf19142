"""People and runs share one lease: hold a device, give it back, or work on it in a shell.

The truth is the lease on the device, so every host that runs farm sees a hold, and it lasts
when this process has ended.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from farm.config.load import load_inventory
from farm.core.errors import DeviceError, LeaseError, TransportError
from farm.core.lease_text import HOLD_RUN
from farm.core.printable import one_line
from farm.planning.devices import find_entry
from farm.site.device.connection import Connection
from farm.site.device.helper import DeviceHelper, LeaseOwner, LeaseState
from farm.site.device.lease import RENEW_AFTER_S, TTL_S, lease_owner
from farm.transports.interactive import shell_argv

log = logging.getLogger(__name__)

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


def us() -> LeaseOwner:
    """Return who we are, as a holder."""
    return lease_owner(HOLD_RUN, 1)


def hold(helper: DeviceHelper, for_s: float, reason: str) -> LeaseState:
    """Take a device for a person; one that we hold already is held from now on for `for_s`.

    Raises:
        LeaseError: Somebody else has it; the message says who, why and how long.
        TransportError: It can't be reached.
    """
    helper.take_lease(us(), for_s, reason=one_line(reason, REASON_LENGTH))
    return helper.show_lease()


def release(helper: DeviceHelper, owner: str | None) -> LeaseState:
    """Give a device back; with `owner`, whatever that owner has. Returns what was before.

    Raises:
        LeaseError: It isn't ours (or that owner's) to give back.
        TransportError: It can't be reached.
    """
    before = helper.show_lease()
    if before.state != "held":
        return before
    if owner is not None and before.owner != owner:
        raise LeaseError(
            f"{helper.device} isn't {owner}'s: {before.text}", device=helper.device, code="held"
        )
    if owner is None and (before.owner, before.run_id) != (us().owner, HOLD_RUN):
        raise LeaseError(
            f"{helper.device} is {before.text}; `farm devices release {helper.device} --from"
            f" {before.owner}` ends that, and with it what runs there",
            device=helper.device,
            code="held",
        )
    if owner is None:
        helper.release_lease(us())
    else:
        helper.release_from(owner, us())
    return before


@contextlib.contextmanager
def borrowed(helper: DeviceHelper, reason: str) -> Iterator[None]:
    """Have a device for a short while; a hold of ours stays as it is.

    Raises:
        LeaseError: Somebody else has it.
    """
    before = helper.show_lease()
    if before.state == "held" and (before.owner, before.run_id) == (us().owner, HOLD_RUN):
        yield
        return
    helper.take_lease(us(), TTL_S, reason=reason)
    try:
        yield
    finally:
        helper.release_lease(us())


def open_shell(connection: Connection) -> int:
    """Open a shell on a device for the person at this terminal, and hold the device meanwhile.

    A hold that we have already is left as it is. Returns the exit code of the shell.

    Raises:
        LeaseError: Somebody else has the device.
        TransportError: It can't be reached.
        ConfigError: It has no shell.
    """
    argv = shell_argv(connection.entry)
    helper = connection.helper
    before = helper.show_lease()
    if before.state == "held" and (before.owner, before.run_id) == (us().owner, HOLD_RUN):
        return _attended(argv)
    helper.take_lease(us(), TTL_S, reason="shell")
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(connection, ended), daemon=True)
    keeper.start()
    try:
        return _attended(argv)
    finally:
        ended.set()
        keeper.join(timeout=RENEW_AFTER_S)
        fresh = connection.reopen()
        try:
            fresh.helper.release_lease(us())
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


def _keep(connection: Connection, ended: threading.Event) -> None:
    """Renew the hold while the shell is open, over connections of its own."""
    while not ended.wait(RENEW_AFTER_S):
        fresh = connection.reopen()
        try:
            fresh.helper.take_lease(us(), TTL_S, reason="shell")
        except LeaseError as error:
            log.warning("%s is no longer yours: %s", connection.entry.name, error)
            return
        except TransportError as error:
            log.info("%s: hold not renewed: %s", connection.entry.name, error)
        finally:
            fresh.close()
