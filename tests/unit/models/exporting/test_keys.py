from __future__ import annotations

from dataclasses import replace

from farm.core.artifact import Recipe, ToolchainVersions
from models import known
from models.checkpoint import SourceFile
from models.exporting.keys import export_key, hash_sources, lowering_hash, reference_hash

ENTRY = known.get("tiny-llama")
assert ENTRY.seeded is not None
CONFIG = ENTRY.seeded[0]
FILES = (SourceFile("b", "22", 2), SourceFile("a", "11", 1))
RECIPE = Recipe(name="r", linear="8da4w", group_size=32)
VERSIONS = ToolchainVersions(python="3.11.7", torch="2.13.0", executorch="1.5.1", torchao="0.18")


def key(**changes: object) -> str:
    arguments: dict[str, object] = {
        "files": FILES,
        "config": CONFIG,
        "recipe": RECIPE,
        "versions": VERSIONS,
        "lowering": "l",
    }
    return export_key(**arguments | changes)  # type: ignore[arg-type]


def test_what_the_artifact_does_not_depend_on_does_not_count() -> None:
    renamed = tuple(replace(file, name="other") for file in reversed(FILES))
    assert key(files=renamed) == key()
    assert key(recipe=replace(RECIPE, name="other")) == key()
    assert key(versions=replace(VERSIONS, python="3.13.0")) == key()


def test_everything_else_counts() -> None:
    others = [
        key(files=FILES[:1]),
        key(config=replace(CONFIG, norm_eps=1e-6)),
        key(config=None),
        key(recipe=replace(RECIPE, group_size=64)),
        key(recipe=replace(RECIPE, options=(("debug.verbose", "true"),))),
        key(versions=replace(VERSIONS, torch="2.14.0")),
        key(versions=replace(VERSIONS, executorch="1.4.1")),
        key(versions=replace(VERSIONS, torchao="0.19")),
        key(lowering="m"),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_edited_source_changes_the_hash() -> None:
    sources = {"lowering/a.py": b"x = 1\n", "eager.py": b""}
    assert hash_sources(sources) == hash_sources(dict(reversed(sources.items())))
    assert hash_sources(sources) != hash_sources(sources | {"eager.py": b" "})
    assert hash_sources(sources) != hash_sources({"lowering/b.py": b"x = 1\n", "eager.py": b""})


def test_own_code_is_hashed() -> None:
    assert len(lowering_hash()) == 64
    assert lowering_hash() != reference_hash()
