"""What isn't ExecuTorch's public API stands in one module, and a piece that moved is named."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
from pathlib import Path

import pytest

from farm.core.errors import ExportError
from tests.integration.models.exports import library_noise

pytestmark = pytest.mark.export

_MODELS = Path(__file__).parents[3] / "models"
#: Modules of ExecuTorch whose names are documented, and what stock alone stands on.
_PUBLIC = {"executorch.exir", "executorch.runtime"}
_STOCK = "lowering/stock.py"
#: What is compared by `farm diagnose --drivers`: ExecuTorch's own runtimes, by their names.
_DRIVERS = "drivers.py"


def imported(path: Path) -> set[str]:
    """Modules of ExecuTorch that a file imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "executorch"}


def test_private_pieces_stand_in_one_module() -> None:
    users = {
        str(path.relative_to(_MODELS)) for path in _MODELS.rglob("*.py") if imported(path) - _PUBLIC
    }
    assert users == {"lowering/private.py", _STOCK, _DRIVERS}


@pytest.mark.parametrize(
    ("module", "piece"),
    [
        ("executorch.backends.xnnpack.utils.quant_utils", "is_dynamic_qdq"),
        ("executorch.exir.lowered_backend_module", "LoweredBackendModule"),
        ("executorch.backends.xnnpack.operators.node_visitor", "NodeVisitor.convert_to_qc4w"),
    ],
)
def test_a_piece_that_moved_is_named(
    module: str, piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with library_noise():
        from models.lowering import private

        assert importlib.metadata.version("executorch") == private.TESTED
        owner, *inner = piece.split(".")
        holder = importlib.import_module(module)
        name = owner
        if inner:
            holder, name = getattr(holder, owner), inner[0]
        monkeypatch.delattr(holder, name)
        with pytest.raises(ExportError, match=f"doesn't have: .*{name}.*`engine: stock`"):
            importlib.reload(private)
