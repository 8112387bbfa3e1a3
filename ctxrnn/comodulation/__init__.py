"""Stochastic comodulation of gains in convolutional networks, its predecessors and controls."""

from ._conditions import CONDITIONS as CONDITIONS
from ._conditions import Condition as Condition
from ._conditions import ModulationConfig as ModulationConfig
from ._conditions import condition as condition
from ._data import Examples as Examples
from ._encoders import Encoder as Encoder
from ._encoders import EncoderConfig as EncoderConfig
from ._encoders import make_encoder as make_encoder
from ._estimator import Covariance as Covariance
from ._estimator import draw_modulator as draw_modulator
from ._estimator import rectified_gain as rectified_gain
from ._files import cached_features as cached_features
from ._files import load_network as load_network
from ._files import save_network as save_network
from ._modulation import Modulation as Modulation
from ._network import ComodulatedNetwork as ComodulatedNetwork
from ._network import Head as Head
from ._network import NetworkConfig as NetworkConfig
from ._pretraining import PretrainConfig as PretrainConfig
from ._pretraining import Pretrained as Pretrained
from ._pretraining import pretrain as pretrain
from ._tuning import Tuned as Tuned
from ._tuning import TuningConfig as TuningConfig
from ._tuning import predict as predict
from ._tuning import probe_gain as probe_gain
from ._tuning import tune as tune
