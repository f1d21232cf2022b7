"""`WandB`: a callback of `fit` that logs its records to Weights & Biases; it needs the package `wandb`."""

from ppl_models.parts.arguments.checked import checked

from ...results import Run, numbers
from .package import package


@checked
class WandB:
    """A callback that logs every number of every record over the steps, to the run that is active.

        with wandb.init(project="digits", config={"lr": 1e-3}):
            fit(model, guide, data, epochs=10, lr=1e-3, callbacks=WandB())

    Without one a run begins at the first record, by `wandb.init()`.

    Raises:
        ValueError: the package `wandb` is not installed.
    """

    def __init__(self) -> None:
        self._wandb = package("WandB", "wandb")

    def __call__(self, run: Run) -> None:
        """Log the newest record."""
        step, found = numbers(run.history[-1])
        (self._wandb.run or self._wandb.init()).log(found, step=step)
