"""What a test does with a device that it has: run programs, talk to a model, run a config."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from farm.api.runs import Run, run
from farm.commands.chat import Chat, chatting
from farm.commands.chat_model import ChatRequest
from farm.core.command import Command, Completed
from farm.core.device import Device, DeviceFacts
from farm.core.errors import ConfigError
from farm.core.printable import printable
from farm.site.device.connection import Connection

#: Takes a name and a text for the report of the test.
Note = Callable[[str, str], None]
#: Lets somebody else have the device for a while.
Lent = Callable[[], contextlib.AbstractContextManager[None]]

#: Most bytes that a test pulls in one file.
_PULL_BYTES = 4 << 30
#: Lines of a launch's standard error in a test's report.
_LINES = 20


@dataclass(frozen=True, slots=True)
class Place:
    """Files of a test session."""

    #: FARM_HOME.
    home: Path
    inventory: Path | None
    #: Folder for the runs that tests start.
    out: Path


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered on the device."""

    text: str
    ids: tuple[int, ...]
    #: `stop`, `length` or `context`.
    stopped_by: str
    #: Start of the prefill until the first token; None: no token.
    ttft_s: float | None
    #: Tokens a second after the first one; None: fewer than two.
    rate_tok_s: float | None


class FarmDevice:
    """A device that is this test's alone until it ends.

    Args:
        device: The device, as it was probed.
        connection: To it.
        lent: Gives it to a run of the test's own.
        place: Files of its session.
        note: Takes what the test's report shall say.
    """

    def __init__(
        self, device: Device, connection: Connection, lent: Lent, place: Place, note: Note
    ) -> None:
        assert device.facts is not None, "only usable devices are taken"
        self.name = device.name
        self.facts: DeviceFacts = device.facts
        self._connection, self._lent, self._place, self._note = connection, lent, place, note
        self._models: list[Deployed] = []
        note("device", f"{device.name}: {device.facts.model or ''} {device.facts.os or ''}".strip())

    def shell(self, *argv: str, timeout_s: float = 60.0) -> Completed:
        """Run a program there; a nonzero exit code is data.

        Raises:
            TransportError: The device is gone, or the time is over.
        """
        done = self._connection.transport.run(Command(argv, timeout_s=timeout_s))
        self._note("shell", f"{' '.join(argv)} -> {done.exit_code}\n{done.text}{done.error_text}")
        return done

    def push(self, local: str | PathLike[str], remote: str) -> None:
        """Copy a file to the device.

        Raises:
            TransportError: It can't be copied.
        """
        self._connection.transport.push(Path(local), remote)

    def pull(self, remote: str, local: str | PathLike[str]) -> None:
        """Copy a file from the device.

        Raises:
            TransportError: It can't be copied.
        """
        self._connection.transport.pull(remote, Path(local), max_bytes=_PULL_BYTES)

    def deployed(self, model: str, recipe: str = "") -> Deployed:
        """Return a model of this device: exported by a recipe, or what is deployed there."""
        made = Deployed(self, model, recipe, self._place)
        self._models.append(made)
        return made

    def run(
        self,
        config: str | PathLike[str],
        *,
        overrides: Mapping[str, Any] | None = None,
        baseline: str | None = None,
        quick: bool = False,
    ) -> Run:
        """Run a config on this device alone, as `farm run` does; its verdict is for the test.

        The run leases the device itself, and the test has it again when it has ended.

        Raises:
            FarmError: It could not begin, or somebody else has the device afterwards.
        """
        self.close()
        with self._lent():
            ended = run(
                config,
                inventory=self._place.inventory,
                select=f"name={self.name}",
                overrides=overrides,
                cluster="none",
                out=self._place.out,
                baseline=baseline,
                quick=quick,
            )
        self._note("run", f"{ended.folder}\n{ended.why}\n{_errors(ended)}".rstrip())
        return ended

    def talking(self, request: ChatRequest) -> contextlib.AbstractContextManager[Chat]:
        """Open a conversation with a model here; a device has one of this process at a time."""
        self.close()
        return chatting(request, self._place.home, lambda text: self._note("export", text))

    def tell(self, name: str, text: str) -> None:
        """Put a text into the report of the test."""
        self._note(name, text)

    def close(self) -> None:
        """End conversations; asking a model again opens one anew."""
        for model in self._models:
            model.close()


class Deployed:
    """A model on a device of a test.

    Args:
        device: The device.
        model: Name of the model; without a recipe of a deployment, as `farm chat` takes it.
        recipe: What it is exported by; empty: what is deployed there.
        place: Files of the session.
    """

    def __init__(self, device: FarmDevice, model: str, recipe: str, place: Place) -> None:
        self.device, self.model, self.recipe = device, model, recipe
        self._place = place
        self._open = contextlib.ExitStack()
        self._talk: Chat | None = None

    def ask(self, text: str, *, max_new_tokens: int = 128) -> Answer:
        """Ask the model, greedily and without what was said before; return its answer.

        Raises:
            ConfigError: No such model, recipe or deployment; or the text is too long for it.
            RunnerError: The runner failed on the device.
            TransportError: The device is gone.
        """
        if self._talk is None:
            request = ChatRequest(self.device.name, self.model, self.recipe, self._place.inventory)
            self._talk = self._open.enter_context(self.device.talking(request))
        said = self._talk.once(text, max_new_tokens)
        reply = said.reply
        found = Answer(said.text, reply.ids, reply.stopped_by, reply.ttft_s, reply.rate_tok_s)
        rate = "no rate" if found.rate_tok_s is None else f"{found.rate_tok_s:.1f} tok/s"
        self.device.tell("chat", printable(f"> {text}\n{found.text}\n({rate})"))
        return found

    def check(
        self,
        *,
        gates: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
        baseline: str | None = None,
        quick: bool = False,
    ) -> Run:
        """Judge the model on its device, as `farm run` does: correctness, speed, `gates`.

        Args:
            gates: As in a config, such as `{"decode_tok_s": ">= 5"}`.
            overrides: Further keys of the config, such as `{"workload.decode": [32]}`.
            baseline: Name or report.json to compare with.
            quick: Least work that shows every step.

        Raises:
            ConfigError: There is no recipe, so nothing says what it must compute; wrong keys.
            FarmError: As `FarmDevice.run`.
        """
        if not self.recipe:
            raise ConfigError(f"{self.model}: name a recipe: a deployment alone can't be judged")
        config = {
            "name": "test",
            "models": [self.model],
            "matrix": {"recipe": [self.recipe]},
            "gates": dict(gates or {}),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "test.yaml")
            path.write_text(json.dumps(config), encoding="utf-8")
            return self.device.run(path, overrides=overrides, baseline=baseline, quick=quick)

    def close(self) -> None:
        """End the conversation; the device is clean again."""
        self._talk = None
        self._open.close()


def _errors(ended: Run) -> str:
    """The last lines that launches of cells that didn't pass wrote to standard error."""
    if ended.passed:
        return ""
    texts = []
    for path in sorted(ended.folder.glob("attempts/*/*/*stderr*")):
        lines = path.read_text("utf-8", "replace").splitlines()[-_LINES:]
        if lines:
            texts.append(f"{path.relative_to(ended.folder)}:\n" + printable("\n".join(lines)))
    return "\n".join(texts)
