"""Every test, in two pytest processes side by side; exit 0 only when both passed.

The lab's tests mostly wait for deadlines while the others mostly compute; a third process on two
cores would make those deadlines late. With arguments it is one process with those. What the lab's
process printed follows when both have ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

PYTEST = [
    sys.executable,
    "-m",
    "pytest",
    "--timeout=600",
    "--durations=15",
    "-o",
    "faulthandler_timeout=1200",
    "-o",
    "faulthandler_exit_on_timeout=true",
]


def main(arguments: list[str]) -> int:
    """Run and return the exit code: pytest's own, of the first process that failed."""
    if arguments:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    with tempfile.TemporaryFile() as log:
        words = [*PYTEST, "tests/lab", "tests/contract"]
        with subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT) as lab:
            words = [*PYTEST, "tests/integration", "tests/unit"]
            rest = subprocess.run(words, check=False).returncode
            print("==> tests/lab and tests/contract", flush=True)
            code = lab.wait()
        log.seek(0)
        sys.stdout.write(log.read().decode("utf-8", "replace"))
    if rest != 0:
        print(f"tests/integration or tests/unit failed with {rest}, see above", file=sys.stderr)
    return rest or code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
