"""The parts that a config names, and the objectives that several processes cannot share."""

import pytest
import torch

from vae_cli.build import options, parts
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError

SMALL = ["latent_dim=3", "encoder.hidden=[16]", "decoder.hidden=[16]", "mc_samples=2"]


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["objective=beta_tc"], "objective=beta_tc cannot be divided among 2 processes: the total correlation"),
        (["objective=info_vae"], "objective=info_vae cannot be divided among 2 processes: the MMD"),
        (["objective=factor_vae"], "objective=factor_vae cannot be divided among 2 processes: the discriminator"),
        (["objective=dip_vae"], "objective=dip_vae cannot be divided among 2 processes: the covariance"),
        (["objective.free_bits=0.5"], "objective.free_bits is compared with a batch's mean KL"),
        (["objective.capacity=5"], "objective.capacity is compared with a batch's mean KL"),
    ],
)
def test_objectives_that_look_at_a_batch_as_a_whole_are_refused(overrides, what):
    settings = compose.compose("train", [*SMALL, *overrides, "likelihood=bernoulli"])
    facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
    model = parts.model(settings, facts)
    assert parts.objective(settings, model, facts, 1)
    with pytest.raises(ConfigError, match=what):
        parts.objective(settings, model, facts, 1, world_size=2)


def test_every_other_objective_is_the_mean_over_images():
    """An objective that is not refused gives for a batch the mean over its images, of the loss and the gradient."""
    for overrides in (["objective=elbo", "objective.beta=3"], ["objective=iwae"], ["objective=dreg"]):
        settings = compose.compose("train", [*SMALL, *overrides, "likelihood=bernoulli", "mc_samples=3"])
        facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
        model = parts.model(settings, facts).double()
        objective = parts.objective(settings, model, facts, 1, world_size=2)
        x, drawn = (torch.rand(5, 1, 4, 4) < 0.5).double(), torch.randn(3, 5, 3).double()
        parameters = list(model.parameters())
        whole = torch.autograd.grad(objective(model, (x, None), drawn, 0).loss, parameters)
        both = [
            torch.autograd.grad(objective(model, (x[i], None), drawn[:, i], 0).loss, parameters)
            for i in (slice(0, 2), slice(2, 5))
        ]
        for all_, two, three in zip(whole, *both):
            torch.testing.assert_close(all_, 0.4 * two + 0.6 * three)


@pytest.mark.parametrize(
    ("size", "world_size", "batch_size", "epochs"),
    [
        (1, 1, 4, 500),
        (30, 1, 4, 500),
        (243, 1, 4, 100),
        (1294, 1, 16, 100),
        (6399, 1, 64, 100),
        (6400, 1, 128, 100),
        (54_000, 1, 128, 100),
        (1294, 4, 4, 100),
        (54_000, 8, 128, 100),
    ],
)
def test_auto_takes_fewer_images_a_step_and_more_epochs_of_a_small_set(size, world_size, batch_size, epochs):
    facts = DataFacts("mine", (1, 8, 8), "levels256", 0, size)
    chosen = parts.with_choices(compose.compose("train"), facts, world_size)
    assert (chosen["batch_size"], chosen["epochs"]) == (batch_size, epochs)
    assert chosen["likelihood"] == {
        "_target_": "vae_cli.distributions.DiscretizedLogisticLikelihood",
        "scale": "learned",
    }
    own = compose.compose("train", ["batch_size=7", "epochs=3", "likelihood=normal", "objective=iwae"])
    assert parts.with_choices(own, facts, world_size) == own


@pytest.mark.parametrize("objective", ["beta_tc", "dip_vae", "info_vae", "factor_vae"])
def test_auto_takes_64_images_at_least_where_their_codes_are_compared(objective):
    config = compose.compose("train", [f"objective={objective}"])
    for size, batch_size in ((30, 64), (1294, 64), (54_000, 128)):
        chosen = parts.with_choices(config, DataFacts("mine", (1, 8, 8), "levels256", 0, size))
        assert chosen["batch_size"] == batch_size
    assert (
        parts.with_choices({**config, "batch_size": 7}, DataFacts("mine", (1, 8, 8), "levels256", 0, 30))["batch_size"]
        == 7
    )


def test_the_total_correlation_of_one_dimension_is_refused_by_its_keys():
    facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
    settings = compose.compose("train", [*SMALL, "objective=factor_vae", "latent_dim=1", "likelihood=bernoulli"])
    message = "objective=factor_vae and latent_dim=1 do not go together: one dimension has no total correlation"
    with pytest.raises(ConfigError, match=message):
        parts.objective(settings, parts.model(settings, facts), facts, 1)


def groups_of(optimizer, likelihood="discretized_logistic"):
    """The rate and weight decay of every weight and of the likelihood's scale."""
    facts = DataFacts("mine", (1, 8, 8), "levels256", 0, 50)
    config = parts.with_choices(
        compose.compose("train", [*SMALL, f"optimizer={optimizer}", f"likelihood={likelihood}"]), facts
    )
    model = parts.model(config, facts)
    groups = {id(p): group for group in parts.optimizer(config, model).param_groups for p in group["params"]}
    assert len(groups) == len(list(model.parameters()))
    found = (groups[id(p)] for p in (model.encoder.output.weight, model.likelihood.raw_scale))
    return [(group["lr"], group.get("weight_decay")) for group in found]


@pytest.mark.parametrize(
    ("overrides", "schedule", "warmup"),
    [
        (["epochs=50"], "linear", 0),
        (["model=ladder", "epochs=50"], "balanced", 5),
        (["model=top_down", "objective=stl", "epochs=5"], "balanced", 2),  # 1,000 steps
        (["model=ladder", "epochs=2"], "balanced", 1),
        (["model=ladder", "epochs=50", "objective.capacity=20"], "linear", 5),
        (["model=ladder", "epochs=50", "objective.free_bits_by=sum"], "linear", 5),
        (["model=ladder", "epochs=50", "objective.warmup_epochs=0"], "linear", 0),
        (["model=ladder", "epochs=50", "objective.warmup_epochs=3"], "balanced", 3),
        (["model=ladder", "epochs=50", "objective.beta_schedule=cyclical"], "cyclical", 5),
        (["epochs=50", "objective.warmup_epochs=7"], "linear", 7),
    ],
)
def test_a_hierarchy_has_a_balanced_warm_up_over_a_tenth_of_the_epochs_or_a_thousand_steps(overrides, schedule, warmup):
    facts = DataFacts("set", (1, 4, 4), "binary", 0, 64_000)
    composed = compose.compose("train", [*overrides, "batch_size=128"])
    objective = parts.with_choices(composed, facts)["objective"]
    assert (objective["beta_schedule"], objective["warmup_epochs"]) == (schedule, warmup)


def test_a_warm_up_that_was_chosen_for_a_model_of_one_level_is_no_changed_setting():
    config = parts.with_choices(compose.compose("train"), DataFacts("set", (1, 4, 4), "binary", 0, 64_000))
    assert not [key for key in options.changes(config) if key.startswith("objective")]
    warm = config | {"objective": config["objective"] | {"warmup_epochs": 5}}
    assert options.changes(warm)["objective.warmup_epochs"] == 5


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "radam", "rmsprop"])
def test_a_learned_scale_has_ten_times_the_rate_where_steps_have_a_size_of_their_own(optimizer):
    (rate, _), scale = groups_of(optimizer)
    assert scale == (pytest.approx(10 * rate), 0)


def test_a_learned_scale_has_the_weights_rate_under_sgd():
    weight, scale = groups_of("sgd")
    assert weight == scale


def test_a_conditional_model_of_factors_alone_is_refused():
    facts = DataFacts("sprites", (1, 4, 4), "binary", 0, 9, factor_names=("x", "y"), factor_sizes=(2, 3))
    with pytest.raises(ConfigError, match="those of sprites have 2 factors instead"):
        parts.model(parts.with_choices(compose.compose("train", [*SMALL, "conditional=true"]), facts), facts)
