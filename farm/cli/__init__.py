"""The command line: parses, calls, renders, sets the exit code. Nothing else.

Heavy imports stand inside commands, so that `farm --help` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `farm`. Errors become one paragraph and their exit code."""
    from farm.cli.streams import fill_closed, protect, stdout_failed

    fill_closed()
    import signal

    from farm.host.interpreter import restarted_without_foreign
    from farm.host.signals import ending_signals, interrupt

    restarted_without_foreign()
    protect()
    for number in ending_signals():
        if number != signal.SIGINT:  # Python's own handler is one that asyncio knows
            signal.signal(number, interrupt)
    code = _fenced()
    lost = stdout_failed()
    if lost is not None:
        sys.stderr.write(f"farm: can't write to standard output: {lost.strerror}\n")
        code = code or 3
    sys.stderr.flush()
    sys.exit(code)


def _fenced() -> int:
    """Run the command; returns its exit code whatever happens."""
    from farm.core.errors import FarmError
    from farm.core.printable import printable

    _log_to_stderr()
    try:
        return _performed()
    except FarmError as error:
        sys.stderr.write(f"farm: {printable(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("farm: interrupted\n")
        return 130
    except Exception as error:  # the last fence: 1 would mean that a gate failed
        from farm.cli.defects import EXIT_DEFECT, EXIT_LIMIT, describe, limit_of_host

        if limit := limit_of_host(error):
            notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
            sys.stderr.write(f"farm: {printable(limit + notes)}\n")
            return EXIT_LIMIT
        sys.stderr.write(f"{printable(describe(error))}\n")
        return EXIT_DEFECT


def _performed() -> int:
    """Parse the command line and run the command."""
    import typer

    from farm.cli.commands import app

    # Wrong usage, as click raises it; typer has no name for it.
    usage_error: type[Exception] = typer.BadParameter.__mro__[2]
    try:
        code = app(prog_name="farm", standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except usage_error as error:
        text = str(error)
        if not text.startswith("Usage:"):
            text = f"farm: {text if text[-1:] in '.?' else text + '.'} See `farm --help`.\n"
        sys.stderr.write(text)
        return 2
    return code if isinstance(code, int) else 0


def _log_to_stderr() -> None:
    import logging

    from farm.core.printable import printable

    class Printable(logging.Formatter):
        """Messages quote devices: nothing of them may act on the terminal."""

        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
