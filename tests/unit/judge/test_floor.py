"""The noise floor of perturbed launches, and the relation between two sets of logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.core.errors import BadOutput
from farm.judge.floor import noise_floor
from farm.judge.logits import every_position
from farm.judge.metrics import Relation, compare
from tests.unit.judge.builders import disturbed, language

LOGITS, TOKENS = language()
ALL = every_position(LOGITS)


def related(changed: np.ndarray) -> Relation:
    found = compare(ALL, every_position(changed.astype(np.float32)), TOKENS).relation
    assert found is not None
    return found


def test_rounding_has_no_direction() -> None:
    found = related(disturbed(LOGITS, 0.5))
    assert abs(found.slope) < 0.01
    assert found.r_squared < 0.01
    assert found.column_ratio < 1.5


@settings(deadline=None, max_examples=20)
@given(st.floats(0.5, 1.5).filter(lambda scale: abs(scale - 1) > 0.01))
def test_a_scale_is_its_slope(scale: float) -> None:
    found = related(LOGITS * np.float32(scale) + np.float32(7))
    assert found.slope == pytest.approx(scale - 1, abs=1e-4)
    assert found.r_squared == pytest.approx(1.0, abs=1e-4)


def test_what_a_row_has_in_common_is_no_difference_of_ids() -> None:
    shift = np.random.default_rng(3).standard_normal((len(LOGITS), 1)).astype(np.float32)
    found = compare(ALL, every_position(LOGITS + 5 * shift), TOKENS).relation
    assert found is None or abs(found.slope) < 1e-5


def test_a_zeroed_token_id_stands_out() -> None:
    changed = disturbed(LOGITS, 0.1)
    changed[:, 41] = 0
    found = related(changed)
    assert found.column == 41
    assert found.column_ratio > 10


def test_equal_bits_have_no_relation() -> None:
    assert compare(ALL, every_position(LOGITS.copy()), TOKENS).relation is None


def test_a_floor_takes_the_mean_of_kl_and_the_farthest_of_the_rest() -> None:
    near, far = (every_position(disturbed(LOGITS, size)) for size in (0.1, 0.3))
    floor = noise_floor({"decode": ALL}, [{"decode": near}, {"decode": far}], TOKENS)
    assert floor is not None
    kls = [compare(ALL, one, TOKENS).kl_mean or 0.0 for one in (near, far)]
    assert dict(floor.kl_mean)["decode"] == pytest.approx(sum(kls) / 2)
    (path,) = floor.paths
    assert path.max_abs_error == compare(ALL, far, TOKENS).max_abs_error
    assert path.log_perplexity is not None
    assert 0 < path.log_perplexity < 0.1
    assert floor.perturbations == 2


def test_no_perturbation_is_no_floor_and_nan_is_an_error() -> None:
    assert noise_floor({"decode": ALL}, [], TOKENS) is None
    broken = LOGITS.copy()
    broken[3, 3] = math.nan
    with pytest.raises(BadOutput, match="not finite"):
        noise_floor({"decode": ALL}, [{"decode": every_position(broken)}], TOKENS)
