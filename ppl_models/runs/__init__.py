"""Runs as folders: a pair built from names and sizes, trained, pictured, written, and rebuilt from the folder alone.

run = load_run("runs/sere-vae_self-reflective_digits_20261120-101500")
train, test = run.load_data()
print(evaluate(run.model, run.guide, test))
"""

from .folder import LoadedRun as LoadedRun, load_run as load_run
from .options import Training as Training
from .training import resume as resume
