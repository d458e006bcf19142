"""A deployed model behind its socket: the command of its unit, run for real, and `farm chat`."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import codec
from farm.core.deployment import Manifest
from farm.core.rules.service_unit import settings, settings_path, socket_path, unit_text
from tests.command import CONFIGS, Farm, start
from tests.lab.test_run_lab import until

pytestmark = pytest.mark.export

QUICK = ("--cluster", "none", "--live", "off", "--quick", "--set", "gates={}")
CHAT = ("chat", "kiosk", "--on", "local", "--prompt", "Hello", "--max-new-tokens", "8", "--json")


IDLE_S = 4


class Client:
    """Somebody at the socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(path)
        self.lines = self._socket.makefile("rb")

    def ask(self, **members: object) -> None:
        self.send(json.dumps({"protocol": 1, **members}).encode() + b"\n")

    def send(self, piece: bytes) -> None:
        self._socket.sendall(piece)

    def until(self, *kinds: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        while not found or found[-1]["type"] not in kinds:
            found.append(json.loads(self.lines.readline()))
        return found

    def close(self) -> None:
        self.lines.close()
        self._socket.close()


@pytest.fixture
def service(farm: Farm) -> Iterator[str]:
    """The socket of a deployment of this machine, served by what its unit would start."""
    done = farm("run", str(CONFIGS / "tiny.yaml"), *QUICK, "--select", "transport=local")
    assert done.returncode == 0, done.stdout + done.stderr
    done = farm("deploy", "latest", "--to", "transport=local", "--name", "kiosk", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    root = farm.home / "device"
    current = root / "deployments" / "kiosk" / "current"
    manifest = codec.from_json(Manifest, (current / "manifest.json").read_bytes())
    (root / "run").mkdir(exist_ok=True)
    Path(settings_path(str(root), "kiosk")).write_bytes(settings(manifest))
    path = socket_path(str(root), "kiosk")
    # The path of a socket is short: a test's folder may not be.
    if len(path) > 107:
        pytest.skip(f"the folder of tests is too deep for a socket: {path}")
    unit = unit_text(manifest, str(root))
    (command,) = re.findall(r"ExecStart=(.*)", unit)
    environment = dict(re.findall(r'Environment="(\w+)=(.*)"', unit))
    command += f" --idle {IDLE_S}"
    process = start(shlex.split(command), cwd=current, stderr=subprocess.STDOUT, env=environment)
    until(lambda: Path(path).exists() or process.poll() is not None, 60)
    assert process.poll() is None, process.stdout and process.stdout.read()
    yield path
    process.kill()
    farm("deployments", "remove", "kiosk", "--all", "--to", "transport=local")
    Path(path).unlink()


def test_chat_asks_the_service_and_clients_take_turns(service: str, farm: Farm) -> None:
    first = Client(service)
    assert first.until("loaded")[0]["type"] == "hello"
    waiting = Client(service)
    first.ask(generate={"prompt": [1, 2, 3], "max_new_tokens": 4, "stream": True})
    told = first.until("done")
    tokens = [line["id"] for line in told if line["type"] == "token"]
    (generated,) = (line for line in told if line["type"] == "generated")
    assert generated["ids"] == tokens
    # What it can't do is refused, and the next request is answered all the same.
    for wrong in (
        {"measure": [{"name": "pp", "prefill": 4}]},
        {"generate": {"prompt": [10**6], "max_new_tokens": 1}},
        {"generate": {"prompt": [], "max_new_tokens": 1}},
    ):
        first.ask(**wrong)
        assert first.until("error", "done")[-1]["type"] == "error"
    first.ask(generate={"prompt": [1, 2, 3], "max_new_tokens": 4})
    assert [x["ids"] for x in first.until("done") if x["type"] == "generated"] == [tokens]
    # The other one waits in line until this one goes, in the middle of a reply.
    first.ask(generate={"prompt": [1], "max_new_tokens": 400, "stream": True})
    first.until("token")
    first.close()
    assert waiting.until("loaded")[0]["type"] == "hello"
    waiting.ask(generate={"prompt": [1, 2, 3], "max_new_tokens": 4})
    assert [x["ids"] for x in waiting.until("done") if x["type"] == "generated"] == [tokens]
    # One that says nothing, or half of something, keeps the others waiting only so long.
    waiting.close()
    idle = Client(service)
    idle.until("loaded")
    idle.send(b'{"protocol": 1, "gen')
    third = Client(service)
    assert idle.until("error")[-1]["code"] == "idle"
    assert idle.lines.readline() == b""
    idle.close()
    assert third.until("loaded")[0]["type"] == "hello"
    third.close()
    done = farm(*CHAT)
    assert done.returncode == 0, done.stdout + done.stderr
    served = json.loads(done.stdout)
    assert (served["service"], served["load_s"]) == (True, None)
    Path(service).rename(f"{service}.away")
    launched = json.loads(farm(*CHAT).stdout)
    Path(f"{service}.away").rename(service)
    assert launched["service"] is False
    assert launched["load_s"] > 0
    assert served["ids"] == launched["ids"], "the same model, loaded once or each time"


def test_a_green_nightly_deploys(farm: Farm) -> None:
    words = (
        str(CONFIGS / "tiny.yaml"), "--cluster", "none", "--live", "off", "--allow-no-baseline",
        "--select", "transport=local", "--set", "workload.launches=1",
        "--set", "workload.max_launches=1", "--set", "workload.repetitions=2",
        "--set", "deploy={to: transport=local, name: night}", "--set", "require.speed=0%",
    )  # fmt: skip
    deployments = farm.home / "device" / "deployments"
    done = farm("nightly", *words, "--set", "gates={}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "night: deployed: 1/1 have the new version -> exit 0" in done.stdout
    assert (deployments / "night" / "current" / "model.pte").exists()
    done = farm("deployments", "remove", "night", "--all", "--to", "transport=local")
    assert done.returncode == 0, done.stdout + done.stderr
