"""Networks that models and guides are built of: perceptrons, convolutions, recurrent and masked ones, attention."""

from .attention import Window as Window
from .convolutions import (
    ConvBlock as ConvBlock,
    ConvEncoder as ConvEncoder,
    ConvNet as ConvNet,
    MapNet as MapNet,
    between as between,
)
from .ladder import LadderNet as LadderNet, Pyramid as Pyramid, PyramidEncoder as PyramidEncoder
from .perceptrons import Block as Block, Gated as Gated, GatedNet as GatedNet, Net as Net
from .pixelcnn import PixelCNN as PixelCNN
from .recurrent import LSTM as LSTM
