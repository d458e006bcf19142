"""Objects from another store of the same host into the site's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from farm.core.artifact import ObjectRef
from farm.core.errors import StoreError
from farm.home import store_root
from farm.site.context import SiteContext
from farm.site.store import ContentStore


def bring_objects(refs: Sequence[ObjectRef], source: Path, context: SiteContext) -> None:
    """Copy what is missing.

    Raises:
        StoreError: The source doesn't have an intact copy, or the disk is full.
    """
    store = context.store
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
