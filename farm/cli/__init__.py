"""The command line: parses, calls, renders, sets the exit code. Nothing else.

Heavy imports stand inside commands, so that `farm --help` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `farm`. Errors of ours become one paragraph and their exit code."""
    from farm.cli import streams

    streams.fill_closed()
    streams.replace_unwritable()
    import logging

    import typer

    from farm.cli.commands import app
    from farm.core.errors import FarmError
    from farm.core.printable import printable

    # Wrong usage, as click raises it; typer has no name for it.
    usage_error: type[BaseException] = typer.BadParameter.__mro__[2]

    class Printable(logging.Formatter):
        """Messages quote devices: nothing of them may act on the terminal."""

        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        code = app(standalone_mode=False)
    except FarmError as error:
        sys.stderr.write(f"farm: {printable(str(error))}\n")
        sys.exit(error.exit_code)
    except usage_error as error:
        text = str(error)
        is_help = text.startswith("Usage:")
        sys.stderr.write(text if is_help else f"farm: {text.rstrip('.')}. See `farm --help`.\n")
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        sys.stderr.write("farm: interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`farm ... | head`); nothing is left to say.
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
