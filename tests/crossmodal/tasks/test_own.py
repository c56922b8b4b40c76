import re

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from crossmodal import tasks
from crossmodal.errors import UserError
from crossmodal.scoring import metrics
from crossmodal.settings import SplitConfig

from .conftest import arrays

RNG = np.random.default_rng(3)


def load(path, **options):
    return tasks.load("arrays", data=path, **options)


@pytest.mark.parametrize(
    ("x_shape", "y", "kind", "num_outputs", "output_shape"),
    [
        ((8,), lambda n: np.arange(n) % 3 + 5, "classification", 3, (3,)),
        ((2, 8), lambda n: np.array(["no", "yes"])[np.arange(n) % 2], "classification", 2, (2,)),
        ((2, 8), lambda n: RNG.integers(0, 2, (n, 4)), "multilabel", 4, (4,)),
        ((3, 4, 6), lambda n: RNG.normal(size=n), "regression", 1, (1,)),
        ((8,), lambda n: RNG.normal(size=(n, 3)), "regression", 3, (3,)),
        ((2, 8), lambda n: RNG.normal(size=(n, 8)), "dense", 1, (1, 8)),
        ((3, 4, 6), lambda n: RNG.normal(size=(n, 2, 4, 6)), "dense", 2, (2, 4, 6)),
    ],
)
def test_every_kind_in_one_and_two_dimensions(save, x_shape, y, kind, num_outputs, output_shape):
    task = load(save(arrays(x_shape, y)))
    assert (task.kind, task.num_outputs, task.output_shape) == (kind, num_outputs, output_shape)
    assert task.input_shape == (x_shape if len(x_shape) > 1 else (1, *x_shape))
    assert (len(task.train), len(task.validation), len(task.test)) == (16, 4, 6)
    assert f"{kind}: " in task.description
    assert task.test.y.dtype == (torch.int64 if kind == "classification" else torch.float32)


def test_targets_come_back_in_their_own_units(save):
    data = arrays((2, 8), lambda n: RNG.normal(100, 20, (n, 8)))
    task = load(save(data))
    np.testing.assert_allclose(task.normalizer.inverse_y(task.test.y)[:, 0], data["y_test"], rtol=1e-5)
    assert abs(task.train.y.mean()) < 1e-5


def test_validation_of_its_own(save):
    data = arrays()
    data |= {"x_val": data["x_test"][:3], "y_val": data["y_test"][:3]}
    task = load(save(data))
    assert (len(task.train), len(task.validation)) == (20, 3)
    assert torch.equal(task.validation.x, task.test.x[:3])


def test_labels_need_not_count_from_zero(save):
    task = load(save(arrays(y=lambda n: np.array([40, -3])[np.arange(n) % 2])))
    assert task.class_names == ("-3", "40")
    assert task.class_values == (-3, 40)
    assert task.test.y.tolist() == [1, 0, 1, 0, 1, 0]


def test_kind_is_told(save):
    labels = load(save(arrays(y=lambda n: (np.arange(n) % 2).astype(float))), kind="classification")
    assert labels.class_names == ("0", "1")
    one_hot = load(save(arrays(y=lambda n: np.eye(3, dtype=int)[np.arange(n) % 3])), kind="classification")
    assert one_hot.test.y.tolist() == [0, 1, 2, 0, 1, 2]
    values = load(save(arrays()), kind="regression")
    assert values.output_shape == (1,)
    assert "regression: set by --kind." in values.description


def test_class_names(save):
    named = arrays(y=lambda n: np.arange(n) % 2) | {"class_names": np.array(["up", "down"])}
    assert load(save(named)).class_names == ("up", "down")
    assert load(save(named)).class_values == (0, 1)
    words = arrays(y=lambda n: np.array(["up", "down"])[np.arange(n) % 2]) | {"class_names": np.array(["up", "down"])}
    assert load(save(words)).test.y.tolist() == [0, 1, 0, 1, 0, 1]
    labels = arrays(y=lambda n: RNG.integers(0, 2, (n, 2))) | {"class_names": np.array(["p", "q"])}
    assert load(save(labels)).class_names == ("p", "q")
    assert load(save(labels)).class_values == ()
    assert load(save(words)).class_values == ("up", "down")


def test_tables_are_scaled_by_column(save):
    data = arrays((8,)) | {"normalize": np.array("position")}
    data["x_train"] *= np.arange(1, 9) ** 3
    task = load(save(data))
    torch.testing.assert_close(task.train.x.std(0, correction=0), torch.ones(1, 8))


def test_notes(save):
    task = load(save(arrays((3, 8), lambda n: np.tile([0, 1, 1], (n, 1)) * (np.arange(n) % 2)[:, None])))
    assert "no training sample has the labels [0]." in task.description
    assert "x_train (20, 3, 8) is read as (samples, channels, length)" in task.description
    odd = arrays((40, 8))
    odd["x_train"][:, 3] = 5
    odd["x_train"][7] = odd["x_train"][2]
    description = load(save(odd)).description
    assert "x_train has 40 channels of 8 values: if these are 8 channels of 40 values, swapaxes(1, 2)" in description
    assert "constant channels, which say nothing: 3 (always 5)" in description
    assert (
        "copies of other samples: 1 of 20, 1 with another target (first: x_train[7] copies x_train[2])" in description
    )
    table = arrays((4,))
    assert "warning" not in load(save(table)).description
    table["x_train"][:, 0] = np.arange(1, 21)
    assert "warning: the first column of x_train counts the samples" in load(save(table)).description


def changed(**changes):
    return {key: value for key, value in (arrays() | changes).items() if value is not None}


X, Y = arrays()["x_train"], arrays()["y_train"]


def with_value(values, index, value):
    values = np.array(values, dtype=float)
    values[index] = value
    return values


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(y_test=None), "missing y_test; found: x_train, y_train, x_test"),
        (changed(x_val=X), "missing y_val: x_val and y_val come together"),
        (changed(y_val=Y), "missing x_val: x_val and y_val come together"),
        (
            changed(X_val=X, Y_VAL=Y, ids=Y),
            r"holds arrays of unknown name: 'X_val', did you mean 'x_val'\?; 'Y_VAL', did you mean 'y_val'\?; 'ids' "
            r"\(expected: x_train, .*, normalize\)",
        ),
        (changed(x_train=X[:19]), r"19 samples in x_train, but y_train is of shape \(20,\)"),
        (changed(y_train=np.array(3)), r"20 samples in x_train, but y_train is of shape \(\)"),
        (changed(x_test=X[:6, :2]), r"x_test has entries of shape \(2, 8\), expected \(3, 8\) as in x_train"),
        (changed(x_train=with_value(X, (4, 1, 2), np.nan)), r"x_train: value nan at index \(4, 1, 2\)"),
        (changed(x_test=with_value(X[:6], (0, 0, 7), -np.inf)), r"x_test: value -inf at index \(0, 0, 7\)"),
        (changed(x_train=X[:, 0, 0]), r"x_train: expected samples of shape .*\(n, C, H, W\), .*got \(20,\)"),
        (changed(x_train=X[:0], y_train=Y[:0]), r"x_train: expected .* at least one, got \(0, 3, 8\)"),
        (changed(x_test=X[:0], y_test=Y[:0]), "x_test: expected .* at least one"),
        (changed(x_train=X.astype(complex)), "x_train: expected real numbers, got dtype complex128"),
        (changed(y_train=Y.astype(complex)), "y_train: cannot tell the kind of target"),
        (changed(y_test=np.array([0, 1, 0, 5, 0, 1])), r"y_test: label 5 at index 3 is not a class .*\(0, 1\)"),
        (changed(y_train=Y.astype(np.uint64) + 2**63), "y_train: .* value at index 0 is 9223372036854775808"),
        (
            changed(y_train=np.zeros(20, int), y_test=np.zeros(6, int)),
            r"classification needs at least two classes, got \['0'\]",
        ),
        (changed(class_names=np.array(["a", "b", "c"])), r"no training sample of the classes \['c'\]"),
        (changed(class_names=np.array(["a"])), r"classification needs at least two classes, got \['a'\]"),
        (changed(x_val=X[:3], y_val=Y[:2]), r"3 samples in x_val, but y_val is of shape \(2,\)"),
        (changed(class_names=np.array(["a", "a"])), "class_names must be different strings"),
        (changed(class_names=np.array([1, 2])), "class_names must be different strings"),
        (changed(normalize=np.array("sample")), "normalize must be one of the strings channel, position, none"),
        (
            changed(y_train=np.eye(4, dtype=int)[Y], y_test=np.eye(5, dtype=int)[Y[:6]]),
            r"y_test has entries of shape \(5,\), expected \(4,\) as in y_train",
        ),
        (
            changed(
                y_train=np.eye(4, dtype=int)[Y], y_test=np.eye(4, dtype=int)[Y[:6]], class_names=np.array(["a", "b"])
            ),
            "y_train: 4 columns, but 2 class_names",
        ),
    ],
)
def test_bad_data_is_named(save, data, message):
    with pytest.raises(UserError, match=r"my\.npz: " + message):
        load(save(data))


@pytest.mark.parametrize("shape", [(16, 16, 3), (28, 28, 1), (24, 32, 4), (9, 16, 3)])
def test_channels_last_is_refused(save, shape):
    high, wide, channels = shape
    with pytest.raises(
        ValueError, match=r"x_train: expected shape \(n, C, H, W\), but .*transpose\(0, 3, 1, 2\)"
    ) as error:
        load(save(arrays(shape)))
    assert f"makes (20, {channels}, {high}, {wide})" in str(error.value)
    for axes in ((0, 3, 1, 2), (0, 1, 3, 2)):  # as images, and as what the shape said
        data = arrays(shape)
        assert load(save(data | {key: data[key].transpose(axes) for key in ("x_train", "x_test")})).ndim == 2


@pytest.mark.parametrize(
    "shape",
    [
        (1, 8, 8),
        (3, 8, 8),
        (4, 8, 8),
        (16, 8, 8),
        (3, 3, 3),
        (3, 4, 4),
        (4, 4, 4),
        (1, 16, 52),
        (3, 224, 4),
        (64, 7, 1),
    ],
)
def test_channels_first_never_is(save, shape):
    assert load(save(arrays(shape))).input_shape == shape


class TestReading:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(UserError, match=r"no such file or folder: .*none\.npz"):
            load(tmp_path / "none.npz")
        with pytest.raises(
            ValueError, match=r"no arrays \(x_train, y_train, x_test, y_test\), nor recordings or images"
        ):
            load(tmp_path)

    def test_another_kind_of_file(self, tmp_path):
        (tmp_path / "my.txt").write_text("1,2")
        with pytest.raises(
            ValueError, match=r"expected a table .*, an \.npz or \.h5 file, a folder of \.npy files or NAME_TRAIN\.ts"
        ):
            load(tmp_path / "my.txt")

    def test_not_a_zip_archive_and_a_truncated_one(self, save):
        path = save(arrays())
        content = path.read_bytes()
        for damaged in (b"hello", content[: len(content) // 2], b""):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"my\.npz: not an \.npz file"):
                load(path)

    def test_a_damaged_table_of_contents(self, save):
        path = save(arrays())
        path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x03"))
        with pytest.raises(ValueError, match=r"my\.npz: cannot be read: "):
            load(path)

    def test_a_flipped_byte_is_noticed(self, save):
        path = save(arrays())
        content = bytearray(path.read_bytes())
        content[400] ^= 0xFF
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"my\.npz: x_train cannot be read: .*CRC"):
            load(path)

    @pytest.mark.parametrize("key", ["x_train", "y_train"])
    def test_pickles_stay_shut(self, tmp_path, key):
        data = arrays()
        data[key] = np.array([{"a": 1}] * len(data[key]), dtype=object)
        np.savez(tmp_path / "my.npz", **data)
        with pytest.raises(ValueError, match=rf"my\.npz: {key} cannot be read: it holds Python objects"):
            load(tmp_path / "my.npz")
        for name, values in data.items():
            np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(ValueError, match=rf"{key}\.npy: cannot be read: it holds Python objects"):
            load(tmp_path)


def _grouped(names: bool = False) -> dict[str, np.ndarray]:
    """Twenty training samples of five people, six test samples of two others; both classes in each."""
    groups = np.repeat(np.arange(7), [4, 4, 4, 4, 4, 3, 3])
    groups = np.array([f"p{one}" for one in groups]) if names else groups
    return arrays() | {"group_train": groups[:20], "group_test": groups[20:]}


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_whole_groups_are_held_out(save, names, seed):
    task = tasks.load("arrays", data=save(_grouped(names)), split=SplitConfig(seed=seed))
    groups = [
        set(getattr(task, part).read(torch.arange(3)).extras["group"].tolist()) for part in ("validation", "test")
    ]
    train = set(task.train.read(torch.arange(len(task.train))).extras["group"].tolist())
    assert (len(task.train), len(task.validation), len(train), len(groups[0])) == (16, 4, 4, 1)
    assert not train & groups[0] | train & groups[1]
    assert "groups          4 train, 1 validation, 2 test" in task.description
    assert re.search(
        r"validation: 1 whole group of the 5 in the training part \(seed \d\), 4 of 20 samples: " + "p" * names,
        task.description,
    )
    assert task.metrics == ("accuracy", "macro_f1", "accuracy_per_group")
    assert "warning" not in task.description


def test_groups_that_are_in_two_parts_are_told(save):
    data = _grouped(names=True)
    data["group_test"][0] = "p3"
    with pytest.raises(UserError, match=r"group_train and group_test share 1 group \(p3\), .*leave the parts out"):
        tasks.load("arrays", data=save(data))
    description = tasks.load("arrays", data=save(data), split=SplitConfig(divide_groups=True)).description
    assert "warning: groups are divided (split.divide_groups)" in description
    assert "warning: group_train and group_test share 1 group (p3): figures of the latter say nothing" in description


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_test": None}, "missing group_test: every part has groups, or none has"),
        (
            {"group_train": np.full(20, 0.5)},
            r"group_train: expected labels, whole numbers, but the value at index 0 is 0.5",
        ),
        ({"group_train": np.zeros(19, int)}, r"group_train: expected one group per sample, got 19"),
        ({"group_train": np.zeros(20, int)}, "groups of the training part leave none for validation"),
    ],
)
def test_groups_that_cannot_be(save, change, message):
    data = {name: values for name, values in (_grouped() | change).items() if values is not None}
    with pytest.raises(UserError, match=message):
        tasks.load("arrays", data=save(data))


def test_metrics_of_groups_need_groups(save):
    with pytest.raises(UserError, match=r"metric: accuracy_of_groups needs groups, which .*my.npz does not have"):
        tasks.load("arrays", data=save(arrays()), metrics=["accuracy_of_groups"])


def test_a_group_that_is_averaged_has_one_target(save):
    data = _grouped() | {"y_test": np.arange(6) % 2}
    task = tasks.load("arrays", data=save(data), metrics=["accuracy_of_groups"])
    batch = task.test.read(torch.arange(6))
    metric = metrics.get("accuracy_of_groups")
    numbers = metric.numbers(torch.zeros(6, 2), batch.y) | {"group": batch.extras["group"].numpy()}
    with pytest.raises(UserError, match="samples of a group differ in their target"):
        metric.figure(numbers)


def test_a_dense_target_is_not_left_behind(save):
    rng = np.random.default_rng(0)
    values = {f"{one}_{part}": rng.normal(size=(20, 1, 8, 8)) for one in "xy" for part in ("train", "test")}
    with pytest.raises(UserError, match="augment: shift moves a sample, but not its dense target; take noise"):
        tasks.load("arrays", data=save(values), augment=["noise", "shift"])


def test_grouped_validation_is_near_the_test_where_the_random_one_was_not(save):
    """Each person has a signature stronger than the effect, and one label: it is learned, and says nothing of new people."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 12)
    label, signature = np.arange(40) % 2, rng.normal(size=(40, 16))
    x = 3 * signature[people] + rng.normal(size=(480, 16))
    x[:, 0] += 2 * label[people]
    y = label[people]
    data = {"x_train": x[:360], "y_train": y[:360], "x_test": x[360:], "y_test": y[360:]}
    groups = {"group_train": people[:360], "group_test": people[360:]}

    def scores(arrays: dict[str, np.ndarray]) -> tuple[float, float]:
        """Of the nearest neighbour, over five hold-outs."""
        found = []
        for seed in range(5):
            task = tasks.load("arrays", data=save(arrays), split=SplitConfig(seed=seed))
            model = KNeighborsClassifier(1).fit(task.train.x.flatten(1), task.train.y)
            found.append([model.score(part.x.flatten(1), part.y) for part in (task.validation, task.test)])
        return tuple(np.mean(found, axis=0))

    validation, test = scores(data)
    assert validation - test > 0.25
    validation, test = scores(data | groups)
    assert abs(validation - test) < 0.12


def test_a_folder_of_tables(tmp_path, save, capsys):
    data = arrays((8,), y=lambda n: np.arange(n) % 2)
    expected = tasks.load("arrays", data=save(data))
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, values in data.items():
        table = values.reshape(len(values), -1)
        header = ",".join(f"c{i}" for i in range(table.shape[1]))
        np.savetxt(folder / f"{name}.csv", table, delimiter=",", header=header, comments="", fmt="%.17g")
    found = tasks.load("arrays", data=folder)
    assert torch.equal(found.train.x, expected.train.x)
    assert torch.equal(found.test.y, expected.test.y)
    assert "x_train.csv" in capsys.readouterr().out
