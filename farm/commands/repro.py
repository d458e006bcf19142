"""`farm repro`: one layer of a finished cell as a folder that needs no farm.

Its `repro.sh` runs the layer on the cell's device with plain adb, ssh or here, and `compare.py`
holds what came back against PyTorch's numbers, operator by operator.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import runners
from farm import paths
from farm.commands.diagnose import Found
from farm.core.device import DeviceEntry
from farm.core.diagnosis import DEVICE, Tap
from farm.core.errors import ConfigError, StoreError
from farm.core.printable import shown_value
from farm.core.runner import RunnerBuild, WorkFiles
from farm.judge.diagnosis import tolerance
from farm.run import run_folder
from farm.store.objects import ContentStore
from farm.tasks.observe import Inside, device_of

_TEMPLATES = Path(__file__).parent / "repro_files"


def write(found: Found, folder: Path, home: Path) -> Path:
    """Write the folder of the layer that was looked into.

    Returns:
        Its script.

    Raises:
        ConfigError: No layer was looked into.
        StoreError: The folder exists or can't be written, or the runner isn't in the store any
            more.
    """
    if not found.inside:
        raise ConfigError(
            f"{found.diagnosis.cell_id}: {found.diagnosis.sentence}, so there is nothing to show;"
            " name a layer with --layer"
        )
    inside = device_of(found.inside)
    run = found.runs[inside.stage]
    try:
        folder.mkdir(parents=True)
        _runner(run.runner, folder, ContentStore(paths.store_root(home)))
        (folder / "layer.pte").write_bytes(inside.program.read_bytes())
        for name, values in _numbers(inside).items():
            np.ascontiguousarray(values, "<f4").tofile(folder / name)
    except OSError as error:
        raise StoreError(f"can't write {folder}: {error.strerror}") from error
    command, files = _command(inside, run.runner)
    # The program of this host's half may be of an ABI that the device hasn't.
    entry = found.device.entry if inside.stage == DEVICE else DeviceEntry("here", "local")
    asked = [name for name, value in run.runner.env if not _is_shown(name, value)]
    filled = {"COMMAND": command, "GIVEN": "\n".join(map(_given, asked))}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "columns.tsv").write_text(_columns(inside.taps, len(inside.inputs)), encoding="utf-8")
    texts = {
        "repro.sh": _filled("repro.sh", _places(entry) | filled),
        "compare.py": (_TEMPLATES / "compare.py").read_text(encoding="utf-8"),
        "README.md": _filled("README.md", _words(found, inside, asked)),
    }
    for name, text in texts.items():
        run_folder.write_text(folder / name, text)
    script = folder / "repro.sh"
    script.chmod(0o755)
    return script


def _runner(build: RunnerBuild, folder: Path, store: ContentStore) -> None:
    for file in build.files:
        target = folder / "runner" / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.path(file.object).read_bytes())
        target.chmod(0o755 if file.executable else 0o644)


def _numbers(inside: Inside) -> Mapping[str, np.ndarray]:
    return {
        "inputs.f32": inside.inputs,
        "expected.f32": inside.expected,
        "device.f32": inside.found,
    }


def _command(inside: Inside, build: RunnerBuild) -> tuple[str, Mapping[str, bytes]]:
    """What is typed in the work folder, and the small files that it reads there."""
    words, files = runners.find().arguments(inside.request, WorkFiles("layer.pte", out="out"))
    environment = [
        f"{name}={shlex.quote(value)}" for name, value in build.env if _is_shown(name, value)
    ]
    return " ".join([*environment, *map(shlex.quote, (*build.argv, *words))]), files


def _is_shown(name: str, value: str) -> bool:
    """Whether a variable may stand in the folder; any other may be a key or token."""
    return shown_value(name, value) == value


def _given(name: str) -> str:
    return f'given {name} "${{{name}:?set it as the runner was given it}}"'


def _columns(taps: tuple[Tap, ...], rows: int) -> str:
    lines = [f"rows\t{rows}\t"]
    lines += [f"{one.operator}\t{one.width}\t{tolerance(one)[0]}" for one in taps]
    return "\n".join(lines) + "\n"


def _places(entry: DeviceEntry) -> dict[str, str]:
    user = "" if entry.user is None else f"{entry.user}@"
    port = "" if entry.port is None else f"-p {entry.port}"
    return {
        "TRANSPORT": entry.transport if entry.transport in ("adb", "ssh") else "local",
        "SERIAL": shlex.quote(entry.serial or ""),
        "HOST": shlex.quote(f"{user}{entry.host}" if entry.host else ""),
        "PORT": port,
    }


def _words(found: Found, inside: Inside, asked: Sequence[str]) -> dict[str, str]:
    diagnosis, versions = found.diagnosis, found.export.versions
    build = found.runs[inside.stage].runner
    return {
        "LAYER": str(inside.layer),
        "ASKED": f"Set {', '.join(asked)} as the runner was given it. " if asked else "",
        "CELL": diagnosis.cell_id,
        "SENTENCE": diagnosis.sentence,
        "STAGE": inside.stage,
        "VERSIONS": f"executorch {versions.executorch}, torch {versions.torch}, torchao"
        f" {versions.torchao}",
        "RUNNER": f"{build.version}, {build.abi}",
    }


def _filled(name: str, values: Mapping[str, str]) -> str:
    text = (_TEMPLATES / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
