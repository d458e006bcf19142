"""pytest fixtures of the lab; a conftest imports those that its tests ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.lab.board import make_board
from tests.lab.host import why_not
from tests.lab.machine import Machine
from tests.lab.phone import AdbServer, make_phone

_numbers = count(1)


@pytest.fixture(scope="session")
def lab() -> None:
    """Skip where no lab device can run; with CI=true that is a failure."""
    reason = why_not()
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI runs every lab test, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def adb_server(lab: None) -> Iterator[AdbServer]:
    """An adb server of the lab's own."""
    server = AdbServer()
    yield server
    server.kill()


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    """Machines of one test; all are gone after it."""
    made: list[Machine] = []
    yield made
    destroy(made)


@pytest.fixture
def adb_device(adb_server: AdbServer, machines: list[Machine]) -> Callable[..., Machine]:
    """Factory of phones for one test; arguments of `make_phone`, and perhaps another server."""

    def make(name: str = "", server: AdbServer | None = None, **options: object) -> Machine:
        name = name or unique("phone")
        machine = make_phone(server or adb_server, name, **options)  # type: ignore[arg-type]
        machines.append(machine)
        return machine

    return make


@pytest.fixture
def ssh_device(lab: None, machines: list[Machine]) -> Callable[..., Machine]:
    """Factory of boards for one test; arguments of `make_board`."""

    def make(name: str = "", **options: object) -> Machine:
        machine = make_board(name or unique("board"), **options)  # type: ignore[arg-type]
        machines.append(machine)
        return machine

    return make


def unique(kind: str) -> str:
    """A name that no other device of this test run has."""
    return f"{kind}{next(_numbers)}"


def destroy(machines: list[Machine]) -> None:
    """Destroy all, also when destroying one fails."""
    try:
        while machines:
            machines.pop().destroy()
    finally:
        if machines:
            destroy(machines)
