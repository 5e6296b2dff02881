"""How good a trained network is, and what it is good at.

model = tinycnn.load("runs/cifar10")
found = evaluation.predict(model, loader, views=evaluation.Mirrored(), classes=test.classes)
found.accuracy, found.interval(), found.top(5), found.calibration().error
evaluation.draw_confusion(found, "confusion.png")

ensemble = evaluation.average([evaluation.predict(model, loader) for model in models])
"""

from .calibration import Calibration, fit_temperature
from .plots import draw_calibration, draw_confusion
from .predicting import Noted, predict
from .predictions import Predictions, average, wilson
from .views import Mirrored, MultiScale, SingleView, TenCrop, Views

__all__ = [
    "Calibration",
    "Mirrored",
    "MultiScale",
    "Noted",
    "Predictions",
    "SingleView",
    "TenCrop",
    "Views",
    "average",
    "draw_calibration",
    "draw_confusion",
    "fit_temperature",
    "predict",
    "wilson",
]
