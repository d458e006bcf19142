"""The helper's deployed versions on real files: whole or not at all, and one switch at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from .conftest import Helper


def put(helper: Helper, root: Path, content: bytes) -> str:
    sha = hashlib.sha256(content).hexdigest()
    (root / "objects").mkdir(parents=True, exist_ok=True)
    (root / "objects" / f"{sha}.part").write_bytes(content)
    assert helper("commit", root, sha, len(content)).code == 0
    return sha


def install(helper: Helper, root: Path, version: str, *contents: bytes, name: str = "m") -> str:
    links = "".join(
        f"{put(helper, root, content)} 700 lib/f{number}\n"
        for number, content in enumerate(contents)
    )
    answer = helper("deployment", root, "install", name, version, stdin=links)
    return answer.error if answer.code else str(answer.value["state"])


def switch(helper: Helper, root: Path, version: str, *more: str) -> str:
    answer = helper("deployment", root, "switch", "m", version, *more)
    return answer.error if answer.code else str(answer.value["before"])


def in_use(root: Path) -> bytes | None:
    path = root / "deployments" / "m" / "current" / "lib" / "f0"
    return path.read_bytes() if path.exists() else None


def test_a_version_is_installed_switched_to_and_back(helper: Helper, tmp_path: Path) -> None:
    assert install(helper, tmp_path, "v1", b"one", b"two") == "installed"
    assert install(helper, tmp_path, "v1", b"one", b"two") == "present"
    assert in_use(tmp_path) is None
    assert switch(helper, tmp_path, "v1", "--expect", "") == ""
    assert in_use(tmp_path) == b"one"
    assert install(helper, tmp_path, "v2", b"ONE") == "installed"
    assert in_use(tmp_path) == b"one", "installing changes nothing in use"
    assert switch(helper, tmp_path, "v2", "--expect", "v1") == "v1"
    assert in_use(tmp_path) == b"ONE"
    assert switch(helper, tmp_path, "v2", "--expect", "v1") == "v2", "done twice is done"
    assert switch(helper, tmp_path, "v1", "--expect", "v2") == "v2"
    lines = helper("deployment", tmp_path, "list").lines
    assert [(one["version"], one["current"]) for one in lines] == [("v1", True), ("v2", False)]
    assert [f["path"] for f in lines[0]["files"]] == ["lib/f0", "lib/f1"]
    assert all(abs(one["installed_unix"] - tmp_path.stat().st_mtime) < 3600 for one in lines)


def test_a_version_that_is_in_use_and_gone_can_be_installed_again(
    helper: Helper, tmp_path: Path
) -> None:
    install(helper, tmp_path, "v1", b"one")
    switch(helper, tmp_path, "v1")
    shutil.rmtree(tmp_path / "deployments" / "m" / "v1")
    assert in_use(tmp_path) is None
    assert install(helper, tmp_path, "v1", b"one") == "installed"
    assert in_use(tmp_path) == b"one"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_stands_in_the_place_of_the_link_is_told_and_left_alone(
    helper: Helper, tmp_path: Path, kind: str
) -> None:
    install(helper, tmp_path, "v1", b"one")
    current = tmp_path / "deployments" / "m" / "current"
    if kind == "folder":
        (current / "lib").mkdir(parents=True)
        (current / "lib" / "f0").write_text("mine")
    else:
        current.write_text("mine")
    assert switch(helper, tmp_path, "v1") == "blocked"
    assert helper("deployment", tmp_path, "unset", "m").error == "blocked"
    lines = helper("deployment", tmp_path, "list").lines
    assert [(one["version"], one["current"]) for one in lines] == [
        ("current", False),
        ("v1", False),
    ]
    assert current.exists()
    current.rename(tmp_path / "away")
    assert switch(helper, tmp_path, "v1") == ""


def test_a_link_that_leads_elsewhere_is_no_object(helper: Helper, tmp_path: Path) -> None:
    """Also where it bears an object's name, and where the folder itself is a link."""
    install(helper, tmp_path, "v1", b"one")
    link = tmp_path / "deployments" / "m" / "v1" / "lib" / "f0"
    sha = link.readlink().name
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / sha).write_bytes(b"two")
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere" / sha)
    (found,) = helper("deployment", tmp_path, "list").lines
    assert found["files"][0]["sha256"] == ""
    assert install(helper, tmp_path, "v1", b"one") == "installed", "it is made anew"
    assert helper("deployment", tmp_path, "list").lines[0]["files"][0]["sha256"] == sha
    (tmp_path / "deployments" / "m" / "v1").rename(tmp_path / "moved")
    (tmp_path / "deployments" / "m" / "v1").symlink_to(tmp_path / "moved")
    assert switch(helper, tmp_path, "v1") == "no_version"
    (tmp_path / "deployments" / "m" / "current").symlink_to("v1")
    (found,) = helper("deployment", tmp_path, "list").lines
    assert (found["version"], found["current"], found["files"]) == ("v1", True, [])


def test_the_order_of_versions_outlives_a_clock_that_was_set_back(
    helper: Helper, tmp_path: Path
) -> None:
    install(helper, tmp_path, "v1", b"one")
    future = time.time() + 86400 * 365
    os.utime(tmp_path / "deployments" / "m" / "v1", (future, future))
    for version in ("v3", "v2"):
        install(helper, tmp_path, version, version.encode())
    dates = {
        one["version"]: one["installed_unix"]
        for one in helper("deployment", tmp_path, "list").lines
    }
    assert dates["v1"] < dates["v3"] < dates["v2"]


def test_modes_are_told(helper: Helper, tmp_path: Path) -> None:
    install(helper, tmp_path, "v1", b"one")
    object_ = (tmp_path / "deployments" / "m" / "v1" / "lib" / "f0").resolve()
    object_.chmod(0o666)
    (found,) = helper("deployment", tmp_path, "list").lines
    assert found["files"][0]["mode"] == 0o666


def test_a_switch_that_expects_another_version_changes_nothing(
    helper: Helper, tmp_path: Path
) -> None:
    for version in ("v1", "v2", "v3"):
        install(helper, tmp_path, version, version.encode())
    switch(helper, tmp_path, "v1")
    assert switch(helper, tmp_path, "v2", "--expect", "v3") == "changed"
    assert switch(helper, tmp_path, "v2", "--expect", "") == "changed"
    assert switch(helper, tmp_path, "gone") == "no_version"
    assert in_use(tmp_path) == b"v1"


def test_what_is_in_use_is_neither_removed_nor_replaced(helper: Helper, tmp_path: Path) -> None:
    install(helper, tmp_path, "v1", b"one")
    switch(helper, tmp_path, "v1")
    assert helper("deployment", tmp_path, "remove", "m", "v1").error == "is_current"
    assert install(helper, tmp_path, "v1", b"other") == "is_current"
    assert in_use(tmp_path) == b"one"
    assert helper("deployment", tmp_path, "unset", "m", "--expect", "v1").code == 0
    assert in_use(tmp_path) is None
    assert helper("deployment", tmp_path, "remove", "m", "v1").value["removed"] is True
    assert helper("deployment", tmp_path, "remove", "m", "v1").value["removed"] is False
    assert helper("deployment", tmp_path, "list").lines == []
    assert not (tmp_path / "deployments" / "m").exists()


def test_a_version_of_a_missing_object_leaves_nothing(helper: Helper, tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    answer = helper("deployment", tmp_path, "install", "m", "v1", stdin=f"{'a' * 64} 600 f\n")
    assert answer.error == "missing_object"
    assert helper("deployment", tmp_path, "list").lines == []
    assert list((tmp_path / "deployments" / "m").iterdir()) == []


def test_the_collection_of_space_spares_every_version(helper: Helper, tmp_path: Path) -> None:
    install(helper, tmp_path, "v1", os.urandom(8 << 20))
    install(helper, tmp_path, "v2", os.urandom(8 << 20))
    switch(helper, tmp_path, "v2")
    put(helper, tmp_path, os.urandom(1 << 20))
    # More than there is: it says what could be had by evicting all that may go.
    refused = helper("gc", tmp_path, "--need", 1 << 60)
    assert refused.error == "storage_full"
    told = refused.value["error"]
    # Others write to this disk too, between the two looks at it.
    assert told["reachable_bytes"] - told["free_bytes"] < 5 << 20, "the loose object alone"
    assert in_use(tmp_path) is not None


def test_only_who_has_the_lease_may_change(helper: Helper, tmp_path: Path) -> None:
    install(helper, tmp_path, "v1", b"one")
    words = ("--owner", "o", "--run", "r1", "--epoch", "1", "--ttl-s", "60")
    assert helper("lease", tmp_path, "take", *words).code == 0
    theirs, ours = ("--run", "r2", "--epoch", "1"), ("--run", "r1", "--epoch", "1")
    for action in (("switch", "m", "v1"), ("unset", "m"), ("remove", "m", "v1")):
        assert helper("deployment", tmp_path, *action, *theirs).error == "held"
    assert helper("deployment", tmp_path, "install", "m", "v2", *theirs).error == "held"
    assert switch(helper, tmp_path, "v1", *ours) == ""


def test_a_lost_file_and_a_lost_version_are_listed(helper: Helper, tmp_path: Path) -> None:
    install(helper, tmp_path, "v1", b"one", b"two")
    switch(helper, tmp_path, "v1")
    (tmp_path / "objects" / hashlib.sha256(b"two").hexdigest()).unlink()
    (line,) = helper("deployment", tmp_path, "list").lines
    assert [f["size"] for f in line["files"]] == [3, None]
    for path in (tmp_path / "deployments" / "m" / "v1" / "lib").iterdir():
        path.unlink()
    (tmp_path / "deployments" / "m" / "v1" / "lib").rmdir()
    (tmp_path / "deployments" / "m" / "v1").rmdir()
    (line,) = helper("deployment", tmp_path, "list").lines
    assert (line["version"], line["current"], line["files"]) == ("v1", True, [])


@pytest.mark.parametrize(
    "words",
    [("switch", "m"), ("install", "m", "current"), ("switch", "../m", "v"), ("fly", "m", "v"), ()],
)
def test_wrong_usage_is_told_apart(helper: Helper, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert helper("deployment", tmp_path, *words).code == 2


def test_connect_carries_both_ways_and_ends_with_its_reader(
    helper_path: Path, helper: Helper, tmp_path: Path
) -> None:
    assert helper("connect", tmp_path / "none").error == "no_service"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen()
    asked: list[bytes] = []

    def serve() -> None:
        client = server.accept()[0]
        while piece := client.recv(100):
            asked.append(piece)
        client.sendall(b"first\n")
        client.close()
        # The next one says nothing: it has to notice that its reader is gone all the same.
        client = server.accept()[0]
        assert client.recv(100) == b""
        asked.append(b"gone" if client.recv(100) == b"" else b"")
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert helper("connect", tmp_path / "s", stdin="request\n").out == b"first\n"
    silent = subprocess.Popen(
        [str(helper_path), "connect", str(tmp_path / "s")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    with silent:
        assert silent.stdout is not None
        silent.stdout.close()
        assert silent.wait(timeout=20) == 0
    thread.join(timeout=20)
    assert asked == [b"request\n", b"gone"]
    server.close()
