import importlib.util
import sys

import numpy as np
import pytest
import torch

from crossmodal import tasks
from crossmodal.errors import UserError
from crossmodal.tasks.ucr import find_archive, load_ts_pair

TASKS = {
    # official training and test cases, classes (0: regression), input shape
    "italy_power_demand": (67, 1029, 2, (1, 24)),
    "gunpoint": (50, 150, 2, (1, 150)),
    "basic_motions": (40, 40, 4, (6, 100)),
    "japanese_vowels": (270, 370, 9, (12, 24)),
    "arrow_head": (36, 175, 3, (1, 256)),
    "osu_leaf": (200, 242, 6, (1, 432)),
    "acsf1": (100, 100, 10, (1, 1460)),
    "pickup_gesture": (50, 50, 10, (1, 160)),
    "covid_death_levels": (140, 61, 3, (1, 84)),
    "covid_deaths": (140, 61, 0, (1, 84)),
    "cardano_sentiment": (74, 33, 0, (2, 24)),
}

CLASSES = "@classLabel true a b\n@data\n"
TRAIN = CLASSES + "1,2,3:a\n4,5:b\n1,1,1:a\n2,?,2:b\n"
TEST = CLASSES + "1,2:b\n"


@pytest.mark.parametrize("name", TASKS)
def test_the_archive_tasks(name):
    n_train, n_test, classes, shape = TASKS[name]
    task = tasks.load(name)
    kind = ("classification", "cross_entropy", "accuracy") if classes else ("regression", "mse", "rmse")
    assert (task.kind, task.loss, task.metric) == kind
    assert len(task.train) + len(task.validation) == n_train
    assert len(task.test) == n_test
    assert len(task.class_names) == classes
    assert task.input_shape == shape
    assert task.ndim == 1
    assert task.output_shape == (classes or 1,)
    for split in (task.train, task.validation, task.test):
        assert split.x.dtype == torch.float32
        assert split.y.dtype == (torch.int64 if classes else torch.float32)
        assert torch.isfinite(split.x).all()
    assert not classes or set(task.train.y.tolist()) == set(range(classes))
    torch.testing.assert_close(task.train.x.mean((0, 2)), torch.zeros(shape[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(task.train.x.std((0, 2), correction=0), torch.ones(shape[0]), atol=1e-3, rtol=0)


def test_the_values_are_those_of_the_file():
    task = tasks.load("italy_power_demand")
    normalizer = task.normalizer
    first_test_case = task.test.x[0].double() * normalizer.x_std + normalizer.x_mean
    path = find_archive("ItalyPowerDemand", None).with_name("ItalyPowerDemand_TEST.ts")
    line = path.read_text().split("@data\n")[1].splitlines()[0]
    values, label = line.rsplit(":", 1)
    np.testing.assert_allclose(first_test_case[0], [float(v) for v in values.split(",")], atol=1e-6)
    assert task.class_names[task.test.y[0]] == task.class_values[task.test.y[0]] == label


def test_aeon_itself_is_not_imported():
    tasks.load("gunpoint")
    assert "aeon" not in sys.modules


def test_data_dir_comes_first_and_aeon_after_it(write_ts, tmp_path):
    write_ts(TRAIN, TEST)
    assert find_archive("Toy", tmp_path) == tmp_path / "Toy_TRAIN.ts"
    (tmp_path / "Other").mkdir()
    (tmp_path / "Other" / "Other_TRAIN.ts").write_text(TRAIN)
    assert find_archive("Other", tmp_path) == tmp_path / "Other" / "Other_TRAIN.ts"
    assert "aeon" in find_archive("GunPoint", tmp_path).parts


def test_without_aeon_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"GunPoint_TRAIN.ts not found\. .*`pip install --no-deps aeon`"):
        tasks.load("gunpoint")
    with pytest.raises(UserError, match=rf"searched: {tmp_path}"):
        tasks.load("gunpoint", data_dir=tmp_path)


class TestPair:
    def test_ragged_series_with_holes(self, write_ts):
        raw = load_ts_pair(write_ts(TRAIN, TEST))
        assert raw.x_train.tolist() == [[[1, 2, 3]], [[4, 4.5, 5]], [[1, 1, 1]], [[2, 2, 2]]]
        assert raw.x_test.tolist() == [[[1, 1.5, 2]]]
        assert raw.y_train.tolist() == list("abab")
        assert raw.y_test.tolist() == ["b"]
        assert raw.class_names == ("a", "b")
        assert raw.resample
        assert raw.fill_missing
        assert "series of length 2 to 3 are linearly resampled to 3." in raw.notes
        assert "missing values are linearly interpolated within their series." in raw.notes

    def test_whole_series_are_left_alone(self, write_ts):
        raw = load_ts_pair(write_ts(CLASSES + "1,2:a\n3,4:b\n", TEST))
        assert not raw.resample
        assert not raw.fill_missing
        assert raw.notes == ("classification: the header of Toy_TRAIN.ts says so.",)

    def test_length_is_free(self, write_ts):
        raw = load_ts_pair(write_ts(CLASSES + "1,2:a\n3,4:b\n", TEST), length=3)
        assert raw.x_train.tolist() == [[[1, 1.5, 2]], [[3, 3.5, 4]]]
        assert raw.notes[0] == "series of length 2 are linearly resampled to 3."

    def test_classes_come_from_the_training_part_where_the_header_lists_none(self, write_ts):
        header = "@classLabel true\n@data\n"
        task = tasks.load("arrays", data=write_ts(header + "1:z\n2:y\n3:z\n4:y\n", header + "3:z\n"))
        assert (task.class_names, task.test.y.tolist()) == (("y", "z"), [1])

    @pytest.mark.parametrize(
        ("header", "kind", "note"),
        [
            ("@targetLabel true\n@data\n", None, "regression: the header of Toy_TRAIN.ts says so."),
            ("@classLabel true 0.5 1.5 2\n@data\n", "regression", "regression: set by --kind."),
        ],
    )
    def test_regression(self, write_ts, header, kind, note):
        raw = load_ts_pair(write_ts(header + "1,2:0.5\n3,4:1.5\n", header + "5,6:2\n"), kind=kind)
        assert (raw.kind, raw.y_train.tolist(), raw.y_test.tolist(), raw.notes[-1]) == (
            "regression",
            [0.5, 1.5],
            [2],
            note,
        )

    @pytest.mark.parametrize(
        ("train", "test", "kind", "message"),
        [
            (
                TRAIN,
                "@classLabel true a b\n@data\n1:2:a\n",
                None,
                r"x_test has entries of shape \(2, 3\), expected \(1, 3\)",
            ),
            ("@data\n1\n", TEST, None, "Toy_TRAIN.ts: no labels: neither @classLabel true nor @targetLabel true"),
            (TRAIN, "@data\n1\n", None, "Toy_TEST.ts: no labels"),
            (TRAIN, "@classLabel true a c\n@data\n1:a\n2:c\n", None, "y_test: label 'c' at index 1 is not a class"),
            (TRAIN, TEST, "dense", "a .ts file holds classification or regression targets, not dense"),
            (TRAIN, TEST, "regression", "Toy_TRAIN.ts, line 3: expected a finite number as regression target, got 'a'"),
            ("@targetLabel true\n@data\n1:2\n", "@data\n1\n", None, "Toy_TEST.ts: no labels"),
            ("@classLabel true a b c\n@data\n1:a\n2:b\n", TEST, None, r"no training sample of the classes \['c'\]"),
        ],
    )
    def test_parts_that_do_not_fit(self, write_ts, train, test, kind, message):
        with pytest.raises(UserError, match=message):
            tasks.load("arrays", data=write_ts(train, test), kind=kind)

    def test_files_that_are_not_there(self, write_ts):
        path = write_ts(TRAIN)
        with pytest.raises(FileNotFoundError, match=r"No such file .*Toy_TEST\.ts"):
            load_ts_pair(path)
        with pytest.raises(UserError, match=r"expected a file NAME_TRAIN\.ts, got .*Toy\.ts"):
            load_ts_pair(path.with_name("Toy.ts"))

    def test_a_pair_becomes_a_task_that_takes_ragged_new_data(self, write_ts):
        task = tasks.load("arrays", data=write_ts(TRAIN, TEST))
        assert (len(task.train), len(task.validation), len(task.test)) == (3, 1, 1)
        new = task.normalizer.prepare([np.array([1.0, np.nan, 3.0, 4.0, 5.0])])
        assert new.tolist() == [[[1, 3, 5]]]
