"""Arguments that repeat the data, or are none of the model's."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from .one_latent import ENCODER, VAE
from .pair import SURE, WRONG, add
from .parts import Head, normal, real

STEPS = "p(z0) p(x0 | z0) p(z1 | z0) p(x1 | z1)"


def two_steps(reads: Callable, repeat: Callable, lag: bool = False) -> Callable:
    """Sequences in a plate with a second argument; `lag`: each step is drawn given its row of that."""

    def build():
        transition, emission, gru, head = Head(2), Head(5 if lag else 2, 3), nn.GRU(3, 8, batch_first=True), Head(10)

        def model(x, other):
            z = None
            with pyro.plate("data", len(x)):
                for t in range(x.shape[1]):
                    z = pyro.sample(f"z{t}", normal() if z is None else transition(z))
                    pyro.sample(f"x{t}", emission(z, other[:, t]) if lag else emission(z), obs=x[:, t])

        def guide(x, other):
            h, z = reads(lambda data: gru(data)[0], x, other), torch.zeros(len(x), 2)
            with pyro.plate("data", len(x)):
                for t in range(x.shape[1]):
                    z = pyro.sample(f"z{t}", head(h[:, t], z))

        x = torch.randn(3, 2, 3)
        return model, guide, (x, repeat(x))

    return build


def reversed_time(x):
    return x.flip(1)


def before(x):
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)


BACKWARD, FORWARD = "q(z0 | x0, x1) q(z1 | z0, x1)", "q(z0 | x0) q(z1 | z0, x0, x1)"
add(
    *("reversed copy, smoothing", two_steps(lambda rnn, x, y: rnn(y).flip(1), reversed_time), STEPS, BACKWARD, SURE),
    printed=False,
)
add(
    *("reversed copy, filtering", two_steps(lambda rnn, x, y: rnn(y.flip(1)), reversed_time), STEPS, FORWARD, WRONG),
    missing={"z0": {"x1"}},
    superfluous={"z1": {"x0"}},
    printed=False,
)
add(
    *("copy of the step before", two_steps(lambda rnn, x, y: rnn(y), before), STEPS, "q(z0) q(z1 | z0, x0)", WRONG),
    missing={"z0": {"x0", "x1"}, "z1": {"x1"}},
    superfluous={"z1": {"x0"}},
    printed=False,
)
LAGGED = "p(z0) p(x0 | z0) p(z1 | z0) p(x1 | z1, x0)"
add(
    *(
        "a model that reads the step before",
        two_steps(lambda rnn, x, y: rnn((x + y).flip(1)).flip(1), before, lag=True),
    ),
    *(LAGGED, "q(z0 | x0, x1) q(z1 | z0, x0, x1)", SURE),
    printed=False,
)
add(
    *(
        "a model that reads the step before, x alone",
        two_steps(lambda rnn, x, y: rnn(x.flip(1)).flip(1), before, lag=True),
    ),
    *(LAGGED, BACKWARD, WRONG),
    missing={"z1": {"x0"}},
    printed=False,
)


def beside(repeat: Callable, width: int, read: Callable = lambda x, other: other) -> Callable:
    """A VAE and an encoder that reads another argument."""

    def build():
        decoder, head = Head(2, 3), Head(width)

        def model(x, *_, **__):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", normal())
                pyro.sample("x", decoder(z), obs=x)

        def guide(x, other):
            with pyro.plate("data", len(x)):
                pyro.sample("z", head(read(x, other)))

        x = real()
        return model, guide, (x, repeat(x))

    return build


add("columns of the data", beside(lambda x: x[:, :2].clone(), 2), VAE, ENCODER, SURE, printed=False)
add(
    "the data in a dict",
    beside(lambda x: {"again": x.clone()}, 3, lambda x, d: d["again"]),
    VAE,
    ENCODER,
    SURE,
    printed=False,
)
add(
    *("rows of the data, each at the place of another", beside(lambda x: x.roll(1, 0), 3), VAE, ENCODER, WRONG),
    missing={"z": {"x"}},
    superfluous={"z": {"x[data']"}},
    printed=False,
)
add(
    *(
        "features beside the data",
        beside(lambda x: real(3, 2), 5, lambda x, f: torch.cat([x, f], -1)),
        VAE,
        ENCODER,
        SURE,
    ),
    printed=False,
    says=("the guide reads the argument 'other'",),
)
add(
    *("one number for all data", beside(lambda x: torch.tensor(0.5), 3, lambda x, t: t.expand(len(x), 3)), VAE, "q(z)"),
    WRONG,
    missing={"z": {"x"}},
    printed=False,
)


def masked_sequences(filtering: bool) -> Callable:
    """The deep Markov model of Pyro's tutorial: a packed, reversed copy of the batch, a mask of it, and lengths."""

    def build():
        transition, emission, rnn, head = (
            nn.Linear(2, 2),
            nn.Linear(2, 24),
            nn.RNN(24, 4, batch_first=True),
            nn.Linear(6, 2),
        )
        lengths = torch.tensor([3, 2, 2])
        mask = (torch.arange(3) < lengths[:, None]).to(torch.get_default_dtype())
        x = (torch.rand(3, 3, 24) < 0.4).to(mask.dtype) * mask[..., None]

        def turned(h, lengths):
            rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(h, lengths.tolist(), strict=True)]
            return torch.stack(rows)

        def model(x, reversed_x, mask, lengths, annealing=1.0):
            z = torch.zeros(len(x), 2)
            with pyro.plate("minibatch", len(x)):
                for t in range(x.shape[1]):
                    kept = mask[:, t : t + 1].bool()
                    with pyro.poutine.scale(scale=annealing):
                        z = pyro.sample(f"z{t}", dist.Normal(transition(z).tanh(), 1.0).mask(kept).to_event(1))
                    pixels = dist.Bernoulli(logits=emission(z)).mask(kept).to_event(1)
                    pyro.sample(f"x{t}", pixels, obs=x[:, t])

        def guide(x, reversed_x, mask, lengths, annealing=1.0):
            out = nn.utils.rnn.pad_packed_sequence(rnn(reversed_x)[0], batch_first=True)[0]
            h, z = rnn(x)[0] if filtering else turned(out, lengths), torch.zeros(len(x), 2)
            with pyro.plate("minibatch", len(x)):
                for t in range(x.shape[1]):
                    q = dist.Normal(head(torch.cat([h[:, t], z], -1)), 1.0)
                    z = pyro.sample(f"z{t}", q.mask(mask[:, t : t + 1].bool()).to_event(1))

        reversed_x = nn.utils.rnn.pack_padded_sequence(turned(x, lengths), lengths, batch_first=True)
        return model, guide, (x, reversed_x, mask, lengths)

    return build


THREE = "p(z0) p(x0 | z0) p(z1 | z0) p(x1 | z1) p(z2 | z1) p(x2 | z2)"
add(
    *("deep Markov model", masked_sequences(False), THREE),
    *("q(z0 | x0, x1, x2) q(z1 | z0, x1, x2) q(z2 | z1, x2)", SURE),
    printed=False,
)
