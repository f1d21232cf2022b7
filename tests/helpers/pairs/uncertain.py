"""What cannot be certified."""

import pyro
import torch
from pyro.infer import autoguide
from torch import nn

from .autoguides import automatic, chain
from .other_arguments import beside, two_steps
from .pair import PAIRS
from .parts import Head


def uncertain_delta():
    return automatic(chain, autoguide.AutoDelta)()


def uncertain_noise():
    """A guide with noise that is no site."""
    model, _, args = PAIRS["hierarchy, ladder"].build()
    heads = nn.ModuleList(Head(5) for _ in range(3))

    def guide(x):
        noise = torch.randn(len(x), 2)  # shared by all three: they are coupled, and nothing shows it
        with pyro.plate("data", len(x)):
            for i, head in enumerate(heads):
                pyro.sample(f"z{3 - i}", head(x, noise))

    return model, guide, args


def uncertain_features(steps: bool = False):
    """A guide that reads what somebody has made of the data."""
    build = two_steps(lambda rnn, x, y: rnn(y), torch.randn_like) if steps else beside(torch.exp, 3)
    return build()


UNCERTAIN = {
    "AutoDelta": uncertain_delta,
    "hidden noise": uncertain_noise,
    "features": uncertain_features,
    "features of a sequence": lambda: uncertain_features(steps=True),
}
