"""The helper's content store on real files: hash, have, commit, assemble, gc."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from .conftest import CACHE, Helper

CONTENT = bytes(range(256)) * 40 + b"tail"
SHA = hashlib.sha256(CONTENT).hexdigest()


def _part(root: Path, content: bytes = CONTENT, sha: str = SHA) -> Path:
    objects = root / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    part = objects / f"{sha}.part"
    part.write_bytes(content)
    return part


def _object(helper: Helper, root: Path, content: bytes) -> str:
    sha = hashlib.sha256(content).hexdigest()
    _part(root, content, sha)
    assert helper("commit", root, sha, len(content)).code == 0
    return sha


def _state(helper: Helper, root: Path, *flags: str) -> str:
    return str(helper("have", *flags, root, SHA).value["state"])


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 128, 300001])
@pytest.mark.parametrize("implementation", ["native", "scalar"])
def test_hash_agrees_with_hashlib(
    helper: Helper, tmp_path: Path, size: int, implementation: str
) -> None:
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    line = helper("hash", tmp_path / "f", env={"FARM_SHA": implementation}).value
    info = (tmp_path / "f").stat()
    assert line["sha256"] == hashlib.sha256(content).hexdigest()
    assert (line["size"], line["mtime_ns"], line["inode"]) == (
        size,
        info.st_mtime_ns,
        info.st_ino,
    )


def test_hash_of_a_missing_file_is_an_error(helper: Helper, tmp_path: Path) -> None:
    answer = helper("hash", tmp_path / "none")
    assert answer.code == 1
    assert answer.error == "cannot_open"


def test_commit_makes_a_stamped_object(helper: Helper, tmp_path: Path) -> None:
    part = _part(tmp_path)
    assert _state(helper, tmp_path) == "partial"
    assert helper("commit", tmp_path, SHA, len(CONTENT), "--mode", "755").value["state"] == "ok"
    target = tmp_path / "objects" / SHA
    assert target.read_bytes() == CONTENT
    assert not part.exists()
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert _state(helper, tmp_path, "--no-hash") == "ok"


def test_commit_of_a_short_part_keeps_it_for_the_rest(helper: Helper, tmp_path: Path) -> None:
    part = _part(tmp_path, CONTENT[:-1])
    answer = helper("commit", tmp_path, SHA, len(CONTENT))
    assert answer.error == "incomplete"
    assert answer.value["error"]["part_size"] == len(CONTENT) - 1
    assert part.exists()


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_commit_of_wrong_content_removes_it(helper: Helper, tmp_path: Path, content: bytes) -> None:
    part = _part(tmp_path, content)
    answer = helper("commit", tmp_path, SHA, len(CONTENT))
    assert answer.code == 1
    assert answer.error == "mismatch"
    assert not part.exists()
    assert not (tmp_path / "objects" / SHA).exists()


def test_changed_content_with_the_old_mtime_is_found_by_rehash(
    helper: Helper, tmp_path: Path
) -> None:
    _object(helper, tmp_path, CONTENT)
    target = tmp_path / "objects" / SHA
    before = target.stat()
    with target.open("r+b") as stream:
        stream.write(b"XX")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _state(helper, tmp_path) == "ok", "the stamp can't see it: that's what --rehash is for"
    assert _state(helper, tmp_path, "--rehash") == "changed"
    assert _state(helper, tmp_path) == "changed", "a proven change takes the stamp away"


def test_a_new_mtime_is_hashed_again_and_stamped(helper: Helper, tmp_path: Path) -> None:
    _object(helper, tmp_path, CONTENT)
    os.utime(tmp_path / "objects" / SHA, ns=(1, 1))
    assert _state(helper, tmp_path, "--no-hash") == "unstamped"
    assert _state(helper, tmp_path) == "ok"
    assert _state(helper, tmp_path, "--no-hash") == "ok"


def test_another_boot_is_hashed_again(helper: Helper, tmp_path: Path) -> None:
    _object(helper, tmp_path, CONTENT)
    stamp = tmp_path / "stamps" / SHA
    size, mtime, inode, _boot = stamp.read_text().split()
    stamp.write_text(f"{size} {mtime} {inode} another-boot\n")
    assert _state(helper, tmp_path, "--no-hash") == "unstamped"


def test_assemble_links_objects_into_a_private_folder(helper: Helper, tmp_path: Path) -> None:
    sha = _object(helper, tmp_path, b"#!/bin/sh\necho hello\n")
    manifest = f"{sha} 755 run\n{sha} 644 lib/deep/data\n"
    assert helper("assemble", tmp_path, "job-1", stdin=manifest).value["files"] == 2
    work = tmp_path / "work" / "job-1"
    assert (work / "lib/deep/data").read_bytes() == b"#!/bin/sh\necho hello\n"
    assert os.readlink(work / "run") == f"../../objects/{sha}"
    assert os.access(work / "run", os.X_OK)
    for folder in (tmp_path / "work", work, work / "lib"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert helper("assemble", tmp_path, "job-1", stdin=manifest).error == "exists"


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "a//b", "./a", "a/", ".."])
def test_assemble_keeps_names_inside(helper: Helper, tmp_path: Path, name: str) -> None:
    sha = _object(helper, tmp_path, CONTENT)
    answer = helper("assemble", tmp_path, "job", stdin=f"{sha} 644 {name}\n")
    assert answer.error == "bad_manifest"
    assert not (tmp_path / "work" / "job").exists()


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", ""])
def test_assemble_refuses_odd_work_names(helper: Helper, tmp_path: Path, name: str) -> None:
    assert helper("assemble", tmp_path, name).code == 2


def test_assemble_without_the_object_leaves_nothing(helper: Helper, tmp_path: Path) -> None:
    sha = _object(helper, tmp_path, CONTENT)
    manifest = f"{sha} 644 a\n{'0' * 64} 644 b\n"
    answer = helper("assemble", tmp_path, "job", stdin=manifest)
    assert answer.error == "missing_object"
    assert list((tmp_path / "work").iterdir()) == []


#: Size of an object whose removal the disk's other writers can't hide between two calls.
_LARGE_BYTES = 16 << 20


def test_gc_removes_the_least_recently_used(helper: Helper, tmp_path: Path) -> None:
    shas = [_object(helper, tmp_path, os.urandom(_LARGE_BYTES)) for _ in range(4)]
    unused, first, second, kept = shas
    for name, sha in (("one", first), ("two", second), ("three", first), ("four", kept)):
        helper("assemble", tmp_path, name, stdin=f"{sha} 644 f\n")
        helper("clean", tmp_path, "--work", name)
    order = [unused, second, first]
    calls = 0
    for _ in range(20):  # nothing is to be removed where another program made room meanwhile
        gone = _evict(helper, tmp_path, kept)
        assert gone == set(order[: len(gone)]), "in the order of last use, the kept one never"
        del order[: len(gone)]
        calls += bool(gone)
        if not order:
            break
    assert order == []
    assert calls > 1, "one by one, but where another program filled the disk meanwhile"
    assert (tmp_path / "objects" / kept).exists()


def _evict(helper: Helper, root: Path, kept: str) -> set[str]:
    """Ask for half an object more than is free; other programs write to this disk too."""
    free = helper("gc", root, "--need", 0).value["free_bytes"]
    before = set(os.listdir(root / "objects"))
    answer = helper("gc", root, "--need", free + _LARGE_BYTES // 2, "--keep", kept)
    assert answer.code == 0, answer.out
    return before - set(os.listdir(root / "objects"))


def test_gc_spares_what_a_work_folder_uses(helper: Helper, tmp_path: Path) -> None:
    sha = _object(helper, tmp_path, CONTENT)
    helper("assemble", tmp_path, "job", stdin=f"{sha} 644 sub/f\n")
    answer = helper("gc", tmp_path, "--need", 1 << 60)
    assert answer.error == "storage_full"
    assert (tmp_path / "objects" / sha).exists()


def test_gc_that_can_not_help_removes_nothing(helper: Helper, tmp_path: Path) -> None:
    sha = _object(helper, tmp_path, CONTENT)
    answer = helper("gc", tmp_path, "--need", 1 << 60)
    assert answer.code == 1
    assert answer.error == "storage_full"
    assert (tmp_path / "objects" / sha).exists()


def test_usage_errors_exit_with_2(helper: Helper, tmp_path: Path) -> None:
    for words in ((), ("nonsense",), ("have",), ("commit", tmp_path, "xyz", 1), ("gc", tmp_path)):
        answer = helper(*words)
        assert answer.code == 2, words
        assert answer.error == "usage"


def test_evict_puts_files_out_of_the_page_cache(helper: Helper) -> None:
    # A folder on a disk: what lies in memory alone can't be put out of it.
    file = CACHE / "evicted"
    file.write_bytes(os.urandom(1 << 20))
    assert file.read_bytes()
    answer = helper("evict", file).value
    assert (answer["size"], answer["advised"], answer["resident_bytes"]) == (1 << 20, True, 0)
    file.write_bytes(b"")
    assert helper("evict", file).value["resident_bytes"] == 0
    file.unlink()
    assert helper("evict", file).error == "cannot_open"
    assert helper("evict", CACHE).error == "not_a_file"
