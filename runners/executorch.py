"""farm-runner: our native program on ExecuTorch's C++ SDK, and how its output is read.

The protocol is described in runners/native/PROTOCOL.md. Pure but for `build`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from farm.core.artifact import LogitsRef, ObjectRef, Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import RAW_BYTES, BadOutput, RunnerCrashed, RunnerError
from farm.core.runner import (
    OWN,
    OWN_KINDS,
    PLAIN,
    TUNED,
    BuildVariant,
    DeployFile,
    RunnerBuild,
    RunnerSpec,
    WorkFiles,
)
from farm.core.runtime import Chosen, Hello, LaunchRequest, LaunchResult, ProfileRef, Sample
from farm.paths import native_cache, toolchain_root
from runners.build.cache import NativeBuild
from runners.build.ways import Places, native_build
from runners.given import refuse
from runners.output.printed import (
    MOST_BYTES,
    MOST_S,
    MOST_THREADS,
    MOST_TOKENS,
    json_objects,
    json_value,
    whole,
)

PROTOCOL = 1
REQUEST = "request.json"

#: A clock of a device, three centuries after its start.
_MOST_CLOCK_NS = 1 << 63
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ExecutorchRunner:
    """ExecuTorch as it ships or, as `executorch-tuned`, with our code where ours is faster."""

    greeting: tuple[str, ...] | None = ("--hello",)

    def __init__(self, spec: RunnerSpec = OWN) -> None:
        if spec.kind in OWN_KINDS:
            refuse(spec, "push", "argv", "parse", "logits", "text_file", "python")
        self.name = spec.name
        self._kind = spec.kind
        self._env = spec.env
        self._files: dict[str, Path] = {}

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: Callable[[str], None] | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        """Compile farm-runner, or take it from the cache; see `farm.protocols.Runner`."""
        native, note = native_build(
            abi,
            facts,
            sdk,
            Places(native_cache(home), toolchain_root(home)),
            variant,
            progress,
            tuned=self._kind == TUNED,
        )
        self._files |= {file.sha256: file.path for file in native.files}
        built = _described(self._kind, native, note)
        if not self._env:
            return built
        # Another environment is another runner: baselines must not take it for the same.
        digest = hashlib.sha256(f"{built.sha256}\0{self._env}".encode()).hexdigest()
        return replace(built, sha256=digest, env=(*built.env, *self._env))

    def files(self, build: RunnerBuild) -> Mapping[str, Path]:
        """Places of a build's files; see `farm.protocols.Runner`."""
        places = {
            file.object.sha256: self._files[file.object.sha256]
            for file in build.files
            if file.object.sha256 in self._files
        }
        for file in build.files:
            if file.object.sha256 not in places or not places[file.object.sha256].is_file():
                raise RunnerError(
                    f"{file.path} of {build.name} {build.version} isn't here any more"
                )
        return places

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Arguments and request.json; see `farm.protocols.Runner`."""
        words = ["--model", files.model]
        for path in files.data:
            words += ["--data", path]
        words += ["--request", REQUEST, "--out", files.out]
        return tuple(words), {REQUEST: request_json(request)}

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        """Read a finished launch; see `farm.protocols.Runner`."""
        del request
        lines = _Lines(stdout)
        for line in lines.of("error"):
            raise RunnerCrashed(
                _text(line, "message"), reason=line.get("code"), where=line.get("where")
            )
        hello, loaded, done = lines.only("hello"), lines.only("loaded"), lines.only("done")
        generated = lines.of("generated")
        try:
            load_s = whole(loaded["load_ns"], MOST_S * 1e9) / 1e9
            return LaunchResult(
                hello=_hello(hello),
                samples=(
                    Sample("load", launch, 0, False, 0, load_s),
                    *(_sample(line, launch) for line in lines.of("sample")),
                ),
                logits=tuple(_logits(line) for line in lines.of("logits")),
                generated=tuple(map(int, generated[0]["ids"])) if generated else None,
                stopped_by=_word(generated[0]["stopped_by"]) if generated else None,
                peak_rss_bytes=whole(done["peak_rss_bytes"], MOST_BYTES) or None,
                load_s=load_s,
                threads=whole(loaded["threads"], MOST_THREADS),
                affinity=_affinity(loaded["affinity"]),
                backends=tuple(map(_word, loaded["backends"])),
                profiles=tuple(_profile(line) for line in lines.of("profile")),
                uncounted=_uncounted(loaded),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadOutput(
                f"farm-runner's output lacks or garbles {error}", raw=lines.raw
            ) from error

    def progress(self, line: bytes) -> tuple[str, int, int] | None:
        """Read a progress line; see `farm.protocols.Runner`."""
        match json_value(line):
            case {"type": "progress", "phase": str(phase), "done": int(done), "total": int(total)}:
                return phase, done, total
        return None

    def rate(self, line: bytes) -> tuple[str, float] | None:
        """Read the rate of a sample line; see `farm.protocols.Runner`."""
        match json_value(line):
            case {
                "type": "sample",
                "metric": str(metric),
                "tokens": int(tokens),
                "start_ns": int(start),
                "end_ns": int(end),
            } if 0 < end - start <= MOST_S * 1e9 and 0 <= tokens <= MOST_TOKENS:
                return metric, tokens / ((end - start) / 1e9)
        return None


def request_json(request: LaunchRequest) -> bytes:
    """Write the request of one launch. Threads 0 let the runner count performance cores."""
    affinity: object = request.affinity
    if request.affinity not in ("auto", "none"):
        affinity = [int(core) for core in request.affinity.split(",")]
    document: dict[str, object] = {
        "protocol": PROTOCOL,
        "threads": request.threads,
        "affinity": affinity,
        "sdpa_order": request.sdpa_order,
        "tokens": list(request.tokens),
        "logits": [{"name": item.name, "chunks": list(item.chunks)} for item in request.passes],
        "measure": [asdict(item) for item in request.measures],
    }
    if request.xnnpack_isa:
        document["xnnpack_isa"] = request.xnnpack_isa
    if request.turns:
        document["turns"] = True
    if request.profiles:
        document["profile"] = [asdict(item) for item in request.profiles]
    if request.generate is not None:
        document["generate"] = {
            "prompt": list(request.generate.prompt),
            "max_new_tokens": request.generate.max_new_tokens,
            "stop": list(request.generate.stop_ids),
            **({"stream": True} if request.generate.stream else {}),
        }
    return json.dumps(document, separators=(",", ":")).encode()


class _Lines:
    """JSON lines by their type. Other text is refused only where something is missing."""

    def __init__(self, stdout: bytes) -> None:
        self.raw = stdout[:RAW_BYTES].decode("utf-8", "replace")
        self._by_type: dict[str, list[dict[str, Any]]] = {}
        for value in json_objects(stdout):
            if isinstance(value.get("type"), str):
                self._by_type.setdefault(value["type"], []).append(value)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return self._by_type.get(kind, [])

    def only(self, kind: str) -> dict[str, Any]:
        found = self.of(kind)
        if len(found) != 1:
            raise BadOutput(
                f"farm-runner printed {len(found)} lines of type {kind!r} instead of one",
                raw=self.raw,
            )
        return found[0]


def _text(line: Mapping[str, Any], key: str) -> str:
    return str(line.get(key) or "the runner failed without a message")[:RAW_BYTES]


def _hello(line: Mapping[str, Any]) -> Hello:
    if line["protocol"] != PROTOCOL:
        raise ValueError(f"protocol {line['protocol']}, expected {PROTOCOL}")
    return Hello(
        protocol=PROTOCOL,
        version=_word(line["version"]),
        abi=_word(line["abi"]),
        isa=_word(line["isa"]),
        backends=tuple(map(_word, line["backends"])),
        kernels=tuple(map(_word, line["kernels"])),
        features=tuple(map(_word, line["features"])),
        turns=line.get("turns") is True,
    )


def _sample(line: Mapping[str, Any], launch: int) -> Sample:
    start, end = whole(line["start_ns"], _MOST_CLOCK_NS), whole(line["end_ns"], _MOST_CLOCK_NS)
    if not 0 < end - start <= MOST_S * 1e9:
        raise ValueError(f"a window from {start} to {end} ns")
    ttft = line["ttft_ns"]
    return Sample(
        metric=_word(line["metric"]),
        launch=launch,
        rep=whole(line["rep"], MOST_TOKENS),
        warmup=bool(line["warmup"]),
        tokens=whole(line["tokens"], MOST_TOKENS),
        duration_s=(end - start) / 1e9,
        ttft_s=None if ttft is None else whole(ttft, MOST_S * 1e9) / 1e9,
        token_s=tuple(whole(value, MOST_S * 1e9) / 1e9 for value in line["token_ns"]),
        t_s=start / 1e9,
        passes=whole(line["passes"], MOST_TOKENS),
        instructions=None if (n := line.get("instructions")) is None else whole(n, 1e18),
        chosen=_chosen(line),
    )


def _chosen(line: Mapping[str, Any]) -> Chosen | None:
    """Tokens of a window; runners of before don't tell them."""
    if "ids" not in line:
        return None
    ids, odd = tuple(int(one) for one in line["ids"]), line["odd"]
    return Chosen(int(line["from"]), ids, None if odd is None else whole(odd, MOST_TOKENS))


def _logits(line: Mapping[str, Any]) -> tuple[str, LogitsRef]:
    rows, cols, sha256 = int(line["rows"]), int(line["cols"]), str(line["sha256"])
    if line["dtype"] != "f32" or not _SHA256.fullmatch(sha256) or rows < 1 or cols < 1:
        raise ValueError(f"logits of {rows} x {cols} {line['dtype']}")
    ref = ObjectRef(sha256, rows * cols * 4, str(line["file"]))
    return _word(line["name"]), LogitsRef(ref, rows, cols)


def _profile(line: Mapping[str, Any]) -> ProfileRef:
    size, sha256 = int(line["size"]), str(line["sha256"])
    if not _SHA256.fullmatch(sha256) or size < 1:
        raise ValueError(f"a profile of {size} bytes")
    tokens = int(line["prefill"]) + int(line["decode"])
    return ProfileRef(_word(line["name"]), ObjectRef(sha256, size, str(line["file"])), tokens)


def _uncounted(loaded: Mapping[str, Any]) -> str:
    """Why instructions were not counted; runners of before knew no counters."""
    if "uncounted" not in loaded:
        return "the runner doesn't count them"
    return "" if loaded["uncounted"] is None else _word(loaded["uncounted"])


def _word(value: object) -> str:
    """A name that a device printed, made fit for reports and terminals."""
    text = str(value)
    if not text.isprintable() or len(text) > 200:
        raise ValueError(f"a name that can't be printed: {text[:40]!r}")
    return text


def _affinity(value: object) -> str:
    if isinstance(value, list):
        return ",".join(str(int(core)) for core in value)
    return str(value)


def _described(kind: str, native: NativeBuild, note: str) -> RunnerBuild:
    digest = hashlib.sha256()
    for file in native.files:
        digest.update(f"{file.name}\0{file.sha256}\0".encode())
    return RunnerBuild(
        name=kind,
        version=f"{native.version} (ExecuTorch {native.toolchain})",
        abi=native.abi,
        sha256=digest.hexdigest(),
        files=tuple(
            DeployFile(
                ObjectRef(file.sha256, file.size, file.name.rpartition("/")[2]),
                file.name,
                executable=bool(file.mode & 0o100),
            )
            for file in native.files
        ),
        argv=native.argv,
        env=native.env,
        libc=native.libc,
        isa=native.isa_baseline,
        executorch=native.toolchain,
        note=note,
        how=native.how,
    )
