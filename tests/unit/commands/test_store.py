"""farm store on a store of small files: what is listed, found damaged and collected."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from farm import paths
from farm.cli.quantities import duration_s, size_bytes
from farm.commands import store as store_command
from farm.core.artifact import ExportResult, ObjectRef
from farm.core.errors import ConfigError, StoreError
from farm.core.result import ArtifactReport
from farm.core.rules.retention import Policy
from farm.core.runner import DeployFile
from farm.run import baselines
from farm.store.actions import ActionCache, runner_key
from farm.store.objects import ContentStore
from tests.unit.core.builders import BUILD, export_result
from tests.unit.reports.builders import report

EVERYTHING = Policy(keep_last=0)

USER = """
import sys
from pathlib import Path
from farm.core.artifact import ExportResult
from farm.store.actions import ActionCache, runner_key
from farm.store.objects import ContentStore
store = ContentStore(Path(sys.argv[1]))
with store.in_use("a test"):
    if sys.argv[2]:
        assert ActionCache(store).lookup(sys.argv[2], ExportResult) is not None
    else:
        scratch = store.scratch()
        folder = scratch.__enter__()
        (folder / "half.pte").write_bytes(b"half")
    print("using", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> ContentStore:
    return ContentStore(paths.store_root(home))


def export(store: ContentStore, recipe: str, program: bytes, data: bytes | None = None) -> str:
    """Remember an export of these bytes; returns its key."""
    result = replace(export_result(recipe), replay=None)
    weights = None if data is None else store.put_bytes(data, "model.ptd")
    bundle = replace(result.bundle, pte=store.put_bytes(program, "model.pte"), data=weights)
    ActionCache(store).record(
        f"export-{recipe}", replace(result, bundle=replace(bundle, tokenizer=None))
    )
    return f"export-{recipe}"


def age(path: Path, days: float) -> None:
    """Let a file look as if it was used that long ago."""
    used = time.time() - days * 86400
    os.utime(path, (used, used))


@contextmanager
def using(store: ContentStore, key: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the result of a key, or with an empty one makes something."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, store.root, key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "using\n"
        yield process
        process.kill()


def collected(home: Path, policy: Policy = EVERYTHING, *, apply: bool = True) -> list[str]:
    """Keys of the entries that a collection removes."""
    found = store_command.collect(home, policy, apply=apply)
    return [entry.key for entry in found.removal.entries]


def test_store_that_is_not_there_is_empty(home: Path) -> None:
    assert store_command.contents(home).entries == ()
    assert store_command.verify(home, remove=True).objects == 0
    assert collected(home) == []


def test_listing_names_what_users_know(home: Path, store: ContentStore) -> None:
    key = export(store, "r1", b"program", b"weights")
    store.put_bytes(b"a log", "stdout")
    found = store_command.contents(home)
    (entry,) = found.entries
    assert (entry.key, entry.kind, entry.model, entry.recipe) == (key, "artifact", "m1", "r1")
    assert [name for name, _ in entry.objects] == ["model.pte", "model.ptd"]
    assert entry.size_bytes == len(b"program" + b"weights")
    assert abs(entry.last_used_s - time.time()) < 60
    assert [item.size_bytes for item in found.unnamed] == [len(b"a log")]
    assert found.users == ()


def test_looking_is_no_use_and_using_is(home: Path, store: ContentStore) -> None:
    key = export(store, "r1", b"program")
    path = ActionCache(store).path(key)
    (item,) = store_command.contents(home).objects
    for file in (path, store.location(item.sha256)):
        age(file, 3)
    store_command.contents(home)
    store_command.verify(home, remove=False)
    found = store_command.contents(home)
    for used_s in (found.entries[0].last_used_s, found.objects[0].last_used_s):
        assert time.time() - used_s > 2 * 86400
    assert ActionCache(store).lookup(key, ExportResult) is not None
    found = store_command.contents(home)
    for used_s in (found.entries[0].last_used_s, found.objects[0].last_used_s):
        assert time.time() - used_s < 60


def test_damage_is_named_and_removed_only_when_asked(home: Path, store: ContentStore) -> None:
    export(store, "r1", b"program")
    export(store, "r2", b"healthy")
    ref = store.put_bytes(b"program", "model.pte")
    path = store.location(ref.sha256)
    path.chmod(0o644)
    path.write_bytes(b"prOgram")
    (damage,) = store_command.verify(home, remove=False).damaged
    assert (damage.sha256, damage.removed) == (ref.sha256, False)
    assert damage.parts == ("model.pte of m1/r1",)
    assert path.exists()
    (damage,) = store_command.verify(home, remove=True).damaged
    assert damage.removed
    assert not path.exists()
    assert store_command.verify(home, remove=True).damaged == ()


def test_dry_run_touches_nothing(home: Path, store: ContentStore) -> None:
    key = export(store, "r1", b"program")
    before = store_command.contents(home)
    found = store_command.collect(home, EVERYTHING, apply=False)
    assert [entry.key for entry in found.removal.entries] == [key]
    assert found.removal.freed_bytes == len(b"program")
    assert not found.applied
    assert store_command.contents(home) == before


def test_collection_removes_entries_objects_locks_and_rubbish(
    home: Path, store: ContentStore
) -> None:
    key = export(store, "r1", b"program")
    with ActionCache(store).lock(key):
        pass
    store.write_atomic(ActionCache(store).path("export-old"), b"{}")
    with using(store, "") as maker:
        maker.send_signal(signal.SIGKILL)
    found = store_command.collect(home, EVERYTHING, apply=True)
    assert {entry.kind for entry in found.removal.entries} == {"artifact", "unreadable"}
    assert (found.temporaries, found.temporary_bytes, found.kept_bytes) == (1, len(b"half"), 0)
    left = [path for path in store.root.rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["gate"]


def test_what_a_baseline_names_stays(home: Path, store: ContentStore) -> None:
    program = store.put_bytes(b"named program", "model.pte")
    weights = store.put_bytes(b"named weights", "model.ptd")
    export(store, "named", b"named program", b"named weights")
    export(store, "free", b"other program", b"named weights")
    made = report()
    artifact = ArtifactReport("k", program.sha256, program.size_bytes, weights.sha256, 13)
    results = tuple(replace(item, artifact=artifact) for item in made.results)
    baselines.set_baseline(paths.baselines(home), "nightly", replace(made, results=results))
    assert collected(home) == ["export-free"]
    (entry,) = store_command.contents(home).entries
    assert (entry.key, entry.baselines) == ("export-named", ("nightly",))
    assert store.path(weights).read_bytes() == b"named weights"
    # Without its entry the artifact itself stays: the baseline still names it.
    ActionCache(store).forget("export-named")
    assert collected(home) == []
    assert store.path(program).read_bytes() == b"named program"


def test_the_runner_of_a_baseline_stays(home: Path, store: ContentStore) -> None:
    for name in ("named", "free"):
        file = DeployFile(store.put_bytes(name.encode(), "farm-runner"), "farm-runner")
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        build = replace(BUILD, sha256=sha256, files=(file,))
        ActionCache(store).record(runner_key(sha256), build)
    made = report()
    runner = replace(made.results[0].runner, sha256=hashlib.sha256(b"named").hexdigest())
    results = tuple(replace(item, runner=runner) for item in made.results)
    baselines.set_baseline(paths.baselines(home), "nightly", replace(made, results=results))
    assert collected(home) == [runner_key(hashlib.sha256(b"free").hexdigest())]
    (entry,) = store_command.contents(home).entries
    assert (entry.kind, entry.baselines) == ("runner", ("nightly",))
    arm = baselines.find_arm(results[0], ActionCache(store), "pte")
    assert isinstance(arm, str)
    assert "artifact" in arm


def test_baseline_that_can_not_be_read_stops_a_collection(home: Path, store: ContentStore) -> None:
    export(store, "r1", b"program")
    paths.baselines(home).mkdir(parents=True)
    (paths.baselines(home) / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.json"):
        store_command.collect(home, EVERYTHING, apply=True)
    assert len(list(store.listing())) == 1


def test_what_another_process_uses_stays_until_it_ends(home: Path, store: ContentStore) -> None:
    used, free = export(store, "used", b"used program"), export(store, "free", b"free program")
    for key in (used, free):
        age(ActionCache(store).path(key), 2)
    for item in list(store.listing()):
        age(store.location(item.sha256), 2)
    with using(store, used) as process:
        assert collected(home) == [free]
        (entry,) = store_command.contents(home).entries
        assert entry.used_by == (f"pid {process.pid} (a test)",)
        (item,) = store.listing()
        assert item.size_bytes == len(b"used program")
    assert collected(home) == [used], "a dead process protects nothing"
    assert not list(store.listing())


def test_what_is_being_made_stays(home: Path, store: ContentStore) -> None:
    with store.in_use("an export"), store.scratch() as folder:
        (folder / "model.pte").write_bytes(b"made")
        assert store_command.collect(home, EVERYTHING, apply=True).temporaries == 0
        ref = store.adopt(folder / "model.pte")
        # Not yet named by any entry.
        assert store_command.collect(home, EVERYTHING, apply=True).removal.objects == ()
        assert store.path(ref).read_bytes() == b"made"


def test_users_come_and_go_while_it_is_collected_again_and_again(
    home: Path, store: ContentStore
) -> None:
    """Nobody who is in use ever loses what it has seen, however the two interleave."""
    stop = threading.Event()
    failures: list[str] = []

    def work(number: int) -> None:
        mine = ContentStore(store.root)
        content = f"program {number}".encode()
        for _ in range(60):
            with mine.in_use("a job"):
                ref: ObjectRef = mine.put_bytes(content, "model.pte")
                try:
                    mine.path(ref)
                except StoreError as error:
                    failures.append(str(error))

    def collect() -> None:
        while not stop.is_set():
            store_command.collect(home, EVERYTHING, apply=True)

    collector = threading.Thread(target=collect)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in (collector, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    collector.join()
    assert failures == []
    assert collected(home) == []
    assert not list(store.listing())


def test_quantities_of_the_command_line() -> None:
    assert size_bytes("--max-size", "20GiB") == 20 << 30
    assert size_bytes("--max-size", "1000") == 1000
    assert duration_s("--older-than", "30d") == 30 * 86400
    assert duration_s("--older-than", "1.5h") == 5400
    for read, text in ((size_bytes, "20 elephants"), (duration_s, "soon"), (duration_s, "30")):
        with pytest.raises(ConfigError, match=r"--it .*write a"):
            read("--it", text)
