from .bottom_up import BottomUp as BottomUp
from .conditionals import Conditionals as Conditionals, choose_parents as choose_parents
from .faithful import Faithful as Faithful
from .guide import OrderedGuide as OrderedGuide, TopDownGuide as TopDownGuide
from .infused import Infused as Infused
from .ladder import Ladder as Ladder
from .mean_field import MeanField as MeanField
from .self_reflective import SelfReflective as SelfReflective
