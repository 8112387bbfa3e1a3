"""To and from other libraries: xarray, torch.nn.RNN, nn4n, TensorBoard."""

from ._nn4n import from_nn4n as from_nn4n
from ._nn4n import to_nn4n as to_nn4n
from ._tensorboard import tensorboard as tensorboard
from ._torch_rnn import from_rnn as from_rnn
from ._torch_rnn import to_rnn as to_rnn
from ._xarray import to_xarray as to_xarray
