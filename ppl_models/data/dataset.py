"""One part of a data set: rows of stored values, what they mean, and the transform a model sees."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Image, Number
from ppl_models.programs.legible import legible

from .transforms import Binarize, Dequantize, Logit, Scale, Transform

Index = int | slice | Tensor | Sequence[int]


@partial(checked, but=["values", "labels"])
@dataclass(frozen=True, eq=False)
class Data:
    """Rows of values with their meaning, in the map style of `torch.utils.data.DataLoader`.

    Indexing and `values` differ: `data.values` are the stored grey levels, `data[i]` is the transformed
    float32 a model sees, drawn anew at each access where the transform is random.

    values: (N, D), uint8 where `levels` is an integer, else float32; images flattened in the order C, H, W; (N, 2 D)
    for the transform `Redrawn`, means and standard deviations.
    shape: (C, H, W) of an image, or (D,).
    levels: number of grey levels, None for real data. transform: see `ppl_models.data.transforms`.
    name: the part, as "mnist train". labels: (N,) int64 or None.

    Raises TypeError for a wrong kind of tensor or transform, ValueError for sizes that disagree.
    """

    values: Tensor = field(repr=False)
    shape: Image
    levels: Annotated[int, Number(whole=True, least=2, most=256)] | None
    transform: Transform
    name: str
    labels: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        dtype = torch.float32 if self.levels is None else torch.uint8
        if not isinstance(self.values, Tensor) or self.values.dtype != dtype:
            found = getattr(self.values, "dtype", type(self.values).__name__)
            raise TypeError(
                f"values of {self.name}: found {found}, want a {dtype} tensor with levels={self.levels}; "
                "try levels=None for real data, values.to(torch.uint8) for grey levels"
            )
        width = math.prod(self.shape) * getattr(self.transform, "stored", 1)
        if self.values.ndim != 2 or self.values.shape[1] != width:
            raise ValueError(
                f"values of {self.name}: found {tuple(self.values.shape)}, want "
                f"(N, {width}) for shape {self.shape}; try values.flatten(1)"
            )
        if self.labels is not None and self.labels.shape != self.values.shape[:1]:
            raise ValueError(
                f"labels of {self.name}: found {tuple(self.labels.shape)}, want ({len(self.values)},), "
                "one a row; try labels=None"
            )
        levels = getattr(self.transform, "levels", None)
        if levels != self.levels:
            raise ValueError(
                f"transform of {self.name}: found {self.transform!r}, want one with levels={self.levels}"
                + ("; try Identity()" if self.levels is None else f"; try Scale({self.levels})")
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Index) -> Tensor:
        """Transformed rows, float32: (D,) for an integer, (n, D) for a slice, a tensor or a list."""
        return self.transform(self.values[_as_index(index, self.values.device)])

    def __getitems__(self, index: list[int]) -> list[Tensor]:
        """The rows of a batch as a list; DataLoader calls this, which spares one transform a row."""
        return list(self[index])

    def __str__(self) -> str:
        shape = " x ".join(str(size) for size in self.shape)
        return legible(f"{self.name}: {len(self)} of {shape}, levels {self.levels}, {self.transform}")

    @property
    def discrete(self) -> bool:
        """Whether a row is one of finitely many (grey levels, scaled or binarized): its likelihood is a probability."""
        return isinstance(self.transform, Scale | Binarize)

    def subset(self, index: slice | Tensor | Sequence[int]) -> Data:
        """The rows at `index` (slice, tensor or list) with their labels, as `Data`; a slice shares memory."""
        index = _as_index(index, self.values.device)
        if isinstance(index, int):
            raise TypeError(f"index: found {index}, want a slice, a tensor or a list; try slice({index}, {index + 1})")
        labels = None if self.labels is None else self.labels[index]
        return replace(self, values=self.values[index], labels=labels)

    def mirrored(self) -> Data:
        """The images, and after them the same with left and right exchanged; labels twice.

        Raises ValueError for rows that are no images.
        """
        if len(self.shape) != 3:
            raise ValueError(f"{self.name}: found rows of shape {tuple(self.shape)}, want images to mirror")
        turned = self.values.unflatten(1, tuple(self.shape)).flip(-1).flatten(1)
        labels = None if self.labels is None else torch.cat([self.labels, self.labels])
        return replace(self, values=torch.cat([self.values, turned]), labels=labels)

    def to(self, device: torch.device | str) -> Data:
        """The same data with values and labels on `device`, where the transform then runs as well."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, values=self.values.to(device), labels=labels)

    def bits_per_dim(self, nll: Tensor, x: Tensor | None = None) -> Tensor | None:
        """Negative log-likelihood of the grey levels in bits per dimension, or None for real data.

        Scale, Binarize:  nll / (D ln 2), where the likelihood is one of the levels themselves, a discrete one
        Dequantize:       nll / (D ln 2) + log2(levels)
        Logit:            (nll - log_abs_det(x)) / (D ln 2) + log2(levels), that is, with s the sigmoid,
                          nll / (D ln 2) + log2(levels) - log2(1 - 2 alpha)
                              + 1/D sum_i [log2 s(x_i) + log2(1 - s(x_i))]

        The last two score u = (v + noise) / levels, noise ~ Uniform[0, 1) (uniform dequantization): by
        Jensen's inequality the mean over the noise is an upper bound of the discrete model's bits per
        dimension, E[-log2 p(u)] + D log2(levels) >= -log2 P(v). A density on scaled levels (`Scale` with a
        Gaussian) has no bits per dimension; whether the likelihood is discrete the data cannot know.

        nll: nats per datum of the transformed data, any shape; for Logit that of x without its last axis.
        x: the transformed data, (..., D); only Logit reads it. Returns the shape of nll.
        Raises ValueError if Logit is given no x or one of another shape.
        Source: Theis et al. 2016, arXiv 1511.01844; Papamakarios et al. 2017, arXiv 1705.07057, section 4.
        """
        if self.levels is None:
            return None
        size = self.values.shape[1]
        bits = nll / (size * math.log(2))
        if isinstance(self.transform, Dequantize):
            return bits + math.log2(self.levels)
        if isinstance(self.transform, Logit):
            if x is None or x.shape != (*nll.shape, size):
                raise ValueError(
                    f"x: found {None if x is None else tuple(x.shape)}, want the transformed data "
                    f"that nll is of, {(*nll.shape, size)}; try bits_per_dim(nll, x) with x = data[index]"
                )
            return bits - self.transform.log_abs_det(x) / (size * math.log(2)) + math.log2(self.levels)
        return bits


def _as_index(index: Index, device: torch.device) -> int | slice | Tensor:
    if isinstance(index, slice):
        return index
    if isinstance(index, Tensor):
        return index.to(device)
    if isinstance(index, Sequence) and not isinstance(index, str):
        return torch.as_tensor(index, dtype=None if index else torch.int64, device=device)
    try:
        return operator.index(index)
    except TypeError:
        raise TypeError(
            f"index: found {index!r}, want an integer, a slice, a tensor or a list; try data[:10]"
        ) from None
