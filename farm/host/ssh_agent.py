"""Asks a running ssh agent what it holds; starts none and adds nothing."""

from __future__ import annotations

import errno
import socket
import struct


def agent_keys(path: str | None, timeout_s: float = 3.0) -> int | None:
    """Ask the ssh agent how many keys it holds; None without an agent.

    Raises:
        OSError: The socket is dead or doesn't speak the agent's protocol.
    """
    if not path:
        return None
    request, answer = 11, 12  # SSH_AGENTC_REQUEST_IDENTITIES, SSH_AGENT_IDENTITIES_ANSWER
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout_s)
        link.connect(path)
        link.sendall(struct.pack(">IB", 1, request))
        head = link.recv(9, socket.MSG_WAITALL)
    if len(head) < 9:
        raise OSError(errno.EPROTO, f"{path} hung up")
    _size, kind, count = struct.unpack(">IBI", head)
    if kind != answer:
        raise OSError(errno.EPROTO, f"{path} is not an ssh agent")
    return int(count)
