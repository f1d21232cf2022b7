"""What Inductor makes of a captured graph computes what the graph does."""

import pytest
import torch

from ppl_models.inference.pyro.engine.capture import capture
from ppl_models.inference.pyro.engine.inductor import Inductor
from ppl_models.inference.pyro.engine.recorder import NotCapturable


def step(w, m, b, scale, x):
    """A gradient and an update in place, products of transposed and strided operands, a bias and a draw."""
    h = torch.addmm(b, x[:, ::2], w.t())
    noise = torch.randn_like(h)
    g = (h + noise).t() @ x[:, ::2]
    m_new = m + 0.1 * (g - m)
    m.copy_(m_new)
    w.copy_(w - scale * m_new)
    return (h.square().mean(), g @ w.t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_graph_is_the_function(dtype):
    def inputs():
        torch.manual_seed(1)
        scale = torch.full((), 0.1, dtype=dtype)
        draws = [torch.randn(*shape, dtype=dtype) for shape in ((24, 20), (24, 20), (24,), (16, 40))]
        return [*draws[:3], scale, draws[3]]

    given, ours = inputs(), inputs()
    graph, held = capture(step, ours)
    assert not held
    run = Inductor(graph, ours)
    torch.manual_seed(7)
    expected = step(*given)
    torch.manual_seed(7)
    found = run(ours)
    torch.testing.assert_close(list(found), list(expected))
    torch.testing.assert_close(ours, given)


def test_what_inductor_cannot_compile_is_told_in_one_line(monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("no compiler\nand more")

    import torch._inductor

    monkeypatch.setattr(torch._inductor, "compile", refuse)
    x = torch.ones(2)
    graph, _ = capture(lambda x: (x + 1,), [x])
    with pytest.raises(NotCapturable, match=r"could not compile the step \(no compiler\)$"):
        Inductor(graph, [x])
