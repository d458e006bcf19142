"""The plan of `farm-helper turns`, and its output arm by arm. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from farm.core.runtime import Arm

#: File of the candidate's work folder.
PLAN = "turns.json"
#: What stands before each line of an arm; the candidate's look like those of a launch alone.
_PREFIX: dict[Arm, str] = {"candidate": "", "baseline": "baseline "}


@dataclass(frozen=True, slots=True)
class ArmStart:
    """How one arm is started."""

    arm: Arm
    #: Its work folder on the device.
    folder: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


def plan_json(arms: Sequence[ArmStart]) -> bytes:
    """Write the plan; the first arm starts first and has the first window."""
    document = [
        {
            "name": one.arm,
            "folder": one.folder,
            "prefix": _PREFIX[one.arm],
            "argv": list(one.argv),
            "env": [f"{key}={value}" for key, value in one.env],
        }
        for one in arms
    ]
    return json.dumps({"arms": document}, separators=(",", ":")).encode()


def output_of(stdout: bytes, arm: Arm) -> bytes:
    """Return what one arm printed."""
    prefix = _PREFIX[arm].encode()
    others = tuple(text.encode() for text in _PREFIX.values() if text and text != _PREFIX[arm])
    lines = stdout.splitlines(keepends=True)
    if not prefix:
        return b"".join(line for line in lines if not line.startswith(others))
    return b"".join(line.removeprefix(prefix) for line in lines if line.startswith(prefix))


def complaint(stdout: bytes) -> str:
    """Return the helper's own last word on turns that failed; empty where there is none."""
    try:
        error = json.loads(stdout.splitlines()[-1])["error"]
        return str(error["message"])
    except (ValueError, LookupError, TypeError):
        return ""
