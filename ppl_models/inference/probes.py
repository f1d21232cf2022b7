"""`Probe`: how well labels are read off the codes of data, by a linear classifier and by one with Gaussian kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from ppl_models.parts.checked import told

CLASSIFIERS = ("linear", "kernel")


@dataclass(frozen=True)
class Probe:
    """Accuracies on test data of classifiers that were given the codes of a few labelled data.

    Attributes:
        accuracy: classifier -> number of labels -> accuracy for each draw of the labelled data, in [0, 1].
        width: numbers in a code.
        n: number of test data.
    """

    accuracy: Mapping[str, Mapping[int, tuple[float, ...]]]
    width: int
    n: int

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"accuracy on {self.n} data, by codes of {self.width} numbers"]
        for classifier, found in self.accuracy.items():
            for count, values in found.items():
                spread = f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
                lines.append(f"{classifier:<8}{count:>7} labels  {np.mean(values):.4f}{spread}")
        return "\n".join(lines)


def labelled(data: Any, where: str) -> tuple[Any, ndarray]:
    """(rows, labels as integers) of data that hold both, or of a pair of them.

    Raises:
        ValueError: no labels, or not one a row.
    """
    rows, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, getattr(data, "labels", None))
    if labels is None:
        raise ValueError(f"{where}: found {told(data)} without labels, want data that have some; try (rows, labels)")
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) != len(rows):
        raise ValueError(f"{where}: found labels of shape {labels.shape}, want ({len(rows)},), one a row")
    return rows, labels


def check_labels(train: ndarray, labels: Sequence[int]) -> int:
    """The number of classes; raises ValueError for fewer labels than these, or as many as there are rows."""
    classes = len(np.unique(train))
    for count in labels:
        if not classes <= count <= len(train) - classes:
            raise ValueError(
                f"probe: found labels={count}, want {classes} to {len(train) - classes}: one at least for each class, "
                "and as many rows left"
            )
    return classes


def probed(
    encode: Callable[[ndarray | slice, bool], ndarray],
    known: tuple[ndarray, ndarray],
    labels: Sequence[int],
    draws: int,
    seed: int,
) -> Probe:
    """Train classifiers on the codes of labelled rows and try them on all test rows.

    Args:
        encode: codes (n, width) of rows: of those of the training data with these indices, or of the test data (True).
        known: labels of the training data and of the test data.
        labels: how many rows are labelled; the classes have their shares of them.
        draws: how often they are drawn anew.
        seed: of these draws.

    Raises:
        ValueError: see `check_labels`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, test = known
    classes = check_labels(train, labels)
    codes = encode(slice(None), True)
    accuracy: dict[str, dict[int, tuple[float, ...]]] = {name: {} for name in CLASSIFIERS}
    for count in labels:
        found: dict[str, list[float]] = {name: [] for name in CLASSIFIERS}
        split = StratifiedShuffleSplit(draws, train_size=count, test_size=classes, random_state=seed)
        for index, _ in split.split(train[:, None], train):
            few = encode(index, False)
            for name, kind in zip(CLASSIFIERS, (LogisticRegression(max_iter=2000), SVC()), strict=True):
                classifier = make_pipeline(StandardScaler(), kind).fit(few, train[index])
                found[name].append(float(classifier.score(codes, test)))
        for name, values in found.items():
            accuracy[name][count] = tuple(values)
    return Probe(accuracy, codes.shape[1], len(test))
