"""`farm models anchor` and `farm models bound`: measure what later references are judged by.

What is measured lies in the folder of downloaded models, where every later reference of this host
finds it, or in a file that is named, for a diff.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from farm.core.artifact import ModelSource, Recipe
from farm.core.errors import ExportError
from farm.files import write_whole
from farm.judge.logits import Matrix, every_position
from farm.judge.metrics import compare
from farm.judge.rules import source_bound
from farm.paths import farm_home, model_cache
from models import known, recipes

if TYPE_CHECKING:
    from models.checkpoint import Checkpoint

#: Positions of an anchor and of a bound: those of a run that says nothing else.
TOKENS = 256


@dataclass(frozen=True, slots=True)
class KnownGood:
    """What was measured, and where it is kept now."""

    path: str
    #: One sentence for people.
    summary: str
    #: As the file has it.
    data: dict[str, Any]


def source_of(name: str) -> ModelSource:
    """A registered model by its name, or a GGUF, or a folder of the hub's format, by its path.

    Raises:
        UnknownName: Neither; says which models there are.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return ModelSource(path.stem, "gguf", str(path))
    if path.is_dir():
        return ModelSource(path.resolve().name, "hf", str(path))
    return ModelSource(known.get(name).name)


def measure_anchor(model: ModelSource, out: Path | None, tokens: int = TOKENS) -> KnownGood:
    """Ask transformers about a model, compare our eager fp32 with it, and keep what it says.

    Raises:
        FarmError: The model can't be read, transformers can't be asked, or doesn't agree: an
            anchor of a model that is read wrongly would only fail every run.
    """
    from models.reference import anchors
    from models.reference.peer import ask, cannot_ask
    from models.texts import read_text

    checkpoint, ids = _opened(model, tokens)
    reason = cannot_ask(checkpoint)
    if reason:
        raise ExportError(f"model {model.name}: {reason}", model=model.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers and its dependencies, not ours
        theirs = ask(checkpoint, read_text("builtin"), ids)
    ours = _eager(checkpoint, None, ids)
    logits = theirs.logits[:, : checkpoint.config.vocab]
    if theirs.ids is not None and theirs.ids != ids:
        differing = anchors.differing(ids, theirs.ids)
        raise ExportError(f"model {model.name}: {differing}", model=model.name)
    anchor = anchors.make_anchor(
        model.name, checkpoint.files[0].sha256, f"{theirs.name}, float32", ids, logits
    )
    error, own = float(np.abs(logits - ours).max()), anchors.perplexity(ours, ids)
    allowed = source_bound(float(np.abs(logits).max()))
    if not error <= allowed:
        raise ExportError(
            f"model {model.name}: our eager fp32 differs from {theirs.name} by {error:.3g}, and"
            f" {allowed:.3g} is allowed: farm reads this checkpoint wrongly, or they do",
            model=model.name,
        )
    summary = (
        f"{model.name}: {tokens} tokens; {theirs.name} has perplexity {anchor['perplexity']:.6g},"
        f" our eager fp32 {own:.6g}; logits differ by {error:.2g}"
    )
    path = out or anchors.own_folder(model_cache(farm_home())) / f"{model.name}.json"
    return _kept(path, summary, anchor, anchor)


def measure_bound(
    model: ModelSource, recipe: str, out: Path | None, tokens: int = TOKENS
) -> KnownGood:
    """Measure what a recipe's rounding costs a model, from its eager reference.

    Raises:
        FarmError: The model can't be read, or there is no such recipe.
    """
    from models.exporting.identify import own_versions
    from models.reference import bounds

    asked = recipes.get(recipe)
    checkpoint, ids = _opened(model, tokens)
    fp32, quantised = (_eager(checkpoint, one, ids) for one in (None, asked))
    found = compare(every_position(fp32), every_position(quantised), ids)
    if found.kl_mean is None or found.perplexity_change is None:
        raise ExportError(f"model {model.name}: its logits are not finite numbers")
    entry = {
        "model": model.name,
        "weights_sha256": checkpoint.files[0].sha256,
        "arithmetic": bounds.arithmetic(asked),
        "text": bounds.text_digest(ids),
        "tokens": tokens,
        "kl_mean": round(found.kl_mean, 6),
        "log_perplexity": round(found.perplexity_change.log_ratio, 6),
        "versions": asdict(own_versions()),
    }
    path = out or bounds.own_folder(model_cache(farm_home())) / f"{model.name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    same = ("weights_sha256", "arithmetic", "text")
    kept = [one for one in old if any(one[key] != entry[key] for key in same)]
    summary = (
        f"{model.name} in {entry['arithmetic']}: KL {found.kl_mean:.4g} nats, perplexity"
        f" {found.perplexity_from:.4g} -> {found.perplexity_to:.4g} over {tokens} tokens"
    )
    return _kept(path, summary, [*kept, entry], entry)


def _opened(model: ModelSource, tokens: int) -> tuple[Checkpoint, tuple[int, ...]]:
    from models.sources import open_source
    from models.texts import forced_tokens, read_text
    from models.tokenizer import Tokenizer

    if model.adapter is not None:
        raise ExportError(
            f"model {model.name}: an anchor or bound belongs to whole weights, not to a base with"
            " an adapter; merge them and save that",
            model=model.name,
        )
    checkpoint = open_source(model, model_cache(farm_home()), lambda _done, _total: None)
    return checkpoint, forced_tokens(Tokenizer(checkpoint.tokenizer), read_text("builtin"), tokens)


def _eager(checkpoint: Checkpoint, recipe: Recipe | None, ids: tuple[int, ...]) -> Matrix:
    from models.reference.logits import eager_logits

    with tempfile.TemporaryDirectory(prefix="farm-eager-") as folder:
        file = Path(folder) / "logits.f32"
        shape = eager_logits(checkpoint, recipe, ids, file)
        logits: Matrix = np.fromfile(file, "<f4").reshape(shape)
    return logits


def _kept(path: Path, summary: str, content: object, data: dict[str, Any]) -> KnownGood:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return KnownGood(str(path), summary, data)
