"""Single cells of an `.h5ad` file: what is read, what is found again, and what is refused."""

import numpy as np
import pytest
import scipy.sparse

anndata = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")

from vae_cli.data import AnnData  # noqa: E402
from vae_cli.data.sources import anndata as source_module  # noqa: E402
from vae_cli.data.sources import values  # noqa: E402
from vae_cli.errors import ConfigError, DataError  # noqa: E402

CELLS, GENES = 50, 7
COUNTS = np.random.default_rng(0).poisson(1.5, (CELLS, GENES)).astype(np.float32) + np.eye(
    CELLS, GENES, dtype=np.float32
)
COUNTS[:, 0] += 1  # no cell is empty


def saved(tmp_path, matrix, name="x.h5ad", genes=None, **layers):
    obs = pd.DataFrame(
        {"type": np.resize(["T", "B", "NK"], CELLS), "part": np.resize(["train", "train", "valid", "test"], CELLS)},
        index=[f"cell{n}" for n in range(CELLS)],
    )
    var = pd.DataFrame(index=genes or [f"gene{n}" for n in range(GENES)])
    anndata.AnnData(X=matrix, obs=obs, var=var, layers=layers).write_h5ad(tmp_path / name)
    return str(tmp_path / name)


@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_dense_and_sparse_counts_are_read_whole_or_mapped(form, is_mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(values, "IN_MEMORY", 0.0 if is_mapped else 0.5)
    monkeypatch.setattr(source_module, "CHUNK", 4 * GENES * 8)
    source = AnnData(saved(tmp_path, form(COUNTS)), label="type").load()
    np.testing.assert_array_equal(source.train.values, COUNTS)
    assert isinstance(source.train.values, np.memmap) == is_mapped
    assert source.support == "counts" and source.class_names == ("B", "NK", "T")
    assert [c.name for c in source.columns] == [f"gene{n}" for n in range(GENES)]
    assert list(source.train.labels[:3]) == [2, 0, 1]


def test_a_layer_splits_and_real_values_have_keys(tmp_path):
    path = saved(tmp_path, np.log1p(COUNTS), counts=COUNTS)
    data = AnnData(path, split="part").splits()
    assert data.facts.support == "real" and (len(data.train), len(data.validation), len(data.test)) == (26, 12, 12)
    assert AnnData(path, layer="counts").load().support == "counts"
    assert AnnData(path, layer="counts", support="real").load().support == "real"


def test_a_models_genes_are_found_by_their_names_in_any_order(tmp_path):
    source = AnnData(saved(tmp_path, COUNTS)).load()
    turned = [f"gene{n}" for n in reversed(range(GENES))]
    other = saved(tmp_path, scipy.sparse.csr_matrix(COUNTS[:, ::-1]), "y.h5ad", turned)
    np.testing.assert_array_equal(AnnData(other).load(source.columns).train.values, COUNTS)
    with pytest.raises(DataError, match="has no gene gene6, which the model was trained on"):
        AnnData(saved(tmp_path, COUNTS, "z.h5ad", [*turned[1:], "other"])).load(source.columns)


def test_whole_numbers_for_a_model_of_real_values_are_real(tmp_path):
    source = AnnData(saved(tmp_path, np.log1p(COUNTS))).load()
    assert AnnData(saved(tmp_path, COUNTS, "y.h5ad")).load(source.columns).support == "real"


def test_what_is_no_count_or_no_file_is_refused_in_a_line(tmp_path):
    path = saved(tmp_path, np.log1p(COUNTS))
    for settings, error, message in (
        ({"support": "counts"}, DataError, "choose dataset.support=real"),
        ({"layer": "raw"}, ConfigError, "has no such layer; it has none"),
        ({"label": "kind"}, ConfigError, "kind is no column of .*; it has type, part"),
    ):
        with pytest.raises(error, match=message) as refused:
            AnnData(path, **settings).load()
        assert "\n" not in str(refused.value)
    twice = saved(tmp_path, COUNTS, "twice.h5ad", ["a", "a", *"bcdef"])
    with pytest.raises(DataError, match="several genes named a; save it after adata.var_names_make_unique"):
        AnnData(twice).load()
    (tmp_path / "broken.h5ad").write_bytes(b"no")
    with pytest.raises(DataError, match="cannot be read as .h5ad"):
        AnnData(str(tmp_path / "broken.h5ad")).load()
    with pytest.raises(DataError, match="does not exist"):
        AnnData(str(tmp_path / "none.h5ad")).load()
    with pytest.raises(ConfigError, match="name an .h5ad file"):
        AnnData()
