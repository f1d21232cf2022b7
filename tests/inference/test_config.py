"""The options of a training: one listing, taken whole or one by one, by both languages."""

import inspect
from dataclasses import fields

import pytest
import torch

from guides import MeanField
from ppl_models import VAE
from ppl_models.inference import FitConfig, fit
from ppl_models.inference.config import FitOptions, compared

X = torch.eye(4)
FIT = inspect.signature(fit).parameters


def pair():
    torch.manual_seed(0)
    model = VAE(event=4, latent=2, hidden=8)
    return model, MeanField(model, X, hidden=8)


def test_every_option_is_told_to_editors_and_says_what_it_is_for():
    assert {field.name: field.type for field in fields(FitConfig)} == inspect.get_annotations(FitOptions)
    for field in fields(FitConfig):
        assert len(field.metadata["help"]) > 10 and f"{field.name}: {field.metadata['help']}." in FitConfig.__doc__
        assert FIT[field.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert FIT[field.name].default == field.default
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in FIT.values())


def test_a_config_an_option_and_both_are_one():
    runs = [
        fit(*pair(), X, FitConfig(lr=1e-2, ema=None, steps=3, seed=0), progress=False),
        fit(*pair(), X, lr=1e-2, ema=None, steps=3, seed=0, progress=False),
        fit(*pair(), X, FitConfig(lr=1.0, ema=None, epochs=2, seed=0), lr=1e-2, steps=3, progress=False),
    ]
    told = [[{**record, "seconds": 0} for record in run.history] for run in runs]
    assert told[0] == told[1] == told[2] and told[0][-1]["step"] == 3


def test_what_is_no_option_is_refused():
    with pytest.raises(TypeError, match="found the option 'learning_rate', want one of FitConfig; try .*="):
        fit(*pair(), X, steps=3, learning_rate=0.1)
    with pytest.raises(TypeError, match="found the option 'epoch', want one of FitConfig; try epochs="):
        fit(*pair(), X, epoch=3)
    with pytest.raises(TypeError, match="found config=500, want a FitConfig; give single options by name"):
        fit(*pair(), X, 500)
    with pytest.raises(ValueError, match="found steps=None and epochs=None, want exactly one of them"):
        fit(*pair(), X, FitConfig(lr=0.1))
    with pytest.raises(ValueError, match="found steps=3 and epochs=2, want exactly one of them"):
        FitConfig(steps=3, epochs=2)


def test_an_option_that_a_run_of_before_did_not_know_had_its_default():
    then = FitConfig(steps=3).to_dict()
    del then["skip"]
    compared(FitConfig(steps=3).to_dict(), then)
    with pytest.raises(ValueError, match="found skip=2.0, but the run in this folder was started with None"):
        compared(FitConfig(steps=3, skip=2.0).to_dict(), then)
