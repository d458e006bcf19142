"""llama.cpp: speed by llama-bench, text by llama-completion (or an older llama-cli).

The GGUF is deployed as it is (recipe `gguf`), and the programs and libraries are the user's.
llama-bench times ids without a text, so its token counts are exact; it repeats each test itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from farm.core.errors import BadOutput, ConfigError
from farm.core.figures import Figures
from farm.core.runner import RunnerSpec, WorkFiles
from farm.core.runtime import Hello, LaunchRequest, LaunchResult, Sample
from runners.given import GivenRunner, program_of, refuse
from runners.output.printed import MOST_S, MOST_THREADS, json_objects, last_words, whole
from runners.output.textual import PROMPT_FILE, result_of, turn_of

DEFINITION = "as llama-bench times it: every window begins with an empty or prefilled cache"


class LlamaCppRunner(GivenRunner):
    """See the module."""

    def __init__(self, spec: RunnerSpec) -> None:
        refuse(spec, "argv", "parse", "logits", "text_file", "python")
        super().__init__(spec)
        self._bench = program_of(spec, "llama-bench")
        self._talk = program_of(spec, "llama-completion", "llama-cli")
        if self._bench is None or self._talk is None:
            raise ConfigError(
                "push llama.cpp's `llama-bench` and `llama-completion`, with their libraries "
                "where they are not static",
                key="push",
            )

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Arguments of either program; see `farm.protocols.Runner`."""
        threads = ("-t", str(request.threads)) if request.threads else ()
        if not request.measures:
            turn = turn_of(request)
            words = [str(self._talk), "-m", files.model, "-f", PROMPT_FILE]
            words += ["-n", str(turn.max_new_tokens), "--temp", "0", "-no-cnv"]
            words += ["--no-display-prompt"]
            return (*words, *threads), {PROMPT_FILE: turn.prompt.encode()}
        first = request.measures[0]
        words = [str(self._bench), "-m", files.model, "-o", "jsonl", "-r", str(first.repetitions)]
        for flag, values in (
            ("-p", [m.prefill for m in request.measures if m.prefill]),
            ("-n", [m.decode for m in request.measures if m.decode]),
            ("-d", [m.depth for m in request.measures]),
        ):
            words += [flag, ",".join(map(str, dict.fromkeys(values))) or "0"]
        return (*words, *threads, *(() if first.warmup else ("--no-warmup",))), {}

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        """Read a finished launch; see `farm.protocols.Runner`."""
        if not request.measures:
            text = stdout.decode("utf-8", "replace").replace("[end of text]", "").strip()
            return result_of(Figures(text=text), request, launch, self.hello(), "")
        rows = list(_rows(stdout))
        if not rows:
            raise BadOutput("llama-bench printed no result", raw=last_words(stdout))
        names = {(m.prefill, m.decode, m.depth): m.name for m in request.measures}
        try:
            found = [
                sample
                for row in rows
                if (kind := _kind(row)) in names
                for sample in _samples(row, names[kind], launch)
            ]
            threads = whole(rows[0]["n_threads"], MOST_THREADS)
            build = str(rows[0].get("build_commit", ""))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BadOutput(f"llama-bench garbles {error}", raw=last_words(stdout)) from error
        return LaunchResult(
            hello=_hello(self.hello(f"llama.cpp {build[:40]}"), rows[0]),
            samples=tuple(found),
            logits=(),
            generated=None,
            stopped_by=None,
            peak_rss_bytes=None,
            load_s=None,
            threads=threads,
            affinity="as given",
            definition=DEFINITION,
        )


def _rows(stdout: bytes) -> Iterator[dict[str, Any]]:
    """Results, a JSON object a line; other text is passed over."""
    return (row for row in json_objects(stdout) if "samples_ns" in row)


def _kind(row: Mapping[str, Any]) -> tuple[int, int, int]:
    return int(row["n_prompt"]), int(row["n_gen"]), int(row.get("n_depth", 0))


def _samples(row: Mapping[str, Any], name: str, launch: int) -> Iterator[Sample]:
    prefill, decode, _ = _kind(row)
    for rep, nanoseconds in enumerate(row["samples_ns"]):
        if not 0 < float(nanoseconds) <= MOST_S * 1e9:
            raise ValueError(f"a window of {str(nanoseconds)[:40]} ns")
        yield Sample(name, launch, rep, False, prefill + decode, float(nanoseconds) / 1e9)


def _hello(hello: Hello, row: Mapping[str, Any]) -> Hello:
    backends = tuple(str(row.get("backends", "")).split(","))
    return Hello(hello.protocol, hello.version, hello.abi, hello.isa, backends, ())
