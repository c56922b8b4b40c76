"""The CSV, the pictures, the README's table, the fitted exponents."""

import subprocess

import pytest
import torch

from benchmarks import growth, plot, records
from benchmarks.records import Provenance, Row, append, commit_of, read, slug, write_aside

CPU = torch.device("cpu")


def make_row(case="swin", provider="pare", family="ours", ms=1.0, **more):
    options = {
        "run": "1",
        "suite": "standard",
        "date": "2025-01-01T00:00:00Z",
        "device": "A CPU",
        "operation": "replace",
        "batch": 2,
        "num_target": 8,
        "num_source": 8,
        "dim": 4,
        "k": 3,
        "dtype": "float32",
        "threads": 1,
        "estimator": "exact",
        "both_ms": ms,
        "both_cpu_ms": ms,
        "forward_cpu_ms": ms / 2,
        "forward_gbs": 10.0,
        "backward_gbs": 5.0,
        "read_gbs": 20.0,
        "copy_gbs": 30.0,
        "peak_beyond_outputs_mib": 0.5,
        "over_paper": round(100.0 / ms, 3),
    } | more
    return Row(case=case, provider=provider, family=family, **options)


@pytest.fixture
def rows():
    table = [
        make_row(over_best_rival=5.0, best_rival="eager"),
        make_row(provider="pare-exact", ms=2.0),
        make_row(provider="paper", family="paper", ms=100.0, peak_beyond_outputs_mib=2000.0),
        make_row(provider="eager", family="rival", ms=5.0),
        make_row(case="half", dtype="bfloat16", num_source=6),
        make_row(
            case="red", provider="pare", status="refused", note="wrong, of course", both_ms=None, both_cpu_ms=None
        ),
    ]
    table += [make_row(case=f"N-{n}", num_target=n, sweep="N", ms=n / 100) for n in (64, 256, 1024, 4096)]
    return table


def test_records_come_back_as_they_were(tmp_path, rows):
    path = tmp_path / "deep" / "a.csv"
    append(path, rows[:2])
    append(path, rows[2:])
    assert read(path) == rows
    assert path.read_text().count("\n") == len(rows) + 1


def test_records_are_append_only_and_whole(tmp_path, rows):
    path = tmp_path / "a.csv"
    append(path, rows[:1])
    before = path.read_bytes()
    append(path, rows[1:2])
    assert path.read_bytes().startswith(before)


def test_other_columns_are_refused(tmp_path, rows):
    path = tmp_path / "a.csv"
    path.write_text("device,speed\nx,1\n")
    with pytest.raises(ValueError, match=r"a\.csv has other columns .*unknown: speed.*--csv"):
        append(path, rows)
    with pytest.raises(ValueError, match="other columns"):
        read(path)
    assert path.read_text() == "device,speed\nx,1\n"


def test_bad_values_are_named(tmp_path, rows):
    path = tmp_path / "a.csv"
    append(path, rows[:1])
    path.write_text(path.read_text().replace(",8,8,4,", ",eight,8,4,"))
    with pytest.raises(ValueError, match=r"a\.csv, line 2: .*eight"):
        read(path)
    with pytest.raises(FileNotFoundError, match="run python -m benchmarks"):
        read(tmp_path / "none.csv")


def test_provenance(monkeypatch):
    row = Provenance.here(CPU, "quick").stamp(Row())
    assert row.suite == "quick"
    assert row.torch == torch.__version__
    assert "cores" in row.device
    assert row.date.endswith("Z")
    assert slug("AMD EPYC 9B14, 2 cores") == "amd-epyc-9b14-2-cores"
    assert records.results_path(CPU).name.endswith(".csv")


def test_commit_says_when_the_tree_differs(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "one")
    clean = commit_of(tmp_path)
    assert len(clean) == 12
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == clean + "+"


def test_write_aside_leaves_no_trace_of_failure(tmp_path):
    path = tmp_path / "a.txt"
    write_aside(path, b"one")
    with pytest.raises(TypeError):
        write_aside(path, "not bytes")
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


# Pictures and table ------------------------------------------------------------------------------------------------


def test_pictures_are_drawn(tmp_path, rows):
    paths = plot.draw(rows, tmp_path / "a-cpu.csv")
    assert [path.name for path in paths] == [
        f"a-cpu-{name}.png" for name in ("speedup", "roofline", "memory", "growth")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_nothing_to_draw(tmp_path):
    bare = Row(case="a", provider="pare", family="ours", operation="replace", threads=1, both_ms=1.0)
    assert plot.draw([bare], tmp_path / "a.csv") == []


def test_newest_run(rows):
    newer = [make_row(run="2", suite="quick"), make_row(run="3")]
    assert plot.newest_run([*rows, *newer]) == [newer[1]]
    assert plot.newest_run(newer[:1]) == newer[:1]
    with pytest.raises(ValueError, match="empty"):
        plot.newest_run([])


def test_markdown(tmp_path, rows):
    text = plot.markdown(rows, [tmp_path / "results" / "a-growth.png"], tmp_path / "README.md")
    assert "A CPU" in text
    assert (
        "| swin | B 2, N 8, D 4, k 3 | 1 ms | 2 ms | 100 ms | 100x / 50x | eager | 5x | 0.5 MiB / 2e+03 MiB |" in text
    )
    assert "| half | B 2, N 8, Ns 6, D 4, k 3, bfloat16 |" in text
    assert "| red |" not in text
    assert "N^1.00" in text
    assert "![growth](results/a-growth.png)" in text


def test_readme_is_rewritten_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{plot.BEGIN}\nold\n{plot.END}\nafter\n")
    plot.rewrite(readme, "new")
    plot.rewrite(readme, "newer")
    assert readme.read_text() == f"before\n{plot.BEGIN}\nnewer\n{plot.END}\nafter\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "benchmark:begin --> must stand there once, found 0 times"),
        (plot.BEGIN, "benchmark:end --> must stand there once, found 0"),
        (f"{plot.BEGIN} {plot.BEGIN} {plot.END}", "found 2 times"),
        (f"{plot.END} {plot.BEGIN}", "must come after"),
    ],
)
def test_readme_without_markers_is_refused(tmp_path, text, message):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match=message):
        plot.rewrite(readme, "new")
    assert readme.read_text() == text


def test_plot_command(tmp_path, rows, capsys):
    csv, readme = tmp_path / "a.csv", tmp_path / "README.md"
    append(csv, rows)
    assert plot.main(["--csv", str(csv), "--readme", str(readme)]) == 2
    assert "no file" in capsys.readouterr().err
    readme.write_text(f"{plot.BEGIN}\n{plot.END}\n")
    assert plot.main(["--csv", str(csv), "--readme", str(readme)]) == 0
    assert "| swin |" in readme.read_text()
    assert plot.main(["--csv", str(tmp_path / "none.csv"), "--no-readme"]) == 2


# Growth --------------------------------------------------------------------------------------------------------------


def test_exponent_is_fitted_where_the_call_costs_nothing():
    sizes = [1, 2, 4, 1024, 2048, 4096]
    ms = [5.0, 5.0, 5.0, *(n**1.5 for n in sizes[3:])]
    assert growth.fit_exponent(sizes, ms) == pytest.approx(1.5)
    assert growth.fit_exponent([1, 2, 4], [3.0, 3.0, 3.0]) == pytest.approx(0.0)


def test_curves(rows):
    (curve,) = growth.curves(rows)
    assert (curve.quantity, curve.provider, curve.sizes) == ("N", "pare", (64, 256, 1024, 4096))
    assert curve.exponent == pytest.approx(1.0)
    assert "N^1.00   (N 64 to 4096)" in growth.summary(rows)
