"""Factorizations of models and guides: recovered from running programs, compared, and judged on graphs."""

from .comparison import compare as compare
from .graph import Factorization as Factorization
from .probing.recover import factorization as factorization
from .report.report import Report as Report
from .verdict import Row as Row, Verdict as Verdict, judge as judge
