"""A tiny real model for devices, exported once for each version of its script."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lab.host import locked

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "integration" / "native" / "tiny_llama.py"


def tiny_model() -> Path:
    """Folder with last.pte and reference.npy."""
    key = hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:16]
    folder = ROOT / "build" / "native-tests" / f"tiny-llama-{key}"
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(dir=folder.parent))
            done = subprocess.run(
                [sys.executable, str(SCRIPT), str(scratch)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                shutil.rmtree(scratch)
                raise RuntimeError(done.stderr[-3000:])
            scratch.rename(folder)
    return folder
