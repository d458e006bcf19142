"""The Python runtime of an ExecuTorch wheel, where a device has room for a virtual environment.

For servers and Jetsons, and for toolchains before 1.5, whose wheels have no C++ SDK. One script
goes to the device and speaks farm-runner's protocol; its interpreter is the device's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from farm.core.artifact import ObjectRef, Sdk
from farm.core.device import DeviceFacts
from farm.core.errors import RunnerError
from farm.core.runner import PLAIN, BuildVariant, DeployFile, RunnerBuild, RunnerSpec, WorkFiles
from farm.core.runtime import LaunchRequest
from runners.executorch import ExecutorchRunner
from runners.given import refuse

_SCRIPT = Path(__file__).parent / "python" / "farm_python_runner.py"
#: Found through PATH of the device where the config names none.
_PYTHON = "python3"


class ExecutorchPythonRunner(ExecutorchRunner):
    """See the module."""

    greeting = None

    def __init__(self, spec: RunnerSpec) -> None:
        refuse(spec, "push", "argv", "parse", "logits", "text_file")
        super().__init__(spec)
        self._python = spec.python or _PYTHON

    def build(
        self,
        abi: str,
        facts: DeviceFacts,
        home: Path,
        sdk: Sdk,
        progress: Callable[[str], None] | None = None,
        variant: BuildVariant = PLAIN,
    ) -> RunnerBuild:
        """Describe the script; see `farm.protocols.Runner`."""
        del facts, home, sdk, progress, variant
        content = _SCRIPT.read_bytes()
        ref = ObjectRef(hashlib.sha256(content).hexdigest(), len(content), _SCRIPT.name)
        return RunnerBuild(
            name=self.name,
            version="Python runtime",
            abi=abi,
            sha256=self._sha256(ref.sha256),
            files=(DeployFile(ref, _SCRIPT.name),),
            # Python may keep bytecode of libraries; of our script nothing may stay on the device.
            argv=(self._python, "-B", _SCRIPT.name),
            env=self._env,
        )

    def _sha256(self, script: str) -> str:
        """Of the script and the interpreter that the config names: both decide what runs."""
        if self._python == _PYTHON:
            return script
        return hashlib.sha256(f"{script} {self._python}".encode()).hexdigest()

    def files(self, build: RunnerBuild) -> Mapping[str, Path]:
        """Place of the script; see `farm.protocols.Runner`."""
        return {file.object.sha256: _SCRIPT for file in build.files}

    def arguments(
        self, request: LaunchRequest, files: WorkFiles
    ) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
        """Arguments and request.json; see `farm.protocols.Runner`."""
        if files.data:
            raise RunnerError(
                "the Python runtime takes no external weights: use a recipe without them"
            )
        return super().arguments(request, files)
