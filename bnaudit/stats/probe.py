"""A linear probe: what can be read, linearly, from figures of samples. In NumPy; scikit-learn fits.

scikit-learn is in the extra `bnaudit[leakage]`.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from bnaudit.stats.arrangements import Ints

Floats = NDArray[np.float64]

MOST_ROWS = 1500
"""Of more samples, so many random ones teach a probe: beyond, it hardly learns more."""

DIMENSIONS = 128
"""Of more figures, a random projection to so many is read."""

REGULARISATION = 0.1
"""scikit-learn's C, on standardised figures: there are about as many of them as samples."""


def available() -> bool:
    """Whether scikit-learn is there."""
    return find_spec("sklearn") is not None


def projection(width: int, seed: int) -> Floats | None:
    """A Gaussian random projection of `width` figures (width, `DIMENSIONS`); None where few.

    It keeps distances, and with them what is linearly separable, up to a small error (Johnson &
    Lindenstrauss 1984).
    """
    if width <= DIMENSIONS:
        return None
    onto: Floats = np.random.default_rng(seed).standard_normal((width, DIMENSIONS))
    onto /= np.sqrt(DIMENSIONS)
    return onto


def read_classes(x: Floats, classes: Ints, others: Floats, seed: int) -> Ints:
    """The class that a probe taught by `x` (n, F) and `classes` (n,) reads from `others` (m, F).

    Multinomial logistic regression on standardised figures (Alain & Bengio 2017, "Understanding
    intermediate layers using linear classifier probes"); what is not finite is read as 0.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(x) > MOST_ROWS:
        kept = np.random.default_rng(seed).choice(len(x), MOST_ROWS, replace=False)
        x, classes = x[kept], classes[kept]
    x, others = (np.nan_to_num(side, posinf=0.0, neginf=0.0) for side in (x, others))
    if len(np.unique(classes)) < 2:
        return np.full(len(others), classes[0])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Ints = np.asarray(probe.fit(x, classes).predict(others))
    return found


def folds_of(classes: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """A fold for each sample, (n,): each class is dealt to all of them in turn."""
    dealt = np.empty(len(classes), np.int64)
    for one in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == one))
        dealt[members] = np.arange(len(members)) % folds
    return dealt


def probed_size(classes: Ints, size: int, folds: int, least: int) -> int | None:
    """The largest batch size up to `size` at which half of the classes fill a batch in every fold.

    None where that would be below `least`, or fewer than two classes do.
    """
    counts = np.sort(np.unique(classes, return_counts=True)[1])[::-1]
    if len(counts) < 2:
        return None
    enough = max(2, -(-len(counts) // 2))
    fitting = min(size, int(counts[enough - 1]) // folds)
    return fitting if fitting >= least else None
