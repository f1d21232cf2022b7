"""`python -m ppl_models` is `ppl-models`."""

import os
import sys
from pathlib import Path

here = os.getcwd()
if sys.path[0] in ("", here) and Path(here) != Path(__file__).resolve().parents[1]:
    del sys.path[0]  # where Python puts the current directory: nobody may have meant its modules

from .cli import app  # noqa: E402

app(prog_name="ppl-models")
