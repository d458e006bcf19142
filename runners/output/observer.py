"""Figures of ExecuTorch's own runners: the `PyTorchObserver {json}` line on stdout.

Rates are recomputed from its stamps, which are whole milliseconds: some builds print none, some
print a rate for a window of 0 ms. Fields that aren't stamps are not believed (an old build prints
an uninitialised sampling time). Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

from farm.core.errors import BadOutput
from farm.core.figures import Figures
from runners.output.printed import MOST_S, MOST_TOKENS, last_words

#: The line may stand right behind the generated text; its last occurrence counts.
_MARK = re.compile(rb"PyTorchObserver (\{.*\})")
#: Lines that the runtime logs, also when they are glued to the end of a text.
_LOG = re.compile(
    rb"(?:[DIWEF] (?:\d\d:\d\d:\d\d\.\d{6} )?[a-z_]+:|\[)[\w./-]+\.(?:cpp|cc|h):\d+\][^\n]*\n?"
)
#: What backends and libraries log in words of their own.
_OTHER_LOG = re.compile(
    rb"(?m)\[(?:DEBUG|INFO|WARNING|ERROR)\] \[Qnn ExecuTorch\]:[^\n]*\n?"
    rb"|^WARNING: All log messages before absl::[^\n]*\n?"
    rb"|^[IWEF]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\][^\n]*\n?"
    rb"|^This may be ok if a fallback regex is used\.\n?"
)
_STATISTICS = re.compile(
    rb"\n\s*(?:Prompt Tokens:|Model Load Time:|Total inference time:|Prompt evaluation:|"
    rb"Generated \d+ tokens:|Time to first generated token:|Sampling time over)[^\n]*"
)
#: What TTFT means here.
DEFINITION = "recomputed from PyTorchObserver's stamps of whole milliseconds; TTFT with tokenising"


def parse_observer(stdout: bytes, prompt: str) -> Figures:
    """Read what llama_main and its relatives print.

    Args:
        stdout: Everything, log lines too where they go there.
        prompt: The prompt, which they print before the answer.

    Raises:
        BadOutput: There is no such line, or its stamps are none.
    """
    found = _MARK.findall(stdout)
    if not found:
        raise BadOutput("no PyTorchObserver line in the output", raw=last_words(stdout))
    try:
        stamps: dict[str, Any] = json.loads(found[-1])
        start, first = stamps["inference_start_ms"], stamps["first_token_ms"]
        prompt_end, end = stamps["prompt_eval_end_ms"], stamps["inference_end_ms"]
        unit = 1 / float(stamps.get("SCALING_FACTOR_UNITS_PER_SECOND", 1000))
        prompt_tokens, generated = int(stamps["prompt_tokens"]), int(stamps["generated_tokens"])
        load = _span(stamps["model_load_start_ms"], stamps["model_load_end_ms"], unit)
        prefill, decode = _span(start, prompt_end, unit), _span(prompt_end, end, unit)
        ttft = _span(start, first, unit)
        # The first token comes out of the prefill; the others out of the decode window.
        return Figures(
            prefill_tok_s=_rate(prompt_tokens, prefill),
            decode_tok_s=_rate(generated, decode),
            prompt_tokens=prompt_tokens,
            generated_tokens=generated,
            ttft_s=ttft if ttft > 0 else None,
            load_s=load if load > 0 else None,
            text=answer(stdout, prompt),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise BadOutput(
            f"the PyTorchObserver line lacks or garbles {error}", raw=last_words(found[-1])
        ) from error


def answer(stdout: bytes, prompt: str) -> str | None:
    """The generated text alone: without log lines, statistics and the prompt before it.

    None where nothing stands between the logs: the text is somewhere else, in a file perhaps. Of
    several answers it is the last, as the figures are.
    """
    texts = (_text(body, prompt) for body in reversed(_MARK.split(stdout)[:-1:2] or [stdout]))
    return next(filter(None, texts), None)


def _text(body: bytes, prompt: str) -> str | None:
    body = _STATISTICS.sub(b"", _OTHER_LOG.sub(b"", _LOG.sub(b"", body)))
    text = body.decode("utf-8", "replace")
    before, found, after = text.partition(prompt.strip()) if prompt.strip() else ("", "", "")
    return (after if found else before or text).strip() or None


def _span(start: float, end: float, unit: float) -> float:
    """Seconds between two stamps."""
    seconds = float((end - start) * unit)
    if not abs(seconds) <= MOST_S:
        raise ValueError(f"a window of {seconds:.3g} s")
    return seconds


def _rate(tokens: int, seconds: float) -> float | None:
    if not 0 <= tokens <= MOST_TOKENS:
        raise ValueError(f"{str(tokens)[:40]} tokens")
    return tokens / seconds if tokens > 0 and seconds > 0 else None
