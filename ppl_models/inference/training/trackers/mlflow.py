"""`MLflow`: a callback of `fit` that logs its records to MLflow; it needs the package of that name."""

import re

from ppl_models.parts.arguments.checked import checked

from ...results import Run, numbers
from .package import package

UNKNOWN = re.compile(r"[^\w\-. /:]")  # in names of metrics


@checked
class MLflow:
    """A callback that logs every number of every record as a metric over the steps, to the run that is active.

        with mlflow.start_run():
            mlflow.log_params({"lr": 1e-3})
            fit(model, guide, data, epochs=10, lr=1e-3, callbacks=MLflow())

    Without one MLflow begins a run at the first record. Letters that it takes in no name become "_".

    Raises:
        ValueError: the package `mlflow` is not installed.
    """

    def __init__(self) -> None:
        self._mlflow = package("MLflow", "mlflow")

    def __call__(self, run: Run) -> None:
        """Log the newest record."""
        step, found = numbers(run.history[-1])
        self._mlflow.log_metrics({UNKNOWN.sub("_", name): value for name, value in found.items()}, step=step)
