"""How a captured text is read: the parsers that farm uses, with plain values as their answer.

A text that holds several answers, or an answer in its author's table, is taken apart here first;
what a row compares is always what farm's own parser said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import runners
from farm.core.artifact import ObjectRef
from farm.core.errors import BadOutput
from farm.core.runner import DeployFile, RunnerKind, RunnerSpec
from farm.core.runtime import Generate, LaunchRequest, Measure
from farm.protocols import Runner
from farm.site.job.telemetry import summarise
from farm.site.look.facts import RawFacts, parse_facts, temperatures
from farm.site.parsers import android, cpu, system, telemetry
from farm.site.parsers.start import diagnose
from farm.transports.adb_devices import parse_devices
from farm.transports.files import storage_error
from runners.output.observer import parse_observer
from tests.unit.site.recordings import recorded, sample, sensors

Values = dict[str, Any]
Read = Callable[[str], Values]

_MEASURES = (Measure("pp512", 512, 0, 0, 5, 1), Measure("tg128", 0, 128, 0, 5, 1))
_BENCH = LaunchRequest(0, measures=_MEASURES)
_TIMED = LaunchRequest(0, measures=_MEASURES, texts=((512, "once"),))
_CHECK = LaunchRequest(0, generate=Generate((1,), 8, (), "once"))

_CPU = "/sys/devices/system/cpu"
#: Pattern of a timing line of llama.cpp, whose names changed three times.
_RATE = r" =.*?\( *[\d.]+ ms per token, *(inf|[\d.]+) tokens per second\)"
#: What a config says of programs that have no runner of their own.
PATTERNS: Mapping[str, Mapping[str, str]] = {
    "litert-lm": {
        "prefill_tok_s": r"Prefill Speed: ([\d.]+)",
        "decode_tok_s": r"Decode Speed: ([\d.]+)",
        "prompt_tokens": r"Prefill Turn 1: Processed (\d+) tokens",
        "generated_tokens": r"Decode Turn 1: Processed (\d+) tokens",
        "ttft_s": r"Time to first token: ([\d.]+) s$",
        "text": r"^input_prompt: .*\n((?:.*\n)*?.+)\n\nBenchmarkInfo:",
    },
    "llama-cli": {
        "prefill_tok_s": "prompt eval time" + _RATE,
        "decode_tok_s": "(?<!prompt )eval time" + _RATE,
        "prompt_tokens": r"prompt eval time = *[\d.]+ ms / *(\d+)",
        "generated_tokens": r"(?<!prompt )eval time = *[\d.]+ ms / *(\d+)",
    },
    "mlc": {
        "prefill_tok_s": r"prefill: (\S+) tok/s",
        "decode_tok_s": r"decode: (\S+) tok/s",
    },
}


def adb_list(text: str) -> Values:
    """Rows of a list: state, model and place on the bus by serial number and order."""
    rows = parse_devices(text)
    return {
        f"{number} {row.serial}": " ".join(filter(None, (row.state, row.model, row.path)))
        for number, row in enumerate(rows, 1)
    }


def adb_frames(text: str) -> Values:
    """Each list of a stream of them; four hexadecimal digits say how long it is."""
    found, number = {}, 0
    while text.strip():
        size, number = int(text[:4], 16), number + 1
        rows = parse_devices(text[4 : 4 + size])
        found[str(number)] = ", ".join(f"{row.serial} {row.state}" for row in rows)
        text = text[4 + size :]
    return found


def refused_push(text: str) -> Values:
    """The device's own word of a failed copy, which adb shows after `remote`."""
    word = re.search(r"remote ([^\n]+)", text)
    assert word is not None
    return {"error": type(storage_error(f"/a/file: {word[1]}", "phone")).__name__}


def trouble(text: str) -> Values:
    """Why a program doesn't start; several messages in one capture are told one by one."""
    parts = re.split(r"\n(?=CANNOT LINK|/system/bin/sh: |\$ )", text.strip())
    found = [None if (why := diagnose(f"{part}\n")) is None else why.kind for part in parts]
    return {str(number): kind for number, kind in enumerate(found, 1) if kind}


def missing(text: str) -> Values:
    why = diagnose(text)
    return {} if why is None else {"kind": why.kind, "output": why.output}


def battery(text: str) -> Values:
    found = android.parse_battery(text)
    assert found is not None
    return {
        "level": found.level,
        "celsius": found.celsius,
        "charging": found.charging,
        "powered": found.powered,
    }


def thermal(text: str) -> Values:
    found = android.parse_thermalservice(text)
    heat = {f"{item.name} ({item.kind})": item.celsius for item in found.temperatures}
    steps = {f"step of {name}": step for name, step in found.capped}
    why = {"unread": found.unread} if found.unread else {}
    return {"status": found.status, **why, **heat, **steps}


def properties(text: str) -> Values:
    """Facts of a phone of which nothing else is known."""
    facts = parse_facts(_raw({}, getprop=text))
    names = ("model", "soc", "os", "sdk", "abi", "identity", "os_build")
    return {name: getattr(facts, name) for name in names}


def processor(text: str) -> Values:
    """Alike cores, features and names that /proc/cpuinfo tells."""
    info = cpu.parse_cpuinfo(text)
    alike = cpu.clusters([core.index for core in info.cores], info, {}, {})
    found: Values = {_span(group.cores): group.name for group in alike}
    found["features"] = " ".join(cpu.features(info))
    names = {"hardware": info.hardware, "board": info.board}
    return found | {key: name for key, name in names.items() if name}


def memory(text: str) -> Values:
    return dict(zip(("total", "available"), system.parse_meminfo(text), strict=True))


def os_name(text: str) -> Values:
    return {"os": system.parse_os_release(text)}


def tegra(text: str) -> Values:
    return {"release": system.parse_tegra_release(text)}


def power_modes(text: str) -> Values:
    return dict(telemetry.power_mode_names(text))


def zones(text: str) -> Values:
    """Zones that an author printed as name and degrees, put back into sysfs's own form."""
    files: dict[str, str] = {}
    rows = re.findall(r"^(?:thermal_zone\d+ )?(\S+) +(-?[\d.]+) °?C$", text, re.MULTILINE)
    for number, (name, celsius) in enumerate(rows):
        place = f"/sys/class/thermal/thermal_zone{number}"
        files |= {f"{place}/type": name, f"{place}/temp": str(round(float(celsius) * 1000))}
    found = temperatures(_raw(files))
    warmest = system.warmest(found.items())
    return {**found, "warmest": None if warmest is None else warmest[0]}


def core_list(text: str) -> Values:
    online = re.search(r"/online:(.*)", text)
    offline = re.search(r"/offline:(.*)", text)
    assert online is not None
    assert offline is not None
    return {"online": cpu.parse_cpu_list(online[1]), "offline": cpu.parse_cpu_list(offline[1])}


def clocks(text: str) -> Values:
    """Files of cpufreq: kinds of cores, governor, ceilings, and cores without one."""
    files = dict(line.split(":", 1) for line in text.strip().splitlines())
    cores = sorted({path.split("/")[5].removeprefix("cpu") for path in files}, key=int)
    facts = parse_facts(_raw({**files, f"{_CPU}/online": ",".join(cores)}))
    seen = summarise(telemetry.parse_telemetry(
        recorded(sensors(list(files)), sample(1, *files.values()))
    ), 0, ())  # fmt: skip
    return {
        **{_span(group.cores): group.max_khz for group in facts.clusters},
        "governor": facts.governor,
        **{f"ceiling of {clock.name}": clock.highest_khz for clock in seen.clocks},
        "without a ceiling": " ".join(seen.blind_clocks),
    }


def firmware(text: str) -> Values:
    """Answers of vcgencmd, one each; numbers of its other questions are none."""
    lines = [line.rpartition(" ")[2] for line in text.splitlines() if "throttled=" in line]
    lines = lines or text.splitlines()[:1]
    return {str(n): telemetry.firmware_bits(line) for n, line in enumerate(lines, 1)}


def observer(text: str) -> Values:
    """What ExecuTorch's own runners print."""
    figures = parse_observer(text.encode(), "")
    answer = figures.text or ""
    return {
        "prompt": figures.prompt_tokens,
        "generated": figures.generated_tokens,
        "prefill_tok_s": _rounded(figures.prefill_tok_s),
        "decode_tok_s": _rounded(figures.decode_tok_s),
        "ttft_s": _rounded(figures.ttft_s),
        "load_s": _rounded(figures.load_s),
        "text begins": answer[:24],
        "text ends": answer[-24:],
        "log in text": "executorch:" in answer or "tokens/second" in answer,
    }


def no_observer(text: str) -> Values:
    """Output without the line that figures come from."""
    try:
        return observer(text)
    except BadOutput as error:
        return {"error": type(error).__name__}


def bench(text: str) -> Values:
    """Windows of llama-bench, in seconds."""
    runner = _runner("llama_cpp", "llama-bench", "llama-completion")
    found = runner.parse(text.encode(), 0, _BENCH)
    windows: dict[str, list[float]] = {}
    for window in found.samples:
        windows.setdefault(window.metric, []).append(round(window.duration_s, 4))
    return {
        **{name: tuple(times) for name, times in windows.items()},
        "threads": found.threads,
        "version": found.hello.version,
        "backends": ",".join(found.hello.backends),
    }


def printed(program: str) -> Read:
    """Output that a config describes by patterns."""
    patterns = tuple(PATTERNS[program].items())

    def read(text: str) -> Values:
        runner = _runner("command", argv=("./x",), parse="regex", patterns=patterns)
        timed = runner.parse(text.encode(), 0, _TIMED)
        found: Values = {}
        for window in timed.samples:
            found[window.metric] = f"{window.tokens} at {window.tokens / window.duration_s:.2f}/s"
            if window.ttft_s is not None:
                found["ttft_s"] = window.ttft_s
        answer = runner.parse(text.encode(), 0, _CHECK).text
        return found if answer is None else {**found, "text": (answer[:20], answer[-20:])}

    return read


def _runner(kind: RunnerKind, *files: str, **more: Any) -> Runner:
    pushed = tuple(DeployFile(ObjectRef("0" * 64, 1, name), name) for name in files)
    return runners.find(RunnerSpec("theirs", kind, files=pushed, sources=files, **more))


def _raw(files: Mapping[str, str], *, getprop: str | None = None) -> RawFacts:
    probe = {"uname": {"machine": "aarch64"}, "files": dict(files)}
    return RawFacts(json.dumps(probe).encode(), "unknown", "/farm", getprop=getprop)


def _span(cores: tuple[int, ...]) -> str:
    return f"cores {cores[0]}-{cores[-1]}" if len(cores) > 1 else f"core {cores[0]}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
