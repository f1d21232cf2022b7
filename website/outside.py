"""`linked`: names of torch, Pyro, NumPyro and ArviZ in a page, as links to where these libraries document them.

Plain links, kept here: nothing is fetched when the site is built.
"""

import re

TORCH = "https://docs.pytorch.org/docs/stable"
PYRO = "https://docs.pyro.ai/en/stable"
NUMPYRO = "https://num.pyro.ai/en/stable"

PAGES = {
    "torch.nn.Module": f"{TORCH}/generated/torch.nn.Module.html",
    "torch.nn.functional.one_hot": f"{TORCH}/generated/torch.nn.functional.one_hot.html",
    "torch.compile": f"{TORCH}/generated/torch.compile.html",
    "torch.export": f"{TORCH}/export.html",
    "pyro.infer.SVI": f"{PYRO}/inference_algos.html#pyro.infer.svi.SVI",
    "pyro.infer.Predictive": f"{PYRO}/inference_algos.html#pyro.infer.predictive.Predictive",
    "pyro.infer.TraceEnum_ELBO": f"{PYRO}/inference_algos.html#pyro.infer.traceenum_elbo.TraceEnum_ELBO",
    "pyro.infer.autoguide": f"{PYRO}/infer.autoguide.html",
    "pyro.infer.config_enumerate": f"{PYRO}/poutine.html#pyro.infer.enum.config_enumerate",
    "pyro.deterministic": f"{PYRO}/primitives.html#pyro.deterministic",
    "pyro.plate": f"{PYRO}/primitives.html#pyro.plate",
    "pyro.sample": f"{PYRO}/primitives.html#pyro.sample",
    "numpyro.deterministic": f"{NUMPYRO}/primitives.html#deterministic",
    "numpyro.plate": f"{NUMPYRO}/primitives.html#plate",
    "numpyro.sample": f"{NUMPYRO}/primitives.html#sample",
    "numpyro.param": f"{NUMPYRO}/primitives.html#param",
}
CODE = re.compile(r"(?<!<pre>)(?<!\">)<code>([\w.]+)</code>(?!</a>)")


def linked(html: str) -> str:
    """A page with these links.

    >>> linked("<p><code>pyro.plate</code></p>")
    '<p><a href="https://docs.pyro.ai/en/stable/primitives.html#pyro.plate"><code>pyro.plate</code></a></p>'
    """
    return CODE.sub(lambda f: f'<a href="{PAGES[f[1]]}">{f[0]}</a>' if f[1] in PAGES else f[0], html)
