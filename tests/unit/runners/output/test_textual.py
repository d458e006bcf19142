"""Runners that answer with text: what they are asked and what is read of their output."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runners
from farm.core.artifact import ObjectRef
from farm.core.errors import BadOutput, ConfigError, FarmError, RunnerError
from farm.core.runner import DeployFile, RunnerSpec, WorkFiles
from farm.core.runtime import Generate, LaunchRequest, Measure
from farm.protocols import Runner
from runners.given import elf_abi
from runners.output.observer import answer, parse_observer

PROMPT = "<user>What is it?<assistant>"
CHECK = LaunchRequest(2, generate=Generate((1, 2, 3), 24, (), PROMPT))
TIMED = LaunchRequest(
    2,
    measures=(Measure("pp64", 64, 0, 0, 3, 1), Measure("tg16", 0, 16, 0, 3, 1)),
    texts=((64, "once upon a time"),),
)


def file(path: str, *, executable: bool = True) -> DeployFile:
    return DeployFile(ObjectRef("0" * 64, 1, path.rpartition("/")[2]), path, executable)


def make(kind: str, *files: str, **changes: object) -> Runner:
    found = tuple(file(path) for path in files)
    return runners.find(RunnerSpec("mine", kind, files=found, sources=files, **changes))  # type: ignore[arg-type]


def observed(**changes: object) -> bytes:
    stamps = {
        "prompt_tokens": 64,
        "generated_tokens": 15,
        "model_load_start_ms": 1000,
        "model_load_end_ms": 1500,
        "inference_start_ms": 1500,
        "prompt_eval_end_ms": 1700,
        "first_token_ms": 1710,
        "inference_end_ms": 2000,
        "SCALING_FACTOR_UNITS_PER_SECOND": 1000,
        **changes,
    }
    line = "PyTorchObserver " + json.dumps(stamps, separators=(",", ":"))
    return (
        f"I 00:00:00.000242 executorch:main.cpp:64] Hello\n{PROMPT}It is a bat.\n{line}\n".encode()
    )


class TestObserver:
    def test_rates_come_from_stamps(self) -> None:
        figures = parse_observer(observed(), PROMPT)
        assert figures.prefill_tok_s == pytest.approx(64 / 0.2)
        assert figures.decode_tok_s == pytest.approx(15 / 0.3)
        assert figures.ttft_s == pytest.approx(0.21)
        assert figures.load_s == pytest.approx(0.5)
        assert figures.text == "It is a bat."

    def test_printed_rates_are_not_believed(self) -> None:
        figures = parse_observer(observed(decode_token_per_sec=9999.0), PROMPT)
        assert figures.decode_tok_s == pytest.approx(50)

    def test_a_window_of_no_time_has_no_rate(self) -> None:
        figures = parse_observer(observed(prompt_eval_end_ms=1500), PROMPT)
        assert figures.prefill_tok_s is None

    def test_the_last_line_counts_and_may_be_glued_to_the_text(self) -> None:
        early = b'PyTorchObserver {"prompt_tokens":1}\nand more'
        figures = parse_observer(early + observed(), PROMPT)
        assert figures.prompt_tokens == 64
        again = observed().replace(b"a bat", b"a cat")
        assert parse_observer(observed() + again, PROMPT).text == "It is a cat."
        line = observed().rpartition(b"\nPyTorch")[2]
        assert parse_observer(observed() + b"PyTorch" + line, PROMPT).text == "It is a bat."

    def test_where_only_logs_are_printed_there_is_no_answer(self) -> None:
        """As the QNN runner does, which writes its answer to a file."""
        raw = (
            b"I 00:00:00.001690 executorch:runner.cpp:150] creating module\n"
            b"WARNING: All log messages before absl::InitializeLog() is called are written to X\n"
            b"E0000 00:00:1778256716.458879   26183 re2.cc:237] Error parsing '(x'\n"
            b"This may be ok if a fallback regex is used.\n"
            b"[INFO] [Qnn ExecuTorch]: create QNN Logger with log_level 1\n"
            b"I 00:01:15.513054 executorch:stats.h:161] \tPrompt Tokens: 23    Generated: 9\n"
            b"[INFO] [Qnn ExecuTorch]: Destroy Qnn backend\n\nPyTorchObserver {}\n"
        )
        assert answer(raw, PROMPT) is None

    def test_statistics_and_log_lines_are_no_answer(self) -> None:
        raw = (
            f"{PROMPT}A batI 00:00:01.000000 executorch:runner.cpp:9] noise\n of"
            "[text_runner.cpp:201] a build without times\n course\n"
            "        Prompt Tokens: 14    Generated Tokens: 54\n"
            "        Model Load Time:   2.2 (seconds)\n"
        ).encode()
        assert answer(raw, PROMPT) == "A bat of course"

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"PyTorchObserver {}",
            b"PyTorchObserver {nonsense}",
            observed(inference_start_ms="x"),
            observed(SCALING_FACTOR_UNITS_PER_SECOND=0),
        ],
    )
    def test_what_is_no_observation(self, raw: bytes) -> None:
        with pytest.raises(BadOutput):
            parse_observer(raw, PROMPT)

    @pytest.mark.parametrize("changes", [
        {"generated_tokens": 10**30}, {"prompt_tokens": -1}, {"inference_end_ms": 10**20},
    ])  # fmt: skip
    def test_figures_that_no_device_reaches_are_none_of_it(self, changes: dict[str, int]) -> None:
        with pytest.raises(BadOutput, match="lacks or garbles"):
            parse_observer(observed(**changes), PROMPT)

    @given(st.binary(max_size=300))
    def test_noise_is_an_error_or_figures(self, noise: bytes) -> None:
        with contextlib.suppress(FarmError):
            parse_observer(b"PyTorchObserver {" + noise + b"}", PROMPT)


class TestLlamaMain:
    def test_one_prompt_one_reply(self) -> None:
        words, files = make("llama_main", "llama_main").arguments(
            CHECK, WorkFiles("model.pte", ("w.ptd",), "tokenizer.json")
        )
        assert words[:4] == (
            "./llama_main",
            "--model_path=model.pte",
            "--tokenizer_path=tokenizer.json",
            "--data_paths=w.ptd",
        )
        assert f"--prompt={PROMPT}" in words
        assert "--cpu_threads=2" in words
        assert "--seq_len=27" in words  # three tokens of prompt and 24 of reply
        assert files == {}

    def test_samples_have_the_measures_names_and_the_counts_it_reports(self) -> None:
        result = make("llama_main", "llama_main").parse(observed(), 1, TIMED)
        assert [(s.metric, s.tokens) for s in result.samples] == [
            ("load", 0),
            ("pp64", 64),
            ("tg16", 15),
        ]
        assert result.samples[1].ttft_s == pytest.approx(0.21)
        assert result.text is None
        assert not result.exact_counts
        assert "TTFT with tokenising" in result.definition

    def test_a_check_gives_text_only(self) -> None:
        result = make("llama_main", "llama_main").parse(observed(), 0, CHECK)
        assert result.text == "It is a bat."
        assert [s.metric for s in result.samples] == ["load"]

    @pytest.mark.parametrize("files", [(), ("a", "b")])
    def test_which_program_has_to_be_clear(self, files: tuple[str, ...]) -> None:
        with pytest.raises(ConfigError, match="llama_main"):
            make("llama_main", *files)

    def test_no_text_to_measure_with(self) -> None:
        runner = make("llama_main", "llama_main")
        bare = LaunchRequest(1, measures=TIMED.measures)
        with pytest.raises(RunnerError, match="tokenizer"):
            runner.arguments(bare, WorkFiles("m"))


BENCH = {
    "build_commit": "8cf427ff",
    "backends": "CPU",
    "n_threads": 2,
    "n_prompt": 64,
    "n_gen": 0,
    "n_depth": 0,
    "samples_ns": [200_000_000, 250_000_000],
}


class TestLlamaCpp:
    def runner(self) -> Runner:
        return make("llama_cpp", "bin/llama-bench", "bin/llama-cli")

    def test_a_sweep_is_one_start(self) -> None:
        words, _ = self.runner().arguments(TIMED, WorkFiles("m.gguf"))
        assert words == (
            *("./bin/llama-bench", "-m", "m.gguf", "-o", "jsonl", "-r", "3"),
            *("-p", "64", "-n", "16", "-d", "0", "-t", "2"),
        )

    def test_text_comes_from_the_other_program(self) -> None:
        words, files = self.runner().arguments(CHECK, WorkFiles("m.gguf"))
        assert words[0] == "./bin/llama-cli"
        assert files == {"prompt.txt": PROMPT.encode()}
        result = self.runner().parse(b"\nIt is a bat. [end of text]\n\n", 0, CHECK)
        assert result.text == "It is a bat."

    def test_samples_are_its_repetitions(self) -> None:
        decode = {**BENCH, "n_prompt": 0, "n_gen": 16, "samples_ns": [400_000_000]}
        other = {**BENCH, "n_prompt": 512}
        lines = [b"warning: text", *(json.dumps(row).encode() for row in (BENCH, decode, other))]
        result = self.runner().parse(b"\n".join(lines), 1, TIMED)
        assert [(s.metric, s.rep, s.tokens, s.duration_s) for s in result.samples] == [
            ("pp64", 0, 64, 0.2),
            ("pp64", 1, 64, 0.25),
            ("tg16", 0, 16, 0.4),
        ]
        assert result.threads == 2
        assert result.exact_counts
        assert result.hello.version == "llama.cpp 8cf427ff"

    @pytest.mark.parametrize(
        "row", [{}, {**BENCH, "samples_ns": [0]}, {**BENCH, "n_threads": "x"}, {"samples_ns": 3}]
    )
    def test_rows_that_are_none(self, row: dict[str, object]) -> None:
        with pytest.raises(BadOutput):
            self.runner().parse(json.dumps(row).encode(), 1, TIMED)

    def test_both_programs_are_needed(self) -> None:
        with pytest.raises(ConfigError, match="llama-completion"):
            make("llama_cpp", "llama-bench")


class TestCommand:
    ARGV = ("./llm", "--model={model}", "{prompt_file}", "{{x}}", "-n{max_new_tokens}")

    def runner(self, **changes: object) -> Runner:
        values: dict[str, object] = {"argv": self.ARGV, "parse": "jsonl", **changes}
        return make("command", "llm", **values)

    def test_parts_in_braces_are_filled_in(self) -> None:
        words, files = self.runner().arguments(CHECK, WorkFiles("m.pte"))
        assert words == ("./llm", "--model=m.pte", "prompt.txt", "{x}", "-n24")
        assert files == {"prompt.txt": PROMPT.encode(), "tokens.txt": b""}

    def test_patterns_take_the_last_match(self) -> None:
        runner = self.runner(
            parse="regex",
            patterns=(
                ("decode_tok_s", r"decode ([0-9.,]+) tok/s"),
                ("text", r"^answer: (.*)$"),
                ("prompt_tokens", r"prompt of (\d+)"),
            ),
        )
        raw = b"decode 1.0 tok/s\nanswer: a bat\nprompt of 60\ndecode 1,234.5 tok/s\n"
        timed = runner.parse(raw, 1, TIMED)
        assert [(s.metric, s.tokens) for s in timed.samples] == [("tg16", 16)]
        assert timed.samples[0].duration_s == pytest.approx(16 / 1234.5)
        assert runner.parse(raw, 0, CHECK).text == "a bat"

    @pytest.mark.parametrize("unknown", ["N/A", "n/a", "-", "nan"])
    def test_a_figure_that_a_program_does_not_know_counts_as_none(self, unknown: str) -> None:
        patterns = (("prefill_tok_s", r"prefill: (\S+) tok/s"), ("decode_tok_s", r"de: (\S+) tok"))
        runner = self.runner(parse="regex", patterns=patterns)
        raw = f"prefill: {unknown} tok/s, de: 20.5 tok/s\n".encode()
        assert [s.metric for s in runner.parse(raw, 1, TIMED).samples] == ["tg16"]

    def test_colours_of_a_console_cut_no_number(self) -> None:
        runner = self.runner(parse="regex", patterns=(("decode_tok_s", r"decode: ([\d.]+)"),))
        raw = b"decode: \x1b[32m2\x1b[0m5.5\x07\x1b[0m\n"
        (window,) = runner.parse(raw, 1, TIMED).samples
        assert window.duration_s == pytest.approx(16 / 25.5)

    def test_json_lines(self) -> None:
        raw = b'{"load_s": 0.5}\nnoise\n{"decode_tok_s": 20, "peak_rss_bytes": 1e6, "other": 1}\n'
        result = self.runner().parse(raw, 1, TIMED)
        assert [s.metric for s in result.samples] == ["load", "tg16"]
        assert result.peak_rss_bytes == 1_000_000

    @pytest.mark.parametrize("value", ["inf", "nan", -1])
    def test_impossible_figures_count_as_none(self, value: object) -> None:
        raw = json.dumps({"decode_tok_s": value}).encode()
        assert self.runner().parse(raw, 1, TIMED).samples == ()

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"nothing here",
            b'{"decode_tok_s": "fast"}',
            b'{"decode_tok_s": "12,5"}',
            b'{"decode_tok_s": "1,2345"}',
            b'{"decode_tok_s": [1]}',
            b'{"decode_tok_s": {}}',
        ],
    )
    def test_output_without_figures(self, raw: bytes) -> None:
        with pytest.raises(BadOutput):
            self.runner().parse(raw, 1, TIMED)

    @pytest.mark.parametrize(
        ("changes", "key"),
        [
            ({"argv": ()}, "argv"),
            ({"argv": ("{modle}",)}, "argv"),
            ({"argv": ("{model!r}",)}, "argv"),
            ({"argv": ("{",)}, "argv"),
            ({"parse": None}, "parse"),
            ({"python": "python3"}, "python"),
        ],
    )
    def test_wrong_descriptions(self, changes: dict[str, object], key: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.runner(**changes)
        assert caught.value.context["key"] == key


@pytest.mark.parametrize(
    ("head", "abi"),
    [
        (b"\x7fELF" + bytes(14) + b"\x3e\x00", "x86_64"),
        (b"\x7fELF" + bytes(14) + b"\xb7\x00", "arm64-v8a"),
        (b"\x7fELF" + bytes(14) + b"\xff\x01", "ELF machine 511"),
        (b"\x7fELF", None),
        (b"#!/bin/sh\necho hello\n", None),
    ],
)
def test_abi_of_a_program(head: bytes, abi: str | None) -> None:
    assert elf_abi(head) == abi


def test_farms_own_runner_takes_an_environment_and_nothing_else() -> None:
    make("executorch", env=(("FARM_ISA", "portable"),))
    with pytest.raises(ConfigError, match="takes no `argv`"):
        make("executorch", argv=("./other",))
    with pytest.raises(ConfigError, match="takes no `text_file`"):
        make("executorch", text_file="answer.txt")
