"""`Program`: what every model and every guide of the collection is."""

import itertools
import weakref
from typing import TYPE_CHECKING, Any, ClassVar

import pyro
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn

from .arguments.checked import checked

# One name per *instance*. The global param store shares by name, silently: a second model of the same
# class under the same name would never train. Weak keys, so that naming a model does not keep it alive;
# a deep copy or a loaded copy is a new key and so gets a name of its own.
_names: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()
_counter = itertools.count()


class Program(nn.Module):
    """An `nn.Module` whose `forward` is a Pyro program.

    Its parameters are registered with Pyro, under a name unique to the instance, while something collects
    parameters (`pyro.infer.SVI.step` does so) and at no other time: the global param store keeps what it is
    given alive, so a notebook that makes a hundred models must not leave a hundred of them there.

    A plain `nn.Module` on purpose: `pyro.nn.PyroModule` registers every parameter of a child anew at each
    attribute access, which nearly doubles the cost of a step of a deep model.
    """

    asks: ClassVar[str] = ""  # before the name of a class where an argument is refused

    if TYPE_CHECKING:  # what an editor shows of a constructor is otherwise what torch says of its own

        def __init__(self) -> None:
            """Build it with first weights; formula, sizes and source are told by the class."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Hold the arguments of a constructor against their annotations; whether a model is one, its language tells."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", checked(cls.__init__, cls.asks + cls.__name__, but=["model"]))  # noqa: B010

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Register the parameters if they are being collected, then run `forward`."""
        self.collect_parameters()
        return super().__call__(*args, **kwargs)

    def collect_parameters(self) -> None:
        """Hand the trainable parameters to `pyro.param` if a parameter-collecting trace is active."""
        if any(isinstance(frame, TraceMessenger) and frame.param_only for frame in _PYRO_STACK):
            name = _names.setdefault(self, f"{type(self).__name__}-{next(_counter)}")
            for key, parameter in self.named_parameters():
                if parameter.requires_grad:  # a frozen model is no reason to warn at every step
                    pyro.param(f"{name}.{key}", parameter)
