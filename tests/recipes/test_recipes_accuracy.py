"""The named results: accuracies on held-out data at the last epoch, as means over seeds."""

import os

import numpy as np
import pytest

from chainrule import recipes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def mean_result(tmp_path, measure, seeds, recipe, data, **options):
    """The mean of a measure at the last epoch over runs of a recipe with several seeds."""
    found = []
    for seed in range(seeds):
        settings = recipes.get(recipe).make_settings(data, seed=seed, **options)
        run = recipes.start(settings, tmp_path / f"{recipe}-{seed}", progress=False)
        assert run.history[-1]["epoch"] == settings.epochs
        found.append(run.results[measure])
    print(f"{recipe} on {data}: {measure} {np.round(found, 4).tolist()}, mean {np.mean(found):.4f}")
    return float(np.mean(found))


@pytest.fixture
def real_data():
    if not os.environ.get("CHAINRULE_DATA"):
        pytest.skip("needs the folder of MNIST and Fashion-MNIST that CHAINRULE_DATA names")


def test_lenet_on_digits(tmp_path):
    assert mean_result(tmp_path, "accuracy", 5, "lenet", "digits") >= 0.985


def test_the_network_of_13002_parameters_on_mnist(tmp_path, real_data):
    assert mean_result(tmp_path, "accuracy", 3, "mlp", "mnist") >= 0.95


def test_lenet_on_mnist(tmp_path, real_data):
    assert mean_result(tmp_path, "accuracy", 3, "lenet", "mnist") >= 0.989


def test_two_layers_on_fashion_mnist(tmp_path, real_data):
    assert mean_result(tmp_path, "accuracy", 3, "mlp", "fashion_mnist") >= 0.88
