"""Means over examples."""

import math

import torch

from vae_cli.evaluation.totals import Totals


def test_totals_weigh_by_images_and_leave_out_what_is_not_finite():
    from vae_cli.objectives import Bound

    totals = Totals(torch.device("cpu"))
    for values, finite in (([1.0, 2.0, 3.0], True), ([10.0], True), ([math.nan], False)):
        elbo = torch.tensor(values)
        totals.add(Bound(-elbo.mean(), elbo, elbo, {"kl": elbo}).sums(), torch.tensor(finite))
    assert totals.means() == {"elbo": 4.0, "bound": 4.0, "kl": 4.0, "loss": -4.0}
    again = Totals(torch.device("cpu"))
    again.load_state_dict(totals.state_dict())
    assert again.means() == totals.means()
