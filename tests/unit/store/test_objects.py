from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.store.actions import ActionCache, object_refs
from farm.store.objects import ContentStore


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


def leftovers(store: ContentStore) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def test_bytes_come_back_under_their_hash(store: ContentStore) -> None:
    ref = store.put_bytes(b"weights", "model.pte")
    assert ref == ObjectRef(hashlib.sha256(b"weights").hexdigest(), 7, "model.pte")
    path = store.path(ref)
    assert path.read_bytes() == b"weights"
    assert path == store.root / "objects" / ref.sha256[:2] / ref.sha256
    assert path.stat().st_mode & 0o777 == 0o444
    assert leftovers(store) == []


def test_file_is_copied_with_progress(store: ContentStore, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(os.urandom(3 << 20))
    seen: list[int] = []
    ref = store.put_file(source, progress=seen.append)
    assert seen == [1 << 20, 2 << 20, 3 << 20]
    assert store.path(ref.sha256).read_bytes() == source.read_bytes()
    again: list[int] = []
    assert store.put_file(source, sha256=ref.sha256, progress=again.append) == ref
    assert again == []


def test_file_of_another_content_is_refused(store: ContentStore, tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"other")
    with pytest.raises(StoreError, match="is damaged"):
        store.put_file(source, sha256="0" * 64)
    assert list(store.listing()) == []
    assert leftovers(store) == []


def test_missing_source_is_named(store: ContentStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        store.put_file(tmp_path / "nowhere")


def test_scratch_file_is_adopted_without_a_copy(store: ContentStore) -> None:
    with store.scratch() as folder:
        made = folder / "model.pte"
        made.write_bytes(b"program")
        inode = made.stat().st_ino
        ref = store.adopt(made)
    assert store.path(ref).stat().st_ino == inode
    assert ref.name == "model.pte"
    assert leftovers(store) == []


@pytest.mark.parametrize("damage", [b"weightz", b"short", b""])
def test_damaged_object_is_found_removed_and_named(
    store: ContentStore, tmp_path: Path, damage: bytes
) -> None:
    ref = store.put_bytes(b"weights", "model.pte")
    path = store.path(ref)
    path.chmod(0o644)
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=r"model\.pte .*removed"):
        ContentStore(store.root).path(ref)
    assert not path.exists()
    assert store.put_bytes(b"weights", "model.pte") == ref
    assert store.path(ref).read_bytes() == b"weights"


def test_content_is_hashed_once_per_process(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_bytes(b"weights", "model.pte")
    other = ContentStore(store.root)
    hashed: list[str] = []
    real = hashlib.file_digest

    def counting(file: object, name: str) -> object:
        hashed.append(name)
        return real(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    other.path(ref)
    other.path(ref)
    assert len(hashed) == 1
    assert other.verify(ref.sha256, force=True)
    assert len(hashed) == 2


def test_object_replaced_after_the_check_is_hashed_again(store: ContentStore) -> None:
    ref = store.put_bytes(b"weights", "model.pte")
    path = store.path(ref)
    path.unlink()
    path.write_bytes(b"weightz")
    with pytest.raises(StoreError, match="damaged"):
        store.path(ref)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_only_hashes_name_objects(store: ContentStore, name: str) -> None:
    with pytest.raises(StoreError, match="not a sha256"):
        store.path(name)


def test_file_larger_than_the_disk_is_refused_before_reading(
    store: ContentStore, tmp_path: Path
) -> None:
    source = tmp_path / "sparse"
    stat = os.statvfs(tmp_path)
    with source.open("wb") as file:
        file.truncate(stat.f_bavail * stat.f_frsize + (1 << 30))
    with pytest.raises(StoreError, match=r"no space .*bytes free.*needed") as caught:
        store.put_file(source)
    assert str(store.root) in str(caught.value)
    assert caught.value.context["needed_bytes"] == source.stat().st_size


WRITER = """
import resource, sys
from pathlib import Path
from farm.core.errors import StoreError
from farm.store.objects import ContentStore
store = ContentStore(Path(sys.argv[1]))
if sys.argv[3] == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    store.put_file(Path(sys.argv[2]), "f")
except StoreError as error:
    print(error)
    sys.exit(7)
"""


def test_disk_that_fills_up_while_writing(store: ContentStore, tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(os.urandom(3 << 20))
    done = subprocess.run(
        [sys.executable, "-c", WRITER, store.root, source, "limited"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "no space" in done.stdout
    assert str(store.root) in done.stdout
    assert list(store.listing()) == []
    assert leftovers(store) == []


def test_killed_writer_leaves_a_usable_store(store: ContentStore, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, store.root, fifo, "free"])
    with fifo.open("wb") as feed:
        feed.write(bytes(3 << 20))
        feed.flush()
        deadline = time.monotonic() + 10
        while not (left := leftovers(store)) or left[0].stat().st_size < 1 << 20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    (orphan,) = leftovers(store)
    assert list(store.listing()) == []
    old = time.time() - 3600
    os.utime(orphan, (old, old))
    ref = store.put_bytes(b"next", "next")
    assert store.path(ref).read_bytes() == b"next"
    assert leftovers(store) == []


def test_old_temporary_file_of_a_living_writer_stays(store: ContentStore) -> None:
    with store.scratch() as folder:
        old = time.time() - 3600
        os.utime(folder, (old, old))
        store.put_bytes(b"other", "other")
        assert folder.is_dir()


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't use"):
        ContentStore(tmp_path / "file" / "store").put_bytes(b"", "empty")


@dataclass(frozen=True, slots=True)
class Product:
    parts: tuple[ObjectRef, ...]
    note: str


KEY = "a" * 64


def test_recorded_result_is_found_by_another_process(store: ContentStore) -> None:
    product = Product((store.put_bytes(b"1", "one"), store.put_bytes(b"2", "two")), "n")
    cache = ActionCache(store)
    assert cache.lookup(KEY, Product) is None
    cache.record(KEY, product)
    assert ActionCache(ContentStore(store.root)).lookup(KEY, Product) == product
    assert list(object_refs(product)) == list(product.parts)


def test_result_with_a_damaged_object_is_a_miss(store: ContentStore) -> None:
    ref = store.put_bytes(b"1", "one")
    cache = ActionCache(store)
    cache.record(KEY, Product((ref,), ""))
    path = store.path(ref)
    path.unlink()
    path.write_bytes(b"2")
    assert cache.lookup(KEY, Product) is None
    made = cache.cached(KEY, Product, lambda: Product((store.put_bytes(b"1", "one"),), ""))
    assert made == (Product((ref,), ""), False)
    assert store.path(ref).read_bytes() == b"1"


@pytest.mark.parametrize("text", [b"", b"{", b'{"parts": 3}', b"\xff\xfe"])
def test_unreadable_result_is_a_miss(store: ContentStore, text: bytes) -> None:
    cache = ActionCache(store)
    cache.record(KEY, Product((), ""))
    (store.root / "actions" / f"{KEY}.json").write_bytes(text)
    assert cache.lookup(KEY, Product) is None


def test_result_that_names_a_missing_object_is_refused(store: ContentStore) -> None:
    with pytest.raises(StoreError, match="has to be in the content store"):
        ActionCache(store).record(KEY, Product((ObjectRef("0" * 64, 1, "x"),), ""))


def test_of_two_who_want_one_key_one_works(store: ContentStore) -> None:
    started, go = threading.Event(), threading.Event()
    waited: list[float] = []
    results: list[tuple[Product, bool]] = []

    def slow() -> Product:
        started.set()
        go.wait(10)
        return Product((), "slow")

    def never() -> Product:
        raise AssertionError("both worked")

    def on_wait(seconds: float) -> None:
        waited.append(seconds)
        go.set()

    first = threading.Thread(
        target=lambda: results.append(ActionCache(store).cached(KEY, Product, slow))
    )
    first.start()
    assert started.wait(10)
    second = ActionCache(ContentStore(store.root)).cached(KEY, Product, never, on_wait)
    first.join(10)
    assert second == (Product((), "slow"), True)
    assert results == [(Product((), "slow"), False)]
    assert len(waited) >= 1


def test_wait_for_a_key_can_be_given_up(store: ContentStore) -> None:
    cache = ActionCache(store)

    def give_up(_seconds: float) -> None:
        raise TimeoutError

    with cache.lock(KEY), pytest.raises(TimeoutError), ActionCache(store).lock(KEY, give_up):
        pass
    with cache.lock(KEY):
        pass


def test_failed_work_releases_the_key(store: ContentStore) -> None:
    cache = ActionCache(store)

    def fail() -> Product:
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        cache.cached(KEY, Product, fail)
    assert cache.cached(KEY, Product, lambda: Product((), "")) == (Product((), ""), False)
