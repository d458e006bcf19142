"""Questions of a check to one device: what its transport and its helper do. Each says what it saw.

Raises of all: FarmError, with what is wrong.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from farm.core.artifact import ObjectRef
from farm.core.command import Command
from farm.core.errors import TransferError
from farm.core.lease import LeaseOwner
from farm.core.runner import DeployFile
from farm.protocols import Transport
from farm.site.device.helper import DeviceHelper

#: What is pushed and pulled, bytes.
_FILE_BYTES = 4 << 20
#: Words, bytes and newlines that a shell on the way may change.
_ODD_WORDS = ("it's", 'a "b"', "$HOME `id`", "ü\t*", "line\nline", "")


def exit_code(transport: Transport) -> str:
    """Whether exit codes arrive."""
    code = transport.run(Command(("sh", "-c", "exit 7"))).exit_code
    if code != 7:
        raise TransferError(f"a program that ends with 7 seems to end with {code}")
    return "7 arrives as 7"


def words_as_given(transport: Transport) -> str:
    """Whether words arrive as they were given."""
    script = 'for w in "$@"; do printf "%s|" "$w"; done'
    done = transport.run(Command(("sh", "-c", script, "sh", *_ODD_WORDS)))
    expected = "".join(f"{word}|" for word in _ODD_WORDS)
    if done.text != expected:
        raise TransferError(f"words arrive changed: {done.text[:200]!r}")
    return "quotes, blanks, newlines and UTF-8 arrive"


def streams(transport: Transport) -> str:
    """Whether input and both outputs arrive, and apart."""
    data = bytes(range(256)) * 64
    done = transport.run(Command(("sh", "-c", "cat; echo aside >&2"), stdin=data))
    if done.stdout != data:
        raise TransferError(f"{len(data)} bytes of input came back as {len(done.stdout)}")
    if done.stderr.strip() != b"aside":
        raise TransferError(f"standard error holds {done.stderr[:100]!r}")
    return "bytes of all values arrive"


def round_trip(transport: Transport) -> str:
    """How long a question takes."""
    times = [transport.run(Command(("true",))).duration_s for _ in range(5)]
    return f"{statistics.median(times) * 1000:.0f} ms"


def files(transport: Transport, folder: str) -> str:
    """Whether a file goes there in two parts, is seen, and comes back."""
    remote = f"{folder}/it's a file"
    with tempfile.TemporaryDirectory() as local:
        source, back = Path(local, "out"), Path(local, "back")
        content = os.urandom(_FILE_BYTES)
        source.write_bytes(content[: _FILE_BYTES // 2])
        started = time.monotonic()
        transport.push(source, remote)
        source.write_bytes(content)
        transport.push(source, remote, offset=_FILE_BYTES // 2)
        pushed_s = time.monotonic() - started
        found = transport.stat(remote)
        if found is None or (found.size_bytes, found.mode & 0o777) != (_FILE_BYTES, 0o600):
            raise TransferError(f"what was pushed is {found}")
        if transport.stat(f"{remote}.not") is not None:
            raise TransferError("a file that isn't there is found")
        started = time.monotonic()
        transport.pull(remote, back, max_bytes=_FILE_BYTES)
        pulled_s = time.monotonic() - started
        if back.read_bytes() != content:
            raise TransferError("what came back isn't what was pushed")
    rates = [_FILE_BYTES / 1e6 / max(seconds, 1e-3) for seconds in (pushed_s, pulled_s)]
    return f"{rates[0]:.0f} MB/s there, {rates[1]:.0f} MB/s back"


def renewed(helper: DeviceHelper, lease: LeaseOwner) -> str:
    """Whether a lease is renewed and shown."""
    helper.renew_lease(lease)
    shown = helper.show_lease()
    if shown is None or shown.owner != lease.owner or shown.left_s > lease.ttl_s:
        raise TransferError(f"a lease that was renewed shows as {shown}")
    return f"{shown.left_s:.0f} s left"


def released(helper: DeviceHelper, lease: LeaseOwner) -> str:
    """Whether a lease is given back."""
    helper.release_lease(lease)
    left = helper.show_lease()
    if left is not None:
        raise TransferError(f"a lease that was given back shows as {left.text}")
    return "the device is free"


def stored(helper: DeviceHelper, lease: LeaseOwner, work: str) -> str:
    """Whether an object is verified, linked, hashed and evicted."""
    content = os.urandom(1 << 16)
    sha = hashlib.sha256(content).hexdigest()
    with tempfile.TemporaryDirectory() as local:
        source = Path(local, "object")
        source.write_bytes(content)
        helper.transport.push(source, f"{helper.root}/objects/{sha}.part")
    helper.commit(sha, len(content), executable=False, lease=lease)
    ref = ObjectRef(sha, len(content), "object")
    folder = helper.assemble(work, [DeployFile(ref, "object")], lease)
    if helper.hash_file(f"{folder}/object", lease).sha256 != sha:
        raise TransferError("an object has another hash in its work folder")
    share = helper.evict([f"{folder}/object"])
    helper.free_space(1, (), lease)
    return f"an object is verified, linked and hashed; {share:.0%} of it stays in the page cache"
