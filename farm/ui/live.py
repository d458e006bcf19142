"""The live view: a screen that follows a run, redrawn a few times a second, steered by keys.

farm.ui.screen draws it, farm.ui.steer says what keys do.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from farm.core.errors import FarmError
from farm.core.events import JobFinished, JobProgress, JobStarted
from farm.core.printable import one_line
from farm.core.view import (
    CellDone,
    DeviceNote,
    RunStarted,
    SecondSittings,
    TaskFinished,
    ViewEvent,
)
from farm.ui.keys import Keys, keys
from farm.ui.lines import Lines
from farm.ui.plain import describe
from farm.ui.screen import MARKS, STYLES, draw, ordered
from farm.ui.steer import Steering, pressed
from farm.ui.view import RunView, update

REFRESH_HZ = 4
#: Latest events below the devices, where there is room; and those kept of each device.
_RECENT, _KEPT = 4, 200


class LiveView:
    """Shows a run while it goes on. Use as a context manager; feed it with `emit`.

    `emit` is called from one thread. Rich's own thread draws, a third one brings keys; both read
    single references to immutable states. Keys are read from the moment on in which there is a
    plan: until then a start of Ray may end this process without a word to the terminal.

    Args:
        stream: Where it is drawn.
        cancel: Ends a cell, given the run's folder and the cell; FarmError: it can't.
        terminal: Where keys come from; None or no terminal: from nowhere.
        monotonic: The clock, seconds.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        cancel: Callable[[str, str], None] | None = None,
        terminal: TextIO | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = Console(file=stream, highlight=False)
        self._monotonic = monotonic
        self._cancel, self._terminal = cancel, terminal
        self._view = RunView()
        self._steering = Steering()
        self._keys: Keys | None = None
        #: (moment, line) of what happened last, and the latest events of each device.
        self._recent: tuple[tuple[float, str], ...] = ()
        self._log: defaultdict[str, deque[tuple[float, ViewEvent]]] = defaultdict(
            lambda: deque(maxlen=_KEPT)
        )
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_HZ,
            vertical_overflow="crop",
            transient=True,
        )

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._keys is not None:
            self._keys.close()
        self._live.stop()

    def emit(self, event: ViewEvent) -> None:
        """Take an event. A cell that ended badly is printed above the view, to stay."""
        now, before = self._monotonic(), self._view
        self._view = update(before, event, now)
        if isinstance(event, JobStarted | JobProgress | JobFinished | DeviceNote):
            self._log[event.device].append((now, event))
        elif isinstance(event, CellDone):
            self._log[event.result.device.name].append((now, event))
        if _stays(event) and (line := describe(before, self._view, event)):
            self._recent = (*self._recent, (now, line))[-_RECENT:]
        if isinstance(event, RunStarted) and self._keys is None:
            self._keys = keys(self._terminal, self._press)
        if isinstance(event, CellDone) and event.result.outcome not in ("passed", "skipped"):
            r = event.result
            self._console.print(
                Text.assemble(
                    (f"{MARKS[r.outcome]} {r.outcome} ", STYLES[r.outcome]),
                    one_line(f"{r.cell_id}: {r.reason}", 400),
                )
            )

    def _press(self, key: str) -> None:
        """Take a key, in the keys' own thread."""
        devices = ordered(self._view, self._steering)
        self._steering, cell = pressed(self._steering, key, devices)
        if cell:
            threading.Thread(target=self._end, args=(cell,), daemon=True).start()
        self._live.refresh()

    def _end(self, cell: str) -> None:
        """Cancel a cell; what answers may take its time."""
        said = "this view can't cancel cells: use `farm cancel RUN CELL`"
        if self._cancel is not None:
            try:
                self._cancel(self._view.folder, cell)
                said = f"{cell} is told to end"
            except FarmError as error:
                said = error.message
        self._steering = replace(self._steering, said=said)

    def _draw(self) -> Lines:
        size = self._console.size
        return draw(
            self._view,
            self._monotonic(),
            height=max(6, size.height - 1),
            width=size.width,
            steering=self._steering,
            recent=self._recent,
            # Copied in one step of the interpreter: `emit` appends in another thread.
            log=tuple(self._log[self._steering.chosen]) if self._steering.shows else (),
            steered=self._keys is not None,
        )


def _stays(event: ViewEvent) -> bool:
    """Whether an event is worth a line of what happened last."""
    if isinstance(event, JobFinished):
        return event.error is not None
    return isinstance(event, TaskFinished | CellDone | DeviceNote | SecondSittings)
