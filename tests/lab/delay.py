"""A link with delay between this machine and a lab device, for kernels without netem.

Two TUN interfaces, one here and one in the device's namespace, and this process between them:
`python -m tests.lab.delay NAMESPACE LINK HOST DEVICE DELAY_MS JITTER_MS`. Routes through them win
over the device's own link, so its address stays; they vanish with this process.
"""

from __future__ import annotations

import collections
import fcntl
import os
import random
import select
import struct
import sys
import time

from tests.lab.host import sh

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
#: Packets on their way in one direction; more are lost, as in a queue of a router.
_QUEUE = 20_000


def main(arguments: list[str]) -> None:
    """Carry packets until killed."""
    namespace, link, host, device, *numbers = arguments
    delay_s, jitter_s = (float(word) / 1e3 for word in numbers)
    here, there = _tun(f"{link}n"), _tun(f"{link}f")
    sh("ip", "link", "set", f"{link}f", "netns", namespace)
    for prefix, name, source, target in (
        (("-n", namespace), f"{link}f", device, host),
        ((), f"{link}n", host, device),
    ):
        sh("ip", *prefix, "link", "set", name, "up")
        sh("ip", *prefix, "route", "add", f"{target}/32", "dev", name, "src", source)
    print("ready", flush=True)
    _carry(here, there, delay_s, jitter_s)


def _tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(tun, _TUNSETIFF, request)
    return tun


def _carry(here: int, there: int, delay_s: float, jitter_s: float) -> None:
    """Move packets both ways, each held back for its delay, in order."""
    other = {here: there, there: here}
    waiting: dict[int, collections.deque[tuple[float, bytes]]] = {
        tun: collections.deque() for tun in other
    }
    while True:
        now = time.monotonic()
        pause = 1.0
        for tun, queue in waiting.items():
            while queue and queue[0][0] <= now:
                _deliver(other[tun], queue.popleft()[1])
            if queue:
                pause = min(pause, max(0.0, queue[0][0] - now))
        for tun in select.select(list(other), [], [], pause)[0]:
            queue = waiting[tun]
            while (packet := _take(tun)) is not None:
                due = time.monotonic() + delay_s + random.uniform(-jitter_s, jitter_s)
                if len(queue) < _QUEUE:
                    queue.append((max(due, queue[-1][0] if queue else 0.0), packet))


def _take(tun: int) -> bytes | None:
    try:
        return os.read(tun, 1 << 16)
    except BlockingIOError:
        return None


def _deliver(tun: int, packet: bytes) -> None:
    try:
        os.write(tun, packet)
    except BlockingIOError:
        return  # a full queue loses packets


if __name__ == "__main__":
    main(sys.argv[1:])
