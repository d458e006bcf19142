"""Runners that take a prompt as text and answer with text: requests and figures of one launch.

One process start does one prompt and one reply. In a timed launch the prompt is a text of about
as many tokens as the prefill asks for; how many it really was is what the program reports.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.errors import RunnerError
from farm.core.figures import Figures
from farm.core.runtime import Hello, LaunchRequest, LaunchResult, Measure, Sample

PROMPT_FILE = "prompt.txt"


@dataclass(frozen=True, slots=True)
class Turn:
    """Prompt of one launch, and the length of its reply."""

    prompt: str
    max_new_tokens: int
    prefill: Measure | None
    decode: Measure | None


def turn_of(request: LaunchRequest) -> Turn:
    """Choose prompt and length of the reply.

    Raises:
        RunnerError: The request has neither a prompt nor a text to measure with.
    """
    prefill = next((m for m in request.measures if m.prefill and not m.decode), None)
    decode = next((m for m in request.measures if m.decode and not m.prefill), None)
    if prefill is None and decode is None:
        if request.generate is None:
            raise RunnerError("nothing to do for a runner that takes text")
        return Turn(request.generate.text, request.generate.max_new_tokens, None, None)
    if not request.texts:
        raise RunnerError("no text to measure with: the model has no tokenizer")
    lengths = dict(request.texts)
    text = lengths.get(prefill.prefill if prefill else 0, request.texts[0][1])
    return Turn(text, decode.decode if decode else 1, prefill, decode)


def result_of(
    figures: Figures, request: LaunchRequest, launch: int, hello: Hello, definition: str
) -> LaunchResult:
    """Make a launch's result of what the program printed.

    A rate without a count of tokens is one over as many as were asked for.
    """
    turn = turn_of(request)
    samples = []
    if figures.load_s is not None and figures.load_s > 0:
        samples.append(Sample("load", launch, 0, False, 0, figures.load_s))
    for measure, rate, count in (
        (turn.prefill, figures.prefill_tok_s, figures.prompt_tokens),
        (turn.decode, figures.decode_tok_s, figures.generated_tokens),
    ):
        if measure is None or rate is None or rate <= 0:
            continue
        tokens = count or measure.prefill or measure.decode
        ttft = figures.ttft_s if measure is turn.prefill else None
        samples.append(Sample(measure.name, launch, 0, False, tokens, tokens / rate, ttft))
    return LaunchResult(
        hello=hello,
        samples=tuple(samples),
        logits=(),
        generated=None,
        stopped_by=None,
        peak_rss_bytes=figures.peak_rss_bytes,
        load_s=figures.load_s,
        threads=request.threads,
        affinity="as given",
        text=figures.text if turn.prefill is None and turn.decode is None else None,
        definition=definition,
        exact_counts=False,
    )
