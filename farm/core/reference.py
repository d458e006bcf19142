"""What correctness starts from: token ids and eager logits of a text, and who vouches for them.

Everything here crosses processes, as what an export makes does.
"""

from __future__ import annotations

from dataclasses import dataclass

from farm.core.artifact import Bundle, LogitsRef, ModelSource, Recipe, Toolchain
from farm.core.asked import ChatPrompt


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """Ask for token ids and eager logits of a text."""

    model: ModelSource
    recipe: Recipe
    toolchain: Toolchain
    bundle: Bundle
    #: `builtin`, or a path of a UTF-8 text file.
    text: str
    #: Length of the teacher-forced text in tokens, BOS included.
    tokens: int
    #: The user's message of the generated text.
    prompt: str
    #: Lengths in tokens of the texts that runners without ids are measured with.
    text_lengths: tuple[int, ...] = ()
    #: Exactly these ids instead of the text: an answer that is judged.
    forced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceCheck:
    """How far a source that shares no code with farm agrees with our reading of a checkpoint."""

    #: `anchor` (logits kept with farm) or `transformers`; empty where nothing was compared.
    by: str = ""
    #: Positions compared.
    tokens: int = 0
    #: Whether the source makes the same token ids of the text; None where it has no tokenizer.
    ids_equal: bool | None = None
    #: Greatest difference of eager fp32 logits to the source's.
    max_abs_error: float | None = None
    #: Why nothing was compared, or where token ids part.
    reason: str = ""
    #: Perplexity of the compared text by the source, and by our fp32 model.
    perplexity: float | None = None
    own_perplexity: float | None = None
    #: Largest logit of the source, absolute, which the difference is held against; None in records
    #: of an older farm.
    largest: float | None = None


@dataclass(frozen=True, slots=True)
class LearnedBound:
    """What quantising cost a healthy export of a model and recipe: data of `models/data/bounds`."""

    #: KL(eager_fp32 || eager_quantised), mean over positions, nats.
    kl_mean: float
    #: ln(perplexity of eager_quantised / eager_fp32).
    log_perplexity: float
    #: Whether it was measured on this very text, token by token.
    same_text: bool


@dataclass(frozen=True, slots=True)
class Tokenized:
    """What a device is given of text: all that its launches need of a reference."""

    #: Teacher-forced text, of the length that was asked for.
    tokens: tuple[int, ...]
    #: Chat-formatted prompt.
    prompt: tuple[int, ...]
    stop_ids: tuple[int, ...]
    #: The chat-formatted prompt as text.
    prompt_text: str = ""
    #: By length in tokens, for runners without ids.
    texts: tuple[tuple[int, str], ...] = ()
    asked: tuple[ChatPrompt, ...] = ()


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """Token ids for the device and eager logits to judge it by."""

    #: Teacher-forced text, length `tokens`.
    tokens: tuple[int, ...]
    #: Chat-formatted prompt.
    prompt: tuple[int, ...]
    stop_ids: tuple[int, ...]
    #: Rows for every position; None for a prebuilt artifact.
    eager_fp32: LogitsRef | None
    eager_quantised: LogitsRef | None
    source: SourceCheck = SourceCheck(reason="this artifact has no weights to read again")
    #: None where nobody measured what this recipe costs this model.
    bound: LearnedBound | None = None
    #: The chat-formatted prompt as text.
    prompt_text: str = ""
    #: By length in tokens, for runners without ids.
    texts: tuple[tuple[int, str], ...] = ()
    cache_hit: bool = False

    @property
    def tokenized(self) -> Tokenized:
        """What a device that is judged by it must have been given."""
        return Tokenized(self.tokens, self.prompt, self.stop_ids, self.prompt_text, self.texts)
