"""Tables of one's own: what columns become, what is refused, and the road from the command line to predictions of new rows."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from crossmodal import cli, predict, tasks
from crossmodal.data.readers import tables as readers
from crossmodal.data.readers.tables import read_table
from crossmodal.errors import UserError
from crossmodal.settings import TableConfig
from crossmodal.tasks.base import Options
from crossmodal.tasks.tables import load_table

HEAD = ["id", "size (cm)", "dose", "colour", "who", "part", "kind"]


def rows(n: int = 40) -> list[list[str]]:
    """Size tells the kinds apart; doses are a million times as large, every tenth is missing."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        kind = i % 2
        dose = "" if i % 10 == 3 else f"{1e6 * rng.normal(5):.0f}"
        size = f"{rng.normal(3 * kind):.3f}"
        found.append([str(100 - i), size, dose, ("red", "green", "blue")[i % 3], f"p{i // 4}"])
        found[-1] += ["test" if i >= 0.7 * n else "train", ("cat", "dog")[kind]]
    return found


def write(path, lines, head=HEAD, delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *lines])
    return path


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "animals.csv", rows())


def load(path, **told):
    told = {"target": "kind", "group": "who", "split": "part", "ignore": "id"} | told
    return tasks.load("arrays", data=path, table=TableConfig(**told))


def raw(path, kind=None, **told):
    return load_table(path, Options(data=path, kind=kind, table=TableConfig(**told)))


def test_columns_become_values(table):
    task = load(table)
    assert task.about.features == ("size (cm)", "dose", "colour=blue", "colour=green", "colour=red")
    assert (task.kind, task.class_names, task.input_shape) == ("classification", ("cat", "dog"), (1, 5))
    assert (len(task.train) + len(task.validation), len(task.test)) == (28, 12)
    for line in (
        "features        5: size (cm), dose, colour=blue, colour=green, colour=red",
        "target          kind: cat 20, dog 20",
        "groups          6 train, 1 validation, 3 test",
        "categories      colour (blue, green, red)",
        "missing values  dose 4; the median of the training samples stands in",
        "scales          deviations from ",
        "ignored         id",
    ):
        assert line in task.description
    assert task.train.x.abs().max() < 6  # whatever the units
    assert torch.allclose(task.train.x.mean(0), torch.zeros(1, 5), atol=1e-5)


def test_statistics_are_those_of_samples_that_are_learned_from(table):
    """A test dose that is changed, or missing, changes nothing but itself."""
    before = load(table)
    changed = [line[:2] + (["9e12"] if line[5] == "test" else [line[2]]) + line[3:] for line in rows()]
    after = load(write(table, changed))
    for name in ("x_mean", "x_std", "x_fill"):
        assert torch.equal(getattr(after.normalizer, name), getattr(before.normalizer, name))
    assert torch.equal(after.train.x, before.train.x)
    learned = np.array([line[2] for line in rows() if line[2] and line[5] == "train"], float)
    of_validation = before.validation.x[:, 0, 1] * before.normalizer.x_std[0, 1] + before.normalizer.x_mean[0, 1]
    rest = [dose for dose in learned if not np.isclose(of_validation.numpy(), dose, rtol=1e-5).any()]
    assert before.normalizer.x_fill[0, 1] == np.median(rest)


def test_indicators(table):
    task = load(table, missing="indicator")
    assert task.about.features[1:3] == ("dose", "dose is missing")
    assert len(task.test.x[:, 0, 2].unique()) == 2
    assert load(table).input_shape == (1, 5)


@pytest.mark.parametrize(
    ("delimiter", "suffix", "number"),
    [(";", "csv", "1,5"), ("\t", "tsv", "1.5"), ("\t", "csv", "1.5"), (",", "csv", "1.5")],
)
def test_delimiters(tmp_path, delimiter, suffix, number):
    lines = [["a", number, "x"], ["b", number.replace("5", "25"), "y"]]
    found = read_table(write(tmp_path / f"t.{suffix}", lines, ["", "v", "k"], delimiter))
    assert found.names == ("v", "k")  # names of rows are left out
    assert found.numbers("v").tolist() == [1.5, 1.25]
    assert found.numbers("k") is None


def test_parquet(table, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    found = read_table(table)
    columns = {name: found.text(name) if (v := found.numbers(name)) is None else v for name in found.names}
    columns["colour"] = pa.array(columns["colour"]).dictionary_encode()
    columns["dose"] = pa.array(columns["dose"], from_pandas=True)
    columns["id"] = np.arange(len(found))
    parquet.write_table(pa.table(columns), table.with_suffix(".parquet"))
    assert raw(table.with_suffix(".parquet"), target="id").y_train.dtype == np.int64
    assert raw(table.with_suffix(".parquet"), target="size (cm)").y_train.dtype == np.float64
    one, other = load(table.with_suffix(".parquet")), load(table)
    assert torch.equal(one.train.x, other.train.x)
    monkeypatch.setattr(readers, "free_memory", lambda: 1000)
    for path in (table, table.with_suffix(".parquet")):
        with pytest.raises(UserError, match="do not fit into the memory that is free"):
            load(path)
    monkeypatch.undo()
    table.with_suffix(".parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"animals\.parquet: not a Parquet file, or a damaged one"):
        load(table.with_suffix(".parquet"))


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"needs the package pyarrow, .* 'pare-kernels\[parquet\]'"):
        raw(tmp_path / "t.parquet")


def test_several_targets(tmp_path):
    lines = [[f"{i * 0.5}", f"{i * 1.5}", f"{i % 2}", f"{i % 3 // 2}"] for i in range(12)]
    path = write(tmp_path / "t.csv", lines, ["x", "u", "p", "q"])
    labels = raw(path, target="p,q")
    assert (labels.kind, labels.class_names, labels.x_train.shape) == ("multilabel", ("p", "q"), (12, 2))
    values = raw(path, target="u, x")
    assert (values.kind, values.about.targets) == ("regression", ("u", "x"))
    np.testing.assert_array_equal(values.y_train, [[float(b), float(a)] for a, b, *_ in lines])
    assert raw(path, target="p", kind="regression").kind == "regression"
    whole = raw(path, target="p")
    assert whole.kind is None
    assert whole.y_train.dtype == np.int64
    assert (whole.x_test, whole.y_test) == (None, None)  # not split yet


def test_what_looks_wrong_is_said(tmp_path):
    lines = [[str(i), "7", f"{i * i % 7}.5", "cat" if i % 2 else "dog", "train"] for i in range(12)]
    lines[5][3] = "emu"
    lines.append(lines[4][:])
    lines[12][3] = "cat"
    path = write(tmp_path / "t.csv", lines[:12], ["id", "same", "v", "kind", "set"])
    notes = "\n".join(raw(path, target="kind").notes)
    assert "column 'id' counts the rows" in notes
    assert "constant columns, which say nothing: same (always 7)" in notes
    assert "target 'kind': one sample alone in 1 of 3 classes ('emu' (line 7))" in notes
    path = write(tmp_path / "t.csv", lines, ["id", "same", "v", "kind", "set"])
    notes = "\n".join(raw(path, target="kind").notes)
    assert "copies of other samples: 1 of 13, 1 with another target (first: line 14 copies line 6)" in notes
    assert "target 'same' is 7 in all samples: there is nothing to learn" in "\n".join(raw(path, target="same").notes)
    many = write(tmp_path / "many.csv", [[f"{i / 3}", str(i)] for i in range(30)], ["x", "age"])
    assert "30 different whole numbers, each taken for a class" in "\n".join(raw(many, target="age").notes)
    parts = write(
        tmp_path / "p.csv", [[f"{i / 3}", ("train", "test")[i % 2], "ab"[i % 2]] for i in range(9)], ["x", "s", "y"]
    )
    assert "column 's' names parts of the data (test, train)" in "\n".join(raw(parts, target="y").notes)
    unnamed = write(tmp_path / "u.csv", [[f"r{i}", f"{i / 3}", "ab"[i % 2]] for i in range(9)], ["", "x", "y"])
    assert raw(unnamed, target="y").about.rows["ignored"] == "the first column, which has no name"


@pytest.mark.parametrize(
    ("change", "told", "message"),
    [
        (lambda lines: lines[2].pop(), {}, r"line 4: 6 cells, but 7 in the first line"),
        (lambda lines: lines[4].__setitem__(6, ""), {}, r"line 6: column 'kind' is empty; the target"),
        (lambda lines: lines[4].__setitem__(4, ""), {}, r"line 6: column 'who' is empty; the group"),
        (lambda lines: lines[4].__setitem__(5, "tset"), {}, r"line 6: column 'part' holds 'tset', expected train, validation"),
        (lambda lines: lines[4].__setitem__(2, "12 mg"), {}, r"line 6: column 'dose': '12 mg' is not a number, as 35 others"),
        (lambda lines: lines[4].__setitem__(2, "inf"), {}, r"line 6: column 'dose' holds inf"),
        (lambda lines: [line.__setitem__(5, "train") for line in lines], {}, r"column 'part' has no test rows"),
        (lambda lines: [line.__setitem__(3, f"n{i}") for i, line in enumerate(lines)], {}, r"'colour' holds text with 40"),
        (lambda lines: lines.clear(), {}, r"no rows below the names"),
        (None, {"target": "Kind"}, r"table\.target: .* has no column 'Kind', did you mean 'kind'\?"),
        (None, {"target": None}, r"table\.target: which column of .* is to be predicted"),
        (None, {"ignore": "id,who"}, r"column 'who' is named for two purposes"),
        (None, {"target": "dose"}, r"line 5: target 'dose' has no value \(4 rows have none\)"),
        (None, {"target": "dose,kind"}, r"target 'dose' has no value|holds 'cat'"),
        (None, {"ignore": "id,size (cm),dose,colour"}, r"no column is left to learn from"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(table, change, told, message):
    lines = rows()
    if change is not None:
        change(lines)
        write(table, lines)
    with pytest.raises(UserError, match=message):
        load(table, **told)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,gr\xfc\xdfe\n", r"not a text file in UTF-8"),
        (b"1,2\n3,4\n", r"the first line must name the columns, got numbers: 1, 2"),
        (b"a,a\n1,2\n", r"'a' is the name of two"),
        (b"a,\n1,2\n", r"column 2 has no name"),
        (b"a b\n1 2\n", r"has a single column, a b; commas, semicolons or tabs"),
        (b'a,b\n1,"2\n', r"unexpected end of data"),
        (b"", r"no rows of cells"),
    ],
)
def test_malformed_text(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        raw(tmp_path / "t.csv", target="a")


def test_names_may_be_numbers_where_they_are_known(tmp_path):
    path = write(tmp_path / "new.csv", [["1", "2"]], ["950.0", "952.0"])
    assert read_table(path, {"950.0", "952.0", "glucose"}).names == ("950.0", "952.0")
    for known in ((), {"950.0"}):
        with pytest.raises(UserError, match="must name the columns, got numbers"):
            read_table(path, known)


def test_settings_of_tables_are_for_tables(save):
    with pytest.raises(UserError, match=r"table\.target: .*my\.npz is no table"):
        tasks.load("arrays", data=save({"x_train": np.zeros(2)}), table=TableConfig(target="a"))
    with pytest.raises(UserError, match="table: settings of your own data, which task 'digits' does not read"):
        tasks.load("digits", table=TableConfig(target="a"))


def test_from_the_command_line_to_new_rows(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = ["--data", str(table), "--table.target", "kind", "--table.group", "who", "--table.split", "part"]
    told += ["--table.ignore", "id", "--method", "linear", "--device", "cpu"]
    assert cli.train([*told, "--check_only"]) == 0
    assert "missing values  dose 4" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["animals.csv"]
    assert cli.train([*told, "--output_dir", "run"]) == 0
    capsys.readouterr()

    order = [3, 2, 0, 1]
    named = [[f"r{place}", *(line[i] for i in order)] for place, line in enumerate(rows())]
    new = write(tmp_path / "new.csv", named, ["", *(HEAD[i] for i in order)])
    predict.main(["run", str(new), "-o", "out.csv"])
    said = capsys.readouterr().out
    assert "40 rows; columns by name: size (cm), dose, colour" in said
    assert "not used: the first column, which has no name, id" in said
    assert "empty cells, for which the training median stands in: dose 4" in said
    found = list(csv.DictReader(open("out.csv")))  # noqa: SIM115
    assert list(found[0]) == ["", "line", "id", "prediction", "probability_cat", "probability_dog"]
    assert list(found[1].values())[:3] == ["r1", "3", "99"]
    predicted = [line["prediction"] for line in found]
    assert np.mean([one == line[-1] for one, line in zip(predicted, rows(), strict=True)]) > 0.85

    for column, value, message in (
        (
            0,
            "mauve",
            r"new\.csv, line 2: column 'colour' holds 'mauve', which training did not meet \(it met: blue, green, red\)",
        ),
        (1, "much", r"new\.csv, line 2: column 'dose': 'much' is not a number"),
    ):
        lines = [[line[i] for i in order] for line in rows()]
        lines[0][column] = value
        write(new, lines, [HEAD[i] for i in order])
        with pytest.raises(UserError, match=message):
            predict.main(["run", str(new), "-o", "out.csv"])
    write(new, [line[1:2] for line in rows()], ["sise (cm)"])
    with pytest.raises(
        UserError, match=r"lacks columns that were learned from: 'size \(cm\)', did you mean 'sise \(cm\)'"
    ):
        predict.main(["run", str(new), "-o", "out.csv"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    results["reading"]["features"] = 3
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"results\.json: reading: damaged"):
        predict.main(["run", str(new), "-o", "out.csv"])
