"""What a user is told when the hub refuses: its own client against a server of ours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_OPEN = """
import sys
from pathlib import Path
from farm.core.artifact import ModelSource
from farm.core.errors import ExportError
from models.sources import open_source
try:
    open_source(ModelSource("llama-3.2-1b"), Path(sys.argv[1]), lambda done, total: None)
except ExportError as error:
    print(error)
"""


@contextmanager
def hub(status: int, code: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "no")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def told(endpoint: str, folder: Path) -> str:
    environment = {
        key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")
    }
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(folder / "cache")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "GatedRepo", ("is gated", "accept its licence", "hf auth login", "hf: FOLDER")),
        (404, "RepoNotFound", ("the hub has no meta-llama/Llama-3.2-1B", "hf: FOLDER")),
    ],
)
def test_refusals_say_what_to_do(
    status: int, code: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    with hub(status, code) as endpoint:
        text = told(endpoint, tmp_path)
    for word in words:
        assert word in text


def test_unreachable_hub_says_how_to_do_without(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    text = told(f"http://127.0.0.1:{port}", tmp_path)
    assert "can't fetch meta-llama/Llama-3.2-1B from the hub" in text
    assert "hf: FOLDER" in text
