"""Virtual environments of toolchains: one for each set of exporter versions, built once.

Not to be confused with a recipe: a toolchain is which ExecuTorch exports, not what it makes.
An environment is whole when its `ready.json` is there; anything less is built again. No torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from farm.core.artifact import Toolchain, ToolchainVersions
from farm.core.errors import ConfigError, ExportError
from models.prepare import own_versions
from models.sources.files import sha256_of, write_atomic

log = logging.getLogger(__name__)

#: Called with each line that pip prints.
OnLine = Callable[[str], None]

#: What a worker imports besides torch, torchao and executorch.
_WORKER_NEEDS = (
    "gguf",
    "jinja2",
    "numpy",
    "omegaconf",
    "pydantic>=2.11",
    "safetensors",
    "sentencepiece",
    "tokenizers>=0.21",
)
_ASK_VERSIONS = (
    "import importlib.metadata as m, json, platform;"
    "print(json.dumps({'python': platform.python_version(),"
    " **{p: m.version(p) for p in ('torch', 'executorch', 'torchao')}}))"
)


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that exports can run in."""

    python: Path
    versions: ToolchainVersions


def ensure_environment(
    toolchain: Toolchain, root: Path, on_line: OnLine = lambda _line: None
) -> Environment:
    """Return the environment of a toolchain, building it when it isn't there.

    Args:
        toolchain: With an empty specifier it is the environment of this process.
        root: Folder of environments. Two processes that want one wait for each other.
        on_line: Progress of an installation.

    Raises:
        ConfigError: The specifier names wheels that aren't there.
        ExportError: pip can't install it; the message quotes pip.
    """
    if not toolchain.executorch:
        return Environment(Path(sys.executable), own_versions())
    requirements = executorch_requirements(toolchain)
    folder = root / environment_key(requirements)
    ready = folder / "ready.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{folder.name}.lock"):
            found = _read_ready(ready, folder)
            if found is None:
                shutil.rmtree(folder)
                found = _build(toolchain, requirements, folder, on_line)
                write_atomic(ready, json.dumps(found).encode())
    except OSError as error:
        raise ExportError(
            f"toolchain {toolchain.name}: can't use {folder}: {error.strerror or error}"
        ) from error
    return Environment(_python(folder), ToolchainVersions(**found))


def executorch_requirements(toolchain: Toolchain) -> tuple[str, ...]:
    """What pip is asked for: a version specifier, or wheel files.

    Raises:
        ConfigError: No wheel matches, or the specifier is neither.
    """
    wanted = toolchain.executorch.strip()
    if wanted.endswith(".whl"):
        wheels = sorted(glob.glob(os.path.expanduser(wanted)))
        if not wheels:
            raise ConfigError(f"toolchain {toolchain.name}: no wheel matches {wanted}")
        return tuple(str(Path(wheel).resolve()) for wheel in wheels)
    if wanted[:1] not in "=<>~!":
        raise ConfigError(
            f"toolchain {toolchain.name}: {wanted!r} is neither a version specifier like ==1.5.1"
            " nor a path of wheels like ./wheels/*.whl"
        )
    return (f"executorch{wanted}",)


def environment_key(requirements: tuple[str, ...]) -> str:
    """Folder name of an environment: wheels count by content, Python by its minor version."""
    parts = [f"{sys.version_info.major}.{sys.version_info.minor}", *_WORKER_NEEDS]
    parts.append(own_versions().torch)
    for requirement in requirements:
        path = Path(requirement)
        parts.append(sha256_of(path) if path.is_file() else requirement)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _read_ready(ready: Path, folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads(ready.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and _python(folder).exists() else None


def _build(
    toolchain: Toolchain, requirements: tuple[str, ...], folder: Path, on_line: OnLine
) -> dict[str, str]:
    on_line(f"creating {folder}")
    _run(toolchain, [sys.executable, "-m", "venv", str(folder)], on_line)
    # The same torch as farm's own, so that pip doesn't choose one of several gigabytes.
    torch = f"torch=={own_versions().torch.split('+')[0]}"
    command = [str(_python(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off"]
    _run(toolchain, [*command, torch, "torchao", *requirements, *_WORKER_NEEDS], on_line)
    answer = _run(toolchain, [str(_python(folder)), "-c", _ASK_VERSIONS], lambda _line: None)
    found: dict[str, str] = json.loads(answer[-1])
    log.info("toolchain %s: %s", toolchain.name, found)
    return found


def _run(toolchain: Toolchain, command: list[str], on_line: OnLine) -> list[str]:
    """Run a step and return its lines."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=environment,
    )
    lines: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(lines[-1])
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode:
        errors = [line for line in lines if "ERROR" in line] or lines
        raise ExportError(
            f"toolchain {toolchain.name}: {toolchain.executorch} can't be installed:"
            f" {' '.join(errors[-2:])[:500]}",
            toolchain=toolchain.name,
        )
    return lines
