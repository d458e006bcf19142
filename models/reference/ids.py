"""Token ids of what a model is judged and measured on. No torch: it reads no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from farm.core.asked import ChatPrompt, Prompt
from farm.core.errors import ExportError
from farm.core.reference import ReferenceRequest, Tokenized
from models.chat import RUN_DAY
from models.checkpoint import TokenizerData
from models.sources import open_for
from models.texts import forced_tokens, prefix_text, read_text
from models.tokenizer import Tokenizer


def tokenise(
    request: ReferenceRequest,
    cache: Path,
    on_bytes: Callable[[int, int], None],
    prompts: Sequence[Prompt] = (),
) -> Tokenized:
    """Return the ids that a device is given: those that the reference has logits of.

    Args:
        request: What is asked of the reference.
        cache: Folder of downloaded model files.
        on_bytes: Progress of a download.
        prompts: What devices are asked besides.

    Raises:
        FarmError: The model or the text can't be read, or the text is too short.
    """
    if request.model.kind == "pte":
        data = prebuilt_tokenizer(request)
    else:
        data = open_for(request.recipe, request.model, cache, on_bytes).tokenizer
    given = tokenised(request, data)
    if not prompts:
        return given
    tokenizer = Tokenizer(data)
    return replace(given, asked=tuple(_asked(tokenizer, prompt) for prompt in prompts))


def _asked(tokenizer: Tokenizer, prompt: Prompt) -> ChatPrompt:
    """A template that refuses one of them fails no cell: nothing is judged by it."""
    try:
        ids, text = tokenizer.chat(prompt.text, RUN_DAY), tokenizer.chat_text(prompt.text, RUN_DAY)
    except ExportError as error:
        return ChatPrompt((), reason=error.message)
    return ChatPrompt(tuple(ids), text, "" if ids else "the tokenizer makes no ids of it")


def tokenised(request: ReferenceRequest, data: TokenizerData) -> Tokenized:
    """Return the ids by a tokenizer.

    Raises:
        ExportError: Text or prompt say too little, or the tokenizer is damaged.
        ConfigError: The text can't be read.
    """
    tokenizer = Tokenizer(data)
    tokens = request.forced or forced_tokens(tokenizer, read_text(request.text), request.tokens)
    prompt = tuple(tokenizer.chat(request.prompt, RUN_DAY))
    if not prompt:
        raise ExportError("correctness.prompt: the tokenizer makes no ids of it; give another")
    return Tokenized(
        tokens=tokens,
        prompt=prompt,
        stop_ids=data.stop_ids,
        prompt_text=tokenizer.chat_text(request.prompt, RUN_DAY),
        texts=tuple((n, prefix_text(tokenizer, tokens, n)) for n in request.text_lengths),
    )


def prebuilt_tokenizer(request: ReferenceRequest) -> TokenizerData:
    """Return the tokenizer given beside a prebuilt artifact.

    Raises:
        ExportError: There is none, or it can't be read.
    """
    from models.sources.tokenizer_files import read_tokenizer_file

    if request.model.tokenizer is None:
        raise ExportError(
            f"model {request.model.name}: a prebuilt artifact needs `tokenizer: FILE` to be judged",
            model=request.model.name,
        )
    found = read_tokenizer_file(Path(request.model.tokenizer))
    stops = request.bundle.metadata.stop_ids or found.stop_ids
    bos = request.bundle.metadata.bos_id
    return replace(found, bos_id=found.bos_id if bos is None else bos, stop_ids=stops)
