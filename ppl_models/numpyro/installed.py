"""Raises ModuleNotFoundError, in one line, where what the ports stand on is not installed."""

from importlib.util import find_spec

for _name in ("jax", "numpyro", "equinox", "optax"):
    if find_spec(_name) is None:
        told = f"the NumPyro ports need {_name}, which is not installed; try: pip install 'ppl-models[numpyro]'"
        raise ModuleNotFoundError(told, name=_name)
