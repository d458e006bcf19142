"""The live view in a real terminal, tmux: what is on the screen, and what keys do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.host import find
from tests.pace import slack
from tests.unit.ui.scenes import cell_id
from tests.unit.ui.screening import SIZES, file_of, names

pytestmark = pytest.mark.lab
ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """A terminal of its own size, with the live view in it."""

    def __init__(self, folder: Path, count: int, width: int, height: int) -> None:
        tmux = find("tmux")
        assert tmux is not None, "run tests/lab/install.sh: it installs tmux"
        self._tmux = [tmux, "-S", str(folder / "tmux"), "-f", "/dev/null"]
        view = f"{sys.executable} -m tests.unit.ui.screening {count}"
        self._do(
            "new-session", "-d", "-x", str(width), "-y", str(height), "-c", str(ROOT), "env",
            "-u", "COLUMNS", "-u", "LINES", "PYTHONPATH=.", "LC_ALL=C.UTF-8", "sh", "-c", view,
        )  # fmt: skip

    def _do(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, "-u", *words], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self._do("send-keys", key)
            time.sleep(0.05)

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size."""
        self._do("resize-window", "-x", str(width), "-y", str(height))

    def screen(self) -> str:
        """What stands there now."""
        lines = self._do("capture-pane", "-p").rstrip("\n").splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines)

    def until(self, there: Callable[[str], bool]) -> str:
        """Wait for a screen; returns it, or the last one."""
        ends = time.monotonic() + 20 * slack()
        while not there(shown := self.screen()) and time.monotonic() < ends:
            time.sleep(0.1)
        return shown

    def close(self) -> None:
        """End it, and what runs in it."""
        self._do("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[int, int, int], Terminal]]:
    """Makes one terminal."""
    made: list[Terminal] = []

    def make(count: int, width: int, height: int) -> Terminal:
        made.append(Terminal(tmp_path, count, width, height))
        return made[-1]

    yield make
    for one in made:
        one.close()


def without_foot(screen: str) -> str:
    """A screen without its last line, which tells the keys of a real terminal."""
    return "".join(f"{line}\n" for line in screen.splitlines() if "? help" not in line)


def test_a_terminal_shows_what_was_looked_at_also_after_a_resize(
    terminal: Callable[[int, int, int], Terminal],
) -> None:
    """Eight devices leave room: the line of keys and what happened last are all that is more."""
    view = terminal(8, *SIZES[0])
    for width, height in SIZES:
        view.resize(width, height)
        wanted = file_of(8, width, height).read_text()

        def there(screen: str, wanted: str = wanted) -> bool:
            return without_foot(screen).startswith(wanted)

        shown = view.until(there)
        assert there(shown), shown
        assert "? help" in shown.splitlines()[-1]


def test_keys_of_a_terminal(terminal: Callable[[int, int, int], Terminal]) -> None:
    view = terminal(60, 120, 40)
    view.until(lambda screen: "? help" in screen)
    last = names(60)[52]
    view.keys("/", *last, "Enter")
    shown = view.until(lambda screen: f"filter: {last}" in screen and last in screen)
    assert "devices don't match the filter" in shown
    view.keys("Down", "l")
    shown = view.until(lambda screen: "ago" in screen)
    assert "pp128" in shown
    view.keys("l", "c")
    question = f"cancel {cell_id(last)}? y or n"
    assert question in view.until(lambda screen: question in screen)
    view.keys("y")
    # This view stands alone: there is no run to ask.
    assert "no run is going on" in view.until(lambda screen: "no run is going on" in screen)
    view.keys("?")
    assert "filter devices and cells" in view.until(lambda screen: "filter devices" in screen)
