"""Chat prompts: a model's Jinja template, rendered as transformers renders it. No torch."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox

from farm.core.errors import ExportError
from models.checkpoint import TokenizerData

#: The day in what a run asks: templates print it into the system message. With the day's own, no
#: reference could be kept, no two nights' answers compared, and no deployed device asked the same.
RUN_DAY = datetime(2025, 1, 1)  # noqa: DTZ001


class _Generation(jinja2.ext.Extension):
    """The block `{% generation %}`, which marks the assistant's words for training: its body."""

    tags = {"generation"}  # noqa: RUF012 (as jinja2 declares it)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Read up to `{% endgeneration %}`; names set inside stay inside, as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_body")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _body(self, caller: jinja2.runtime.Macro) -> str:
        return str(caller())


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter it doesn't escape for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def render_chat(
    data: TokenizerData, messages: list[dict[str, str]], day: datetime | None = None
) -> str:
    """Fill the chat template, with room for the reply.

    Args:
        data: Has the template.
        messages: `role` and `content` of each.
        day: What the template is told of the time; None is the host's own, as in transformers.

    Raises:
        ExportError: The template is broken or refuses the messages.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = (day or datetime.now()).strftime  # noqa: DTZ005
    environment.filters["tojson"] = _to_json
    named = {"bos_token": data.bos_token, "eos_token": data.eos_token} | dict(data.special)
    try:
        return environment.from_string(data.chat_template or "").render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            # A token that a model doesn't have is undefined in transformers, not empty.
            **{name: text for name, text in named.items() if text},
        )
    except Exception as error:  # the template is foreign code: it can raise anything
        raise ExportError(
            f"the model's chat template can't be used ({type(error).__name__}): {error}"
        ) from error
