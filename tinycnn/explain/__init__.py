"""The explorer: a real forward and backward pass through a network, as one HTML file to look at.

    tinycnn.explain.write(study, "explain.html")          # ``tinycnn explain`` does so

**What is recorded** (`record`).  One image goes through the network and the gradient of its loss comes back.  Both ways
every layer is listened to: what it received and returned, the gradient that reached it and the one it passed on, the
gradients of its parameters, and what it chose (a pool's winners, a normalisation's statistics).  With a batch of one
image, dL/dw is the very sum that the page shows.

**What is embedded** (`study`).  Images and classes are recorded in the order of their use, as many as fit: the first
image with its own class, then the other images, then all other classes.  An array that occurs twice, as one layer's
output and the next one's input, is embedded once (`pack`).  Where float32 is too large, three of its four bytes are
kept, more than four digits, and the page says so; where that is too large, the smallest layers are shown and the others
only in the strip, with their shapes and norms.

**What is computed on the page** (``assets``).  Every sum: a dot product of a patch with a filter, col2im's sum for a
pixel, the gradient of one weight, p − y.  The recorded number stands beside it, so that a reader sees that they agree;
nothing else is computed there but colours and means.

**How it was learnt** (`training`).  Of a run that was recorded, a slider goes through the steps of its training.

**What proves a layer** (`check`).  The gradient checker of this package runs in float64 on each layer by itself, at the
input that was recorded.  **What it says** (`source`) are its own docstring and its own lines, read from the package.

The page is plain HTML, CSS and JavaScript: no framework, no build step, no network.  `page` puts the files in
``assets`` and the data into one file.
"""

from .page import write
from .record import Visit, record
from .study import ROOM, Example, Study, study_layer, study_network
from .training import training_of

__all__ = ["ROOM", "Example", "Study", "Visit", "record", "study_layer", "study_network", "training_of", "write"]
