"""The `prompts` of a run config: what every cell's device is asked for people to read."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from farm.config.forms import Form
from farm.core.asked import Prompt


def _words(text: str) -> str:
    if not text.strip():
        raise ValueError("an empty prompt asks nothing")
    return text


PromptText = Annotated[str, Field(max_length=8000), AfterValidator(_words)]


class PromptConfig(Form):
    """A prompt with a length of its own."""

    text: PromptText
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 128


def as_prompt(prompt: str | PromptConfig) -> Prompt:
    """As core has it."""
    if isinstance(prompt, str):
        return Prompt(prompt)
    return Prompt(prompt.text, prompt.max_new_tokens)
