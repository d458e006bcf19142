"""farm: a distributed device-farm orchestrator for on-device LLMs.

What `__all__` names is the Python API, described in docs/python.md; everything else may change with
any version. Importing it costs next to nothing: a run brings in what it needs.
"""

from __future__ import annotations

import importlib

# A folder of farm is called `run` too. Once it is loaded, nothing rebinds the name again.
importlib.import_module("farm.run")
from farm.api.runs import Run, load, run  # noqa: E402
from farm.core.errors import FarmError  # noqa: E402
from farm.core.version import VERSION as __version__  # noqa: E402

__all__ = ["FarmError", "Run", "__version__", "load", "run"]
