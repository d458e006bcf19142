"""The command that talks to a model on a device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import names, show
from farm.cli import options as o

if TYPE_CHECKING:  # keeps `farm --help` quick
    from farm.commands.chat import Chat, Said


def chat(
    model: Annotated[
        str,
        typer.Argument(
            help="A deployment's name, or with --recipe a model. Default: the only one."
        ),
    ] = "",
    on: Annotated[
        str, typer.Option("--on", help="The device.", autocompletion=names.devices)
    ] = "local",
    recipe: Annotated[
        str, typer.Option(help="Export this recipe of MODEL and talk to that; nothing is deployed.")
    ] = "",
    prompt: Annotated[
        str, typer.Option(help="Say this, print the reply and end: for scripts.")
    ] = "",
    system: Annotated[str, typer.Option(help="The system's message before everything.")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 256,
    threads: Annotated[int, typer.Option("-t", min=0, help="0: as it is deployed.")] = 0,
    inventory: o.InventoryFile = None,
    cluster: o.OnCluster = "none",
    as_json: o.Json = False,
) -> int:
    """Talk to a model on a device: tokens appear as the device makes them.

    The device is held meanwhile. Ctrl-C ends the reply on the device; Ctrl-D or an empty line ends
    the conversation. Each reply is followed by its rate, its TTFT and the warmest sensor.

    Example: `farm chat smollm2 --on pixel8`, `farm chat --on pi5 --prompt "Hello" --json`
    """
    from farm.commands.chat import chatting
    from farm.commands.chat_model import ChatRequest
    from farm.core.errors import ConfigError
    from farm.paths import farm_home

    if cluster != "none":
        raise ConfigError(
            f"--cluster {cluster}: tokens stream over a connection of their own, which no cluster"
            f" carries: run `farm chat --on {on}` on the host that the device hangs on"
        )
    if as_json and not prompt:
        raise ConfigError("--json prints one reply: say what with --prompt")
    request = ChatRequest(on, model, recipe, inventory, system, max_new_tokens, threads)
    with chatting(request, farm_home(), show.say) as talk:
        if talk.spoken.chat.unproven:
            show.say(f"chat format of {talk.spoken.what}: {talk.spoken.chat.unproven}")
        if as_json:
            show.print_json(_data(on, talk, talk.ask(prompt, lambda _token: None)))
            return 0
        if prompt:
            _turn(talk, prompt)
            return 0
        show.say(f"{talk.spoken.what} on {on}; an empty line ends")
        while text := _asked():
            _turn(talk, text)
    return 0


def _asked() -> str:
    """The next line of the person; empty at the end."""
    sys.stderr.write("> ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _turn(talk: Chat, text: str) -> None:
    from farm.core.conversation import TextStream, Token
    from farm.core.printable import printable

    stream = TextStream(talk.tokenizer.decode)

    def show_token(token: Token) -> None:
        sys.stdout.write(printable(stream.add(token.id)))
        sys.stdout.flush()

    said = talk.ask(text, show_token)
    sys.stdout.write(printable(stream.rest()) + "\n")
    sys.stdout.flush()
    show.say(_footer(said))


def _footer(said: Said) -> str:
    reply = said.reply
    parts = [
        "rate: too few tokens" if reply.rate_tok_s is None else f"{reply.rate_tok_s:.1f} tok/s",
        "TTFT: no token" if reply.ttft_s is None else f"TTFT {reply.ttft_s * 1e3:.0f} ms",
    ]
    if reply.load_s is not None:
        parts.append(f"load {reply.load_s * 1e3:.0f} ms")
    hot = said.hottest
    parts.append("no temperature" if hot is None else f"{hot[0]} {hot[1]:.0f} °C")
    parts.append(f"{len(reply.ids)} tokens, {reply.stopped_by}")
    if said.dropped:
        parts.append(f"{said.dropped} old turns left out")
    return f"[{' · '.join(parts)}]"


def _data(device: str, talk: Chat, said: Said) -> dict[str, object]:
    from farm import codec

    hot = said.hottest
    return {
        "device": device,
        "model": talk.spoken.what,
        "text": said.text,
        **codec.to_data(said.reply),
        "temperature_c": None if hot is None else hot[1],
        "dropped_turns": said.dropped,
        "service": talk.spoken.socket is not None,
    }
