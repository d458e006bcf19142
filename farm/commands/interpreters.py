"""Interpreters of ExecuTorch releases: the environments that their exports run in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from farm import paths
from farm.commands.export import export
from farm.core.errors import ExportError
from farm.core.view import ViewEvent
from farm.planning.planning import RunOptions
from models.toolchain import find_environment


def interpreter(
    options: RunOptions, version: str, home: Path, emit: Callable[[ViewEvent], None]
) -> str:
    """Return the interpreter that has a release, made by exporting a config with it.

    Args:
        options: The config, and what else is set in it.
        version: The release; farm's own is the interpreter of this process.
        home: FARM_HOME.
        emit: Receives view events.

    Raises:
        ExportError: The environment can't be made; says why.
        ConfigError: The config is wrong.
    """
    if version == metadata.version("executorch"):
        return sys.executable
    chain = {version: {"executorch": f"=={version}"}}
    words = (f"toolchains={json.dumps(chain)}", f"matrix.toolchain={json.dumps([version])}")
    asked = RunOptions(
        config=options.config,
        overrides=(*options.overrides, *words),
        cluster=options.cluster,
    )
    made = export(asked, home, emit)
    keys = [one.result.environment for one in made if one.result is not None]
    found = find_environment(paths.toolchain_root(home) / keys[0]) if keys else None
    if found is None:
        errors = [one.report.error.message for one in made if one.report.error is not None]
        why = errors[0] if errors else "it has gone"
        raise ExportError(f"ExecuTorch {version}: no environment to run in: {why}")
    return str(found.python)
