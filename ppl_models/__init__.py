"""Deep generative models as Pyro programs, with guides named by their structure, and the tools for both.

ppl_models.VAE, ...         models: p(x, z)
ppl_models.guides           guides: q(z | x), the package `guides`
ppl_models.factorization    whether a guide mirrors the exact posterior: compare
ppl_models.inference        fit, evaluate, objectives, schedules
ppl_models.data             data sets by name: load
ppl_models.views            figures, and draws for ArviZ
ppl_models.runs             runs as folders: load_run
ppl_models.numpyro          the models as NumPyro programs
ppl_models.parts            what models and guides are built of
"""

import importlib
from typing import Any

import lazy_loader

_given, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
ROOMS = ("data", "factorization", "inference", "numpyro", "parts", "runs", "views")
__all__ = [name for name in __all__ if name not in ROOMS]  # what `import *` gives: models


def __getattr__(name: str) -> Any:
    if name == "guides":
        return _guides()
    if name == "__version__":
        return _version()
    return _given(name)


def __dir__() -> list[str]:
    from importlib.util import find_spec

    ports = all(find_spec(package) is not None for package in ("jax", "numpyro", "equinox", "optax"))
    rooms = [room for room in ROOMS if ports or room != "numpyro"]
    return sorted([*__all__, *rooms, "guides", "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ppl-models")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"


def _guides() -> Any:
    """The package `guides` beside this one: as ppl_models.guides where a guides.py of yours has its name."""
    import sys
    from importlib import util
    from pathlib import Path

    file = Path(__file__).parents[1] / "guides" / "__init__.py"
    try:
        found = util.find_spec("guides")
    except ValueError:  # a module that was made by hand
        found = None
    if found is not None and found.origin is not None and Path(found.origin) == file:
        return importlib.import_module("guides")
    if (name := f"{__name__}.guides") not in sys.modules:
        spec = util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
        assert spec is not None and spec.loader is not None
        sys.modules[name] = util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
