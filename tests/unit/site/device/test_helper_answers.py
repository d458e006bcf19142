"""Answers of farm-helper that are cut, garbled or of another kind: BadOutput that shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from farm.core.command import Command, Completed
from farm.core.errors import BadOutput, DeviceError, FarmError, RunnerCrashed
from farm.core.lease import LeaseOwner
from farm.protocols import Transport
from farm.site.device.helper import DeviceHelper

LEASE = LeaseOwner("ann@desk", "run-1", 7)
SHA = "a" * 64


class Saying:
    """A transport whose program prints one text."""

    def __init__(self, text: bytes, code: int = 0) -> None:
        self.text, self.code = text, code

    def run(self, command: Command, on_stdout: Callable[[bytes], None] | None = None) -> Completed:
        return Completed(self.code, self.text, b"", 0.01)


#: The folder of farm on the device.
ROOT = "/root"


def helper(text: bytes, code: int = 0) -> DeviceHelper:
    return DeviceHelper(cast(Transport, Saying(text, code)), "phone", "/h", ROOT)


#: A verb, and an answer that it takes.
VERBS: list[tuple[Callable[[DeviceHelper], Any], dict[str, Any]]] = [
    (lambda h: h.have([SHA], size_bytes=1), {"sha256": SHA, "state": "ok", "part_size": 0}),
    (lambda h: h.hash_file("/x", LEASE), {"sha256": SHA, "size": 5}),
    (lambda h: h.free_space(1, [], LEASE), {"freed_bytes": 0}),
    (lambda h: h.assemble("w", [], LEASE), {"work": "/".join((ROOT, "work", "w"))}),
    (lambda h: h.evict(["/x"]), {"size": 4096, "resident_bytes": 0}),
    (lambda h: h.clean_stale(LEASE), {"cleaned": ["old"]}),
    (lambda h: h.poll("/w", offset=0, wait_s=0.0, max_bytes=9),
     {"bytes": 0, "state": "exited", "exit_code": 0, "signal": None, "reason": None,
      "stdout_size": 0, "stderr_size": 0}),
    (lambda h: h.show_lease(),
     {"state": "held", "owner": "a", "run": "b", "reason": "c", "left_s": 1.5,
      "waiting": [{"owner": "d", "run": "e", "waits_s": 2.5}]}),
]  # fmt: skip
#: What can be left out.
OPTIONAL = {"signal", "reason", "owner", "run"}


@pytest.mark.parametrize(("verb", "answer"), VERBS)
def test_each_member_that_is_missing_or_of_another_kind_is_named(
    verb: Callable[[DeviceHelper], Any], answer: dict[str, Any]
) -> None:
    line = json.dumps(answer).encode() + b"\n"
    verb(helper(line))
    for key in answer.keys() - OPTIONAL:
        for garbled in ({k: v for k, v in answer.items() if k != key}, answer | {key: {"x": 1}}):
            text = json.dumps(garbled).encode()
            with pytest.raises(BadOutput) as caught:
                verb(helper(text + b"\n"))
            assert caught.value.device == "phone"
            assert caught.value.context["raw"].startswith(text.decode()[:20])
            assert text.decode()[:20] in caught.value.message
    for cut in (line[:-3], b"[1]\n", b"null\n", b"\xff\xfe\n"):
        with pytest.raises(BadOutput):
            verb(helper(cut))


@pytest.mark.parametrize("value", [-1, 1.5, True, "9", float("nan")])
def test_a_size_is_a_whole_number(value: object) -> None:
    text = json.dumps({"sha256": SHA, "size": value}).encode()
    with pytest.raises(BadOutput, match="gave no size 'size'"):
        helper(text).hash_file("/x", LEASE)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"x", b"{}", b'{"error": 1}', b'{"error": {"code": "held"}}', b"\xff",
        b'{"error": {"code": "held", "message": "m", "left_s": "soon"}}',
        b'{"error": {"code": "odd", "message": "m", "self": 1, "device": 2}}',
    ],
)  # fmt: skip
def test_a_garbled_error_is_an_error_of_the_device(text: bytes) -> None:
    with pytest.raises(FarmError) as caught:
        helper(text, code=3).kill("/w")
    assert isinstance(caught.value, DeviceError)
    assert caught.value.device == "phone"


@pytest.mark.parametrize(
    ("no_exec", "remedy"), [(True, "without noexec"), (False, "a program for another machine")]
)
def test_a_program_that_cannot_start_has_a_remedy(no_exec: bool, remedy: str) -> None:
    refused = {"error": {"code": "cannot_start", "message": "cannot start ./x: Permission denied"}}
    probe = {"filesystems": {"/root": {"no_exec": no_exec}}}

    class Device(Saying):
        def run(
            self, command: Command, on_stdout: Callable[[bytes], None] | None = None
        ) -> Completed:
            if command.argv[1] == "probe":
                return Completed(0, json.dumps(probe).encode(), b"", 0.01)
            return super().run(command)

    made = DeviceHelper(
        cast(Transport, Device(json.dumps(refused).encode(), 1)), "phone", "/h", "/root"
    )
    with pytest.raises(RunnerCrashed, match=remedy):
        made.supervise("/w", ["./x"], env=(), stale_s=9, max_output_bytes=1, lease=LEASE)


def test_values_of_the_environment_go_by_stdin() -> None:
    said: list[Command] = []

    class Noting(Saying):
        def run(
            self, command: Command, on_stdout: Callable[[bytes], None] | None = None
        ) -> Completed:
            said.append(command)
            return super().run(command)

    made = DeviceHelper(cast(Transport, Noting(b"{}")), "phone", "/h", "/root")
    made.supervise(
        "/w", ["./run"], env=[("TOKEN", "hf_s")], stale_s=9, max_output_bytes=1, lease=LEASE
    )
    assert "hf_s" not in " ".join(said[0].argv)
    assert said[0].stdin == b"TOKEN=hf_s\0"
