from .bidirectional import Bidirectional as Bidirectional
from .bottom_up import BottomUp as BottomUp
from .faithful import Faithful as Faithful
from .infused import Infused as Infused
from .ladder import Ladder as Ladder
from .mean_field import MeanField as MeanField
from .merging import Merging as Merging
from .parts.conditionals import Conditionals as Conditionals, choose_parents as choose_parents
from .parts.guide import OrderedGuide as OrderedGuide, TopDownGuide as TopDownGuide
from .recurrent import Recurrent as Recurrent
from .refined import Refined as Refined
from .self_reflective import SelfReflective as SelfReflective
