"""What state a git checkout of ExecuTorch is in: a build of it serves for that state alone."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from farm.core.errors import RunnerError

_GIT_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Checkout:
    """A state: equal ones build equal libraries, as far as git sees what they are built from."""

    version: str
    """Of its version.txt, for example `1.6.0a0`."""
    commit: str
    changes: str
    """sha256 over what differs from the commit, submodules included; empty when nothing does."""
    untracked: int
    """Files that git neither knows nor ignores: a build may use them, but they aren't hashed."""

    @property
    def name(self) -> str:
        """Version and state in words, for reports."""
        changed = f" with changes {self.changes[:8]}" if self.changes else ""
        return f"{self.version} at {self.commit[:12]}{changed}"

    @property
    def note(self) -> str:
        """What a build's key leaves out; empty when that is nothing."""
        return f"{self.untracked} untracked files not looked at" if self.untracked else ""


def read_checkout(folder: Path, named_by: str) -> Checkout:
    """Ask git about a checkout.

    Args:
        folder: Its top.
        named_by: The variable that names it, for errors.

    Raises:
        RunnerError: It is no checkout of ExecuTorch, or git can't be run there.
    """
    if not (folder / "CMakeLists.txt").is_file():
        raise RunnerError(f"{named_by}: {folder} is no checkout of ExecuTorch (no CMakeLists.txt).")
    try:
        version = (folder / "version.txt").read_text().strip()
    except OSError as error:
        raise RunnerError(f"{named_by}: {folder} is no checkout of ExecuTorch: {error}.") from error
    commit = _git(folder, named_by, "rev-parse", "HEAD").decode().strip()
    diff = _git(folder, named_by, "diff", "HEAD", "--binary", "--no-ext-diff", "--submodule=diff")
    others = _git(folder, named_by, "ls-files", "--others", "--exclude-standard", "-z")
    return Checkout(
        version=version,
        commit=commit,
        changes=hashlib.sha256(diff).hexdigest() if diff else "",
        untracked=others.count(b"\0"),
    )


def _git(folder: Path, named_by: str, *words: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunnerError(f"{named_by}: git can't be run in {folder}: {error}.") from error
    if done.returncode != 0:
        raise RunnerError(
            f"{named_by}: git says of {folder}: {done.stderr.decode(errors='replace').strip()}. "
            "Without its commit farm can't tell when it changes: name a git checkout, or build it "
            "yourself and name the prefix."
        )
    return done.stdout
