"""`LoadedRun`: a trained pair with its folder, and what is asked of it in one call: codes, samples, reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppl_models.inference.pyro.training.checkpoint import read
from ppl_models.inference.resuming.history import History
from ppl_models.inference.resuming.training_record import check_history
from ppl_models.inference.storage.checkpoint_file import CHECKPOINT
from ppl_models.parts.arguments.checked import checked
from ppl_models.parts.arguments.kinds import Count, Seed
from ppl_models.programs.legible import legible

from ..backends import backend as language_of, backend_of, columns
from ..naming import names
from .configuration import Parts, load_parts


@dataclass
class LoadedRun:
    """A trained pair with the configuration it was built from.

    Attributes:
        model, guide: the programs, in evaluation mode where they are modules.
        config: what `config.json` holds.
        folder: where it lies.
        example: the rows of data that the guide was built on, in the arrays of the backend.
        seconds: how long the training took, where it has just taken place.
        checkpoint: the file in the folder that holds the weights.

    Its methods are the functions of `ppl_models.inference` (or `.inference.numpyro`) of the same names, which have all
    arguments and conditions. Rows are arrays of torch, NumPy or JAX, as `load_data` gives them; what comes out are
    arrays of the pair's own language, on its device.

    run = load_run("runs/mine")
    x = run.load_data()[-1][:8]
    run.encode(x)["z1"]              # (8, units), the means of q(z1 | x)
    run.reconstruct(x)               # (8, *event)
    run.sample(16)                   # (16, *event)
    """

    model: Callable
    guide: Callable
    config: dict[str, Any]
    folder: Path
    example: Any = field(repr=False)
    seconds: float | None = None
    checkpoint: str = CHECKPOINT

    def __repr__(self) -> str:
        """A line about it: its programs and `config` are long."""
        return legible(f"LoadedRun({self.title}; {self.backend}; {self.folder / self.checkpoint})")

    @property
    def title(self) -> str:
        """The programs and the data, in short."""
        pair = [chosen["name"].rpartition(":")[2] for chosen in names.programs_of(self.config).values()]
        return f"{', '.join(pair)}, {names.short(self.config['data']['name'])}"

    @property
    def backend(self) -> str:
        """The language of the pair, "pyro" or "numpyro"."""
        return backend_of(self.config)

    def load_data(self, name: str | None = None) -> Parts:
        """The data it was trained on, (train, test) or (train, validation, test), or another set by name."""
        return load_parts(self.config, name)

    @property
    def history(self) -> list[dict[str, float]]:
        """The records of the training up to the checkpoint."""
        path = self.folder / self.checkpoint
        records = History(self.folder).read(read(path).about.get("history"))
        check_history(path, records)
        return records

    @checked
    def encode(self, x: Any, *, particles: Count = 16, draws: bool = False, seed: Seed | None = 0) -> dict[str, Any]:
        """Means of the latents of rows of data, or a draw of them: latent -> (n, *event)."""
        x = x if not hasattr(x, "shape") else self._rows(x)
        return self._call("encode", self.model, self.guide, x, particles=particles, draws=draws, seed=seed)

    @checked
    def decode(self, codes: Mapping[str, Any], *, draws: bool = False, seed: Seed | None = 0) -> Any:
        """Means of the data given latents, (n, *event), or draws; latents without codes are drawn."""
        codes = {name: self._rows(code) for name, code in codes.items()}
        return self._call("decode", self.model, codes, self._example(), draws=draws, seed=seed)

    @checked
    def sample(self, n: Count = 16, *, draws: bool = True, seed: Seed | None = 0) -> Any:
        """Data drawn from the model, (n, *event), or the means of their distributions."""
        example = self._example()
        like = example[[i % len(example) for i in range(n)], ...]
        return self._call("ancestral", self.model, like, draws=draws, seed=seed)

    @checked
    def reconstruct(self, x: Any, *, latents: Sequence[str] | None = None, seed: Seed | None = 0) -> Any:
        """Means of the data given latents that the guide draws for x, (n, *event); of some latents, layer by layer."""
        return self._call("reconstruct", self.model, self.guide, self._rows(x), latents=latents, seed=seed)

    @checked
    def interpolate(self, x: Any, y: Any, *, steps: Count = 9, seed: Seed | None = 0) -> Any:
        """Means of the data on the lines from the codes of x to those of y, (steps, n, *event)."""
        rows = self._rows(x), self._rows(y)
        return self._call("interpolate", self.model, self.guide, *rows, steps=steps, seed=seed)

    @checked
    def traverse(self, x: Any, latent: str, *, codes: Mapping[str, Any] | None = None, **how: Any) -> Any:
        """Means of the data where units of a latent are moved, (units, values, n, *event).

        The further arguments are those of `ppl_models.inference.traverse`: units, values and seed.
        """
        how["codes"] = codes and {name: self._rows(code) for name, code in codes.items()}
        return self._call("traverse", self.model, self.guide, self._rows(x), latent, **how)

    def _call(self, tool: str, *args: Any, **how: Any) -> Any:
        return language_of(self.backend).call(tool, self.example, *args, **how)

    def _rows(self, x: Any) -> Any:
        return language_of(self.backend).rows(self.example, x)

    def _example(self) -> Any:
        return columns(self.example)[0]
