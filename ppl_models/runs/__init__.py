"""Runs as folders: a pair built from names and sizes, trained, pictured, written, and rebuilt from the folder alone.

run = load_run("runs/sere-vae_self-reflective_digits_20261120-101500")
train, test = run.load_data()
print(evaluate(run.model, run.guide, test))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
