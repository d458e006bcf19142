"""Conversations in a bundle's chat format, wherever its tokenizer lies. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from farm.core.artifact import Bundle
from farm.core.deployment import ChatFormat
from models.chat import render_chat
from models.checkpoint import TokenizerData
from models.tokenizer import Tokenizer


def chat_format(bundle: Bundle, tokenizer_json: str, stop_ids: tuple[int, ...]) -> ChatFormat:
    """Return how a bundle's conversations are written.

    A bundle keeps ids, not the texts of BOS and EOS that a template may print: those are the
    tokenizer's for its ids. Whoever has a prompt of the model's own checks that it comes out.

    Args:
        bundle: The bundle.
        tokenizer_json: Its tokenizer.
        stop_ids: Ids that end a reply.

    Raises:
        ExportError: The tokenizer can't be read.
    """
    tokenizer = Tokenizer(TokenizerData(tokenizer_json, None, False, (), None))
    bos = bundle.metadata.bos_id
    return ChatFormat(
        template=bundle.chat_template,
        bos_id=bos,
        add_bos=bos is not None,
        bos_token="" if bos is None else tokenizer.token_text(bos),
        eos_token=tokenizer.token_text(stop_ids[0]) if stop_ids else "",
        stop_ids=stop_ids,
    )


def prompt_ids(
    form: ChatFormat,
    tokenizer_json: str,
    messages: Sequence[dict[str, str]],
    day: datetime | None = None,
) -> list[int]:
    """Return token ids of a conversation, with room for the reply.

    Args:
        form: The chat format.
        tokenizer_json: The tokenizer.
        messages: `role` and `content` of each.
        day: What a template that prints the day has; None is today.

    Raises:
        ExportError: The template is broken or refuses the messages, or there is none and the
            conversation has more than one message.
    """
    return opened(form, tokenizer_json).conversation(list(messages), day)


def opened(form: ChatFormat, tokenizer_json: str) -> ChatTokenizer:
    """Open a tokenizer with a chat format.

    Raises:
        ExportError: The tokenizer can't be read.
    """
    return ChatTokenizer(
        TokenizerData(
            json=tokenizer_json,
            bos_id=form.bos_id,
            add_bos=form.add_bos,
            stop_ids=form.stop_ids,
            chat_template=form.template,
            bos_token=form.bos_token,
            eos_token=form.eos_token,
        )
    )


class ChatTokenizer(Tokenizer):
    """A tokenizer that writes whole conversations."""

    def conversation(
        self, messages: list[dict[str, str]], day: datetime | None = None
    ) -> list[int]:
        """Return token ids of a conversation; see `prompt_ids`."""
        if self.data.chat_template is None:
            # Without a chat format there are no turns: the newest message is all of the prompt.
            return self.encode(messages[-1]["content"])
        return self.encode(render_chat(self.data, messages, day), bos=False)
