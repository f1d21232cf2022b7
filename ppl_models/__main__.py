"""`python -m ppl_models` is `ppl-models`."""

from .cli import app

app(prog_name="ppl-models")
