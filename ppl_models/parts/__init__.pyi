from .arguments.sizes import all_sizes as all_sizes, event_size as event_size, one_size as one_size
from .bijectors import ConditionalRankOneAffine as ConditionalRankOneAffine, RankOneAffine as RankOneAffine
from .bits import DependentBits as DependentBits, Discretized as Discretized, RelaxedBits as RelaxedBits
from .composite import Composite as Composite
from .distributions import DiscretizedLogistic as DiscretizedLogistic, RankOneNormal as RankOneNormal
from .likelihoods import (
    Bernoulli as Bernoulli,
    Gaussian as Gaussian,
    Logistic as Logistic,
    SharedGaussian as SharedGaussian,
    UnitGaussian as UnitGaussian,
    check_data as check_data,
    likelihood as likelihood,
    rows as rows,
)
from .nets import (
    LSTM as LSTM,
    Block as Block,
    ConvEncoder as ConvEncoder,
    ConvNet as ConvNet,
    GatedNet as GatedNet,
    Net as Net,
    Window as Window,
)
from .program import Program as Program
from .vamp import EncoderMixture as EncoderMixture, VampPrior as VampPrior
