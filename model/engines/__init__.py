"""A classifier and a chunk of a cube in, probabilities out: PyTorch, or kernels of our own.

`choose_engine` says which one computes a classifier's maps on this machine and why, and
`measure_difference` how far it is from another. The kernels read an LSTM of any size: `packed`
orders its weights, `tables` turns a piecewise encoding into tables, `program` turns features into
operations on vectors; `preparing`, `layer` and `reading` are compiled. Other models are left to
PyTorch or to their own arrays. Where there is a CUDA device, `device` computes any network on it.
"""

from model.engines.chosen import ENGINES, TOLERANCE, Engine, choose_engine
from model.engines.difference import Difference, measure_difference

__all__ = [
    "ENGINES",
    "TOLERANCE",
    "Difference",
    "Engine",
    "choose_engine",
    "measure_difference",
]
