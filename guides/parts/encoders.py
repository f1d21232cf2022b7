"""`encoder(name, ...)`: networks from data to features of each latent, run once a batch whatever the particles."""

from collections.abc import Sequence

from torch import Tensor, nn

from ppl_models.parts.nets import ConvEncoder, Net, PyramidEncoder

from .checks import check_encoder


class Separate(nn.Module):
    """One network a latent, uncoupled: the self-reflective VAE's choice (Apostolopoulou et al. 2020, section 3)."""

    def __init__(self, names: Sequence[str], inputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.widths = dict.fromkeys(names, hidden)
        self.nets = nn.ModuleList(nn.Sequential(Net([inputs], hidden, hidden, depth), nn.SiLU()) for _ in names)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(*plates, inputs) -> features by latent, (*plates, hidden)."""
        return {name: net(x) for name, net in zip(self.widths, self.nets, strict=True)}


class Shared(nn.Module):
    """One trunk for all latents: inputs -> 2 hidden -> hidden, or any module of the user's from rows to features."""

    def __init__(self, names: Sequence[str], trunk: nn.Module, width: int) -> None:
        super().__init__()
        self.widths = dict.fromkeys(names, width)
        self.trunk = trunk

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(*plates, inputs) -> the same features for every latent, (*plates, width)."""
        return dict.fromkeys(self.widths, self.trunk(x))


class BottomUpChain(nn.Module):
    """The deterministic pass of the ladder: d_1 = MLP(x), d_n = d_{n-1} + MLP(d_{n-1}); the last latent reads d_1.

    Levels are residual and layer-normalized, where the paper's are plain and batch-normalized (which it calls crucial):
    the codes that read the last levels die in training otherwise.

    Source: Sonderby et al. 2016 (arXiv 1602.02282), eq. 13.
    """

    def __init__(self, names: Sequence[str], inputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.widths = dict.fromkeys(names, hidden)
        widths = [inputs] + [hidden] * (len(names) - 1)
        self.nets = nn.ModuleList(Net([width], hidden, hidden, depth) for width in widths)
        self.norms = nn.ModuleList(nn.Sequential(nn.LayerNorm(hidden), nn.SiLU()) for _ in names)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(*plates, inputs) -> features by latent, (*plates, hidden)."""
        features: dict[str, Tensor] = {}
        d, read = x, x
        for i, (name, net, norm) in enumerate(zip(reversed(self.widths), self.nets, self.norms, strict=True)):
            d = d + net(read) if i else net(read)
            features[name] = read = norm(d)
        return features


class Pyramids(nn.Module):
    """One convolutional network a latent, whose features come from maps of every scale.

    Source: after the inference networks of Zhao, Song, Ermon 2017 (arXiv 1702.08396 and 1702.08658).
    """

    def __init__(self, names: Sequence[str], image: Sequence[int], hidden: int, depth: int) -> None:
        super().__init__()
        self.widths = dict.fromkeys(names, hidden)
        channels = max(hidden // 16, 4)
        self.nets = nn.ModuleList(
            nn.Sequential(PyramidEncoder(image, hidden, channels, depth), nn.SiLU()) for _ in names
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(*plates, inputs) -> features by latent, (*plates, hidden)."""
        return {name: net(x) for name, net in zip(self.widths, self.nets, strict=True)}


def encoder(
    spec: str | nn.Module,
    names: Sequence[str],
    inputs: int,
    hidden: int,
    depth: int,
    image: Sequence[int] | None,
    guide: str,
) -> "Separate | Shared | BottomUpChain | Pyramids":
    """An evidence network for the latents `names` by its name, or around a module of the user's.

    "separate": one network a latent; "shared": one trunk; "bottom-up": the ladder's chain; "conv": one convolutional
    trunk over rows that are images of shape `image`; "pyramid": one convolutional network a latent, read at every
    scale; "linear": the data themselves, so that `depth=0` makes the guide linear. A module must map (*plates, inputs)
    to (*plates, module.output) features.

    Raises:
        ValueError: an unknown name, or "conv" or "pyramid" without an image shape of the right size.
    """
    shape = check_encoder(guide, spec, nn.Module, inputs, image)
    if isinstance(spec, nn.Module):
        return Shared(names, spec, getattr(spec, "output", 0))
    if spec == "separate":
        return Separate(names, inputs, hidden, depth)
    if spec == "shared":
        inner = Net([4 * hidden], 2 * hidden, 2 * hidden, depth)
        trunk = nn.Sequential(nn.Linear(inputs, 4 * hidden), nn.SiLU(), inner, nn.SiLU())
        return Shared(names, trunk, 2 * hidden)
    if spec == "bottom-up":
        return BottomUpChain(names, inputs, hidden, depth)
    if spec == "linear":
        return Shared(names, nn.Identity(), inputs)
    if spec == "pyramid":
        return Pyramids(names, shape, hidden, depth)
    return Shared(names, nn.Sequential(ConvEncoder(shape, hidden, depth=depth), nn.SiLU()), hidden)
