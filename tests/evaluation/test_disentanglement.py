"""All scores together, and those of another program on the same codes."""

import json

import numpy as np
import pytest

from tests.support.known_codes import SIZES, drawn, fixed
from vae_cli.errors import DataError
from vae_cli.evaluation import factor_information, factor_prediction
from vae_cli.evaluation.disentanglement import STEPS, scores
from vae_cli.evaluation.factor_prediction import Examples
from vae_cli.reporting import tables

NAMES = ("one", "two", "three", "four")
SCORES = ("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap", "modularity")
SCORES = (*SCORES, "beta_vae_score", "factor_vae_score")
# Of `fixed`, by the package disent 0.8.0 with numpy 2.4.6 and scikit-learn 1.9.1: its _compute_mig, _compute_sap,
# _gaussian_total_correlation, _compute_dci (gradient boosting, numpy.random.seed(0)), and metric_factor_vae with a data
# set that looks up these codes (numpy.random.seed(1), 10,000 and 5,000 votes). Every third image, from the first on, is
# for the test.
OF_DISENT = {
    "mig": 0.36653247867103517,
    "sap": 0.15833333333333333,
    "gaussian_total_correlation": 0.18917332668958187,
    "dci_disentanglement": 0.7647541825194536,
    "dci_completeness": 0.7530942169407088,
    "dci_informativeness": 0.5604166666666667,
    "factor_vae_score": 0.8598,
}


def two_parts():
    codes, factors = fixed()
    is_test = np.arange(len(codes)) % 3 == 0
    return Examples(codes[~is_test], factors[~is_test]), Examples(codes[is_test], factors[is_test])


def ours():
    """The same scores by this program."""
    codes, factors = fixed()
    information, entropy = (
        factor_information.mutual_information(codes, factors),
        factor_information.entropies(factors),
    )
    importance, accuracies = factor_prediction.importances(*two_parts(), "gradient_boosting", 0)
    separation = factor_prediction.separation(*two_parts(), 0)
    return {
        "mig": factor_information.gaps(information, entropy).mean(),
        "sap": factor_prediction.separated_attribute_predictability(separation),
        "gaussian_total_correlation": factor_information.gaussian_total_correlation(codes),
        "dci_disentanglement": factor_prediction.disentanglement(importance),
        "dci_completeness": factor_prediction.completeness(importance),
        "dci_informativeness": accuracies.mean(),
        "factor_vae_score": factor_prediction.factor_vae_accuracy(codes, factors, 0),
    }


def assert_alike(found, expected):
    for name, value in found.items():
        # Boosting and votes are random: 5,000 votes have a standard error of 0.005.
        is_random = name.startswith("dci") or name == "factor_vae_score"
        assert value == pytest.approx(expected[name], abs=0.015 if is_random else 1e-9), name


def test_the_scores_are_those_of_disent_on_the_same_codes():
    assert_alike(ours(), OF_DISENT)


@pytest.mark.slow
def test_disent_gives_the_values_that_are_written_here():
    pytest.importorskip("disent")
    from disent.metrics import _dci, _factor_vae, _mig, _sap, _unsupervised

    codes, factors = fixed()
    parts = [values.T for part in two_parts() for values in part]

    class Data:
        gt_data = property(lambda self: self)
        num_factors = len(SIZES)

        def sample_factors(self, count):
            return np.stack([np.random.randint(size, size=count) for size in SIZES], 1)  # noqa: NPY002

        def dataset_batch_from_factors(self, values, mode):
            return codes[np.ravel_multi_index(values.T, SIZES)]

        def dataset_sample_batch(self, count, mode):
            return codes[np.random.randint(len(codes), size=count)]  # noqa: NPY002

    np.random.seed(0)  # noqa: NPY002
    dci = _dci._compute_dci(*parts)
    np.random.seed(1)  # noqa: NPY002
    votes = _factor_vae.metric_factor_vae.unwrap(Data(), lambda z: z, num_train=10_000, num_eval=5_000)
    found = {
        "mig": _mig._compute_mig(codes.T, factors.T)["mig.discrete_score"],
        "sap": _sap._compute_sap(*parts, False)["sap.score"],
        "gaussian_total_correlation": _unsupervised._gaussian_total_correlation(np.cov(codes.T)),
        "dci_disentanglement": dci["dci.disentanglement"],
        "dci_completeness": dci["dci.completeness"],
        "dci_informativeness": dci["dci.informativeness_test"],
        "factor_vae_score": votes["factor_vae.eval_accuracy"],
    }
    assert_alike(found, OF_DISENT)


@pytest.fixture(scope="module")
def known():
    kinds = ("factors", "rotated", "noise", "constant")
    return {kind: scores(*drawn(kind, count=900), NAMES, 0, "extra_trees") for kind in kinds}


def test_the_factors_themselves_have_the_highest_scores(known):
    values = {name: known["factors"][name]["value"] for name in SCORES if name != "sap"}
    assert min(values.values()) > 0.93, values
    # SAP's classifiers are linear, and the middle ones of six values on a line are not told by one: it stays below 1.
    assert known["factors"]["sap"]["value"] > 0.15


def test_noise_has_the_lowest_and_a_rotation_keeps_the_information_alone(known):
    noise, rotated, whole = (known[kind] for kind in ("noise", "rotated", "factors"))
    for name in ("mig", "dci_disentanglement", "dci_completeness", "sap"):
        assert noise[name]["value"] < 0.12 and noise[name]["value"] < 0.5 * whole[name]["value"]
    assert noise["dci_informativeness"]["value"] < 0.25 and noise["factor_vae_score"]["value"] < 0.4
    assert rotated["mig"]["value"] < 0.35 and rotated["dci_informativeness"]["value"] > 0.45


def test_a_constant_dimension_changes_nothing_but_modularity_and_is_no_nan(known):
    for name in SCORES:
        value = known["constant"][name]["value"]
        expected = known["factors"][name]["value"] * (0.8 if name == "modularity" else 1)
        assert np.isfinite(value) and value == pytest.approx(expected, abs=0.02), name


def test_every_number_has_its_count_and_the_variant_is_named(known):
    result = known["factors"]
    assert result["mig"]["n"] == 900 and 0 < result["mig"]["stderr"] < 0.05 and result["sap"]["n"] == 300
    assert list(result["mig_by_factor"]) == list(NAMES) == result["factors"]
    by_factor = [number["value"] for number in result["mig_by_factor"].values()]
    assert np.mean(by_factor) == pytest.approx(result["mig"]["value"])
    variant = result["variant"]
    assert variant["mutual_information"] == "20 bins of equal width" and "100" in variant["dci"]
    assert variant["predictors"] == "trained on 600 images, tested on 300"
    assert np.argmax(result["information"], 0).tolist() == [0, 1, 2, 3] and np.max(result["information"]) <= 1 + 1e-9
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_few_images_are_said_to_be_biased(known):
    few = scores(*drawn("noise", count=150), NAMES, 0, "extra_trees")
    # 20 bins and six values at the most
    assert few["biased"] and 0.1 < few["information_bias"] < 19 * 5 / 300 / np.log(6) * 1.1
    assert not known["constant"]["biased"] and known["constant"]["information_bias"] < 0.05
    line = "of 150 images mutual information is too large, by up to about"
    assert line in "".join(tables._factor_lines({**few, "variant": {"codes": "means"}}))
    assert "too large" not in "".join(tables._factor_lines({**known["constant"], "variant": {"codes": "means"}}))


def test_factors_that_do_not_vary_are_left_out_and_named():
    codes, factors = drawn("factors", count=300)
    factors = np.insert(factors, 1, 2, axis=1)
    steps = []
    result = scores(codes, factors, ("a", "color", "b", "c", "d"), 0, "extra_trees", lambda: steps.append(1))
    assert result["factors"] == ["a", "b", "c", "d"] and "color" in result["variant"]["left_out"]
    assert len(steps) == STEPS + 4 + codes.shape[1]


def test_too_few_images_factors_or_dimensions_are_refused():
    codes, factors = drawn("factors", count=200)
    for wrong, message in (
        ((codes[:99], factors[:99]), "100 images at least, and these are 99"),
        ((codes, factors * [1, 0, 0, 0]), "two factors at least"),
        ((codes[:, :1], factors), "two latent dimensions"),
    ):
        with pytest.raises(DataError, match=message):
            scores(*wrong, NAMES, 0)
