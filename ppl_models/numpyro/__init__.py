"""The models as NumPyro programs (Equinox modules), and the tools that train and evaluate them; no torch in here.

Same file names, sites and parameter names as in `ppl_models`; the guides are in `guides.numpyro`. The tools live in
`ppl_models.inference.numpyro` and are given here as well, when they are asked for.
"""

from typing import Any

import lazy_loader

from . import installed as installed

_given, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_TOOLS = ("Run", "evaluate", "fit", "nuts", "price_edges")
__all__ += _TOOLS


def __getattr__(name: str) -> Any:
    if name not in _TOOLS:
        return _given(name)
    import ppl_models.inference.numpyro as tools  # at the call: it stands on the models in here

    return getattr(tools, name)
