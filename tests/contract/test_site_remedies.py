"""What a user's own runner prints when it doesn't start becomes a remedy, at a launch too."""

from __future__ import annotations

import asyncio

import pytest

from farm.core.errors import RunnerCrashed
from farm.core.runner import RunnerSpec
from farm.core.runtime import Generate, LaunchRequest
from tests.contract.site_bench import SiteBench


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('CANNOT LINK EXECUTABLE "./llm": library "libomp.so" not found', "link that library"),
        ("Missing operator: [2] llama::custom_sdpa.out", "registers llama::custom_sdpa.out"),
        ("Backend QnnBackend is not registered.", "build the runner with QnnBackend"),
    ],
)
def test_a_crash_says_what_helps(bench: SiteBench, said: str, remedy: str) -> None:
    async def scenario() -> None:
        model = f"echo '{said}' >&2; seq 9000 >&2; exit 1\n"
        error = (await bench.run(bench.job(model))).error
        assert isinstance(error, RunnerCrashed)
        assert remedy in error.message
        await bench.agent.close()

    asyncio.run(scenario())


def test_an_answer_may_stand_in_a_file(bench: SiteBench) -> None:
    spec = RunnerSpec("toy", text_file="answer.txt")
    request = LaunchRequest(1, generate=Generate((1,), 4, (), "say  A"), timeout_s=60.0)
    quiet = "printf '{\"done\": true}\\n'\n"
    wrote = f"test -s answer.txt || printf 'say  A bat\\n\\n' > answer.txt\n{quiet}"

    async def scenario() -> None:
        texts = []
        for number, model in enumerate((wrote, quiet)):
            job = bench.job(model, name=f"cell:{number}", runner=spec, launches=(request, request))
            finished = await bench.run(job)
            assert finished.result is not None, finished.error
            texts.append([launch.text for launch in finished.result.launches])
        # The second launch finds an empty file, not the answer of the first.
        assert texts == [["bat", "bat"], [None, None]]
        await bench.agent.close()

    asyncio.run(scenario())
