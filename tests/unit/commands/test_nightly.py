from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from farm.commands.nightly import nightly_options
from farm.core.errors import ConfigError
from farm.core.spec import Require
from farm.planning.planning import RunOptions, load

CONFIG = "name: n\nmodels: [tiny-llama]\n"


def options(tmp_path: Path, text: str) -> RunOptions:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + text)
    return RunOptions(path)


@pytest.mark.parametrize(
    ("text", "required"),
    [
        ("", Require(Fraction(9, 10), Fraction(9, 10))),
        ("require: {judged: 100%}\n", Require(Fraction(1), Fraction(9, 10))),
        ("require: {speed: 0%}\n", Require(Fraction(9, 10), Fraction(0))),
    ],
)
def test_a_nightly_requires_ninety_percent_of_each(
    tmp_path: Path, text: str, required: Require
) -> None:
    found = nightly_options(options(tmp_path, text), tmp_path, allow_no_baseline=True)
    assert load(found).spec.require == required


def test_a_plain_run_requires_nothing(tmp_path: Path) -> None:
    assert load(options(tmp_path, "")).spec.require == Require(Fraction(0), Fraction(0))


def test_a_nightly_without_a_baseline_says_how_the_first_one_goes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--allow-no-baseline"):
        nightly_options(options(tmp_path, ""), tmp_path, allow_no_baseline=False)
