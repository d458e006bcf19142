"""A runner whose program is a shell script and whose model is the script's body.

Everything around it is real: store, helper, transport, supervision. Each test says in its model
what the program does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from farm.core.artifact import LogitsRef, ObjectRef, Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import BadOutput, RunnerCrashed
from farm.core.runner import PLAIN, BuildVariant, DeployFile, RunnerBuild, WorkFiles
from farm.core.runtime import Hello, LaunchRequest, LaunchResult, Sample

PROGRAM = b'#!/bin/sh\nout=$1\ntest -d "$out" || mkdir -p "$out"\n. ./model.pte\n'
HELLO = Hello(1, "1", "any", "any", ("toy",), ())

#: Model that prints a sample and logits of 2 x 3 zeros, then ends well.
GOOD = """
printf '{"progress": ["decode", 1, 2]}\\n'
printf '{"sample": [64, 0.5]}\\n'
head -c 24 /dev/zero > "$out/decode.f32"
sha=$(sha256sum "$out/decode.f32"); sha=${sha%% *}
printf '{"logits": ["decode", "decode.f32", "%s", 2, 3]}\\n' "$sha"
echo "a word on stderr" >&2
printf '{"done": true}\\n'
"""


class ToyRunner:
    """See the module."""

    name = "toy"
    greeting: tuple[str, ...] | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: Callable[[str], None] | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        sha = hashlib.sha256(PROGRAM).hexdigest()
        (self._folder / sha).write_bytes(PROGRAM)
        file = DeployFile(ObjectRef(sha, len(PROGRAM), "toy"), "toy", executable=True)
        if progress is not None:
            progress("building toy")
        return RunnerBuild("toy", "1", abi, sha, (file,), ("./toy",), (("TOY", "yes it's"),))

    def files(self, build: RunnerBuild) -> Mapping[str, Path]:
        return {file.object.sha256: self._folder / file.object.sha256 for file in build.files}

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        turns = ("turns",) if request.turns else ()
        return (files.out, str(request.threads), *turns), {"request.json": b"{}"}

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        logits: list[tuple[str, LogitsRef]] = []
        samples: list[Sample] = []
        done, hello = False, HELLO
        peak: int | None = None
        for line in stdout.splitlines():
            value = _read(line)
            match value:
                case {"logits": [str(name), str(file), str(sha), int(rows), int(cols)]}:
                    ref = LogitsRef(ObjectRef(sha, rows * cols * 4, file), rows, cols)
                    logits.append((name, ref))
                case {"sample": [int(tokens), float(seconds)]}:
                    samples.append(Sample("tg64", launch, 0, False, tokens, seconds))
                case {"window": [int(tokens), int(nanoseconds), int(start)]}:
                    rep, took, at = len(samples), nanoseconds / 1e9, start / 1e9
                    samples.append(Sample("tg64", launch, rep, False, tokens, took, t_s=at))
                case {"takes_turns": bool(turns), "peak": int(needed)}:
                    hello, peak = replace(HELLO, turns=turns), needed
                case {"error": str(message)}:
                    raise RunnerCrashed(message)
                case {"done": True}:
                    done = True
        if not done:
            raise BadOutput(
                "the toy never said that it is done", raw=stdout[:200].decode("utf-8", "replace")
            )
        return LaunchResult(
            hello, tuple(samples), tuple(logits), None, None, peak, None, threads=1, affinity=""
        )

    def progress(self, line: bytes) -> tuple[str, int, int] | None:
        match _read(line):
            case {"progress": [str(phase), int(done), int(total)]}:
                return phase, done, total
        return None

    def rate(self, line: bytes) -> tuple[str, float] | None:
        match _read(line):
            case {"sample": [int(tokens), float(seconds)]}:
                return "tg64", tokens / seconds
        return None


def _read(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
