"""Other libraries: the same convolution and the same LeNet-5 training step in each, written as its own documents do.

`Library.convolution` and `Library.training` return a `Task`: what to time, and what it computed, in PyTorch's shapes.
The step is forward + cross-entropy + backward + plain SGD, all that the smallest of these libraries can do.
Each library is imported when its class is made; ImportError says that it is absent or cannot run here.
"""

from .base import Arrays, Library, Task, TinyCNN, lenet_batch
from .nchw import DeZero, MyGrad, Tinygrad
from .nhwc import NumpyML, SmallPebble

PEERS: tuple[type[Library], ...] = (DeZero, MyGrad, SmallPebble, NumpyML, Tinygrad)

__all__ = ["PEERS", "Arrays", "Library", "Task", "TinyCNN", "lenet_batch"]
