"""Numbers through the JSON reader and writer of our native programs: exact, or refused."""

from __future__ import annotations

import json
import math
import random
import struct
import subprocess
from pathlib import Path

import pytest

from runners.build.compiler import compile_objects, find_compiler, host_abi, link
from runners.build.native import SOURCES

DRIVER = Path(__file__).with_name("json_driver.cpp")
REFUSED = "! bad_json"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    compiler = find_compiler(host_abi())
    sources = [DRIVER, *(SOURCES / "common" / f"{name}.cpp" for name in ("json", "number"))]
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{SOURCES}")
    link(compiler, compile_objects(compiler, sources, flags, folder), flags, folder / "json")
    return folder / "json"


def read(program: Path, lines: list[str]) -> list[str]:
    done = subprocess.run(
        [program],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def decimals(count: int) -> list[str]:
    """Decimal numbers of every length and size, also such that no double is close to."""
    draw = random.Random(15)

    def digits(most: int) -> str:
        return "".join(draw.choice("0123456789") for _ in range(draw.randint(1, most)))

    def one() -> str:
        text = draw.choice(["", "-"]) + draw.choice(["0", draw.choice("123456789") + digits(25)])
        text += f".{digits(40)}"
        return text + (f"{draw.choice('eE')}{draw.choice(['', '+', '-'])}{draw.randint(0, 330)}"
                       if draw.random() < 0.7 else "")  # fmt: skip

    return [one() for _ in range(count)]


def test_doubles_are_read_to_the_last_bit(program: Path) -> None:
    draw = random.Random(7)
    bits = [struct.unpack("<d", struct.pack("<Q", draw.getrandbits(64)))[0] for _ in range(4000)]
    edges = [
        "5e-324",
        "2.2250738585072011e-308",
        "1.7976931348623157e308",
        "-0.0",
        "0e-999",
        "1e22",
    ]
    lines = [*edges, *(repr(x) for x in bits if math.isfinite(x)), *decimals(6000)]
    accepted = 0
    for line, found in zip(lines, read(program, lines), strict=True):
        expected = json.loads(line)
        vanished = expected == 0 and any(c in "123456789" for c in line.lower().split("e")[0])
        if not math.isfinite(expected) or vanished:
            assert found == REFUSED, line
            continue
        accepted += 1
        assert struct.pack("<d", float(found)) == struct.pack("<d", expected), (line, found)
    assert accepted > 7000


def test_what_is_no_number_is_refused(program: Path) -> None:
    lines = ["1e400", "-1e400", "1e-400", "0x1p3", "nan", "inf", "+1.5", ".5", "1.", "1.5e", "01.5"]
    lines += ["1,5", "1.5 2", "--1.5", "1.5.5", "9223372036854775808", "1e5x"]
    assert read(program, lines) == [REFUSED] * len(lines)


def test_damaged_documents_are_refused_or_read_as_python_reads_them(program: Path) -> None:
    draw = random.Random(3)
    whole = '{"a": [1.5e3, -2, 0.125], "b": {"c": "x", "d": [true, null, 7e-7]}}'
    lines = []
    for _ in range(3000):
        text = list(whole)
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(len(text))] = draw.choice('0123456789.eE+-,:[]{}" nt')
        lines.append("".join(text))
    for line, found in zip(lines, read(program, lines), strict=True):
        if found != REFUSED:
            assert json.loads(found) == json.loads(line), line
