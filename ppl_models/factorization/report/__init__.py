"""Pictures of factorizations: SVG, DOT and pages of HTML, without any program's help."""

from .draw import svg as svg
from .page import dot as dot, page as page
from .panel import Panel as Panel
