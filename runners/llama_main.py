"""llama_main: ExecuTorch's own example runner, as a user built it (for example with the NDK).

Rates and times are recomputed from its stamps; see runners.output.observer. It reads the tokenizer,
stops at EOS and gives no logits, so that correctness is by its text.
"""

from __future__ import annotations

from collections.abc import Mapping

from farm.core.errors import ConfigError
from farm.core.runner import RunnerSpec, WorkFiles
from farm.core.runtime import LaunchRequest, LaunchResult
from runners.given import GivenRunner, program_of, refuse
from runners.output.observer import DEFINITION, parse_observer
from runners.output.textual import result_of, turn_of


class LlamaMainRunner(GivenRunner):
    """See the module."""

    def __init__(self, spec: RunnerSpec) -> None:
        refuse(spec, "argv", "parse", "logits", "text_file", "python")
        super().__init__(spec)
        self._program = program_of(spec, "llama_main") or _only_program(spec)

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Arguments of its command line; see `farm.protocols.Runner`."""
        turn = turn_of(request)
        words = [
            self._program,
            f"--model_path={files.model}",
            f"--tokenizer_path={files.tokenizer}",
        ]
        if files.data:
            words.append(f"--data_paths={','.join(files.data)}")
        words += [
            f"--prompt={turn.prompt}",
            "--temperature=0",
            f"--seq_len={_length(request, turn.prompt, turn.max_new_tokens)}",
        ]
        if request.threads:
            words.append(f"--cpu_threads={request.threads}")
        return tuple(words), {}

    def parse(self, stdout: bytes, launch: int, request: LaunchRequest) -> LaunchResult:
        """Read a finished launch; see `farm.protocols.Runner`."""
        figures = parse_observer(stdout, turn_of(request).prompt)
        return result_of(figures, request, launch, self.hello(), DEFINITION)


def _length(request: LaunchRequest, prompt: str, new_tokens: int) -> int:
    """Prompt and reply together, as its flag wants them."""
    if request.generate is not None and not request.measures:
        return len(request.generate.prompt) + new_tokens
    lengths = {text: count for count, text in request.texts}
    return lengths.get(prompt, 0) + new_tokens


def _only_program(spec: RunnerSpec) -> str:
    programs = [file.path for file in spec.files if file.executable]
    if len(programs) != 1:
        raise ConfigError(
            "push your `llama_main` (ExecuTorch, presets llm-release and llama-release); "
            f"found {', '.join(programs) or 'no program'}",
            key="push",
        )
    return f"./{programs[0]}"
