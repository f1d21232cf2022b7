"""`Live`: one output of a notebook that is drawn anew while something is done: a bar, numbers and the time left."""

from html import escape
from typing import Any

from rich.progress import Task, TimeRemainingColumn

from ppl_models.programs.legible import legible

LEFT = TimeRemainingColumn(elapsed_when_finished=True)


class Live:
    """A display of IPython's that `show` fills, and fills again.

    It needs no widgets, and what a stored notebook keeps of it is its last state.
    """

    def __init__(self) -> None:
        self.handle: Any = None

    def show(self, task: Task, text: str) -> None:
        """Draw how far a task of rich's is, with a text beside it."""
        from IPython.display import display  # there in every notebook, and needed in no other place

        time = LEFT.render(task).plain
        told = legible("  ".join(part for part in (text, time if task.finished else f"{time} left") if part))
        bar = f'<progress max="1" value="{task.percentage / 100:.4f}" style="width:12em"></progress>'
        html = f'<div style="font-family:monospace;white-space:pre-wrap">{bar} {escape(told)}</div>'
        bundle = {"text/plain": told, "text/html": html}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)
