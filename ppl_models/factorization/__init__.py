"""Which site is drawn given which: the graphs behind a model and a guide, and whether the two mirror each other."""

from .comparison import compare as compare
from .graph import Factorization as Factorization
from .probing.recover import factorization as factorization
from .report.report import Report as Report
from .verdict import Row as Row, Verdict as Verdict, judge as judge
