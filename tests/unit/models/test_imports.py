from __future__ import annotations

import subprocess
import sys

LIGHT = (
    "models.known, models.recipes, models.exporting.identify, models.orders, models.tokenizer,"
    " models.sources.hf, models.sources.meta, models.sources.gguf, models.worker, models.texts"
)


def test_data_and_preparation_import_neither_torch_nor_executorch() -> None:
    code = f"import sys, {LIGHT}; print([m for m in ('torch', 'executorch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
