"""A deployed version of a model: what lies on a device, and what it was validated by. Plain data.

On a device it is `deployments/NAME/VERSION`, links to objects, and `current` beside the versions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from farm.core.artifact import ToolchainVersions
from farm.core.runner import DeployFile, RunnerBuild
from farm.core.runtime import Measure

SCHEMA = 1
#: The link to the version in use; a version of this name is something else in its place.
CURRENT = "current"
#: The manifest's name in the version's folder.
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a conversation becomes token ids, and where a reply ends."""

    #: Jinja template; None: a message is plain text.
    template: str | None
    bos_id: int | None
    add_bos: bool
    bos_token: str
    eos_token: str
    stop_ids: tuple[int, ...]
    #: Why it isn't known to be the validated run's own; empty: it makes that run's prompt.
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The greedy answer of the validated run: what every device has to give again."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    #: Whether the run's device gave the host's logits bit by bit.
    bit_equal: bool


@dataclass(frozen=True, slots=True)
class Rate:
    """A speed of the validated run."""

    measure: Measure
    #: tok/s: the median, and the lower end of its 95 % interval.
    median: float
    low: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a version comes from."""

    run_id: str
    cell_id: str
    #: Of report.json as it was read.
    report_sha256: str
    config_sha256: str
    outcome: str
    #: The gates that held, as the report words them.
    gates: tuple[str, ...]
    versions: ToolchainVersions | None
    farm_version: str
    farm_tree_sha256: str
    deployed_by: str
    deployed_at: str
    #: Why it is deployed although it isn't validated; empty: it is.
    unverified: str = ""
    #: Of the run: other cells of it may have failed. None where nobody knows.
    run_exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """`manifest.json` of a version."""

    schema: int
    name: str
    version: str
    model: str
    recipe: str
    toolchain: str
    #: Backend that its program was lowered for.
    backend: str
    #: 0 lets the runner choose.
    threads: int
    max_context: int
    #: Everything in the folder but the manifest itself.
    files: tuple[DeployFile, ...]
    #: Paths of program and external weights.
    program: str
    data: tuple[str, ...]
    tokenizer: str | None
    runner: RunnerBuild
    chat: ChatFormat
    #: None where nothing was validated.
    answer: Answer | None
    rate: Rate | None
    #: Why no rate is checked; empty where there is one.
    no_rate: str
    #: Bytes of memory that it needs at least.
    ram_need_bytes: int
    provenance: Provenance

    @property
    def size_bytes(self) -> int:
        """Bytes of its files; one that stands twice counts once."""
        return sum({f.object.sha256: f.object.size_bytes for f in self.files}.values())


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A link of a version on a device."""

    path: str
    #: Object that it points to; empty where it is no link to one.
    sha256: str
    #: None: what it points to is gone.
    size_bytes: int | None
    #: Permissions of what it points to; None: not told.
    mode: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether others than its owner may change it."""
        return bool((self.mode or 0) & 0o022)


@dataclass(frozen=True, slots=True)
class Installed:
    """A version on a device, as farm-helper lists it."""

    name: str
    version: str
    current: bool
    files: tuple[InstalledFile, ...]
    #: By the device's clock, which may be wrong: for the order only.
    installed_unix: int = 0

    @property
    def missing(self) -> tuple[str, ...]:
        """Paths whose content is gone."""
        return tuple(file.path for file in self.files if file.size_bytes is None)

    def holds(self, files: tuple[DeployFile, ...]) -> bool:
        """Whether these are its files, besides the manifest, and all are there."""
        wanted = {file.path: file.object.sha256 for file in files}
        found = {file.path: file.sha256 for file in self.files if file.path != MANIFEST}
        return found == wanted and not self.missing and len(self.files) == len(wanted) + 1


def current_of(installed: tuple[Installed, ...], name: str) -> str:
    """Version of a name that is in use on a device; empty where there is none."""
    return next((one.version for one in installed if one.name == name and one.current), "")


def superfluous(
    installed: tuple[Installed, ...], name: str, keep: int, also: str = ""
) -> tuple[str, ...]:
    """Versions of a name beyond the newest `keep`; never the one in use, nor `also`.

    Args:
        installed: What the device has.
        name: Whose versions.
        keep: How many stay, the one in use included.
        also: The version that a rollback would go back to; empty: none.
    """
    mine = [one for one in installed if one.name == name]
    mine.sort(key=lambda one: (one.current, one.version == also, one.installed_unix), reverse=True)
    rest = mine[max(keep, 1) :]
    return tuple(one.version for one in rest if not one.current and one.version != also)


@dataclass(frozen=True, slots=True)
class Stages:
    """How many devices each stage adds up to, as asked: numbers, or shares of all."""

    #: `1`, `10%`, in order; the last one is everything.
    steps: tuple[str, ...] = field(default=("100%",))

    def ends(self, count: int) -> tuple[int, ...]:
        """Return up to which device each stage goes; a stage that would add none is left out."""
        found: list[int] = []
        for step in self.steps:
            end = (
                math.ceil(count * float(step[:-1]) / 100 - 1e-9)
                if step.endswith("%")
                else int(step)
            )
            end = min(max(end, 1), count)
            if not found or end > found[-1]:
                found.append(end)
        return tuple(found)


def parse_stages(text: str) -> Stages:
    """Read `1,10%,100%`.

    Raises:
        ValueError: It can't be read, doesn't grow, or doesn't end with all devices.
    """
    steps = tuple(part.strip() for part in text.split(",") if part.strip())
    for step in steps:
        number = step.removesuffix("%")
        digits = number.replace(".", "", 1) if step.endswith("%") else number
        if not digits.isascii() or not digits.isdigit() or float(number) <= 0:
            raise ValueError(f"{step!r} is no stage: write numbers or shares, such as `1,10%,100%`")
        if step.endswith("%") and float(number) > 100:
            raise ValueError(f"{step!r} is more than everything")
    if not steps or not steps[-1].endswith("%") or float(steps[-1][:-1]) != 100:
        raise ValueError(f"{text!r}: the last stage has to be 100%, such as `1,10%,100%`")
    for kind in (True, False):
        alike = [float(s.removesuffix("%")) for s in steps if s.endswith("%") is kind]
        if alike != sorted(set(alike)):
            raise ValueError(f"{text!r}: every stage has to be larger than the one before")
    return Stages(steps)
