"""`command`: any program that runs a model, described in the config instead of in code.

    runners:
      vendor:
        push: [./vendor-llm]
        argv: [./vendor-llm, --model, "{model}", --prompt, "{prompt_file}"]
        parse: {regex: {decode_tok_s: 'decode: ([0-9.]+) tok/s', text: 'answer: (.*)'}}

In `argv`: {model}, {data}, {tokenizer}, {prompt_file} (UTF-8), {prompt}, {tokens_file} (ids, one a
line), {max_new_tokens}, {threads} (a number; 0: the program's choice), {out}. `parse` is
`pytorch_observer`, `jsonl` (objects with figures as members, later ones count) or patterns with
one group each; figures are those of farm.core.figures. `logits` names a file that the program
writes: raw little-endian fp32, a row for each id of {tokens_file}, in order. `text_file` names one
that it writes its answer to, in {out}.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from farm.core.artifact import LogitsRef, ObjectRef
from farm.core.errors import RAW_BYTES, BadOutput, ConfigError
from farm.core.figures import Figures
from farm.core.printable import printable
from farm.core.runner import RunnerSpec, WorkFiles
from farm.core.runtime import LaunchRequest, LaunchResult
from runners.given import GivenRunner, refuse
from runners.output.observer import DEFINITION as OBSERVER
from runners.output.observer import parse_observer
from runners.output.printed import (
    MOST_BYTES,
    MOST_RATE,
    MOST_S,
    MOST_TOKENS,
    json_objects,
    last_words,
)
from runners.output.textual import PROMPT_FILE, Turn, result_of, turn_of

TOKENS_FILE = "tokens.txt"
PLACEHOLDERS = (
    "model", "data", "tokenizer", "prompt_file", "prompt", "tokens_file", "max_new_tokens",
    "threads", "out",
)  # fmt: skip
#: How programs print a figure that they don't know.
_UNKNOWN = ("n/a", "na", "none", "null", "-", "--", "")
#: sha256 of a file that the device has to hash itself.
UNKNOWN_SHA256 = ""

_MOST: Mapping[str, float] = {
    "prefill_tok_s": MOST_RATE, "decode_tok_s": MOST_RATE, "prompt_tokens": MOST_TOKENS,
    "generated_tokens": MOST_TOKENS, "ttft_s": MOST_S, "load_s": MOST_S,
    "peak_rss_bytes": MOST_BYTES,
}  # fmt: skip
_WHOLE = ("prompt_tokens", "generated_tokens", "peak_rss_bytes")


class CommandRunner(GivenRunner):
    """See the module."""

    def __init__(self, spec: RunnerSpec) -> None:
        refuse(spec, "python")
        super().__init__(spec)
        if not spec.argv:
            raise ConfigError(
                "say how it is started: argv: [./program, --model, '{model}', ...]", key="argv"
            )
        if spec.parse is None:
            raise ConfigError(
                "say how its output is read: parse: pytorch_observer, jsonl or {regex: {...}}",
                key="parse",
            )
        _check_argv(spec)

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Fill in argv; see `farm.protocols.Runner`."""
        turn = turn_of(request)
        values = {
            "model": files.model,
            "data": ",".join(files.data),
            "tokenizer": files.tokenizer or "",
            "prompt_file": PROMPT_FILE,
            "prompt": turn.prompt,
            "tokens_file": TOKENS_FILE,
            "max_new_tokens": str(turn.max_new_tokens),
            "threads": str(request.threads),
            "out": files.out,
        }
        tokens = "".join(f"{token}\n" for token in _forced(request))
        small = {PROMPT_FILE: turn.prompt.encode(), TOKENS_FILE: tokens.encode()}
        return tuple(word.format_map(values) for word in self.spec.argv), small

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        """Read a finished launch; see `farm.protocols.Runner`."""
        turn = turn_of(request)
        figures, definition = self._figures(stdout, turn)
        result = result_of(figures, request, launch, self.hello(), definition)
        tokens = _forced(request)
        if self.spec.logits is None or not tokens:
            return result
        # The program reports neither size nor hash of it: the device is asked for them.
        ref = LogitsRef(ObjectRef(UNKNOWN_SHA256, 0, self.spec.logits), len(tokens), 0)
        return _with_logits(result, ref)

    def _figures(self, stdout: bytes, turn: Turn) -> tuple[Figures, str]:
        if self.spec.parse == "pytorch_observer":
            return parse_observer(stdout, turn.prompt), OBSERVER
        if self.spec.parse == "jsonl":
            found = _json_members(stdout)
        else:
            # A console's colours must not cut a number in two.
            text = printable(stdout.decode("utf-8", "replace"))
            found = _matches(text, self.spec.patterns)
        if not found:
            raise BadOutput(
                f"{self.spec.name} printed none of the figures that `parse` looks for",
                raw=last_words(stdout),
            )
        figures = Figures(**{name: _figure(name, value) for name, value in found.items()})
        return figures, f"as {self.spec.name} reports it"


def _check_argv(spec: RunnerSpec) -> None:
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    for word in spec.argv:
        try:
            parts = list(string.Formatter().parse(word))
        except ValueError as error:
            raise ConfigError(
                f"{word!r}: {error}; write {{{{ and }}}} for braces", key="argv"
            ) from None
        for _, name, form, conversion in parts:
            if name is not None and (name not in PLACEHOLDERS or form or conversion):
                raise ConfigError(f"{word!r}: no such part; there are {known}", key="argv")


def _forced(request: LaunchRequest) -> tuple[int, ...]:
    return request.tokens if request.passes else ()


def _with_logits(result: LaunchResult, ref: LogitsRef) -> LaunchResult:
    return replace(result, logits=(("decode", ref),))


def _json_members(stdout: bytes) -> dict[str, Any]:
    names = {field.name for field in fields(Figures)}
    found: dict[str, Any] = {}
    for value in json_objects(stdout):
        found |= {key: item for key, item in value.items() if key in names}
    return found


def _matches(text: str, patterns: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The last match of each pattern: programs report as they go, and their end counts."""
    found = {}
    for name, pattern in patterns:
        for match in re.finditer(pattern, text, re.MULTILINE):
            found[name] = match[1]
    return found


def _figure(name: str, value: Any) -> Any:
    if value is None or name == "text":
        return None if value is None else str(value)
    if str(value).strip().lower() in _UNKNOWN:
        return None
    # A comma parts thousands; in other languages it is the decimal one, which isn't guessed at.
    thousands = re.fullmatch(r"\s*\d{1,3}(,\d{3})+(\.\d*)?\s*", str(value))
    try:
        number = float(str(value).replace(",", "") if thousands else str(value))
    except ValueError:
        raise BadOutput(
            f"{name} is {str(value)[:80]!r}, no number", raw=str(value)[:RAW_BYTES]
        ) from None
    if not 0 <= number <= _MOST[name]:
        return None  # also what is no number at all, or endless
    return int(number) if name in _WHOLE else number
