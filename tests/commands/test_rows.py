"""The commands on tables: rows in, and rows out."""

import json

import numpy as np
import pytest
import torch

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

import vae_cli  # noqa: E402
from vae_cli.commands import encode, evaluate, export, reconstruct, sample  # noqa: E402
from vae_cli.config import compose  # noqa: E402
from vae_cli.errors import ConfigError, DataError  # noqa: E402
from vae_cli.training.run import run as train  # noqa: E402

ROWS = 300


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with gaps, two of whose columns go with a third."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("table") / "people.csv"
    z = random.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "age": (40 + 10 * z + random.normal(size=ROWS)).round().astype(int),
            "wage": 1000 * np.exp(0.5 * z + 0.1 * random.normal(size=ROWS)),
            "town": random.choice(["Oslo", "Rome", "Bonn"], ROWS),
            "visits": random.poisson(np.exp(0.5 * z)),
            "rich": np.where(z > 0, "yes", "no"),
        }
    )
    frame.loc[random.random(ROWS) < 0.3, "wage"] = np.nan
    frame.loc[random.random(ROWS) < 0.2, "town"] = None
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    line = ["dataset=table", f"dataset.path={table}", "dataset.counts=[visits]", "dataset.label=rich", "latent_dim=2"]
    line += ["epochs=60", "batch_size=32", "optimizer.lr=5e-3", "device=cpu", "report=false", "sample_every=0"]
    assert train(compose.compose("train", line), directory) == 0
    return directory


def of(command, run, *settings):
    config = compose.compose(command, [f"checkpoint={run}", *settings])
    {"sample": sample, "reconstruct": reconstruct, "encode": encode, "evaluate": evaluate}[command].run(config)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_samples_are_rows_with_the_columns_names_and_kinds_of_values(suffix, run, table, tmp_path, capsys):
    of("sample", run, "n=400", f"output={tmp_path / f'rows.{suffix}'}")
    assert "400 rows from" in capsys.readouterr().out
    rows = getattr(pd, f"read_{suffix}")(tmp_path / f"rows.{suffix}")
    data = pd.read_csv(table)
    assert list(rows.columns) == ["age", "wage", "town", "visits"]
    assert rows["age"].dtype == rows["visits"].dtype == np.int64 and rows["visits"].min() >= 0
    assert set(rows["town"]) <= {"Oslo", "Rome", "Bonn"} and not rows.isna().any().any()
    assert rows["age"].mean() == pytest.approx(data["age"].mean(), abs=3)
    assert rows["age"].std() == pytest.approx(data["age"].std(), rel=0.3)
    assert np.corrcoef(rows["age"], rows["wage"])[0, 1] > 0.4


def test_samples_of_a_seed_are_the_same_in_every_format_whatever_their_number(run, tmp_path):
    of("sample", run, "n=300", f"output={tmp_path / 'a.csv'}")
    of("sample", run, "n=20", f"output={tmp_path / 'b.parquet'}")
    of("sample", run, "n=20", f"output={tmp_path / 'c.npz'}")
    a, b = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(a[:20], b, rtol=1e-6, check_dtype=False)
    np.testing.assert_allclose(np.load(tmp_path / "c.npz")["images"][:, 1], b["wage"], rtol=1e-6)


def test_what_was_missing_is_filled_near_what_goes_with_it_and_the_rest_stays(run, table, tmp_path):
    of("reconstruct", run, f"input={table}", f"output={tmp_path / 'filled.csv'}")
    filled, data = pd.read_csv(tmp_path / "filled.csv"), pd.read_csv(table)
    assert not filled.isna().any().any() and list(filled.columns) == list(data.columns)
    for name in filled.columns:
        there = data[name].notna()
        if name in ("town", "rich"):  # the label is no part of the model's rows, and stays
            assert (filled[name][there] == data[name][there]).all()
        else:
            np.testing.assert_array_equal(filled[name][there], data[name][there])
    gaps = data["wage"].isna()
    assert np.corrcoef(filled["wage"][gaps], data["age"][gaps])[0, 1] > 0.8
    of("reconstruct", run, f"input={table}", "fill=all", f"output={tmp_path / 'all.csv'}")
    assert (pd.read_csv(tmp_path / "all.csv")["wage"] != filled["wage"])[~gaps].mean() > 0.9


def test_a_filled_csv_is_the_file_cell_by_cell_but_for_its_gaps(run, tmp_path):
    text = 'id;age;wage;town;visits;rich;code\r\n9007199254740993;94.0;;Rome;1;no;007\r\n8;;1e3;NA;;yes;"a;b"\r\n'
    (tmp_path / "x.csv").write_bytes(text.encode())
    of("reconstruct", run, f"input={tmp_path / 'x.csv'}", f"output={tmp_path / 'y.csv'}")
    lines = (tmp_path / "y.csv").read_bytes().decode().split("\r\n")
    first, second = lines[1].split(";"), lines[2].split(";")
    assert lines[0] == text.split("\r\n")[0] and first[:2] == ["9007199254740993", "94.0"]
    assert first[3:] == ["Rome", "1", "no", "007"] and float(first[2]) > 0
    assert second[0] == "8" and second[2] == "1e3" and second[3] in ("Oslo", "Rome", "Bonn") and '"a;b"' in lines[2]
    assert second[1].isdecimal() and second[4].isdecimal()
    of("reconstruct", run, f"input={tmp_path / 'x.csv'}", "fill=all", f"output={tmp_path / 'z.csv'}")
    every = (tmp_path / "z.csv").read_bytes().decode().split("\r\n")[1].split(";")
    assert every[0] == "9007199254740993" and every[1] != "94.0" and every[5:] == ["no", "007"]


def test_a_filled_parquet_file_keeps_its_types_and_its_other_columns(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    random, rows = np.random.default_rng(0), 120
    gap = random.random(rows) < 0.3
    columns = {
        "id": pa.array([2**60 + n if n else None for n in range(rows)], pa.int64()),
        "flag": pa.array([None if g else bool(b) for g, b in zip(gap, random.random(rows) < 0.5)]),
        "kind": pa.array([None if g else "abc"[n % 3] for n, g in enumerate(gap)]).dictionary_encode(),
        "size": pa.array([None if g else n % 7 for n, g in enumerate(gap)], pa.int16()),
        "wage": pa.array([None if g else float(v) for g, v in zip(gap, random.normal(size=rows))], pa.float32()),
        "price": pa.array([None if g else f"{n % 50}.25" for n, g in enumerate(gap)]).cast(pa.decimal128(8, 2)),
        "level": pa.array(random.normal(size=rows)),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "x.parquet")
    line = ["dataset=table", f"dataset.path={tmp_path / 'x.parquet'}", "dataset.drop=[id]", "latent_dim=2", "epochs=1"]
    assert train(compose.compose("train", [*line, "report=false", "device=cpu"]), tmp_path / "run") == 0
    of("reconstruct", tmp_path / "run", f"input={tmp_path / 'x.parquet'}", f"output={tmp_path / 'y.parquet'}")
    filled = pq.read_table(tmp_path / "y.parquet")
    assert filled.schema.equals(table.schema) and filled.column("id").equals(table.column("id"))
    for name in table.column_names[1:]:
        assert filled.column(name).null_count == 0
        old, new = table.column(name).to_pylist(), filled.column(name).to_pylist()
        assert all(b == a for a, b in zip(old, new) if a is not None), name


def test_a_compressed_csv_is_filled_too(run, table, tmp_path):
    pd.read_csv(table).to_csv(tmp_path / "x.csv.gz", index=False)
    for suffix in ("csv", "parquet"):
        of("reconstruct", run, f"input={tmp_path / 'x.csv.gz'}", f"output={tmp_path / f'y.{suffix}'}")
        filled = getattr(pd, f"read_{suffix}")(tmp_path / f"y.{suffix}")
        assert len(filled) == ROWS and "rich" in filled and not filled.isna().any().any()


def test_a_file_without_gaps_is_said_to_be_reconstructed(run, table, tmp_path, capsys):
    pd.read_csv(table).dropna().to_csv(tmp_path / "full.csv", index=False)
    of("reconstruct", run, f"input={tmp_path / 'full.csv'}", f"output={tmp_path / 'y.csv'}")
    assert "no cell is empty, so every value is a reconstruction" in capsys.readouterr().err
    assert (pd.read_csv(tmp_path / "y.csv")["rich"] == pd.read_csv(tmp_path / "full.csv")["rich"]).all()


def test_codes_are_a_table_with_the_row_in_the_file_and_its_label(run, table, tmp_path):
    of("encode", run, "input=test", f"output={tmp_path / 'codes.csv'}")
    of("encode", run, "input=test", f"output={tmp_path / 'codes.npz'}")
    codes, arrays = pd.read_csv(tmp_path / "codes.csv"), np.load(tmp_path / "codes.npz")
    assert list(codes.columns) == ["row", "label", "z0_mean", "z1_mean", "z0_std", "z1_std"]
    assert set(codes["label"]) == {"no", "yes"} and list(codes["row"]) == sorted(set(codes["row"]))
    assert list(codes["label"]) == list(pd.read_csv(table)["rich"][codes["row"]]) and len(codes) == 30
    np.testing.assert_allclose(codes[["z0_mean", "z1_mean"]], arrays["mean"], rtol=1e-6)


def test_the_numbers_of_each_row_have_the_means_of_the_evaluation_and_find_a_row_that_is_unlike_all(
    run, table, tmp_path
):
    of("evaluate", run, f"rows={tmp_path / 'rows.csv'}", "num_importance_samples=50")
    rows = pd.read_csv(tmp_path / "rows.csv")
    numbers = json.loads((run / "evaluation.json").read_text())
    for name in ("log_likelihood", "elbo", "reconstruction", "kl"):
        assert rows[name].mean() == pytest.approx(numbers[name]["value"], rel=1e-6)
    assert "psnr" not in numbers and numbers["mse"]["value"] < 1
    odd = pd.read_csv(table).drop(columns="rich")[:100]
    odd.loc[7, ["age", "wage"]] = [70, 200.0]
    odd.assign(rich="yes").to_csv(tmp_path / "odd.csv", index=False)
    of(
        "evaluate",
        run,
        f"dataset.path={tmp_path / 'odd.csv'}",
        f"rows={tmp_path / 'odd_rows.csv'}",
        "num_importance_samples=50",
    )
    assert pd.read_csv(tmp_path / "odd_rows.csv")["log_likelihood"].idxmin() == 7


@pytest.mark.parametrize(
    ("command", "settings", "error", "message"),
    [
        ("sample", ["format=grid"], ConfigError, "format=grid is of images"),
        ("reconstruct", ["format=png"], ConfigError, "use format=csv, parquet or npz"),
        ("evaluate", ["rows=x.txt"], ConfigError, "rows=x.txt: end it in .csv or .parquet"),
        ("reconstruct", ["input=/nowhere.csv"], DataError, "there is no such file"),
    ],
)
def test_what_rows_have_not_is_refused(command, settings, error, message, run):
    with pytest.raises(error, match=message):
        of(command, run, *settings)


def test_walks_are_rows_beside_their_latent_vectors(run, tmp_path):
    of("sample", run, "mode=traverse", "steps=3", f"output={tmp_path / 'walk.csv'}")
    walk = pd.read_csv(tmp_path / "walk.csv")
    assert list(walk.columns) == ["walk", "step", "z0", "z1", "age", "wage", "town", "visits"] and len(walk) == 6
    assert list(walk["step"]) == [0, 1, 2, 0, 1, 2] and (walk["z0"][:3].std() > 0) != (walk["z1"][:3].std() > 0)


@pytest.mark.parametrize(("command", "key"), [("reconstruct", "output"), ("encode", "output"), ("evaluate", "rows")])
def test_the_data_are_never_written_over(command, key, run, table):
    before = table.read_bytes()
    settings = [f"input={table}"] if command != "evaluate" else []
    with pytest.raises(ConfigError, match="is where the data are; name another file"):
        of(command, run, *settings, f"{key}={table}")
    assert table.read_bytes() == before


def test_rows_of_a_file_that_has_changed_since_the_training_are_not_taken_for_its_test_split(run, table, tmp_path):
    before = table.read_bytes()
    try:
        pd.read_csv(table)[::-1].to_csv(table, index=False)
        with pytest.raises(DataError, match=f"the data in {table} are not those that the model was trained on"):
            of("evaluate", run, f"output={tmp_path / 'x.json'}")
        of("evaluate", run, f"dataset.path={table}", f"output={tmp_path / 'x.json'}", "num_importance_samples=2")
        assert json.loads((tmp_path / "x.json").read_text())["elbo"]["n"] == ROWS
    finally:
        table.write_bytes(before)


def test_rows_have_the_numbers_that_they_have_in_the_file(run, table, tmp_path):
    of("evaluate", run, "split=train", f"rows={tmp_path / 'train.csv'}", "num_importance_samples=2")
    rows = pd.read_csv(tmp_path / "train.csv")
    assert list(rows["label"]) == list(pd.read_csv(table)["rich"][rows["row"]]) and len(rows) == 243


def test_exports_say_what_goes_in_and_refuse_what_is_of_images(run, tmp_path):
    with pytest.raises(ConfigError, match="parameters=true is of models of images, and this one is of rows"):
        export.run(compose.compose("export", [f"checkpoint={run}", "parameters=true", f"output={tmp_path / 'a'}"]))
    export.run(compose.compose("export", [f"checkpoint={run}", "format=torch", f"output={tmp_path / 'b'}"]))
    files = {"vae_cli.json": ""}
    torch.export.load(tmp_path / "b" / "encoder.pt2", extra_files=files)
    about = json.loads(files["vae_cli.json"])
    assert [each["name"] for each in about["columns"]] == ["age", "wage", "town", "visits"]


def test_a_data_frame_is_trained_on(table, tmp_path):
    frame = vae_cli.data.Frame(pd.read_csv(table), label="rich", counts=["visits"])
    trained = vae_cli.train("epochs=1", "latent_dim=2", "report=false", dataset=frame, directory=tmp_path / "run")
    loaded = trained.load()
    assert [column.name for column in loaded.data.columns] == ["age", "wage", "town", "visits"]
    assert loaded.data.class_names == ("no", "yes") and loaded.data.support == "mixed"


def test_python_takes_data_frames_and_gives_rows_that_are_those_of_the_commands(run, table, tmp_path):
    loaded, frame = vae_cli.load(run), pd.read_csv(table)
    of("reconstruct", run, f"input={table}", "fill=all", f"output={tmp_path / 'all.parquet'}")
    of("sample", run, "n=30", f"output={tmp_path / 'rows.parquet'}")
    filled = loaded.as_frame(loaded.reconstruct(frame[frame.columns[::-1]]))
    every = pd.read_parquet(tmp_path / "all.parquet")[filled.columns]
    pd.testing.assert_frame_equal(filled, every, check_dtype=False, rtol=1e-6)
    drawn = loaded.as_frame(loaded.sample(30))
    pd.testing.assert_frame_equal(drawn, pd.read_parquet(tmp_path / "rows.parquet"), check_dtype=False)
    vectors = loaded.preprocess(frame[:5])
    torch.testing.assert_close(loaded.encode(vectors).mean, loaded.encode(frame[:5]).mean)
    for wrong, message in (
        (frame.drop(columns="town"), "the data frame has no column town"),
        (torch.full((2, 6), torch.inf), "x has infinite values"),
        (torch.zeros(2, 5), r"this model takes \(N, 6\)"),
        (frame[:0], "x has no rows"),
        (frame[:2].assign(age=np.nan, wage=np.nan, town=None, visits=np.nan), "x has no value in row 0"),
        (torch.full((2, 6), -1.0), "no counts|beside 0 and 1"),
    ):
        with pytest.raises(DataError, match=message):
            loaded.encode(wrong)
