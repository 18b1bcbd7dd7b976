"""The 8x8 digits that come with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import MissingDependencyError
from snn_deploy.tickets.data.parts import Parts

CLASSES = 10
SPLIT_SEED = 0
TEST_SHARE = 0.25


def read() -> Parts:
    """Return the training and test parts, images (n, 1, 8, 8) in 0..1."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as err:
        raise MissingDependencyError(
            "the digits come with scikit-learn, which is not installed",
            hint="pip install 'snn-deploy[train]'",
        ) from err
    bunch: Any = load_digits()
    images = (np.asarray(bunch.images, np.float32) / 16.0)[:, None]
    labels = np.asarray(bunch.target, np.int64)
    train, test = stratified_split(labels, TEST_SHARE, SPLIT_SEED)
    return (images[train], labels[train]), (images[test], labels[test])


def stratified_split(
    labels: NDArray[np.int64], test_share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (train, test) indices, ascending, with ``test_share`` of every class in test."""
    rng = np.random.Generator(np.random.PCG64(seed))
    test: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.append(members[: round(test_share * len(members))])
    chosen = np.sort(np.concatenate(test))
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return rest, chosen
