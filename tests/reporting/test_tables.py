"""The numbers of an evaluation as a person reads them."""

from vae_cli.reporting import tables

RESULT = {
    "data": "digits",
    "path": None,
    "split": "test",
    "num_importance_samples": 30,
    "elbo": {"value": -100.25, "stderr": 0.5, "n": 1234},
    "log_likelihood": {"value": -98.5, "stderr": None, "n": 1234},
    "log_likelihood_by_samples": {"1": {"value": -101.0, "stderr": 0.4, "n": 1234}, "30": {}},
    "active_units": {"value": 3, "stderr": None, "n": 1234},
    "index_code_mi": {"value": 7.1, "stderr": 0.1, "n": 1234, "cap": 7.118, "saturated": True},
    "kl_per_dim": [0.5, 2.25, *[0.0] * 16],
}


def test_a_table_has_a_line_for_each_number_with_its_error_and_unit():
    title, _, elbo, likelihood, by_one, active, information, kl = tables.table(RESULT).splitlines()
    assert title == "1,234 images of digits, test split, 30 importance samples"
    assert elbo.split() == ["elbo", "-100.2500", "±", "0.5000", "nats", "per", "example"]
    assert "±" not in likelihood and by_one.split()[:5] == ["with", "K", "=", "1", "-101.0000"]
    assert active.split()[:2] == ["active_units", "3"]
    assert information.endswith("nats, at most log N = 7.12 with N = 1,234, saturated")
    assert kl.split()[:3] == ["kl_per_dim", "2.25", "0.50"] and kl.endswith("…  nats, largest first")
