"""Is the generated text language, and may a model be let off because it knows none?

A model with random weights writes garbage rightly. That is believed only of one whose reading an
independent source confirms: the worse a checkpoint is read, the higher its perplexity, so a high
perplexity alone must not switch the question off.
"""

from __future__ import annotations

from farm.core.reference import SourceCheck
from farm.core.result import GateResult
from farm.judge.correctness import ChainResult
from farm.judge.guards import Guard, no_language_perplexity
from farm.judge.rules import agrees
from farm.judge.text import garbage_reason


def text_guard(
    text: str | None, chain: ChainResult, vocabulary: int, source: SourceCheck
) -> Guard | None:
    """Look at the generated text.

    Args:
        text: The device's answer; None when there is none.
        chain: The comparisons of the cell's stages.
        vocabulary: Number of token ids; 0 when it isn't known.
        source: Whether an independent source agrees with our reading of the checkpoint.

    Returns:
        None where there is nothing to judge: no text, or a model that is known to know no language.
    """
    if text is None:
        return None
    reference = _perplexity_of("eager_fp32", chain)
    limit = no_language_perplexity(vocabulary)
    lost = reference is not None and reference > limit
    if lost and agrees(source):
        return None
    reason = garbage_reason(text)
    if lost and reference is not None:
        doubt = f"perplexity {reference:.0f}: a random model, or a checkpoint that is read wrongly"
        if source.by:
            return Guard("garbage_text", "flagged", f"{doubt}; the source doesn't agree with it")
        return Guard("garbage_text", "unavailable", f"{doubt}, and no source to tell which")
    host = _perplexity_of("host_pte", chain)
    if reference is None and host is not None and host > limit:
        return Guard(
            "garbage_text",
            "unavailable",
            f"perplexity {host:.0f} and no reference: a random model, or a broken artifact",
        )
    return Guard("garbage_text", "ok" if reason is None else "flagged", reason or "")


def text_gate(guard: Guard) -> GateResult:
    """The guard as a gate on correctness."""
    return GateResult(
        metric="text",
        op="==",
        threshold=None,
        value=None,
        passed=None if guard.state == "unavailable" else guard.state == "ok",
        text="generated text is language",
        reason=guard.detail,
    )


def _perplexity_of(stage: str, chain: ChainResult) -> float | None:
    return next(
        (
            pair.comparison.perplexity_from
            for pair in chain.pairs
            if pair.from_ == stage and pair.comparison.perplexity_from is not None
        ),
        None,
    )
