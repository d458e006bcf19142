"""What `farm bisect` searches: revisions in order, and the config changes that make a run of one.

An axis is toolchains (versions of ExecuTorch, or wheels: what exports), runtimes (what runs: the
Python runtimes of releases), recipes, models, or commits of a checkout that a command of the user's
builds. Speeds and verdicts are none of this file's business.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from farm.core.errors import ConfigError, ExportError, StoreError

Axis = Literal["toolchain", "runtime", "recipe", "model", "git"]
AXES: tuple[Axis, ...] = ("toolchain", "runtime", "recipe", "model", "git")

#: Name of the toolchain that stands for a revision.
_TOOLCHAIN = "bisect"
#: The same of a runner.
_RUNTIME = "runtime"
_KINDS = ("hf", "gguf", "meta", "pte")
#: What a build command finds in its environment.
REVISION, OUT = "FARM_BISECT_REVISION", "FARM_BISECT_OUT"


@dataclass(frozen=True, slots=True)
class Checkout:
    """A git checkout, and how one commit of it becomes a wheel or a .pte."""

    repo: Path
    #: Shell command, run at the top of a work tree of the commit; leaves one .whl or .pte in
    #: the folder $FARM_BISECT_OUT.
    build: str


def listed(axis: Axis, words: Sequence[str], repo: Path | None) -> tuple[str, ...]:
    """Return the revisions that a user means, the good one first.

    Args:
        axis: What they are revisions of.
        words: Names in order; one folder of wheels; or one range GOOD..BAD of commits.
        repo: The checkout of an axis `git`.

    Raises:
        ConfigError: There are fewer than two, one is there twice, or none can be read.
    """
    found = list(words)
    if axis == "toolchain" and len(words) == 1 and Path(words[0]).is_dir():
        found = [str(wheel) for wheel in _wheels(Path(words[0]))]
    elif axis == "git" and len(words) == 1 and ".." in words[0]:
        found = _commits(repo, words[0])
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(f"revision {twice!r} is named twice")
    if len(found) < 2:
        raise ConfigError(
            "a search needs the good revision and at least one more, in order:"
            " `--over toolchain --revisions 1.4.1,1.5.0,1.5.1`"
        )
    return tuple(found)


def _wheels(folder: Path) -> list[Path]:
    named: list[tuple[Version, Path]] = []
    for path in folder.glob("*.whl"):
        try:
            named.append((parse_wheel_filename(path.name)[1], path.resolve()))
        except (InvalidWheelFilename, InvalidVersion) as error:
            raise ConfigError(f"{path}: is not named as a wheel is: {error}") from error
    return [path for _, path in sorted(named)]


def _commits(repo: Path | None, span: str) -> list[str]:
    good, _, bad = span.partition("..")
    if repo is None or not good or not bad:
        raise ConfigError(f"--revisions {span!r}: write GOOD..BAD, and --repo CHECKOUT")
    first = _git(repo, "rev-parse", "--verify", "--quiet", f"{good}^{{commit}}")
    rest = _git(repo, "rev-list", "--reverse", "--first-parent", f"{good}..{bad}")
    return [*first, *rest]


def _git(repo: Path, *words: str) -> list[str]:
    command = ["git", "-C", str(repo), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        what = done.stderr.strip() or f"`git {' '.join(words)}` found nothing"
        raise ConfigError(f"--repo {repo}: {what}")
    return done.stdout.split()


def overrides(axis: Axis, revision: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the `--set` texts that make a config one of a revision.

    Args:
        axis: What it is a revision of; one of `git` has become a file by now.
        revision: Its name: a version, a wheel, a recipe, a model or its path, a .pte; of a runtime
            the interpreter that has it.
        config: The config as plain data, for the rest of a model's entry.

    Raises:
        ConfigError: The config has not exactly one model whose files could be others.
    """
    if axis == "recipe":
        return (f"matrix.recipe={json.dumps([revision])}",)
    if axis == "runtime":
        runner = {_RUNTIME: {"kind": "executorch_python", "python": revision}}
        return (f"runners={json.dumps(runner)}", f"matrix.runner={json.dumps([_RUNTIME])}")
    if axis == "model" or revision.endswith(".pte"):
        return (f"models={json.dumps([_model(revision, config)])}",)
    if revision == metadata.version("executorch"):
        return ('matrix.toolchain=["default"]',)  # farm's own: nothing to install
    asked = revision if revision.endswith(".whl") else f"=={revision.removeprefix('==')}"
    chain = {_TOOLCHAIN: {"executorch": asked}}
    return (f"toolchains={json.dumps(chain)}", f"matrix.toolchain={json.dumps([_TOOLCHAIN])}")


def _model(revision: str, config: Mapping[str, Any]) -> Any:
    models = config.get("models") or []
    if len(models) != 1:
        raise ConfigError(f"models: a search over models needs one entry, there are {len(models)}")
    entry = models[0]
    if isinstance(entry, str):
        return revision
    kind = next((kind for kind in _KINDS if entry.get(kind)), "hf")
    path = Path(revision).expanduser()
    return {**entry, kind: str(path.resolve()) if path.exists() else revision}


def build(checkout: Checkout, commit: str, folder: Path) -> str:
    """Build a commit in a work tree of the search's own and return the file it became.

    One work tree serves all commits, so that a build reuses what the one before left. A commit
    that was built is not built again.

    Args:
        checkout: Where the commits are, and the command.
        commit: Which.
        folder: Of the search: `source` is the work tree, `builds/COMMIT` what came of it.

    Raises:
        ExportError: The command failed or left another number of files than one; its words are in
            `builds/COMMIT.log`.
        ConfigError: git can't make the work tree.
        StoreError: The folder can't be written.
    """
    out, log = folder / "builds" / commit, folder / "builds" / f"{commit}.log"
    done = folder / "builds" / f"{commit}.done"
    if not done.exists():
        source = folder / "source"
        if (source / ".git").exists():
            _git(source, "checkout", "--quiet", "--force", "--detach", commit)
        else:
            _git(checkout.repo, "worktree", "prune")
            words = ("worktree", "add", "--force", "--quiet", "--detach", str(source), commit)
            _git(checkout.repo, *words)
        environment = {**os.environ, REVISION: commit, OUT: str(out)}
        try:
            out.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as words_of:
                code = subprocess.run(
                    checkout.build, shell=True, cwd=source, env=environment, check=False,
                    stdin=subprocess.DEVNULL, stdout=words_of, stderr=subprocess.STDOUT,
                ).returncode  # fmt: skip
        except OSError as error:
            raise StoreError(f"can't write {folder}: {error}") from error
        if code:
            last = re.sub(r"\s+", " ", log.read_text("utf-8", "replace")[-300:]).strip()
            raise ExportError(f"commit {commit[:12]}: the build ended with {code}: {last} ({log})")
    files = sorted([*out.glob("*.whl"), *out.glob("*.pte")])
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ExportError(
            f"commit {commit[:12]}: the build left {names} in ${OUT}; one .whl or .pte is wanted"
        )
    done.touch()
    return str(files[0])
