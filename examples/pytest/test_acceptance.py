"""Acceptance tests of a model on your own devices: `pytest --farm-inventory lab.yaml`.

The second one asks more of the tiny model than its random weights can give, to show how a failure
reads. A gate on speed is written alike: `{"decode_tok_s": ">= 5"}`.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

#: The tiny model exports in seconds; put yours here.
MODEL = os.environ.get("MODEL", "tiny-llama")
RECIPE = os.environ.get("RECIPE", "xnnpack-8da4w")

pytestmark = pytest.mark.farm_needs(os.environ.get("DEVICES", "transport=adb"))


def test_it_answers_the_same_twice(deployed: Any) -> None:
    model = deployed(MODEL, RECIPE)
    first, second = (model.ask("Once upon a time", max_new_tokens=16) for _ in range(2))
    assert first.ids == second.ids
    assert len(first.ids) > 0


def test_it_predicts_text_well(deployed: Any) -> None:
    run = deployed(MODEL, RECIPE).check(gates={"perplexity": "<= 100"}, quick=True)
    assert run.passed, run.why
