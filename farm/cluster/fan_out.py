"""From whom an object goes to whom: the one that gives least to others gives next.

Who is still fetching gives on what has come, so several hosts form a chain and the first source's
link carries an object about once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence


class FanOut:
    """Transfers of one controller that are under way."""

    def __init__(self) -> None:
        #: Transfers that a source gives an object for, by object and source.
        self._giving: Counter[tuple[str, str]] = Counter()
        #: Who is fetching an object, in the order in which they began.
        self._fetching: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def sources(self, sha256: str, to: str, holders: Sequence[str]) -> Iterator[list[str]]:
        """Name those that `to` may get an object from, best first, while it does so.

        None of them waits for `to`: each has the object, or began to fetch it earlier.

        Args:
            sha256: The object.
            to: Who wants it.
            holders: Who has it as a whole.
        """
        fetching = self._fetching.setdefault(sha256, [])
        earlier = [name for name in fetching if name not in holders and name != to]
        found = sorted(
            [name for name in holders if name != to] + earlier[::-1],
            key=lambda name: self._giving[sha256, name],
        )
        taken = [(sha256, name) for name in found[:1]]
        self._giving.update(taken)
        fetching.append(to)
        try:
            yield found
        finally:
            fetching.remove(to)
            if not fetching:
                del self._fetching[sha256]
            self._giving.subtract(taken)
            self._giving += Counter()  # without those that give nothing any more
