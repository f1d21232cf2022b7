"""`Probe`: how well labels are read off the codes of data, by a linear classifier and by one with Gaussian kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from ppl_models.parts.arguments.checked import told
from ppl_models.programs.legible import cut

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
    """(rows, labels) of data that hold both, or of a pair of them; rows may be several columns, in a tuple or a dict.

    Raises:
        ValueError: no labels, not one a row, or such as are no classes: neither integers nor words.
    """
    rows, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, getattr(data, "labels", None))
    if labels is None:
        raise ValueError(f"{where}: found {told(data)} without labels, want data that have some; try (rows, labels)")
    labels = np.asarray(labels)
    columns = list(rows.values()) if isinstance(rows, Mapping) else rows
    n = len(columns[0]) if isinstance(columns, tuple | list) and columns else len(rows)
    if labels.ndim != 1 or len(labels) != n:
        raise ValueError(f"{where}: found labels of shape {labels.shape}, want ({n},), one a row")
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        labels = labels.astype(str)
    whole = labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
    if labels.dtype.kind not in "biuU" and not whole:
        some = cut(str(labels[:1].tolist()), 100)
        raise ValueError(f"{where}: found labels of type {labels.dtype}, as {some}, want integers or words")
    return rows, labels


def check_labels(train: ndarray, labels: Sequence[int]) -> int:
    """The number of classes.

    Raises:
        ValueError: fewer classes than two, or a row alone in its class; fewer labels than classes, or as many as rows.
    """
    names, sizes = np.unique(train, return_counts=True)
    classes, least = len(names), int(sizes.min())
    if classes < 2 or least < 2:
        name = repr(names[sizes.argmin()].item())
        found = f"the label {name} alone" if classes < 2 else f"one row with the label {name}"
        raise ValueError(f"probe: found {found}, want two classes or more, of two rows or more")
    for count in labels:
        if not classes <= count <= len(train) - classes:
            raise ValueError(
                f"probe: found labels={count}, want {classes} to {len(train) - classes}: one at least for each class, "
                "and as many rows left"
            )
    return classes


def check_latents(asks: str, latents: Mapping[str, Any]) -> None:
    """Raise ValueError where there are none."""
    if not latents:
        raise ValueError(f"{asks}: found a model without latents, want codes to look at; try a VAE")


def check_means(asks: str, latents: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise ValueError for the first latent, of these sites, whose factor has means that are no numbers."""
    for name, values in found.items():
        if not np.isfinite(np.asarray(values)).all():
            family = latents[name].family
            instead = "; try a OneHotCategorical" if family.startswith("Categorical") else ""
            raise ValueError(
                f"{asks}: found a {family} for the latent {name!r} whose means are not finite numbers, want a factor "
                f"that has them{instead}"
            )


def probed(
    encoder: Callable[[Any], Callable[[ndarray | slice], Mapping[str, ndarray]]],
    train: Any,
    test: Any,
    labels: Sequence[int],
    draws: int,
    seed: int,
) -> Probe:
    """Train classifiers on the codes of labelled rows and try them on all test rows.

    Args:
        encoder: given rows of data, a function that gives means by latent, (n, *event), of those with these indices.
        train, test: data with labels, see `labelled`.
        labels: how many rows are labelled; the classes have their shares of them.
        draws: how often they are drawn anew.
        seed: of these draws.

    Raises:
        ValueError: see `labelled` and `check_labels`; what the encoder raises.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    (rows, train), (others, test) = labelled(train, "probe: train"), labelled(test, "probe: test")
    known, other = encoder(rows), encoder(others)
    classes = check_labels(train, labels)
    codes = _flat(other(slice(None)))
    accuracy: dict[str, dict[int, tuple[float, ...]]] = {name: {} for name in CLASSIFIERS}
    for count in labels:
        found: dict[str, list[float]] = {name: [] for name in CLASSIFIERS}
        split = StratifiedShuffleSplit(draws, train_size=count, test_size=classes, random_state=seed)
        for index, _ in split.split(train[:, None], train):
            few = _flat(known(index))
            for name, kind in zip(CLASSIFIERS, (LogisticRegression(max_iter=2000), SVC()), strict=True):
                classifier = make_pipeline(StandardScaler(), kind).fit(few, train[index])
                found[name].append(float(classifier.score(codes, test)))
        for name, values in found.items():
            accuracy[name][count] = tuple(values)
    return Probe(accuracy, codes.shape[1], len(test))


def _flat(means: Mapping[str, ndarray]) -> ndarray:
    """The means of all latents side by side, (n, width)."""
    return np.concatenate([np.asarray(value, float).reshape(len(value), -1) for value in means.values()], -1)
