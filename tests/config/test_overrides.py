"""Overrides: what is wrong with one is said in one line, with the nearest name."""

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from tests.support.refusals import refusal
from vae_cli.config import compose, overrides


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["encoder.hiden=[3]"], ["encoder.hiden", "did you mean encoder.hidden?"]),
        (["encodr.hidden=[3]"], ["did you mean encoder.hidden?"]),
        (["hidden=[3]"], ["encoder.hidden or decoder.hidden"]),
        (["lr=3"], ["optimizer.lr"]),
        (["datset=mnist"], ["did you mean dataset?"]),
        (["dataset.pth=x"], ["dataset.path"]),
        (
            ["encoder.channels=[8]"],
            ["encoder=mlp has no channels", "encoder=conv and encoder=conv1d and encoder=resnet"],
        ),
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
    ],
)
def test_a_wrong_line_is_answered_in_one(argv, parts):
    message = refusal(*argv)
    assert "\n" not in message
    assert all(part in message for part in parts), message
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()


def test_keys_are_those_that_are_set():
    line = ["latent_dim=2", "encoder=conv", "+encoder.width=3", "~optimizer.eps", "hydra.run.dir='x'"]
    assert overrides.keys(line) == {"latent_dim", "encoder", "encoder.width", "hydra.run.dir"}


def test_options_that_serve_one_preset_are_not_among_those_to_choose_from():
    message = refusal("encoder=banana")
    assert message.endswith("encoder is one of conv, conv1d, gated_mlp, linear, mlp, resnet")
    assert "resnet_wide" not in refusal("encoder.channels=[8]")
    assert compose.compose("train", ["encoder=resnet_wide"])["encoder"]["channels"] == [64, 128]
