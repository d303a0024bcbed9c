"""What a run's evaluation.json keeps when another evaluation is written."""

from pathlib import Path

from vae_cli.commands.stored_evaluation import StoredEvaluation


def test_scores_of_some_samplers_keep_those_of_others_of_the_same_images_and_features():
    def result(samplers, seed=0, **more):
        scores = {"n": 5, "seed": seed, "features": {"digest": "a"}, "drawn": False, "images": "gray"}
        scores |= {"samples": {name: {"n": name} for name in samplers}}
        return {"elbo": {"n": 5}, "num_importance_samples": 1, "generation": scores, "noun": "image"} | more

    def kept(new, old):
        return [*StoredEvaluation(Path(), old).joined(new)["generation"]["samples"]]

    assert kept(result(["prior"]), result(["prior", "gmm"])) == ["prior", "gmm"]
    assert kept(result(["prior"], seed=1), result(["prior", "gmm"])) == ["prior"]
    assert kept(result(["prior"]), {}) == ["prior"]


def test_scores_without_other_runs_keep_the_agreement_with_runs_beside():
    def result(**scores):
        own = {"n": 5, "seed": 0, "variant": {"codes": "means"}} | scores
        return {"elbo": {"n": 5}, "num_importance_samples": 1, "disentanglement": own, "noun": "image"}

    old = result(udr={"value": 0.5}, variant={"codes": "means", "udr": "of 3 runs"})
    assert StoredEvaluation(Path(), old).joined(result())["disentanglement"] == old["disentanglement"]
    assert "udr" not in StoredEvaluation(Path(), old).joined(result(variant={"codes": "draws"}))["disentanglement"]


def test_scores_that_are_lost_are_named():
    scores = {"samples": {"prior": {}, "gmm": {}}}
    stored = StoredEvaluation(Path(), {"generation": scores, "disentanglement": {"udr": {}}})
    assert stored.replaced_in({"generation": {"samples": {"prior": {}}}}) == ["samples by gmm", "udr"]
    assert stored.replaced_in(stored.contents) == []
