"""`farm chat`: a person talks to a model on a device; tokens come as the device makes them.

The device is held meanwhile. A reply is one launch of the runner under its supervisor, so nothing
stays there when this process is killed; where a service has the model loaded, it is asked instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from farm import paths
from farm.commands.chat_model import ChatRequest, Say, Spoken, find_model, holder
from farm.commands.hold import connected, kept_hold
from farm.core.command import Command
from farm.core.conversation import Message, Reply, ReplyReader, Token, fitted
from farm.core.errors import ConfigError, DeviceError, DeviceLost, FarmError, RunnerCrashed
from farm.core.runtime import Generate, LaunchRequest
from farm.site.device.connection import Connection
from farm.site.device.lease import user_and_host
from farm.site.job.launch import read_failure
from farm.store.objects import ContentStore
from models.chat_format import ChatTokenizer, opened
from runners.executorch import request_json

log = logging.getLogger(__name__)

#: Without a poll for this long the device ends a reply by itself, seconds.
_STALE_S = 20.0
#: One long poll; a device that is gone is noticed soon after.
_POLL_S = 2.0
_MAX_OUTPUT = 16 << 20
#: Longest time that ending a reply may take, seconds.
_END_S = 2.0
_REPLY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Said:
    """A reply, as text too, and how the device was."""

    text: str
    reply: Reply
    #: Old turns that the context had no room for.
    dropped: int
    #: Warmest sensor after it; None where the device tells none.
    hottest: tuple[str, float] | None


class Speaker(Protocol):
    """Gets one reply from the device."""

    def speak(self, ids: list[int], limit: int, reader: ReplyReader) -> Reply:
        """Ask for the continuation of a prompt; the reader gets its lines as they arrive."""


class Chat:
    """An open conversation.

    Args:
        connection: To the device.
        spoken: The model.
        speaker: How it is asked.
        request: What the person wants.
    """

    def __init__(
        self, connection: Connection, spoken: Spoken, speaker: Speaker, request: ChatRequest
    ) -> None:
        self.spoken = spoken
        self._connection, self._speaker, self._request = connection, speaker, request
        self.tokenizer: ChatTokenizer = opened(spoken.chat, spoken.tokenizer_json)
        self._messages: list[Message] = []
        if request.system:
            self._messages.append(Message("system", request.system))

    def ask(self, text: str, on_token: Callable[[Token], None]) -> Said:
        """Say something, and get the reply token by token.

        Raises:
            ConfigError: It is too long for the model's context, or its template refuses it.
            TransportError: The device is gone.
            RunnerError: The runner failed.
        """
        asked = [*self._messages, Message("user", text)]
        said = self._said(asked, self._request.max_new_tokens, on_token)
        self._messages = [*asked, Message("assistant", said.text)]
        return said

    def once(self, text: str, max_new_tokens: int) -> Said:
        """Ask something outside the conversation.

        Raises:
            FarmError: As `ask`.
        """
        return self._said([Message("user", text)], max_new_tokens, lambda _token: None)

    def _said(self, asked: list[Message], most: int, on_token: Callable[[Token], None]) -> Said:
        # A short context is not all prompt: a quarter of it stays for the reply at least.
        limit = min(most, max(1, self.spoken.max_context // 4))
        room = self.spoken.max_context - limit
        try:
            ids, dropped = fitted(asked, self.tokenizer.conversation, room)
        except ValueError as error:
            raise ConfigError(f"{self.spoken.what}: {error}") from None
        limit = min(most, self.spoken.max_context - len(ids))
        reply = self._speaker.speak(ids, limit, ReplyReader(on_token))
        return Said(self.tokenizer.decode(reply.ids), reply, dropped, self._hottest())

    def _hottest(self) -> tuple[str, float] | None:
        try:
            return self._connection.snapshot().hottest
        except DeviceError as error:
            log.info("no temperature: %s", error)
            return None


@contextlib.contextmanager
def chatting(request: ChatRequest, home: Path, say: Say) -> Iterator[Chat]:
    """Open a conversation; the device is held, and clean again afterwards.

    Raises:
        ConfigError, UnknownName: No such device, deployment, model or recipe.
        LeaseError: Somebody else has the device.
        FarmError: The model can't be had or doesn't start there.
    """
    with connected(request.device, request.inventory, home) as connection:
        store = ContentStore(paths.store_root(home))
        with (
            store.in_use(f"farm chat {request.device}"),
            kept_hold(connection, "chat", user_and_host()),
        ):
            spoken = find_model(request, connection, home, store, say)
            if spoken.socket is not None:
                yield Chat(
                    connection,
                    spoken,
                    _Service(connection, spoken.socket, spoken.chat.stop_ids),
                    request,
                )
                return
            with _launches(connection, spoken) as speaker:
                yield Chat(connection, spoken, speaker, request)


# -- how it is asked


@contextlib.contextmanager
def _launches(connection: Connection, spoken: Spoken) -> Iterator[_Launches]:
    helper = connection.helper
    name = f"chat-{os.getpid()}"
    helper.clean(name)
    work = helper.assemble(name, spoken.files, holder())
    try:
        yield _Launches(connection, spoken, work)
    finally:
        _end(connection, name)


def _end(connection: Connection, name: str) -> None:
    """End what runs and remove its folder, over a fresh connection: ours may be in use or gone."""
    fresh = connection.reopen()
    timer = threading.Timer(_END_S, fresh.close)
    timer.daemon = True
    timer.start()
    try:
        fresh.helper.clean(name)
    except FarmError as error:
        log.warning("not ended at once, the device does so within %.0f s: %s", _STALE_S, error)
    finally:
        timer.cancel()
        fresh.close()


class _Launches:
    """A launch of the runner for each reply."""

    def __init__(self, connection: Connection, spoken: Spoken, work: str) -> None:
        self._connection, self._spoken, self._work = connection, spoken, work

    def speak(self, ids: list[int], limit: int, reader: ReplyReader) -> Reply:
        spoken, helper = self._spoken, self._connection.helper
        generate = Generate(tuple(ids), limit, spoken.chat.stop_ids, stream=True)
        request = request_json(LaunchRequest(spoken.threads, generate=generate))
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "request")
            local.write_bytes(request)
            helper.transport.push(local, f"{self._work}/request.json")
        words = ["--model", spoken.program]
        for path in spoken.data:
            words += ["--data", path]
        helper.supervise(
            self._work,
            (*spoken.build.argv, *words, "--request", "request.json", "--out", "."),
            env=spoken.build.env,
            stale_s=_STALE_S,
            max_output_bytes=_MAX_OUTPUT,
            lease=holder(),
        )
        self._follow(reader)
        reply = reader.reply()
        if reply is None:
            raise RunnerCrashed(f"{helper.device}: the runner broke its protocol")
        return reply

    def _follow(self, reader: ReplyReader) -> None:
        helper = self._connection.helper
        offset, rest = 0, b""
        while True:
            polled = helper.poll(self._work, offset=offset, wait_s=_POLL_S, max_bytes=1 << 20)
            offset += len(polled.output)
            *lines, rest = (rest + polled.output).split(b"\n")
            for line in lines:
                reader.line(line)
            if polled.state != "running" and offset >= polled.stdout_size:
                break
        if reader.error is not None:
            code, message = reader.error
            raise RunnerCrashed(f"{helper.device}: {message} ({code})", device=helper.device)
        if polled.state != "exited" or polled.exit_code != 0:
            raise read_failure(polled, b"", helper.device)


class _Service:
    """A service that has the model loaded, behind its socket on the device."""

    def __init__(self, connection: Connection, socket: str, stop_ids: tuple[int, ...]) -> None:
        self._connection, self._socket, self._stop_ids = connection, socket, stop_ids

    def speak(self, ids: list[int], limit: int, reader: ReplyReader) -> Reply:
        helper = self._connection.helper
        rest = b""

        def take(piece: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                reader.line(line)

        generate = Generate(tuple(ids), limit, self._stop_ids, stream=True)
        document = request_json(LaunchRequest(0, generate=generate))
        command = Command(
            (helper.path, "connect", self._socket),
            timeout_s=_REPLY_S,
            stdin=document + b"\n",
            max_output_bytes=_MAX_OUTPUT,
        )
        done = helper.transport.run(command, take)
        if reader.error is not None:
            code, message = reader.error
            down = "; its service is down: `farm deployments status` says more"
            hint = down if code == "no_service" else ""
            raise RunnerCrashed(f"{helper.device}: {message} ({code}){hint}", device=helper.device)
        reply = reader.reply(loaded_before=True)
        if not done.ok or reply is None:
            raise DeviceLost(
                f"{helper.device}: its service ended in the middle of the reply",
                device=helper.device,
            )
        return reply
