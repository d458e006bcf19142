"""Virtual environments of toolchains: one for each set of exporter versions, built once.

Not to be confused with a recipe: a toolchain is which ExecuTorch exports, not what it makes.
An environment is whole when its `ready.json` is there; anything less is built again. Of two who
want one, a lock of the caller's lets one build. No torch.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm import codec
from farm.core.artifact import Toolchain, ToolchainVersions
from farm.core.errors import ConfigError, ExportError
from models.exporting.identify import own_versions
from models.orders import InstallOrder
from models.sources.files import sha256_of, write_atomic

log = logging.getLogger(__name__)

#: Called with each step of an installation.
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
#: One release, however the index grows.
_PINNED = re.compile(r"==\s*[0-9][0-9A-Za-z.+!]*")
#: Lines of pip that say how far it is.
_STEPS = ("Collecting", "Downloading", "Processing", "Installing", "Successfully installed")


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that exports can run in."""

    python: Path
    versions: ToolchainVersions
    #: Folder name; empty for the environment of this process.
    key: str = ""


def own_environment() -> Environment:
    """The environment of this process."""
    return Environment(Path(sys.executable), own_versions())


def install_order(toolchain: Toolchain, root: Path) -> InstallOrder:
    """Say what has to be installed, and where, for a toolchain with a specifier.

    A range is resolved to the release that pip would take today: environments are told apart by
    what is in them.

    Raises:
        ConfigError: The specifier is neither versions nor wheels that are there.
        ExportError: The index has no such release; the message quotes pip.
    """
    requirements = executorch_requirements(toolchain)
    if not requirements[0].endswith(".whl") and not _PINNED.fullmatch(toolchain.executorch.strip()):
        requirements = (f"executorch=={_resolved(toolchain, requirements)}",)
    folder = root / environment_key(requirements, exporter_pins(toolchain))
    return InstallOrder(toolchain, requirements, str(folder))


def find_environment(folder: Path) -> Environment | None:
    """Return the environment in a folder; None when it isn't there or not whole."""
    try:
        versions = codec.from_json(ToolchainVersions, (folder / "ready.json").read_bytes())
    except (OSError, ValueError):
        return None
    python = _python(folder)
    return Environment(python, versions, folder.name) if python.exists() else None


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
    if wanted[:1] not in tuple("=<>~!"):
        raise ConfigError(
            f"toolchain {toolchain.name}: {wanted!r} is neither a version specifier like ==1.5.1"
            " nor a path of wheels like ./wheels/*.whl"
        )
    return (f"executorch{wanted}",)


def exporter_pins(toolchain: Toolchain) -> tuple[str, ...]:
    """Requirements for torch and torchao, which decide an artifact as ExecuTorch does.

    Farm's own where the toolchain names none, so that pip doesn't choose a torch of several
    gigabytes. To a torch of the toolchain's own pip looks for a torchao that goes with it.
    """
    own = own_versions()
    torchao = toolchain.torchao or ("" if toolchain.torch else _release(own.torchao))
    return (
        f"torch=={toolchain.torch or _release(own.torch)}",
        f"torchao=={torchao}" if torchao else "torchao",
    )


def _release(version: str) -> str:
    """A version as the index has it, without where it was built."""
    return version.partition("+")[0]


def environment_key(requirements: tuple[str, ...], pins: tuple[str, ...]) -> str:
    """Folder name of an environment: wheels count by content, Python by its minor version."""
    parts = [f"{sys.version_info.major}.{sys.version_info.minor}", *_WORKER_NEEDS, *pins]
    for requirement in requirements:
        path = Path(requirement)
        parts.append(sha256_of(path) if path.is_file() else requirement)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def build_environment(order: InstallOrder, on_line: OnLine) -> ToolchainVersions:
    """Build an environment anew, while nobody else does.

    Raises:
        ExportError: pip can't install it; the message quotes pip.
    """
    toolchain, folder = order.toolchain, Path(order.folder)
    # A release that doesn't exist, or a file that is no wheel, is refused within a second.
    on_line("looking for " + ", ".join(Path(one).name for one in order.requirements))
    _resolved(toolchain, order.requirements)
    if folder.exists():
        shutil.rmtree(folder)
    on_line("creating a virtual environment")
    _run(toolchain, [sys.executable, "-P", "-m", "venv", "--without-pip", str(folder)])
    command = _pip("--python", str(_python(folder)), "install", "--progress-bar", "off")
    # Compiling every module of torch takes a minute; those that are used compile themselves.
    command += ["--no-compile", *exporter_pins(toolchain), *order.requirements, *_WORKER_NEEDS]
    _run(toolchain, command, on_line)
    answer = _run(toolchain, [str(_python(folder)), "-c", _ASK_VERSIONS])
    found = codec.from_json(ToolchainVersions, answer[-1])
    write_atomic(folder / "ready.json", codec.to_json(found).encode())
    log.info("toolchain %s: %s", toolchain.name, found)
    return found


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _pip(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", *words]


def _resolved(toolchain: Toolchain, requirements: tuple[str, ...]) -> str:
    """Version of executorch that pip would install; downloads no more than its metadata.

    Raises:
        ExportError: There is none.
    """
    with tempfile.TemporaryDirectory(prefix="farm-resolve-") as name:
        report = Path(name) / "report.json"
        words = ["install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
        _run(toolchain, _pip(*words, "--report", str(report), *requirements))
        found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    versions = {str(one["name"]).lower(): str(one["version"]) for one in found}
    if "executorch" not in versions:
        names = ", ".join(Path(one).name for one in requirements)
        raise ExportError(
            f"toolchain {toolchain.name}: {names} holds {', '.join(versions)}, not executorch",
            toolchain=toolchain.name,
        )
    return versions["executorch"]


def _run(
    toolchain: Toolchain, command: list[str], on_line: OnLine = lambda _line: None
) -> list[str]:
    """Run a step and return its lines.

    Raises:
        ExportError: It failed; the message quotes what it said.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if lines[-1].lstrip().startswith(_STEPS):
                on_line(lines[-1].strip())
    if process.returncode:
        raise ExportError(
            f"toolchain {toolchain.name}: {toolchain.executorch} can't be installed:"
            f" {_reason(lines)}",
            toolchain=toolchain.name,
        )
    return lines


def _reason(lines: list[str]) -> str:
    """What pip says went wrong: its errors without the list of every release there is."""
    errors = [line for line in lines if "ERROR" in line] or lines[-3:]
    text = " ".join(line.removeprefix("ERROR: ").strip() for line in errors[:2])
    return re.sub(r"\(from versions: (?:.*, )?([^,()]*)\)", r"(newest: \1)", text)[:600]
