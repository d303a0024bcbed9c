"""Tables: what their columns are taken for, what a row becomes, and what is refused."""

from decimal import Decimal

import numpy as np
import pytest

pd = pytest.importorskip("pandas")

from vae_cli.data import Table  # noqa: E402
from vae_cli.data.columns import Column, as_values, as_vectors, names_of, places  # noqa: E402
from vae_cli.data.sources import table_file, values  # noqa: E402
from vae_cli.errors import ConfigError, DataError  # noqa: E402

RANDOM = np.random.default_rng(0)
ROWS = 60


def people(**changes):
    frame = {
        "age": RANDOM.integers(18, 90, ROWS),
        "wage": RANDOM.lognormal(10, 1, ROWS),
        "sex": RANDOM.choice(["f", "m"], ROWS),
        "town": RANDOM.choice(["Oslo", "Rome", "Bonn"], ROWS),
        "member": RANDOM.random(ROWS) < 0.5,
        "flag": RANDOM.integers(0, 2, ROWS),
        "visits": RANDOM.poisson(2, ROWS),
    }
    return pd.DataFrame(frame | changes)


def saved(tmp_path, frame, suffix=".csv"):
    path = tmp_path / f"table{suffix}"
    write = {".csv": frame.to_csv, ".tsv": lambda p, index: frame.to_csv(p, sep="\t", index=index)}
    if suffix in write:
        write[suffix](path, index=False)
    else:
        pytest.importorskip("pyarrow")
        (frame.to_parquet if suffix == ".parquet" else frame.to_feather)(path)
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".feather"])
def test_columns_are_taken_for_what_their_values_are(suffix, tmp_path):
    source = Table(saved(tmp_path, people(), suffix), counts=["visits"]).load()
    assert [(c.name, c.kind, c.size) for c in source.columns] == [
        ("age", "real", 1),
        ("wage", "real", 1),
        ("sex", "binary", 1),
        ("town", "categorical", 3),
        ("member", "binary", 1),
        ("flag", "binary", 1),
        ("visits", "counts", 1),
    ]
    assert source.support == "mixed" and source.columns[0].is_whole and not source.columns[1].is_whole
    assert source.columns[2].categories == ("f", "m") and source.columns[4].categories == ("False", "True")
    assert source.train.values.shape == (ROWS, 9) and source.train.values.dtype == np.float32


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_row_becomes_a_vector_and_back_with_its_gaps(suffix, tmp_path):
    frame = people()
    for place, name in enumerate(frame.columns):
        frame[name] = frame[name].astype(object).where(RANDOM.random(ROWS) > 0.1 * (1 + place % 3), None)
    for name in ("age", "wage", "flag", "visits"):
        frame[name] = pd.to_numeric(frame[name])
    source = Table(saved(tmp_path, frame, suffix)).load()
    assert source.has_missing and any("values are missing" in note for note in source.notes)
    back = as_values(source.train.values, source.columns)
    for name in frame.columns:
        missing = frame[name].isna().to_numpy()
        assert (pd.isna(pd.Series(back[name])).to_numpy() == missing).all(), name
        wanted, found = frame[name][~missing], pd.Series(back[name])[~missing]
        if name in ("age", "wage"):
            np.testing.assert_allclose(found.astype(float), wanted.astype(float), rtol=1e-6)
        else:
            texts = wanted.map(lambda v: str(int(v)) if isinstance(v, float) else str(v))
            assert list(found.map(lambda v: str(int(v)) if isinstance(v, float) else str(v))) == list(texts), name


def test_vectors_have_a_name_for_each_number():
    columns = [Column("a", "real"), Column("b", "categorical", ("x", "y")), Column("c", "binary", ("n", "y"))]
    assert names_of(columns) == ["a", "b=x", "b=y", "c"] and places(columns) == [slice(0, 1), slice(1, 3), slice(3, 4)]
    vectors = as_vectors({"a": np.array([0.5, np.nan]), "b": np.array([1, -1]), "c": np.array([np.nan, 1])}, columns)
    np.testing.assert_array_equal(vectors, [[0.5, 0, 1, np.nan], [np.nan, np.nan, np.nan, 1]])


def test_columns_are_chosen_and_labels_and_splits_have_columns_of_their_own(tmp_path):
    part = np.resize(["train", "train", "Valid", "test"], ROWS)
    path = saved(tmp_path, people(part=part))
    data = Table(path, columns=["age", "wage", "town", "part"], drop=["wage"], label="town", split="part").splits()
    assert [c.name for c in data.facts.columns] == ["age"] and data.facts.support == "real"
    assert data.facts.class_names == ("Bonn", "Oslo", "Rome") and data.facts.classes == 3
    assert (len(data.train), len(data.validation), len(data.test)) == (30, 15, 15)
    numbers = Table(path, label="flag", columns=["age", "flag"]).splits()
    assert numbers.facts.class_names == ("0", "1")
    named = Table(path, columns=["flag", "visits"], categorical=["visits"]).load()
    assert named.columns[1].kind == "categorical" and named.columns[1].categories == tuple(
        sorted(named.columns[1].categories)
    )


def test_a_parquet_file_is_read_some_rows_at_a_time_and_mapped_where_it_does_not_fit(tmp_path, monkeypatch):
    frame = people(
        part=np.resize(["train", "train", "valid", "test"], ROWS), town=pd.Categorical(["Oslo", "Rome"] * 30)
    )
    frame.loc[::7, "wage"] = np.nan
    keys = {"split": "part", "label": "flag", "counts": ["visits"]}
    whole = Table(saved(tmp_path, frame), **keys).load()
    monkeypatch.setattr(table_file, "ROWS", 7)
    monkeypatch.setattr(values, "IN_MEMORY", 0.0)
    frame.index += 5  # which is no column
    mapped = Table(saved(tmp_path, frame, ".parquet"), **keys).load()
    assert isinstance(mapped.train.values, np.memmap) and mapped.columns == whole.columns
    for split in ("train", "validation", "test"):
        one, other = getattr(mapped, split), getattr(whole, split)
        np.testing.assert_allclose(one.values[one.rows], other.values, rtol=1e-6)
        np.testing.assert_array_equal(one.labels, other.labels)
    frame.loc[11, "town"] = None
    with pytest.raises(DataError, match="column town has Rome in row 1 .*, and the model knows Bonn, Oslo"):
        columns = [Column("town", "binary", ("Bonn", "Oslo"))]
        Table(saved(tmp_path, frame, ".parquet")).load(columns)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_categories_come_back_as_what_they_were(suffix, tmp_path):
    pytest.importorskip("pyarrow")
    frame = people(zip=RANDOM.choice([8001, 3000, 1200], ROWS), dose=RANDOM.choice([0.5, 2.0], ROWS))
    source = Table(saved(tmp_path, frame, suffix), categorical=["zip"]).load()
    kinds = {c.name: (c.kind, c.categories, c.category_type) for c in source.columns}
    assert kinds["zip"] == ("categorical", ("1200", "3000", "8001"), "number")
    assert kinds["dose"] == ("binary", ("0.5", "2"), "number") and kinds["member"][2] == "bool"
    back = pd.DataFrame(as_values(source.train.values, source.columns))
    for name in ("zip", "dose", "member", "flag", "sex", "town"):
        pd.testing.assert_series_equal(back[name], frame[name], check_dtype=name in ("zip", "dose", "member", "flag"))


def test_nullable_and_decimal_columns_of_parquet_are_taken_for_what_they_hold(tmp_path):
    pytest.importorskip("pyarrow")
    frame = people(
        member=pd.array([True, False, None] * 20, "boolean"),
        age=pd.array([1, 2, 3, None] * 15, "Int64"),
        wage=[Decimal(f"{n}.25") for n in range(ROWS)],
    )
    source = Table(saved(tmp_path, frame, ".parquet"), columns=["member", "age", "wage"]).load()
    assert [c.kind for c in source.columns] == ["binary", "real", "real"]
    np.testing.assert_allclose(
        source.train.values[:4], [[1, 1, 0.25], [0, 2, 1.25], [np.nan, 3, 2.25], [1, np.nan, 3.25]]
    )


def test_a_file_for_a_model_may_have_any_rows_and_labels_and_keeps_its_order(tmp_path):
    frame = people(part=np.resize(["test", "train", "valid"], ROWS))
    keys = {"label": "sex", "split": "part"}
    source = Table(saved(tmp_path, frame), **keys).load()
    for changed, count in ((frame[:1], 1), (frame.assign(wage=np.nan), ROWS), (frame.drop(columns="part"), ROWS)):
        other = Table(saved(tmp_path, changed), **keys).load(source.columns, source.class_names)
        assert sum(len(each) for each in (other.train, other.validation, other.test) if each) == count
    only_test = Table(saved(tmp_path, frame[::3]), **keys).load(source.columns, source.class_names)
    assert only_test.test is None and len(only_test.train) == ROWS // 3
    strange = Table(saved(tmp_path, frame.assign(sex="x")), **keys).load(source.columns, source.class_names)
    assert strange.train.labels is None and "row 0 (counted from 0) is x, and the model knows f, m" in strange.notes[0]


def test_the_last_rows_are_held_out_in_order(tmp_path):
    frame = people(age=np.arange(ROWS))
    data = Table(saved(tmp_path, frame), columns=["age", "wage"], split="order", validation=5).splits()
    splits = [split.images[:, 0].tolist() for split in (data.train, data.validation, data.test)]
    assert splits == [list(range(49)), list(range(49, 54)), list(range(54, 60))]


def test_a_compressed_csv_is_read(tmp_path):
    frame = people()
    frame.to_csv(tmp_path / "x.csv.gz", index=False)
    whole, packed = Table(saved(tmp_path, frame)).load(), Table(str(tmp_path / "x.csv.gz")).load()
    np.testing.assert_array_equal(packed.train.values, whole.train.values)


def test_columns_may_be_separated_by_semicolons(tmp_path):
    path = tmp_path / "x.csv"
    people().to_csv(path, sep=";", index=False)
    assert [c.name for c in Table(str(path)).load().columns][:3] == ["age", "wage", "sex"]
    people().to_csv(path, sep=";", decimal=",", index=False)
    with pytest.raises(DataError, match='column wage has numbers with a comma, ".*,.*"; write them with a point'):
        Table(str(path)).load()


def test_a_column_of_one_value_is_left_out_and_noted_and_an_index_that_pandas_wrote_is_no_column(tmp_path):
    frame = people(same=3, none=None)
    path = tmp_path / "x.csv"
    frame.to_csv(path)
    source = Table(str(path)).load()
    assert {"same", "none", "Unnamed: 0"}.isdisjoint(c.name for c in source.columns)
    assert "2 columns left out, of one value only: same, none" in source.notes


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"name": [f"person {n}" for n in range(ROWS)]}, {"categorical": ["name"]}, None),
        (
            {"age": [*["30"] * 30, *["40"] * 29, "?"]},
            {},
            'age: "\\?" in row 59 .* is no number; leave the cell empty',
        ),
        ({"wage": [*RANDOM.random(ROWS - 1), np.inf]}, {}, "column wage has an infinite value in row 59"),
        ({"visits": [-1, *range(ROWS - 1)]}, {"counts": ["visits"]}, "not counts; take it out of dataset.counts="),
        (
            {"wage": [np.nan, *RANDOM.random(ROWS - 1)]},
            {"missing": "error"},
            "row 0 .counted from 0. has an empty cell, and dataset.missing",
        ),
        ({"town": [None, *["a", "b", "c"] * 19, "a", "b"]}, {"label": "town"}, "row 0 .counted from 0. has no label"),
        ({"town": "a"}, {"label": "town"}, "all rows have the label a; choose another column"),
        (
            {"part": [*["train"] * 59, "later"]},
            {"split": "part"},
            "later in row 59 .*; write train, valid or test",
        ),
        ({"wage": RANDOM.random(ROWS)}, {"label": "wage"}, "60 different values are no classes"),
        ({"town": [f"t{n}" for n in range(57)] + ["t0"] * 3}, {}, "57 different values in 60 rows, too many for categ"),
        ({}, {"counts": ["town"]}, "holds texts, not counts; take it out of dataset.counts="),
        ({"wage": 1e9 + RANDOM.random(ROWS)}, {}, "wage lies between .* float32 hardly tells apart"),
    ],
)
def test_columns_that_cannot_be_modelled_are_refused_in_a_line_with_the_fix(changes, settings, message, tmp_path):
    path = saved(tmp_path, people(**changes))
    if message is None:
        assert Table(path, **settings).load().columns[-1].size == ROWS
        return
    with pytest.raises(DataError, match=message) as refused:
        Table(path, **settings).load()
    assert "\n" not in str(refused.value)


def test_too_many_texts_are_no_categories(tmp_path):
    frame = pd.DataFrame({"id": [f"x{n}" for n in range(500)], "age": RANDOM.random(500)})
    with pytest.raises(
        DataError, match=r"500 different values in 500 rows, too many for categories; leave it out: dataset.drop=\[id\]"
    ):
        Table(saved(tmp_path, frame)).load()


@pytest.mark.parametrize("key", ["columns", "drop", "categorical", "counts"])
def test_a_name_that_no_column_has_is_refused_with_those_there_are(key, tmp_path):
    with pytest.raises(ConfigError, match=f"dataset.{key}: wages is no column of .*; it has age, wage, sex"):
        Table(saved(tmp_path, people()), **{key: ["wages"]}).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n1,2,3\n", "cannot be read as a table"),
        (b"a,a\n1,2\n3,4\n", "two columns named a; rename one"),
        ("größe,b\n1,2\n2,3\n".encode("latin-1"), "is not in UTF-8"),
        (b"", "cannot be read as a table"),
        (b"a,b\n", "has no rows"),
        (b"a,b\n1,1\n1,1\n", "every column has one value only"),
        (b"a,b\n1,2\n,\n2,5\n", "rows without any value: 1 .counted from 0.; remove them"),
    ],
)
def test_broken_files_are_refused_in_a_line(content, message, tmp_path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        Table(str(tmp_path / "x.csv")).load()
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_other_files_and_none_are_refused(tmp_path):
    (tmp_path / "x.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match="is no .csv, .tsv, .parquet or .feather file"):
        Table(str(tmp_path / "x.xlsx")).load()
    with pytest.raises(DataError, match="does not exist"):
        Table(str(tmp_path / "y.csv")).load()
    with pytest.raises(ConfigError, match="dataset.path is not set"):
        Table()


def test_a_models_columns_are_found_by_their_names_in_any_order(tmp_path):
    frame = people()
    source = Table(saved(tmp_path, frame), counts=["visits"]).load()
    other = frame[frame.columns[::-1]].assign(more=1)
    again = Table(saved(tmp_path, other, ".parquet")).load(source.columns)
    np.testing.assert_allclose(again.train.values, source.train.values, rtol=1e-6)
    for changed, message in (
        (frame.drop(columns="town"), "has no column town, which the model was trained on"),
        (
            frame.assign(town="Paris"),
            "column town has Paris in row 0 .*, and the model knows Bonn, Oslo, Rome",
        ),
        (frame.assign(age="old"), 'column age has "old" in row 0 .counted from 0., and the model takes numbers'),
        (frame.assign(age=np.inf), "column age has an infinite value in row 0"),
        (frame.assign(visits=0.5), "column visits has 0.5 in row 0 .counted from 0., which is no count"),
    ):
        with pytest.raises(DataError, match=message):
            Table(saved(tmp_path, changed)).load(source.columns)
