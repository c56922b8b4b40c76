from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import crossmodal
from crossmodal import cli, evaluate, parsing, predict, run
from crossmodal.data import readers
from crossmodal.errors import UserError
from crossmodal.predict import Prediction
from tests.crossmodal import runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_bert):
    """Folder of a run, and its test data."""
    folder = tmp_path_factory.mktemp("finished")
    run.train(parsing.from_dict(runs.settings(folder, tiny_bert, "multilabel", epochs=2)))
    return folder / "run", np.load(folder / "data" / "multilabel1.npz")


def test_a_fresh_process_equals_the_trained_model(finished, tmp_path):
    folder, data = finished
    np.savez(tmp_path / "in.npz", x=data["x_test"], other=np.zeros(3))
    processes = [
        runs.script("predict.py", folder, tmp_path / "in.npz", "-o", tmp_path / "out.npz"),
        runs.script("evaluate.py", folder, "--split", "test"),
    ]
    outputs = [runs.finish(process) for process in processes]
    out = np.load(tmp_path / "out.npz")
    predictor = crossmodal.load(folder)
    here = predictor.predict(data["x_test"])
    assert np.array_equal(out["predictions"], here.predictions.numpy())
    assert np.array_equal(out["probabilities"], here.probabilities.numpy())
    assert out["predictions"].shape == out["probabilities"].shape == (10, 2)
    assert f"test auroc {predictor.results['test']!r} over 10 samples" in outputs[1]


def test_every_format(finished, tmp_path):
    folder, data = finished
    np.save(tmp_path / "in.npy", data["x_test"][:4])
    for suffix in ("npz", "npy", "csv"):
        predict.main([str(folder), str(tmp_path / "in.npy"), "-o", str(tmp_path / f"out.{suffix}")])
    full = np.load(tmp_path / "out.npz")
    assert np.array_equal(np.load(tmp_path / "out.npy"), full["predictions"])
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert len(rows) == 5
    assert rows[0] == "0,1,probability_0,probability_1"
    np.testing.assert_allclose([float(v) for v in rows[1].split(",")[2:]], full["probabilities"][0], rtol=1e-6)


def test_csv_of_classes_and_values(tmp_path):
    path = tmp_path / "out.csv"
    predict.write_prediction(
        path, Prediction(torch.tensor([1, 0]), torch.tensor([[0.25, 0.75], [1.0, 0.0]])), ("no", "yes"), (0, 1)
    )
    assert path.read_text().split() == ["prediction,probability_no,probability_yes", "yes,0.25,0.75", "no,1.0,0.0"]
    predict.write_prediction(path, Prediction(torch.tensor([[1.5], [2.0]]), None), ())
    assert path.read_text().split() == ["value_0", "1.5", "2.0"]


@pytest.mark.parametrize("labels", [[3, 9], ["rest", "fist"]], ids=["numbers", "strings"])
def test_predictions_are_the_data_s_own_labels(tmp_path, tiny_bert, labels):
    values = runs.settings(tmp_path, tiny_bert, epochs=1, method="nft")
    with np.load(values["data"]) as data:
        content = dict(data) | {key: np.array(labels)[data[key]] for key in ("y_train", "y_test")}
    np.savez(values["data"], **content)
    run.train(parsing.from_dict(values))
    np.save(tmp_path / "in.npy", content["x_test"])
    for suffix in ("npz", "npy", "csv"):
        predict.main([values["output_dir"], str(tmp_path / "in.npy"), "-o", str(tmp_path / f"out.{suffix}")])
    predictor = crossmodal.load(values["output_dir"])
    predictions, probabilities = predictor.predict(content["x_test"])
    order = sorted(labels)
    expected = np.array(order)[probabilities.argmax(1).numpy()]
    assert predictor.class_values == tuple(order)
    assert np.asarray(predictions).tolist() == expected.tolist()
    with np.load(tmp_path / "out.npz") as written:
        assert written["predictions"].tolist() == np.load(tmp_path / "out.npy").tolist() == expected.tolist()
        assert written["predictions"].dtype.kind == content["y_test"].dtype.kind
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == f"prediction,probability_{order[0]},probability_{order[1]}"
    assert [row.split(",")[0] for row in rows[1:]] == [str(value) for value in expected.tolist()]


def test_csv_input_with_and_without_names(tmp_path, capsys):
    path = tmp_path / "in.csv"
    path.write_text("a,b\n1,2\n3,4e1\n")
    assert readers.read_samples(path).tolist() == [[1, 2], [3, 40]]
    capsys.readouterr()
    path.write_text("0,1,2\n5,6,7\n")  # as pandas numbers columns that have no names
    assert readers.read_samples(path).tolist() == [[5, 6, 7]]
    assert f"{path}: 1 samples of 3 values; the first line is taken for names of columns" in capsys.readouterr().out
    path.write_text("1,2\n3,4\n", encoding="utf-8-sig")
    assert readers.read_samples(path).tolist() == [[1, 2], [3, 4]]
    path.write_text("1,2\n\n3,nan\n")
    assert np.isnan(readers.read_samples(path)[1, 1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"1,2\n3\n", "line 1: 2 columns, but 1 in the others"),
        ("a.csv", b"1,2\n3,x\n", "line 2: column 1: 'x' is not a number"),
        ("a.csv", b"x,2\n3,4\n", "line 1: column 0: 'x' is not a number"),  # no line of names
        ("a.csv", b"1,2,\n", "line 1: column 2: '' is not a number"),
        ("a.csv", b"gr\xf6\xdfe\n1\n", "not a text file in UTF-8"),
        ("a.csv", b"1,2\x00\n", "line 1"),
        ("a.csv", b'1,"2\n', "line 1: unexpected end of data"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"a,b\n", "no rows"),
        ("a.csv", b"1;2\n", "no rows of numbers, separated by commas"),
        ("a.txt", b"1", "expected a .npz, .h5, .hdf5, .npy, .csv or .ts file, got"),
        ("a.npz", b"PK\x03\x04broken", "a.npz: not an .npz file"),
        ("a.npy", b"nonsense", "a.npy: cannot be read: not an array"),
    ],
)
def test_bad_inputs(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        readers.read_samples(tmp_path / name)


def test_errors(finished, tmp_path):
    folder, data = finished
    np.savez(tmp_path / "two.npz", a=data["x_test"], b=data["x_test"])
    with pytest.raises(ValueError, match="holds no array 'x' but a, b; name one with --key"):
        readers.read_samples(tmp_path / "two.npz")
    assert readers.read_samples(tmp_path / "two.npz", "b").shape == (10, 2, 16)
    np.savez(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="holds no array at its root"):
        readers.read_samples(tmp_path / "none.npz")
    with pytest.raises(UserError, match="no such file"):
        readers.read_samples(tmp_path / "none.npy")
    with pytest.raises(UserError, match="no results"):
        crossmodal.load(tmp_path)
    with pytest.raises(ValueError, match=r"expected a .npz, .npy or .csv"):
        predict.write_prediction(tmp_path / "x.pt", Prediction(torch.zeros(1), None), ())
    predictor = crossmodal.load(folder)
    with pytest.raises(ValueError, match="no samples"):
        predictor.predict(np.zeros((0, 2, 16)))
    with pytest.raises(ValueError, match=r"expected samples of shape \(2, 16\), got \(5, 16\)"):
        predictor.predict(np.zeros((3, 5, 16)))
    with pytest.raises(
        ValueError, match="steps: expected a positive number, and a run that was evaluated by roll-out, got 3"
    ):
        predictor.predict(np.zeros((3, 2, 16)), steps=3)
    huge, masked = np.zeros((3, 2, 16)), np.ma.array(np.zeros((2, 16)), mask=False)
    huge[2, 1, 3], masked[0, 0] = 1e300, np.ma.masked
    with pytest.raises(ValueError, match=r"inputs, normalised: value inf at index \(2, 1, 3\)"):
        predictor.predict(huge)
    with pytest.raises(ValueError, match=r"inputs\[0\]: holds masked values"):
        predictor.predict([masked])
    huge[2, 1, 3] = 1e38
    with pytest.raises(ValueError, match=r"inputs: outputs of the model: value nan at index \(2, 0\)"):
        predictor.predict(huge)
    for odd in (np.float32(3), np.zeros(16)):
        with pytest.raises(ValueError, match=r"inputs: expected samples of shape \(2, 16\), got an array of shape"):
            predictor.predict(odd)
    with pytest.raises(ValueError, match=r"device: expected a name like cpu or cuda:0, got 'gpu'"):
        crossmodal.load(folder, "gpu")
    with pytest.raises(ValueError, match=r"device: cuda:99 is not there"):
        crossmodal.load(folder, "cuda:99")
    with pytest.raises(ValueError, match="split: expected one of"):
        evaluate.evaluate(folder, "tset")
    assert evaluate.evaluate(folder, "train")["stored"] is None
    with pytest.raises(AttributeError, match="nothing"):
        _ = crossmodal.nothing


def test_mistakes_at_the_command_line_lose_nothing(finished, tmp_path, capsys):
    """The file is named; the input is never overwritten."""
    folder, data = finished
    x = data["x_test"].copy()
    np.save(tmp_path / "in.npy", x)
    x[3, 1, 5] = np.nan
    np.save(tmp_path / "nan.npy", x)
    np.savetxt(tmp_path / "short.csv", x[1:, 0, :4], delimiter=",", header="400,410,420,430", comments="")
    (tmp_path / "folder.npz").mkdir()
    before = (tmp_path / "in.npy").read_bytes()
    for name, out, message in (
        ("nan.npy", "out.npz", r"nan.npy: value nan at index (3, 1, 5) (1 sample(s)"),
        ("in.npy", "in.npy", "in.npy is the input, which would be lost"),
        ("in.npy", "folder.npz", "folder.npz is a folder"),
        ("in.npy", "nowhere/out.npz", "output: no such folder"),
        (
            "short.csv",
            "out.npz",
            "short.csv, line 1: 400, 410, 420, 430: names of columns, or a sample? --header yes or",
        ),
        ("in.npy", "out.txt", "output: expected a .npz"),
    ):
        assert cli.predict([str(folder), str(tmp_path / name), "-o", str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
    for name, message in (
        ("short.csv", "expected samples of shape (2, 16), got (4,)"),
        ("in.npy", "header: only a .csv"),
    ):
        assert cli.predict([str(folder), str(tmp_path / name), "-o", str(tmp_path / "o.npy"), "--header", "yes"]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "in.npy").read_bytes() == before
    with pytest.raises(SystemExit):
        cli.predict([str(folder), str(tmp_path / "in.npy"), "-o", str(tmp_path / "o.npy"), "--batch_size", "0"])
    assert "--batch_size: must be at least 1" in capsys.readouterr().err


def test_a_damaged_run_is_refused(finished, tmp_path):
    import shutil

    folder, _ = finished
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "normalizer.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"normalizer.safetensors is damaged"):
        crossmodal.load(copy)
    (copy / "normalizer.safetensors").unlink()
    with pytest.raises(UserError, match=r"normalizer.safetensors: missing"):
        crossmodal.load(copy)
    weights = copy / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        crossmodal.load(copy)
    results = json.loads((copy / "results.json").read_text())
    for key in ("class_values", "fingerprint", "directory"):
        del results[key]
    (copy / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results.json: lacks class_values, fingerprint, directory$"):
        crossmodal.load(copy)
