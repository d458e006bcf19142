"""An answer that came as text, judged by eager PyTorch: would that have written it too?

Runners without logits are judged by their greedy answer. Its tokens are forced through the eager
model, and each is asked how much likelier than it the model's own choice was. A right model's
greedy tokens are the eager model's first choice, or a near tie that rounding decided; a wrong
one's are not. That finds broken models and wrong weights, not a slightly worse quantisation:
reports flag such cells `text_only`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farm.core.result import GateResult, StageComparison
from farm.judge.logits import Matrix

#: Mean of ln(p of the model's own choice / p of the token written), nats. Answers of SmolLM2-135M
#: with noise in its weights, judged by the true ones: 0.0 at 5 % noise, 1.6 at 10 %, 4.2 at 20 %
#: (python benchmarks/answers.py). Right ones of llama.cpp's Q4_1 and ExecuTorch's own text runner
#: had 0.004 and 0.014.
MAX_REGRET = 0.5
#: Fewer tokens say too little.
MIN_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's tokens, and the eager logits [tokens, vocabulary] that each was chosen from."""

    #: `eager_quantised`, or `eager_fp32` where the recipe's arithmetic isn't known.
    stage: str
    ids: tuple[int, ...]
    logits: Matrix


def judge_answer(answer: Answer) -> tuple[StageComparison, GateResult]:
    """Compare an answer with what the eager model would have written at each of its tokens."""
    log_p = _log_softmax(answer.logits)
    chosen = log_p[np.arange(len(answer.ids)), list(answer.ids)]
    regret = log_p.max(axis=1) - chosen
    first = np.flatnonzero(log_p.argmax(axis=1) != np.array(answer.ids))
    mean = float(regret.mean())
    enough = len(answer.ids) >= MIN_TOKENS
    comparison = StageComparison(
        from_=answer.stage,
        to="device_text",
        path="decode",
        tokens=len(answer.ids),
        bit_equal=False,
        cosine_min=None,
        kl_mean=None,
        kl_max=None,
        top1_agreement=1.0 - len(first) / len(answer.ids),
        max_abs_error=None,
        first_divergence=int(first[0]) if len(first) else None,
        perplexity_from=None,
        perplexity_to=float(np.exp(-chosen.mean())),
    )
    gate = GateResult(
        metric="regret",
        op="<=",
        threshold=MAX_REGRET,
        value=mean,
        passed=mean <= MAX_REGRET if enough else None,
        text=f"{answer.stage} -> device_text: nats per token",
        reason="" if enough else f"an answer of {len(answer.ids)} tokens says too little",
    )
    return comparison, gate


def _log_softmax(logits: Matrix) -> Matrix:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: Matrix = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
