"""Command lines read, composed and checked: what goes in comes out, and what is wrong is named."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from vae_cli.config import command_line, compose, launch, options, validation
from vae_cli.errors import ConfigError
from vae_cli.sweeps import launch as sweep_launch

NASTY = [
    "plain",
    "with space",
    " leading and trailing ",
    "a=b",
    "x,y",
    "[brackets]",
    "{braces}",
    "(parens)",
    "it's",
    'say "hi"',
    'it\'s "both"',
    "'",
    '"',
    "''a''",
    "back\\slash",
    "trailing\\",
    "two\\\\",
    "quote\\'d",
    "\\'",
    "C:\\dir\\'x'\\",
    "été/日本語",
    "~/home",
    "$HOME",
    "a$b$",
    "$",
    "${unclosed",
    "\\${unclosed",
    "a}b{c",
    "#hash",
    "colon: value",
    "true",
    "123",
    "1e-3",
    "nan",
    "a\tb",
    "a\nb",
    "*?|&;<>!@%^",
    "choice(1,2)",
    "glob(*)",
    "-m",
]

PATH_KEYS = ["data_dir", "resume", "dataset.path"]


def composed(*argv):
    return compose.compose("train", argv)


def refusal(*argv, command="train"):
    with pytest.raises(ConfigError) as caught:
        compose.compose(command, argv)
    return str(caught.value)


@pytest.mark.parametrize("texts", list(zip(NASTY[::2], NASTY[1::2])))
def test_a_path_comes_back_as_the_shell_gave_it(texts):
    plain = compose.compose("sample", [f"checkpoint={texts[0]}", f"output={texts[1]}"])
    assert (plain["checkpoint"], plain["output"]) == texts


def test_every_path_key_is_quoted_with_any_prefix():
    for key in (*PATH_KEYS, "checkpoint", "input", "output", "sweep", "hydra.run.dir"):
        for prefix in ("", "+", "++"):
            assert command_line.read_command_line([f"{prefix}{key}=a b"]).overrides == [f"{prefix}{key}='a b'"]


def note(settings, directory, given, command):
    NOTES.append((settings, directory, given, command))
    return 0


NOTES: list = []


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOTES.clear()
    return NOTES


def run(argv, job):
    line = command_line.read_command_line(argv)
    return sweep_launch.launch(line, job) if line.multirun else launch.launch(line, job)


def launched(*argv):
    return run(argv, note)


def test_paths_survive_a_sweep_in_which_commas_separate(notes):
    texts = ["a b=[c]", "back\\slash\\", "$HOME/${~é"]
    assert launched("-m", f"data_dir={','.join(texts)}") == 0
    assert [settings["data_dir"] for settings, *_ in notes] == texts


def test_a_quoted_comma_does_not_sweep(notes):
    assert launched("-m", "data_dir='a,b',c", 'allow="d,e"') == 0
    assert [(s["data_dir"], s["allow"]) for s, *_ in notes] == [("a,b", "d,e"), ("c", "d,e")]


def test_choice_sweeps_over_paths(notes):
    assert launched("-m", "data_dir=choice(a,b)") == 0
    assert [settings["data_dir"] for settings, *_ in notes] == ["a", "b"]


@pytest.mark.parametrize("text", ["a=b, [c]{d}(e)", 'it\'s "both"', "back\\slash\\", "~$HOME été"])
def test_the_run_directory_is_the_one_named(text, notes, tmp_path):
    assert launched(f"hydra.run.dir=d/{text}") == 0
    assert notes[0][1] == tmp_path / f"d/{text}"
    assert notes[0][1].is_dir()


def test_interpolations_work_in_the_run_directory(notes, tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "here")
    year = time.strftime("%Y")
    launched("hydra.run.dir=a b/${oc.env:WHERE}/${now:%Y}/${hydra:runtime.choices.dataset}")
    assert notes[0][1] == tmp_path / "a b/here" / year / "digits"


def test_null_and_quoted_values_stay():
    plain = composed("resume=null", "data_dir='a b'", "dataset=arrays", 'dataset.path="x"')
    assert (plain["resume"], plain["data_dir"], plain["dataset"]["path"]) == (None, "a b", "x")


@pytest.mark.parametrize("line", ["resume=???", "resume="])
def test_no_path_is_no_path(line):
    assert refusal(line).startswith("resume")


@pytest.mark.parametrize(
    "argv",
    [
        ["latent_dim=2", "-m", "epochs=3"],
        ["-m", "latent_dim=2", "epochs=3"],
        ["latent_dim=2", "epochs=3", "--multirun"],
        ["latent_dim=2", "epochs=3", "hydra.mode=MULTIRUN"],
    ],
)
def test_flags_stand_anywhere(argv):
    line = command_line.read_command_line(argv)
    assert line.multirun
    assert [o for o in line.overrides if "mode" not in o] == ["latent_dim=2", "epochs=3"]


@pytest.mark.parametrize(
    ("argv", "cfg"),
    [
        (["--cfg", "job", "latent_dim=3"], "job"),
        (["latent_dim=3", "--cfg", "job"], "job"),
        (["latent_dim=3", "-c", "hydra"], "hydra"),
    ],
)
def test_flags_with_values_stand_anywhere(argv, cfg):
    line = command_line.read_command_line(argv)
    assert (line.flags.cfg, line.overrides) == (cfg, ["latent_dim=3"])


def test_info_does_not_swallow_an_override():
    line = command_line.read_command_line(["--info", "latent_dim=3"])
    assert (line.flags.info, line.overrides) == ("all", ["latent_dim=3"])


def test_the_defaults_are_right():
    plain = composed()
    assert plain["encoder"]["hidden"] == [400]
    assert plain["optimizer"]["lr"] == 1e-3
    assert "hydra" not in plain
    assert "experiment" not in plain


def test_a_preset_wins_over_defaults_and_the_line_over_the_preset():
    preset = composed("experiment=mnist_conv")
    assert (preset["epochs"], preset["encoder"]["channels"]) == (20, [32, 64])
    mine = composed("epochs=3", "experiment=mnist_conv", "encoder=mlp")
    assert (mine["epochs"], mine["encoder"]["hidden"], mine["decoder"]["channels"]) == (3, [400], [64, 32])


def test_numbers_are_numbers():
    plain = composed("optimizer.lr=1e-3", "optimizer.eps=1", "latent_dim=1_000", "objective.beta=.5")
    values = (
        plain["optimizer"]["lr"],
        plain["optimizer"]["eps"],
        plain["latent_dim"],
        plain["objective"]["beta"],
    )
    assert values == (1e-3, 1, 1000, 0.5)


def test_a_users_own_class_and_keys_pass_inside_a_group():
    plain = composed("encoder._target_=my.Encoder", "+encoder.width=3", "encoder.hidden=auto")
    assert plain["encoder"] == {
        "_target_": "my.Encoder",
        "hidden": "auto",
        "activation": "relu",
        "width": 3,
    }


def test_data_dir_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("VAE_DATA_DIR", "/some where")
    assert composed()["data_dir"] == "/some where"
    assert composed("data_dir=other")["data_dir"] == "other"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["encoder.hiden=[3]"], ["encoder.hiden", "did you mean encoder.hidden?"]),
        (["encodr.hidden=[3]"], ["did you mean encoder.hidden?"]),
        (["hidden=[3]"], ["encoder.hidden or decoder.hidden"]),
        (["lr=3"], ["optimizer.lr"]),
        (["datset=mnist"], ["did you mean dataset?"]),
        (["dataset.pth=x"], ["dataset.path"]),
        (["encoder.channels=[8]"], ["encoder=mlp has no channels", "encoder=conv and encoder=resnet"]),
        (["+unknown=1"], ["unknown key unknown"]),
        (["+a.b=1"], ["unknown key a"]),
        (["latent_dim.foo=3"], ["latent_dim.foo"]),
        (["+latent_dim=3"], ["latent_dim is there already", "drop the +"]),
        (["experiment=mnst_conv"], ["did you mean mnist_conv?"]),
        (["dataset=3"], ["dataset=3", "digits"]),
        (["dataset="], ["dataset=''", "digits"]),
        (["dataset=[mnist,digits]"], ["dataset=[mnist, digits]"]),
        (["+dataset=mnist"], ["dataset=OPTION"]),
        (["dataset@x=mnist"], ["dataset=OPTION"]),
        (["~latent_dim"], ["~latent_dim", "needs latent_dim"]),
        (["~dataset"], ["~dataset", "needs dataset"]),
        (["~foo"], ["foo"]),
        (["latent_dim"], ["latent_dim", "KEY=VALUE"]),
        (["=3"], ["=3", "KEY=VALUE"]),
        (["a b"], ["a b", "KEY=VALUE"]),
        (["a b=3"], ["'a b'", "KEY=VALUE"]),
        (["encoder.hidden=[3"], ["encoder.hidden=[3", "[]"]),
        (["latent_dim=(3"], ["()"]),
        (["device='cpu"], ["quotes"]),
        (["latent_dim= "], ["latent_dim=''"]),
        (["hydra.run.dir=a${b"], ["hydra.run.dir=a${b"]),
        (["latent_dim=foo(3)"], ["latent_dim=foo(3)", "foo"]),
        (["latent_dim=${foo}"], ["latent_dim", "'foo'"]),
        (["latent_dim=${foo"], ["latent_dim", "{}"]),
        (["encoder.hidden=${nope}"], ["encoder.hidden", "'nope'"]),
        (["data_dir=${oc.env:NOT_SET_ANYWHERE}"], ["data_dir", "NOT_SET_ANYWHERE"]),
        (["latent_dim=2,8"], ["latent_dim=2,8", "-m"]),
        (["sweep=x"], ["sweep=DIR", "-m"]),
        (["hydra.run.dirr=x"], ["hydra.run.dirr", "did you mean hydra.run.dir?"]),
        (["hydra.run.dir="], ["hydra.run.dir"]),
        (["hydra.run.dir=null"], ["hydra.run.dir"]),
        (["hydra.run.dir=x/${nope}"], ["hydra.run.dir", "'nope'"]),
        (["hydra.mode=FOO"], ["hydra.mode=FOO"]),
        (["hydra/launcher=basc"], ["hydra/launcher=basc", "did you mean basic?"]),
        (["hydra/lancher=basic"], ["did you mean hydra/launcher?"]),
        (["hydra.searchpath=[/no/such/folder]"], ["/no/such/folder"]),
        (["-m", "latent_dm=2,8"], ["did you mean latent_dim?"]),
        (["-m", "dataset=mnits,minst"], ["dataset=mnits", "did you mean mnist?"]),
        (["-m", "encoder=linear,mlp", "encoder.channels=[8]"], ["encoder=linear has no channels"]),
        (["-m", "fail_fast=true,false"], ["fail_fast is the whole sweep's"]),
        (["-m", "latent_dim=2,3", "hydra.sweep.subdir=x"], ["hydra.sweep.subdir", "named by their settings"]),
        (["-m", "resume=x", "epochs=3,4"], ["leave out -m"]),
        (["hydra/launcher=cores"], ["hydra/launcher=cores is for a sweep: add -m"]),
        (["retry_failed=true"], ["retry_failed=true is for a sweep: add -m"]),
        (["-m", "latent_dim=2,"], ["latent_dim=2,: a value is missing behind the last comma"]),
        (["-m", "latent_dim=2,3", "hydra.launcher.n_jobs=2"], ["add hydra/launcher=cores, which has it"]),
        (["-m", "latent_dim=2,3", "sweep="], ["sweep= is empty"]),
        (["-m", "hydra.job.name=a,b"], ["hydra.job.name=a,b"]),
        (["-m", "latent_dim=2,4", "epochs=-1"], ["epochs=-1"]),
        (["--cfg"], ["--cfg"]),
        (["--cfg", "jb"], ["--cfg", "jb", "job"]),
        (["-m", "--cfg", "job"], ["-m and --cfg"]),
        (["--resolve"], ["--resolve", "--cfg"]),
        (["--config-dir", "/no/such"], ["--config-dir /no/such"]),
        (["--config-path", "/no/such"], ["--config-path /no/such"]),
        (["--config-name", "nope"], ["--config-name nope", "nope.yaml"]),
        (["--experimental-rerun", "x"], ["--experimental-rerun"]),
    ],
)
def test_a_wrong_line_is_answered_in_one(argv, parts):
    message = refusal(*argv)
    assert "\n" not in message
    assert all(part in message for part in parts), message
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()


WRONG = {
    "latent_dim": "0 -3 abc 2.5 EMPTY true null nan [2]",
    "mc_samples": "0 1.5",
    "batch_size": "0 x",
    "epochs": "-1 1.5",
    "seed": "-1 9223372036854775808 0.5",
    "device": "banana 3 cuda: null",
    "precision": "float16 16",
    "compile": "1 yes",
    "init_output_bias": "null",
    "clip_grad_norm": "0 -1 inf x",
    "ema_decay": "1 -0.1 nan",
    "early_stopping": "0 true",
    "checkpoint_every": "0 10parsecs 0min 1.5",
    "sample_every": "-1",
    "log_every": "0",
    "data_dir": "EMPTY",
    "resume": "EMPTY",
    "allow": "EMPTY 3",
}

RIGHT = {
    "latent_dim": "1 1_000",
    "epochs": "0",
    "seed": "9223372036854775807",
    "device": "cuda:1 mps",
    "precision": "bfloat16",
    "compile": "true",
    "clip_grad_norm": "1",
    "ema_decay": "0",
    "early_stopping": "3",
    "checkpoint_every": "10min 2h",
    "sample_every": "0",
}


def settings_of(table):
    return [(key, "" if value == "EMPTY" else value) for key in table for value in table[key].split()]


@pytest.fixture(scope="module")
def defaults():
    return composed()


def judged(defaults, key, text):
    """What the rules say to a setting, read as the command line would be."""
    value = OverridesParser.create().parse_override(f"{key}={text}").value()
    settings = OmegaConf.create(defaults)
    OmegaConf.update(settings, key, value, force_add=True)
    validation.check(compose.to_plain(settings))


@pytest.mark.parametrize(("key", "text"), settings_of(WRONG))
def test_a_wrong_value_is_named_with_what_is_accepted(key, text, defaults):
    with pytest.raises(ConfigError) as caught:
        judged(defaults, key, text)
    assert str(caught.value).startswith(f"{key}=")
    assert f"{key} accepts" in str(caught.value)


@pytest.mark.parametrize(("key", "text"), settings_of(RIGHT))
def test_a_right_value_passes(key, text, defaults):
    judged(defaults, key, text)


def test_other_settings_pass():
    composed("hydra.verbose=true", "+hydra.job.env_set.A=b", "~optimizer.betas", "optimizer.lr=1")


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (1, (1, None)),
        (7, (7, None)),
        ("10min", (None, 600.0)),
        ("30 s", (None, 30.0)),
        ("1.5h", (None, 5400.0)),
    ],
)
def test_an_interval_is_epochs_or_seconds(value, parsed):
    assert validation.parse_interval(value) == parsed


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "", "10", "min", "-3min", "0s"])
def test_no_other_interval_is_taken(value):
    with pytest.raises(ConfigError, match="checkpoint_every"):
        validation.parse_interval(value)


@pytest.mark.parametrize(
    "setting",
    [
        "n=0",
        "n=1.5",
        "temperature=-1",
        "temperature=nan",
        "draw=1",
        "format=jpg",
        "output=",
        "seed=-1",
        "device=x",
    ],
)
def test_settings_of_sample_are_checked(setting):
    assert refusal("checkpoint=x", setting, command="sample").startswith(setting.partition("=")[0])


def test_small_commands_take_hydras_settings_without_effect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["hydra.run.dir=x", "hydra.verbose=true", "hydra/launcher=basic", "hydra.sweeper.max_batch_size=3"]
    plain = compose.compose("sample", ["checkpoint=a b", *settings])
    assert plain["checkpoint"] == "a b"
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_the_package_passes_its_own_rules():
    choices = {group: options.options(group) for group in options.groups("train")}
    for place in range(max(map(len, choices.values()))):
        composed(*(f"{group}={names[place % len(names)]}" for group, names in choices.items()))


def test_every_key_of_the_package_has_a_rule():
    for command in ("train", "sample"):
        for key in options.keys(command):
            assert key.name in validation.RULES


def test_the_schema_read_from_text_is_what_yaml_says():
    for command in ("train", "sample"):
        loaded = OmegaConf.load(options.conf_dir() / f"{command}.yaml")
        included = [d for d in loaded.get("defaults", []) if isinstance(d, str) and d != "_self_"]
        files = [loaded, *(OmegaConf.load(options.conf_dir() / f"{name}.yaml") for name in included)]
        wanted = [k for file in files for k in file if k not in ("defaults", "hydra")]
        assert [k.name for k in options.keys(command)] == wanted
    named = {str(k): v for d in OmegaConf.load(options.conf_dir() / "train.yaml").defaults if not isinstance(d, str)
             for k, v in d.items() if not str(k).startswith("override")}  # fmt: skip
    assert options.groups("train") == {k.removeprefix("optional "): v or "null" for k, v in named.items()}


def test_an_option_file_is_plain_data():
    assert options.option("likelihood", "normal") == {
        "_target_": "vae_cli.distributions.NormalLikelihood",
        "scale": "learned",
    }
    assert "bernoulli" in options.options("likelihood")
    with pytest.raises(ConfigError, match="is one of .*normal"):
        options.option("likelihood", "norml")


def test_yaml_comes_back_as_it_was():
    plain = {"a": "${x", "b": ["\\${y}", "z"], "c": {"d": None, "e": 1e-8, "f": True}, "g": "1e-3"}
    assert compose.to_plain(OmegaConf.create(compose.to_yaml(plain))) == plain


def test_a_folder_of_ones_own_adds_options(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nlatent_dim: 5\n")
    folder = str(tmp_path)
    assert composed("experiment=mine", "--config-dir", folder)["latent_dim"] == 5
    assert composed("--config-dir", folder, "experiment=mine", "latent_dim=6")["latent_dim"] == 6
    assert "did you mean mine?" in refusal("experiment=mime", "--config-dir", folder)


def test_a_primary_file_of_ones_own_builds_on_the_packages(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nlatent_dim: 5\n")
    folder = str(tmp_path)
    assert composed("--config-dir", folder, "--config-name", "mine")["latent_dim"] == 5
    assert composed("--config-path", folder, "--config-name", "mine.yaml")["latent_dim"] == 5


def test_a_wrong_preset_is_answered_in_one_line(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/odd.yaml").write_text("# @package _global_\nlatent_dm: 5\n")
    (tmp_path / "experiment/broken.yaml").write_text("a: [1\nb: 2\n")
    folder = ["--config-dir", str(tmp_path)]
    assert "did you mean latent_dim?" in refusal(*folder, "experiment=odd")
    assert "\n" not in refusal(*folder, "experiment=broken")


def test_a_job_gets_its_config_directory_and_what_was_typed(notes, tmp_path):
    status = launched("hydra.run.dir=out", "encoder=mlp", "+encoder.width=3", "latent_dim=4", "~optimizer.eps")
    assert status == 0
    [(settings, directory, given, _)] = notes
    assert settings["latent_dim"] == 4
    assert type(settings["encoder"]) is dict
    assert directory == tmp_path / "out"
    assert given == {"encoder", "encoder.width", "latent_dim", "hydra.run.dir"}
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


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


def test_environment_settings_reach_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = command_line.read_command_line(["+hydra.job.env_set.SEEN=yes", "hydra.run.dir=x"])
    assert launch.launch(line, reads_environment) == 5


def reads_environment(settings, directory, given, command):
    import os

    return 5 if os.environ.get("SEEN") == "yes" else 1


def status_is_latent_dim(settings, directory, given, command):
    NOTES.append(settings["latent_dim"])
    return settings["latent_dim"]


def test_a_sweep_in_which_a_job_fails_ends_with_status_1(notes):
    assert run(["-m", "latent_dim=3,2"], status_is_latent_dim) == 1
    assert notes == [3, 2]


def test_an_interrupted_job_ends_the_sweep(notes):
    assert run(["-m", "latent_dim=130,2"], status_is_latent_dim) == 130
    assert notes == [130]
    assert not GlobalHydra.instance().is_initialized()


def test_torch_is_not_imported_to_compose():
    code = "import sys; from vae_cli.config.compose import compose; compose('train'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("path", ["plain", "with space", "a=b, [c]{d}(e)", 'it\'s "both"', "back\\slash\\", "~$HOME"])
def test_the_command_of_a_run_gives_a_shell_the_same_settings_again(path, notes):
    launched("latent_dim=3", "encoder=conv", "encoder.channels=[4,8]", f"data_dir={path}")
    [(settings, _, given, command)] = notes
    program, *words = shlex.split(command)
    again = compose.compose("train", words)
    assert program == "vae-train" and again == settings and again["data_dir"] == path
    assert given == {"latent_dim", "encoder", "encoder.channels", "data_dir"}
