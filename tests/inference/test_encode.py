"""Posterior means of a guide are those of its distributions, and labels are read off codes that hold them."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from guides import MeanField
from ppl_models import VAE, LinearGaussian, data
from ppl_models.inference import encode, probe


def chain(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z1", dist.Normal(0.0, 1.0))
        z = pyro.sample("z2", dist.Normal(z, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def downward(x):
    """z1 ~ N(x / 3, 1), z2 ~ N(z1 + x, 1): the means are x / 3 and 4 x / 3."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z1", dist.Normal(x / 3, 1.0))
        pyro.sample("z2", dist.Normal(z + x, 1.0))


def test_means_below_other_latents_are_averaged_over_their_draws():
    x = torch.tensor([-3.0, 0.0, 6.0])
    found = encode(chain, downward, x, particles=4000)
    assert list(found) == ["z1", "z2"]
    torch.testing.assert_close(found["z1"], x / 3)
    # standard error 1 / sqrt(4000) = 0.016; four of these
    torch.testing.assert_close(found["z2"], 4 * x / 3, atol=0.064, rtol=0)


def test_the_mean_of_one_layer_takes_no_draw():
    model = VAE(event=6, latent=2, hidden=4)
    guide = MeanField(model, torch.zeros(3, 6), hidden=4)
    x = torch.bernoulli(torch.full((2500, 6), 0.5))
    one, two = (encode(model, guide, x, seed=seed)["z1"] for seed in (0, 1))
    assert torch.equal(one, two) and one.shape == (2500, 2)


def test_events_of_any_shape_and_the_global_generator():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(z.sum((-1, -2)), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, None, None].expand(-1, 2, 3), 1.0).to_event(2))

    x, state = torch.randn(5), torch.random.get_rng_state()
    torch.testing.assert_close(encode(model, guide, x)["z"], x[:, None, None].expand(-1, 2, 3))
    assert torch.equal(state, torch.random.get_rng_state())


def test_labels_are_read_off_codes_that_hold_them_and_off_no_others():
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    model = LinearGaussian(event=2, latent=(2,))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(x, 1.0).to_event(1))

    corners = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]])
    plain = torch.randn(600, 2, generator=draws)
    told = corners[labels] + 0.1 * plain
    good = probe(model, guide, (told[:300], labels[:300]), (told[300:], labels[300:]), labels=(30, 90), draws=2)
    assert {value for found in good.accuracy.values() for values in found.values() for value in values} == {1.0}
    assert good.width == 2 and good.n == 300 and str(good).count("1.0000 +- 0.0000") == 4
    bad = probe(model, guide, (plain[:300], labels[:300]), (plain[300:], labels[300:]), labels=90)
    # of 300 guesses right with probability 1/3, sd 0.027; five of these
    assert all(abs(np.mean(found[90]) - 1 / 3) < 0.14 for found in bad.accuracy.values())


def test_numpyro_finds_the_same_means_and_accuracies():
    pytest.importorskip("numpyro")
    import jax

    from guides import numpyro as ports
    from ppl_models import numpyro as models
    from ppl_models.inference import numpyro as tools
    from ppl_models.numpyro.weights import like_torch

    train, test = (part.subset(slice(0, 200)) for part in data.load("digits", transform="none"))
    model = VAE(event=64, latent=3, hidden=8, likelihood="gaussian")
    guide = MeanField(model, test[:3], hidden=8)
    x = test[:3].numpy()
    other = models.VAE(event=64, latent=3, hidden=8, likelihood="gaussian", key=jax.random.key(0))
    other_guide = ports.MeanField(other, x, hidden=8, key=jax.random.key(0))
    pair = like_torch(other, model), like_torch(other_guide, guide)
    found, theirs = encode(model, guide, test)["z1"], tools.encode(*pair, test)["z1"]
    np.testing.assert_allclose(found.numpy(), theirs, atol=1e-5)
    how = {"labels": 50, "draws": 2}
    ours, same = probe(model, guide, train, test, **how), tools.probe(*pair, train, test, **how)
    for kind, found in ours.accuracy.items():  # in single precision one row of 200 may fall on the other side
        np.testing.assert_allclose(found[50], same.accuracy[kind][50], atol=0.011)


def test_what_cannot_be_probed():
    model = VAE(event=64, latent=2, hidden=4)
    train, test = data.load("digits")
    guide = MeanField(model, test[:3], hidden=4)
    with pytest.raises(ValueError, match=r"probe: train: found .* without labels"):
        probe(model, guide, train[:50], test)
    with pytest.raises(ValueError, match="probe: found labels=9, want 10 to 1487"):
        probe(model, guide, train, test, labels=9)
    with pytest.raises(ValueError, match=r"found labels of shape \(3,\), want \(300,\)"):
        probe(model, guide, train, (test[:], torch.zeros(3)))

    def shared(x):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="'z' is outside the plate of the data"):
        encode(shared, lambda x: pyro.sample("z", dist.Normal(0.0, 1.0)), torch.randn(4))


X, LABELS = torch.linspace(-1, 1, 12), np.arange(12) % 3


def both(x, c):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.sample("z", dist.Normal(c, 1.0)), 1.0), obs=x)


def given_both(x, c):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x + c) / 2, 0.7))


def test_labels_are_words_or_integers_of_rows_of_several_arguments():
    words = np.array(["a", "b", "c"], object)[LABELS]
    for rows in ((X, X), {"c": X, "x": X}):
        found = [probe(both, given_both, (rows, y), (rows, y), labels=6, draws=2) for y in (LABELS, words)]
        assert found[0] == found[1] and found[0].n == 12


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (LABELS + 0.5, r"labels of type float64, as \[0.5\]"),
        (np.where(LABELS == 0, np.nan, LABELS), "labels of type float64"),
        ([None] * 12, "labels of type object"),
        (0 * LABELS, "the label 0 alone"),
        (np.r_[9, LABELS[1:]], "one row with the label 9"),
    ],
)
def test_labels_that_are_no_classes_are_told_in_one_line(labels, found):
    with pytest.raises(ValueError, match=f"^probe: .*found {found}") as error:
        probe(both, given_both, ((X, X), labels), ((X, X), LABELS), labels=6)
    assert "\n" not in str(error.value)


def without_means(language, family, size=None):
    """A pair whose guide draws z by a family of x, in a plate that may subsample."""
    primitives = pytest.importorskip(language)
    kinds = primitives.distributions

    def program(x, observed):
        with primitives.plate("data", len(x), subsample_size=size) as index:
            z = primitives.sample("z", family(kinds, x if size is None else x[index]))
            if observed:
                primitives.sample("x", kinds.Normal(0.0 * z, 1.0), obs=x if size is None else x[index])

    return lambda x: program(x, True), lambda x: program(x, False)


@pytest.mark.parametrize("language", ["pyro", "numpyro"])
def test_factors_without_means_and_plates_that_subsample_are_refused(language):
    from ppl_models.inference import numpyro as ports

    call = encode if language == "pyro" else ports.encode
    x = X if language == "pyro" else X.numpy()
    three = torch.ones(12, 3) if language == "pyro" else np.ones((12, 3), np.float32)
    with pytest.raises(ValueError, match="^encode: found a Categorical.* for the latent 'z' .*OneHotCategorical"):
        call(*without_means(language, lambda kinds, x: kinds.Categorical(three / 3)), x)
    with pytest.raises(ValueError, match="^encode: found a Cauchy for the latent 'z' whose means .* has them$"):
        call(*without_means(language, lambda kinds, x: kinds.Cauchy(x, 1.0)), x)
    with pytest.raises(ValueError, match="^encode: the plate 'data' draws 5 of 12 data"):
        call(*without_means(language, lambda kinds, x: kinds.Normal(x, 1.0), 5), x)

    primitives = pytest.importorskip(language)

    def density(x):
        with primitives.plate("data", len(x)):
            primitives.sample("x", primitives.distributions.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match="^encode: found a model without latents"):
        call(density, lambda x: None, x)
