"""What a user's own runner prints when it doesn't start becomes a remedy, at a launch too."""

from __future__ import annotations

import asyncio

import pytest

from farm.core.errors import RunnerCrashed
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
