"""How a nightly tells how it ended: by the run that ended, or by why there is none."""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farm.commands.nightly import Told, told_deployment, told_night
from farm.core.errors import ConfigError, PlanError
from farm.core.result import Report
from farm.reports import notice
from farm.run.run import Finished
from tests.unit.reports.builders import report


class Listener(http.server.HTTPServer):
    """Takes what is posted; `answer` is the status of the next."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[Any] = []
        self.answer = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/secret"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Listener)
        length = int(self.headers["Content-Length"])
        kind, body = self.headers["Content-Type"], json.loads(self.rfile.read(length))
        self.server.got.append((kind, body))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A server on this machine for as long as the block lasts."""
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as server:
        yield server


@pytest.fixture
def full() -> Report:
    return report()


def test_webhook_and_mail_are_of_the_run_that_ended(
    listener: Listener, tmp_path: Path, full: Report
) -> None:
    mail = tmp_path / "night.txt"
    mail.write_text("yesterday's")
    told = Told(listener.url, mail)
    finished = told_night(lambda: Finished(full, tmp_path / "r1"), told, "llama.yaml")
    assert finished.report is full
    ((kind, body),) = listener.got
    assert kind == "application/json"
    assert set(body) == {"text"}
    assert full.verdict_line.replace(">", "&gt;") in body["text"]
    text = mail.read_text()
    subject, empty, *rest = text.splitlines()
    assert subject == f"farm nightly llama-q4: FAILED (exit {full.exit_code})"
    assert empty == ""
    assert rest[0] == full.verdict_line
    assert rest[-1] == f"Reports: {tmp_path / 'r1'}"
    failed = [r.cell_id for r in full.results if r.outcome == "failed"]
    assert failed
    assert all(any(f"failed {cell}" in line for line in rest) for cell in failed)
    assert any(alarm[:40] in text for alarm in full.alarms)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("no baseline 'tiny' to compare with"), 2, "no baseline 'tiny'"),
        (ZeroDivisionError("odd"), 70, "a defect of farm itself: ZeroDivisionError: odd"),
    ],
)
def test_a_night_without_a_run_tells_why(
    listener: Listener, tmp_path: Path, error: Exception, code: int, words: str
) -> None:
    mail = tmp_path / "night.txt"
    mail.write_text("yesterday's")

    def fails() -> Finished:
        raise error

    with pytest.raises(type(error)):
        told_night(fails, Told(listener.url, mail), "llama.yaml")
    text = mail.read_text()
    assert text.startswith(f"farm nightly llama.yaml: no report (exit {code})\n\n")
    assert words in text
    assert "yesterday" not in text
    assert words in listener.got[0][1]["text"]


def test_what_cannot_be_told_is_named_and_changes_no_verdict(
    listener: Listener, tmp_path: Path, full: Report, caplog: pytest.LogCaptureFixture
) -> None:
    listener.answer = 500
    with caplog.at_level(logging.WARNING):
        told_night(lambda: Finished(full, tmp_path), Told(listener.url), "c")
        told_night(lambda: Finished(full, tmp_path), Told("http://127.0.0.1:9/x"), "c")
    assert "the webhook at 127.0.0.1 answered 500" in caplog.text
    assert "could not be reached" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "told", [Told("hooks.slack.com/x"), Told("file:///etc/passwd"), Told("", Path("no/such/f"))]
)
def test_what_cannot_be_told_is_refused_before_the_night(told: Told) -> None:
    with pytest.raises(ConfigError, match=r"--webhook|--mail"):
        told_night(lambda: pytest.fail("the night began"), told, "c")


def test_a_long_night_is_cut_and_counted(full: Report) -> None:
    many = replace(full, alarms=tuple(f"alarm {n}" for n in range(50)))
    body = notice.of_run(many, Path("r")).body
    assert "alarm 19" in body
    assert "alarm 20" not in body
    assert "- and 30 more" in body


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (lambda: (1, "m: failed in stage 1 and rolled back -> exit 1"), 1, "rolled back -> exit 1"),
        (lambda: (3, "m: deployed, 1 left out -> exit 3"), 3, "1 left out"),
        (lambda: (0, "m: deployed: 2/2 -> exit 0"), None, ""),
        (PlanError("nothing can be deployed: a: gone"), 3, "nothing can be deployed: a: gone"),
        (ZeroDivisionError("odd"), 70, "a defect of farm itself: ZeroDivisionError: odd"),
    ],
)
def test_a_deployment_that_fails_is_told_after_the_night(
    tmp_path: Path, full: Report, end: Any, code: int | None, words: str
) -> None:
    def deploy() -> tuple[int, str]:
        if isinstance(end, Exception):
            raise end
        found: tuple[int, str] = end()
        return found

    green = replace(full, exit_code=0)
    told, finished = Told("", tmp_path / "night.txt"), Finished(green, tmp_path / "r1")
    told_night(lambda: finished, told, "llama.yaml")
    before = (tmp_path / "night.txt").read_text()
    assert ": passed (exit 0)\n" in before
    with contextlib.suppress(PlanError, ZeroDivisionError):
        told_deployment(deploy, told, finished)
    after = (tmp_path / "night.txt").read_text()
    if code is None:
        assert after == before
        return
    subject, _, first, *rest = after.splitlines()
    assert subject == f"farm nightly llama-q4: passed, NOT DEPLOYED to all (exit {code})"
    assert words in first
    assert rest == before.splitlines()[2:], "and the night's own words"
