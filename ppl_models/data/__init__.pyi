from .catalogue import describe as describe, load as load, names as names
from .dataset import Data as Data
from .table import Table as Table, load_table as load_table
from .transforms import (
    Binarize as Binarize,
    Dequantize as Dequantize,
    Identity as Identity,
    Logit as Logit,
    Redrawn as Redrawn,
    Scale as Scale,
    Transform as Transform,
)
