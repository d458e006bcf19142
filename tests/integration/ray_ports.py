"""What a stranger gets from the ports of Ray's processes."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Mapping

Place = tuple[str, int]

#: A method of each gRPC service that a process of Ray listens with.
METHODS = {
    "gcs_server": ("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",),
    "raylet": ("/ray.rpc.NodeManagerService/GetNodeStats", "/ray.rpc.ObjectManagerService/Pull"),
    "ray::IDLE": ("/ray.rpc.CoreWorkerService/GetCoreWorkerStats",),
    "python": ("/ray.rpc.CoreWorkerService/GetCoreWorkerStats",),
    "ray::_Agent": ("/ray.rpc.CoreWorkerService/GetCoreWorkerStats",),
}
_UNIMPLEMENTED = b"grpc-status\x0212"


def grpc_ports(listening: Mapping[Place, str]) -> set[tuple[str, int]]:
    """Name and port of each process that speaks gRPC."""
    return {(name, port) for (_, port), name in listening.items() if "Env" not in name}


def refusing(listening: Mapping[Place, str], right: str, wrong: str | None) -> set[tuple[str, int]]:
    """Name and port of each process that took the right token and refused the wrong one."""
    refused = set()
    for place, name in listening.items():
        if "RuntimeEnv" in name:
            continue  # HTTP: see http_status
        (methods,) = (found for prefix, found in METHODS.items() if name.startswith(prefix))
        for method in methods:
            allowed = call(place, method, right)
            assert b"InvalidAuthToken" not in allowed, name
            if _UNIMPLEMENTED not in allowed:
                assert b"InvalidAuthToken" in call(place, method, wrong), (name, place)
                refused.add((name, place[1]))
    return refused


def http_status(place: Place, token: str | None) -> int:
    """Status of a request to the agent of runtime environments."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"http://{place[0]}:{place[1]}/get_or_create_runtime_env"
    request = urllib.request.Request(url, data=b"", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def call(place: Place, method: str, token: str | None) -> bytes:
    """Call a gRPC method with an empty request over bare HTTP/2; returns what came back."""
    fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "ray"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    if token is not None:
        fields["authorization"] = f"Bearer {token}"
    block = b"".join(
        b"\0" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in fields.items()
    )

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        return head + payload

    with socket.create_connection(place, timeout=5) as link:
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        link.sendall(frame(1, 4, 1, block) + frame(0, 1, 1, b"\0\0\0\0\0"))
        answer = b""
        while b"grpc-status" not in answer and (piece := link.recv(65536)):
            answer += piece
    return answer
