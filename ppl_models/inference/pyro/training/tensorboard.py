"""`TensorBoard`: a callback of `fit` that writes its records as curves; it needs the package of that name."""

import weakref
from pathlib import Path

from ppl_models.parts.arguments.checked import checked

from ...results import Run, numbers


@checked
class TensorBoard:
    """A callback that writes every number of every record as a curve over the steps.

        fit(model, guide, data, epochs=10, callbacks=TensorBoard("logs/mine"))

    Nothing is written before the first record. Where a training was resumed, what an earlier process had written from
    that step on is hidden. Look at the curves with `tensorboard --logdir logs`.

    Args:
        folder: where the event files go, one a process.

    Raises:
        ValueError: the package `tensorboard` is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # it takes a second to import
        except ImportError as error:
            raise ValueError(
                f"TensorBoard: found no package to write its files with ({error}), want tensorboard; install it with "
                "pip install 'ppl-models[tensorboard]', or leave the callback out: the run is in history.json too"
            ) from None
        self.folder, self._new, self._writer = Path(folder), SummaryWriter, None

    def __call__(self, run: Run) -> None:
        """Write the newest record."""
        step, found = numbers(run.history[-1])
        if self._writer is None:
            self._writer = self._new(str(self.folder), purge_step=step)
            weakref.finalize(self, self._writer.close)
        for name, value in found.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()
