"""The data sets by name: files with hashes, splits, default transforms; and `load`, which returns them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Place
from ppl_models.programs.legible import quoted

from . import splits
from .array_files import array_file
from .dataset import Data
from .fetch import Source
from .splits import Rows
from .transforms import Binarize, Dequantize, Identity, Logit, Redrawn, Scale, Transform, Wanted

HELD_OUT_SEED = 0


@dataclass(frozen=True)
class Entry:
    """One data set: how to read its official parts, and what `load` makes of them by default.

    read: returns train and test, or train, validation and test where the split is official.
    validation: rows taken from the end of train where it is not. alpha: of the logit.
    """

    text: str
    read: Callable[[str, tuple[Source, ...], tuple[str, ...]], list[Rows]]
    sources: tuple[Source, ...] = ()
    folders: tuple[str, ...] = ()
    validation: int | None = None
    transform: str = "none"
    alpha: float = 1e-6


def _sources(home: str, *files: tuple[str, str, int], unzipped: bool = False) -> tuple[Source, ...]:
    """Files of a home: (name, sha256, bytes) of each."""
    return tuple(Source(name, f"sha256:{found}", size, home + name, unzipped) for name, found, size in files)


_MNIST = _sources(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
    ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
    ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
    ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
)
_FASHION = _sources(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
    ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
    ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
    ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
)
_STATIC = _sources(
    "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
    ("binarized_mnist_train.amat", "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d", 78_400_000),
    ("binarized_mnist_valid.amat", "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2", 15_680_000),
    ("binarized_mnist_test.amat", "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c", 15_680_000),
    unzipped=True,
)
_OMNIGLOT = _sources(
    "https://raw.githubusercontent.com/bitsandscraps/omniglot/9514cfd6780ed78e96a4d88bae8c85f3ee31359e/",
    ("images_background.npz", "8bf84167413cd00beacdce3fe582f780ab538d8dbef043a6d688f2527bbce199", 3_340_794),
    ("images_evaluation.npz", "0b84c7ffd94c4841c0040e529c86a82eaaccb986d8eadad5673f7991b7475276", 2_415_269),
)
_FREY = _sources(
    "https://cs.nyu.edu/~roweis/data/",
    ("frey_rawface.mat", "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64", 1_100_584),
)
_CALTECH = _sources(
    "https://people.cs.umass.edu/~marlin/data/",
    (
        "caltech101_silhouettes_28_split1.mat",
        "eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
        872_124,
    ),
)
# The archive, then the batches inside it, which are looked for first; the home publishes md5 sums only.
_ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_CIFAR = (
    Source("cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a", 170_498_071, _ARCHIVE),
    Source("data_batch_1", "md5:c99cafc152244af753f735de768cd75f", 31_035_704, _ARCHIVE),
    Source("data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec", 31_035_320, _ARCHIVE),
    Source("data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751", 31_035_999, _ARCHIVE),
    Source("data_batch_4", "md5:634d18415352ddfa80567beed471001a", 31_035_696, _ARCHIVE),
    Source("data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb", 31_035_623, _ARCHIVE),
    Source("test_batch", "md5:40351d587109b95175f43aff81a1287e", 31_035_526, _ARCHIVE),
)

CATALOGUE = {
    "digits": Entry(
        "8x8 handwritten digits, levels 0..16; train 1497 (the first rows), test 300 (the last), "
        "validation 297 of train; scikit-learn (UCI, Alpaydin and Kaynak 1998)",
        splits.digits,
        validation=297,
        transform="binarize",
    ),
    "mnist": Entry(
        "28x28 handwritten digits, 256 levels; train 60000, test 10000 (official), "
        "validation the last 10000 of train; LeCun, Cortes, Burges 1998",
        splits.mnist,
        _MNIST,
        ("MNIST/raw", "MNIST"),
        validation=10000,
        transform="binarize",
    ),
    "static-mnist": Entry(
        "28x28 handwritten digits, binarized once for all; train 50000, validation 10000, test 10000 "
        "(official); Salakhutdinov and Murray 2008, files of Larochelle",
        splits.static_mnist,
        _STATIC,
        ("MNIST_static",),
    ),
    "fashion-mnist": Entry(
        "28x28 pictures of clothing, 256 levels; train 60000, test 10000 (official), "
        "validation the last 10000 of train; Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747",
        splits.mnist,
        _FASHION,
        ("FashionMNIST/raw", "FashionMNIST"),
        validation=10000,
        transform="binarize",
    ),
    "omniglot": Entry(
        "28x28 handwritten characters, ink 1, area averages of the 105x105 bitmaps, 256 levels; train 19280 "
        "(background), test 13180 (evaluation), validation the last 2000 of train; Lake et al. 2015; "
        "NOT the chardata.mat of the IWAE tables",
        splits.omniglot,
        _OMNIGLOT,
        ("OMNIGLOT",),
        validation=2000,
        transform="binarize",
    ),
    "freyfaces": Entry(
        "28x20 frames of one face, 256 levels; no official split: shuffled with a fixed seed, train 1765, "
        "test 200, validation the last 200 of train; B. Frey, S. Roweis",
        splits.freyfaces,
        _FREY,
        ("Freyfaces",),
        validation=200,
    ),
    "caltech101": Entry(
        "28x28 silhouettes, object 1; train 4100, validation 2264, test 2307 (official, split 1); "
        "Marlin, Swersky, Chen, de Freitas 2010",
        splits.caltech101,
        _CALTECH,
        ("Caltech101Silhouettes",),
    ),
    "cifar10": Entry(
        "32x32 colour photographs of ten classes, 256 levels; train 50000, test 10000 (official), "
        "validation the last 5000 of train; Krizhevsky 2009",
        splits.cifar10,
        _CIFAR,
        ("cifar-10-batches-py", "CIFAR10/cifar-10-batches-py", "CIFAR10"),
        validation=5000,
        alpha=0.05,
    ),
}


def names() -> list[str]:
    """The names `load` knows, besides "folder:<path>" and paths of .npy and .npz files."""
    return list(CATALOGUE)


@checked
def describe(name: str) -> str:
    """One line on a data set: what it is, its split, its default transform, its source.

    Raises ValueError for an unknown name.
    """
    entry = _entry(name)
    return f"{name}: {entry.text}; default transform {entry.transform!r}"


@checked
def load(
    name: Place,
    *,
    validation: bool = False,
    transform: Wanted = "default",
    size: Count | None = None,
    arguments: Sequence[str] = (),
) -> tuple[Data, ...]:
    """The parts of a data set, (train, test), or (train, validation, test) with `validation=True`.

    `name` is one of `names()` (see `describe`), "folder:<path>" for the images of a folder, or the path of a
    .npy or .npz file. Validation is the official part of static-mnist and caltech101, whose train never
    contains it, asked for or not; of the others it is the last rows of train (a tenth for files of one's
    own), else they stay in train. A folder with sub-folders `train` and `test` is split by them; any other is
    shuffled with a fixed seed, and its last tenth is test; sub-folders of classes give labels. An array file holds
    train and test (or x_train and x_test), else the last tenth of its one array is test; what its arrays and the
    labels beside them mean is said at `array_files.array_file`. Images of a folder are cut square and resized to
    `size` (32) on a side.

    `transform` is an object of `ppl_models.data.transforms`, or one of

        "binarize"    x ~ Bernoulli(v / (levels - 1)), anew at each access to train; validation and test are
                      drawn once, here, with seed 0 (or that of a `Binarize`), and hold zeros and ones, so
                      that test figures are repeatable
        "dequantize"  (v + noise) / levels, the noise anew at each access to any part
        "logit"       the logit of that, alpha = 1e-6, for cifar10 0.05
        "redraw"      of real data that are means and standard deviations side by side, (N, 2 D): N(m, s^2) anew at each
                      access to any part
        "none"        v / (levels - 1) in [0, 1]; real data as they are
        "default"     "binarize" for digits, mnist, fashion-mnist and omniglot, "none" for all others

    `arguments` are the names of those of a model, by which an array is chosen from a file of several.

    Omniglot here is NOT the 24345 / 8070 images of `chardata.mat` that the IWAE tables use: likelihoods are
    not comparable. Files are sought in $PPL_MODELS_DATA, then in the user's cache, then fetched from their
    official home.

    Raises ValueError for an unknown name or transform and for a missing or damaged file, ConnectionError for an
    unreachable home.
    """
    name = str(name)
    if name.startswith("folder:"):
        rows = splits.folder(name.removeprefix("folder:"), 32 if size is None else size)
        default, tail, alpha = "none", None, 1e-6
    elif size is not None:
        raise ValueError(
            f"size: found {size!r} with {quoted(name)}, want none: it is for 'folder:<path>'; leave it out"
        )
    elif name.endswith((".npy", ".npz")):
        rows = array_file(name, arguments)
        default, tail, alpha = "none", None, 1e-6
    else:
        entry = _entry(name)
        rows = entry.read(name, entry.sources, entry.folders)
        default, tail, alpha = entry.transform, entry.validation, entry.alpha
    if len(rows) == 2:
        rows = _with_validation(rows, tail) if validation else rows
    elif not validation:
        rows = [rows[0], rows[2]]
    wanted = default if transform == "default" else transform
    kinds = ("train", "validation", "test") if validation else ("train", "test")
    return tuple(_data(part, name, kind, wanted, alpha) for part, kind in zip(rows, kinds, strict=True))


def _entry(name: str) -> Entry:
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(str(name).lower(), CATALOGUE, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "try 'folder:<path>' for images of your own"
    raise ValueError(
        f"name: found {quoted(name)}, want one of {', '.join(CATALOGUE)}, 'folder:<path>' or a path "
        f"ending in .npy or .npz; {hint}"
    )


def _with_validation(rows: list[Rows], tail: int | None) -> list[Rows]:
    train, test = rows
    size = len(train.values)
    kept = size - (max(1, size // 10) if tail is None else tail)
    if kept < 1:
        raise ValueError(f"validation: found {size} training row, want at least 2 to split; try validation=False")
    return [train.part(slice(None, kept)), train.part(slice(kept, None)), test]


def _data(rows: Rows, name: str, kind: str, wanted: str | Transform, alpha: float) -> Data:
    levels = rows.levels
    transform = _transform(wanted, levels, alpha, name)
    labels = None if rows.labels is None else torch.from_numpy(np.ascontiguousarray(rows.labels, np.int64))
    # What was read may be a read-only view of the file, which torch warns of; a copy is cheap beside reading.
    values = torch.from_numpy(np.array(rows.values))
    shape = rows.shape
    if isinstance(transform, Redrawn):
        if values.shape[1] % 2 or bool((values[:, values.shape[1] // 2 :] < 0).any()):
            told = f"rows of {values.shape[1]} values" if values.shape[1] % 2 else "some below 0 in the second half"
            raise ValueError(f"transform: found {told} in {name}, want means and then standard deviations; try 'none'")
        shape = (values.shape[1] // 2,)
    data = Data(values, shape, levels, transform, f"{name} {kind}", labels)
    if not isinstance(transform, Binarize) or kind == "train":
        return data
    fixed = replace(transform, seed=HELD_OUT_SEED if transform.seed is None else transform.seed)(data.values)
    return replace(data, values=fixed.to(torch.uint8), levels=2, transform=Scale(2))


def _transform(wanted: str | Transform, levels: int | None, alpha: float, name: str) -> Transform:
    if isinstance(wanted, Transform):
        return wanted
    if wanted == "none":
        return Identity() if levels is None else Scale(levels)
    if (levels is None) != (wanted == "redraw"):
        kind = "real" if levels is None else "grey levels"
        raise ValueError(f"transform: found {wanted!r} for {name}, whose values are {kind}; try 'none'")
    if wanted == "redraw":
        return Redrawn()
    if wanted == "logit":
        return Logit(levels, alpha)
    return Binarize(levels) if wanted == "binarize" else Dequantize(levels)
