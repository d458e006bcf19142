"""Mutated outputs of programs: figures are those that were printed, none, or BadOutput."""

from __future__ import annotations

import json
import random

import pytest

from farm.core.errors import BadOutput
from farm.core.runtime import LaunchResult
from farm.site.parsers.start import diagnose
from farm.transports.adb_devices import parse_devices, usable_rows
from runners.executorch import ExecutorchRunner
from runners.output.etdump import read_etdump
from runners.output.observer import parse_observer
from tests.unit.captures import readers
from tests.unit.runners.output.test_textual import BENCH, PROMPT, TIMED, make, observed
from tests.unit.runners.test_executorch import ALL, text
from tests.unit.site.parsers import outputs
from tests.unit.site.parsers.mutations import MUTATIONS, truncated

_BENCH = "\n".join(
    json.dumps(row) for row in (BENCH, {**BENCH, "n_prompt": 0, "n_gen": 16, "samples_ns": [4e8]})
)
#: More than any device does in a second, and longer than any launch, seconds.
_MOST_RATE, _MOST_S = 1e7, 1e6


def _sane(result: LaunchResult) -> None:
    for window in result.samples:
        assert 0 < window.duration_s < _MOST_S, window
        assert 0 <= window.tokens < 1e9, window
        assert window.tokens / window.duration_s < _MOST_RATE, window


@pytest.mark.parametrize("seed", range(200))
def test_figures_of_a_mutated_program_are_true_or_none(seed: int) -> None:
    dice = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    whole = observed().decode()
    true = parse_observer(whole.encode(), PROMPT)
    try:
        found = parse_observer(mutate(whole, dice).encode("utf-8", "replace"), PROMPT)
    except BadOutput:
        pass
    else:
        for rate in (found.prefill_tok_s, found.decode_tok_s):
            assert rate is None or 0 < rate < _MOST_RATE, rate
        for seconds in (found.ttft_s, found.load_s):
            assert seconds is None or 0 < seconds < _MOST_S, seconds
        if mutate is truncated:
            assert (found.prefill_tok_s, found.decode_tok_s) == (
                true.prefill_tok_s,
                true.decode_tok_s,
            )
    bench = make("llama_cpp", "llama-bench", "llama-cli")
    farms = text(*ALL).decode()
    for parse, printed in ((bench.parse, _BENCH), (ExecutorchRunner().parse, farms)):
        try:
            _sane(parse(mutate(printed, dice).encode("utf-8", "replace"), 1, TIMED))
        except BadOutput:
            continue


LITERT = """\
input_prompt: Say something.
Something.

BenchmarkInfo:
  Time to first token: 1.25 s
    Prefill Turn 1: Processed 18 tokens in 2.5s duration.
      Prefill Speed: 7.25 tokens/sec.
    Decode Turn 1: Processed 64 tokens in 4.0s duration.
      Decode Speed: 16.50 tokens/sec.
done
"""


@pytest.mark.parametrize("seed", range(200))
def test_patterns_of_a_config_read_the_same_or_nothing(seed: int) -> None:
    """A program that was cut off ends with an error, and its figures aren't read at all."""
    dice = random.Random(seed)
    mutate = [one for one in MUTATIONS if one is not truncated][seed % (len(MUTATIONS) - 1)]
    read = readers.printed("litert-lm")
    true = read(LITERT)
    try:
        found = read(mutate(LITERT, dice))
    except BadOutput:
        return
    for name in ("pp512", "tg128", "ttft_s"):
        value = found.get(name)
        if value is None or value == true[name]:
            continue
        numbers = str(value).replace("/s", "").split(" at ")
        # A count that no device reaches was put in: it is bounded, and never shorter than printed.
        assert all(float(number) < 1e9 for number in numbers), (name, value)


@pytest.mark.parametrize("seed", range(200))
def test_lists_and_last_words_of_a_mutated_device_are_no_error(seed: int) -> None:
    dice = random.Random(seed)
    mutate = MUTATIONS[seed % len(MUTATIONS)]
    rows = usable_rows(parse_devices(mutate(outputs.ADB_LIST, dice)))
    states = {row.state for row in parse_devices(outputs.ADB_LIST)}
    for row in rows:
        known = row.state in states or row.state in ("duplicated", "without a serial number")
        assert known or row.remedy, row
    for words in WORDS:
        why = diagnose(mutate(words, dice))
        assert why is None or all(c.isprintable() for c in why.output), why
    dump = mutate("ED00" * 40, dice).encode("utf-8", "replace")
    with pytest.raises(BadOutput):
        read_etdump(b"\0\0\0\0\x10\0\0\0ED00" + dump)


WORDS = (
    'CANNOT LINK EXECUTABLE "./x": library "libone.so" not found: needed by main executable\n',
    "phone: cannot start ./x: Permission denied\n",
    "E method.cpp:819] Missing operator: [7]  one::two.out\n",
    "E method.cpp:74] Backend OneBackend is not registered.\n",
)
