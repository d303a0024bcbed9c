"""From a command line of a sweep through Hydra to its jobs."""

from hydra.core.global_hydra import GlobalHydra

from tests.support.launching import NOTES, launched, run


def test_paths_survive_a_sweep_in_which_commas_separate(notes):
    texts = ["\udcff", "a b=[c]", "back\\slash\\", "$HOME/${~é"]
    assert launched("-m", f"data_dir={','.join(texts)}") == 0
    assert [config["data_dir"] for config, *_ in notes] == texts


def test_a_quoted_comma_does_not_sweep(notes):
    assert launched("-m", "data_dir='a,b',c", 'allow="d,e"') == 0
    assert [(s["data_dir"], s["allow"]) for s, *_ in notes] == [("a,b", "d,e"), ("c", "d,e")]


def test_choice_sweeps_over_paths(notes):
    assert launched("-m", "data_dir=choice(a,b)") == 0
    assert [config["data_dir"] for config, *_ in notes] == ["a", "b"]


def test_a_sweep_runs_every_combination_in_its_own_directory(notes, tmp_path):
    assert launched("latent_dim=2,3", "optimizer=adam,sgd", "-m", "sweep=my sweep") == 0
    assert [(s["latent_dim"], s["optimizer"]["lr"]) for s, *_ in notes] == [
        (2, 1e-3),
        (2, 1e-4),
        (3, 1e-3),
        (3, 1e-4),
    ]
    names = [f"latent_dim-{size}__optimizer-{name}" for size in (2, 3) for name in ("adam", "sgd")]
    assert [d for _, d, *_ in notes] == [tmp_path / "my sweep" / name for name in names]
    assert not list(tmp_path.rglob(".hydra"))


def test_a_key_inside_a_swept_group_follows_the_options(notes):
    assert launched("-m", "encoder=conv,resnet", "encoder.channels=[8,16]") == 0
    assert [s["encoder"]["channels"] for s, *_ in notes] == [[8, 16], [8, 16]]


def test_hydras_values_resolve_in_the_jobs_of_a_sweep(notes):
    assert launched("-m", "latent_dim=2,3", "seed=${hydra:job.num}", "data_dir=${hydra:runtime.output_dir}") == 0
    assert [s["seed"] for s, *_ in notes] == [0, 1]
    assert [s["data_dir"] for s, *_ in notes] == [str(d) for _, d, *_ in notes]


def status_is_latent_dim(config, directory, overridden, command):
    NOTES.append(config["latent_dim"])
    return config["latent_dim"]


def test_a_sweep_in_which_a_job_fails_ends_with_status_1(notes):
    assert run(["-m", "latent_dim=3,2"], status_is_latent_dim) == 1
    assert notes == [3, 2]


def test_an_interrupted_job_ends_the_sweep(notes):
    assert run(["-m", "latent_dim=130,2"], status_is_latent_dim) == 130
    assert notes == [130]
    assert not GlobalHydra.instance().is_initialized()
