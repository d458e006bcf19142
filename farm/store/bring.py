"""Objects from another store of the same host into one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.paths import store_root
from farm.store.objects import ContentStore


def bring_objects(refs: Sequence[ObjectRef], store: ContentStore, source: Path) -> None:
    """Copy what is missing in `store`; `source` is the FARM_HOME of another one.

    Raises:
        StoreError: The source doesn't have an intact copy, or the disk is full.
    """
    other = ContentStore(store_root(source))
    for ref in refs:
        if store.has(ref.sha256, ref.size_bytes) and store.verify(ref.sha256):
            continue
        if other.root.resolve() == store.root.resolve():
            raise StoreError(
                f"{ref.name} ({ref.sha256[:12]}) is not in the content store {store.root} any"
                " more; run the same command again to make it anew",
                sha256=ref.sha256,
            )
        store.put_file(other.path(ref), ref.name, sha256=ref.sha256)
