"""What all architectures share."""

import numpy as np
import pytest

from tinycnn import models


@pytest.mark.parametrize("name", models.names())
def test_every_network_says_where_its_features_and_classifier_are(name):
    model = models.create(name, initialize=False)
    paths = dict(model.named_layers())
    assert model.features_path in paths
    assert model.classifier_path in paths
    assert (
        np.prod(model.output_shape((2, *models.architecture(name).input_shape)))
        == 2 * model.architecture["num_classes"]
    )
