"""The distance that starts without torch is the estimation shift between two sets of statistics."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnaudit.stats.distance import squared_distance
from bnaudit.stats.shift import squared_shift

SIZES = st.floats(1e-12, 1e12)
MEANS = st.one_of(SIZES, SIZES.map(lambda size: -size), st.just(0.0))
VARIANCES = st.one_of(SIZES, st.just(0.0))
BROKEN = st.sampled_from([np.nan, np.inf, -np.inf, -1.0])

CHANNELS = st.lists(
    st.tuples(MEANS, VARIANCES, st.one_of(MEANS, BROKEN), st.one_of(VARIANCES, BROKEN)),
    min_size=1,
    max_size=20,
)


@given(channels=CHANNELS, eps=st.sampled_from([0.0, 1e-12, 1e-5, 1e-3, 1.0]))
def test_squared_distance_is_squared_shift(
    channels: list[tuple[float, float, float, float]], eps: float
) -> None:
    arrays = np.array(channels, dtype=np.float64).T.copy()
    ours = squared_distance(*arrays, eps)
    theirs = squared_shift(*(torch.from_numpy(array) for array in arrays), eps)
    np.testing.assert_allclose(ours[0], theirs.mean_part.numpy(), rtol=1e-12)
    # The difference of two standard deviations is as exact as the larger of them.
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = np.nan_to_num(1 + np.sqrt(arrays[1] / (arrays[3] + eps)), posinf=0.0)
    gap = np.abs(np.sqrt(ours[1]) - np.sqrt(theirs.scale_part.numpy()))
    assert (np.isnan(ours[1]) == np.isnan(theirs.scale_part.numpy())).all()
    assert (gap[~np.isnan(gap)] <= 1e-14 * largest[~np.isnan(gap)]).all()
