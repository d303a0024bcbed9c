"""Files from strangers: damaged, foreign or hostile checkpoints and data are read, refused, and run nothing."""

import copy
import io
import json
import os
import pickle
import shutil
import struct
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_cli.build import trained
from vae_cli.config import compose
from vae_cli.data import Arrays
from vae_cli.errors import CheckpointError, ConfigError, DataError, UserError
from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train

LARGEST = 4e9  # bytes that looking at a file may take
LONGEST = 20  # seconds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with an average of the weights, stopped in the middle."""
    directory = tmp_path_factory.mktemp("run") / "run"
    overrides = ["epochs=1", "latent_dim=2", "encoder.hidden=[6]", "decoder.hidden=[6]", "ema_decay=0.9"]
    train(compose.compose("train", [*overrides, "scheduler=cosine", "report=false"]), directory)
    (directory / "summary.json").unlink()
    return directory


@pytest.fixture(scope="module")
def good(run):
    return (run / "checkpoints" / "last.pt").read_bytes()


@pytest.fixture(scope="module")
def contents(run):
    return checkpoint.load(run / "checkpoints" / "last.pt")


def peak(anew=False):
    """The most memory in bytes that was in use since it was asked for `anew`; 0 where the system does not say."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@pytest.fixture(autouse=True)
def _measured():
    peak(anew=True)


def answer(path, act):
    """What a file is answered with in one line, or None if it opens; never with anything but a UserError."""
    began = time.monotonic()
    try:
        act(path)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and str(path) in message, message
        return message
    finally:
        assert time.monotonic() - began < LONGEST
    return None


def kind(message):
    """An answer without what differs from case to case."""
    if message is None:
        return "opens with the very same weights"
    text = message.partition(": ")[2]
    for start in ("damaged", "empty", "not a checkpoint of vae-train", "a zip archive", "its weights", "of format"):
        if text.startswith(start):
            return text.split(":")[0] if start == "damaged" else start
    return "its parts do not fit together" if "do not fit together" in text else text


# Random damage to the bytes


def flipped(data, rng):
    for at in rng.integers(0, len(data), int(rng.integers(1, 5))):
        data[at] ^= 1 << int(rng.integers(8))
    return data


def overwritten(data, rng):
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 2000))
    data[at : at + length] = rng.bytes(min(length, len(data) - at))
    return data


def zeroed(data, rng):
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 5000))
    data[at : at + length] = bytes(min(length, len(data) - at))
    return data


def inserted(data, rng):
    at = int(rng.integers(len(data)))
    data[at:at] = rng.bytes(int(rng.integers(1, 100)))
    return data


def removed(data, rng):
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 100))]
    return data


def swapped(data, rng):
    a, b = sorted(int(at) for at in rng.integers(0, len(data) - 600, 2))
    data[a : a + 500], data[b : b + 500] = data[b : b + 500], data[a : a + 500]
    return data


def truncated(data, rng):
    return data[: int(rng.integers(len(data)))]


def lengthened(data, rng):
    return data + rng.bytes(int(rng.integers(1, 5000)))


def doubled(data, rng):
    return data + data[int(rng.integers(len(data))) :]


def in_the_directory(data, rng):
    """Damage where the archive lists its records."""
    start = data.rindex(b"PK\x01\x02", 0, len(data)) - int(rng.integers(0, 2000))
    for at in rng.integers(start, len(data), 3):
        data[at] = int(rng.integers(256))
    return data


def in_the_pickle(data, rng):
    """Damage to the pickle with its checksum put right."""
    source, target = zipfile.ZipFile(io.BytesIO(bytes(data))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for record in source.infolist():
            content = bytearray(source.read(record))
            if record.filename.endswith("data.pkl"):
                for at in rng.integers(0, len(content), int(rng.integers(1, 4))):
                    content[at] = int(rng.integers(256))
            archive.writestr(record.filename, bytes(content))
    return bytearray(target.getvalue())


BYTES = [
    flipped,
    overwritten,
    zeroed,
    inserted,
    removed,
    swapped,
    truncated,
    lengthened,
    doubled,
    in_the_directory,
    in_the_pickle,
]


@pytest.mark.parametrize("times", [15, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", BYTES)
def test_random_damages_of_each_kind_are_refused_in_one_line_or_harmless(
    damage, times, good, contents, tmp_path, capsys
):
    rng, answers, path = np.random.default_rng(BYTES.index(damage)), Counter(), tmp_path / "x.pt"
    weights = checkpoint.weights(contents)

    def open_(path):
        model = trained.load(path, "cpu").model
        same = all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        # Whoever puts the checksums right after changing the pickle has written a checkpoint of their own.
        assert same or damage is in_the_pickle

    for _ in range(times):
        path.write_bytes(damage(bytearray(good), rng))
        answers[kind(answer(path, open_))] += 1
    assert sum(answers.values()) == times
    if damage in (truncated, zeroed, removed, swapped):
        assert answers["opens with the very same weights"] < times / 5
    assert peak() < LARGEST
    with capsys.disabled():
        if os.environ.get("VAE_TABLE"):
            print(f"\n{damage.__name__:>18}", *(f"{count} {said}" for said, count in answers.most_common()), sep=" | ")


def test_truncation_at_any_byte_is_refused(good, tmp_path):
    path = tmp_path / "x.pt"
    for length in range(0, len(good), len(good) // 150):
        path.write_bytes(good[:length])
        assert answer(path, checkpoint.load) is not None


# Other contents, written as torch writes them


def leaves(value, path=()):
    """Every place in a checkpoint, containers included."""
    yield path
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from leaves(inside, (*path, key))
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from leaves(inside, (*path, number))


def replaced(contents, path, value):
    changed = copy.deepcopy(contents)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


ODD = [
    None,
    True,
    -1,
    0,
    10**12,
    10**40,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "a\nb",
    [],
    {},
    [[]],
    {"a": 1},
]
ODD += [torch.zeros(0), torch.full((3,), float("nan")), torch.zeros(2, 2, dtype=torch.int64), (1, 2), b"bytes"]


@pytest.mark.parametrize("times", [80, pytest.param(240, marks=pytest.mark.slow)])
def test_every_part_replaced_by_something_odd_is_refused_in_one_line_or_harmless(times, contents, run, tmp_path):
    """Sampling from it, and going on with it in a copy of the run."""
    rng, path = np.random.default_rng(0), tmp_path / "run" / "checkpoints" / "last.pt"
    path.parent.mkdir(parents=True)
    shutil.copy(run / "checkpoints" / "best.pt", path.parent)
    places = [place for place in leaves(contents) if place]
    opened = Counter()
    for number in range(times):
        place = places[int(rng.integers(len(places)))]
        changed = replaced(contents, place, ODD[int(rng.integers(len(ODD)))])
        torch.save(changed, path)
        message = answer(path, lambda path: trained.load(path, "cpu"))
        if message is None:
            opened[place[0]] += 1
            assert place[0] not in ("model", "ema") or place == ("ema",)
        if number % 8 == 0:
            resumed(path.parent.parent, *(["epochs=2"] if number % 16 else []))
    assert opened.total() < 0.75 * times
    assert peak() < LARGEST


def resumed(directory, *more):
    """Try to go on; whatever is wrong must be said in one line."""
    settings = compose.compose("train", [f"resume={directory}", *more])
    given = ["resume", *(override.partition("=")[0] for override in more)]
    try:
        train(settings, directory, frozenset(given))
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


@pytest.mark.parametrize(
    "key", ["model", "ema", "optimizer", "scheduler", "progress", "random", "best", "config", "data"]
)
def test_a_missing_key_is_named(key, contents, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({name: value for name, value in contents.items() if name != key}, path)
    assert f"not a checkpoint of vae-train: {key} missing" in answer(path, checkpoint.load)


@pytest.mark.parametrize(
    ("version", "said"), [(2, "update vae_cli"), (0, "of format 0"), ("x", "of format x"), (None, "of format None")]
)
def test_another_version_is_named(version, said, contents, tmp_path):
    torch.save(contents | {"version": version}, tmp_path / "x.pt")
    assert said in answer(tmp_path / "x.pt", checkpoint.load)


def test_weights_that_are_not_finite_or_of_another_shape_are_named(contents, tmp_path):
    path = tmp_path / "x.pt"
    name = "decoder.layers.0.weight"
    for part in ("model", "ema"):
        torch.save(replaced(contents, (part, name), contents[part][name] * float("nan")), path)
        assert f"its weights {name} are not finite" in answer(path, checkpoint.load)
        torch.save(replaced(contents, (part, name), torch.zeros(3, 7)), path)
        assert f"{name} is of shape (" in answer(path, lambda path: trained.load(path, "cpu"))
    extra = contents["model"] | {"decoder.more": torch.zeros(2)}
    torch.save(contents | {"model": extra}, path)
    assert "decoder.more" in answer(path, lambda path: trained.load(path, "cpu"))


FOREIGN = {
    "state dict": lambda path: torch.save({"layer.weight": torch.zeros(2)}, path),
    "lightning": lambda path: torch.save({"state_dict": {}, "epoch": 1, "pytorch-lightning_version": "2"}, path),
    "tensor": lambda path: torch.save(torch.zeros(3), path),
    "list": lambda path: torch.save([1, 2], path),
    "legacy": lambda path: torch.save({"model": torch.zeros(2)}, path, _use_new_zipfile_serialization=False),
    "module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "torchscript": lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
    "npz": lambda path: np.savez(path.open("wb"), train=np.zeros(3)),
    "docx": lambda path: zipfile.ZipFile(path, "w").writestr("word/document.xml", "<x/>"),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"model": 1})),
    "png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "text": lambda path: path.write_text("hello"),
    "empty": lambda path: path.touch(),
    "directory": lambda path: path.mkdir(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_another_tools_file_is_refused_by_name(name, tmp_path):
    FOREIGN[name](tmp_path / "x.pt")
    assert answer(tmp_path / "x.pt", lambda path: checkpoint.load(checkpoint.find(path))) is not None


# Hostile checkpoints


class Evil:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def rewritten(good, change):
    """The checkpoint with another pickle and the right checksums."""
    source, target = zipfile.ZipFile(io.BytesIO(good)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for record in source.infolist():
            content = source.read(record)
            archive.writestr(record.filename, change(content) if record.filename.endswith("data.pkl") else content)
    return target.getvalue()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, torch.load, getattr, bytearray, __import__])
def test_a_pickle_that_asks_for_code_runs_nothing(function, protocol, good, tmp_path):
    target = tmp_path / "ran"
    arguments = {os.system: (f"touch {target}",), os.mkdir: (str(target),), bytearray: (3 * 10**9,)}
    called = arguments.get(function, (f"open({str(target)!r}, 'w')",))
    payload = pickle.dumps({"model": Evil(function, *called)}, protocol=protocol)
    path = tmp_path / "x.pt"
    for content in (rewritten(good, lambda _: payload), payload):
        path.write_bytes(content)
        assert answer(path, checkpoint.load) is not None
        assert not target.exists()


def test_the_message_names_what_a_pickle_asked_for(good, tmp_path):
    payload = pickle.dumps({"model": Evil(os.system, "true")}, protocol=2)
    (tmp_path / "x.pt").write_bytes(rewritten(good, lambda _: payload))
    assert "asks for posix.system" in answer(tmp_path / "x.pt", checkpoint.load)


def test_a_compressed_record_is_not_unpacked(good, tmp_path):
    source, path = zipfile.ZipFile(io.BytesIO(good)), tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in source.infolist():
            zeros = bytes(2**28) if record.filename.endswith("data/0") else source.read(record)
            archive.writestr(record.filename, zeros)
    assert path.stat().st_size < 1e6 and "compressed" in answer(path, checkpoint.load)


def legacy(tensors):
    """A file as torch wrote it before there were zip archives."""
    file = io.BytesIO()
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def test_a_file_that_torch_and_zipfile_would_read_differently_is_refused(good, contents, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(legacy(contents) + good)
    assert answer(path, checkpoint.load) is not None
    source = zipfile.ZipFile(io.BytesIO(good))
    bad = pickle.dumps({"model": Evil(bytearray, 3 * 10**9)}, protocol=2)
    for twin in ("archive/DATA.PKL", "archive/Data.pkl", "archive/data.pkl/data.pkl", "archive/xdata.pkl"):
        with zipfile.ZipFile(path, "w") as archive:
            for record in source.infolist():
                archive.writestr(record.filename, source.read(record))
            archive.writestr(twin, bad)
        assert answer(path, checkpoint.load) is not None, twin


def test_a_storage_without_a_record_is_refused(contents, tmp_path):
    path = tmp_path / "x.pt"
    payload = pickle.dumps({"model": Evil(torch.UntypedStorage, 10**9)}, protocol=2)
    torch.save(contents, path)
    path.write_bytes(rewritten(path.read_bytes(), lambda _: payload))
    assert "no plain data" in answer(path, checkpoint.load)


NESTED = [("version",), ("data", "shape"), ("data", "support"), ("data", "name"), ("best",), ("progress", "seconds")]
NESTED += [("optimizer", "state"), ("optimizer", "param_groups"), ("random", "python"), ("config", "dataset", "path")]


@pytest.mark.parametrize("place", NESTED)
def test_lists_that_hold_each_other_are_refused_in_no_time(place, contents, run, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    shutil.copytree(run / "checkpoints", path.parent)
    torch.save(replaced(contents, place, laughs(30)), path)
    began = time.monotonic()
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None
    (path.parent / "best.pt").unlink()
    assert resumed(tmp_path / "run", "epochs=2") is not None
    assert time.monotonic() - began < 8


def test_a_state_of_random_numbers_that_would_crash_numpy_is_refused(contents, tmp_path):
    name, keys, _, *rest = contents["random"]["numpy"]
    for state in ((name, keys, 10**9, *rest), (name, keys[:5], 3, *rest), ("PCG64", keys, 3, *rest)):
        torch.save(replaced(contents, ("random", "numpy"), state), tmp_path / "x.pt")
        assert "its random is not" in answer(tmp_path / "x.pt", checkpoint.load)


@pytest.mark.parametrize("processes", [0, -1, 10**9, True, 2.0, "2", None, [2]])
def test_a_number_of_processes_that_cannot_be_is_refused(processes, contents, tmp_path):
    torch.save(replaced(contents, ("progress", "processes"), processes), tmp_path / "x.pt")
    assert "its progress is not" in answer(tmp_path / "x.pt", checkpoint.load)


def test_weights_of_another_type_are_refused(contents, tmp_path):
    name = "decoder.layers.0.weight"
    whole = contents["model"][name].long()
    torch.save(replaced(contents, ("model", name), whole), tmp_path / "x.pt")
    assert "int64" in answer(tmp_path / "x.pt", lambda path: trained.load(path, "cpu"))


def numel(change):
    """A pickle whose tensors say they have other sizes than their records."""

    def act(content):
        found = content.replace(b"K\x06K@\x86", change)
        assert found != content
        return found

    return act


@pytest.mark.parametrize("size", [b"\x8a\x05\x00\x00\x00\x00\x7fK@\x86", b"J\xff\xff\xff\x7fK@\x86"])
def test_a_tensor_larger_than_its_file_is_refused(size, good, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(rewritten(good, numel(size)))
    assert answer(path, checkpoint.load) is not None


def test_an_expanded_tensor_is_refused(contents, tmp_path):
    path = tmp_path / "x.pt"
    huge = torch.zeros(1).expand(10**11)
    torch.save(replaced(contents, ("model", "decoder.layers.0.weight"), huge), path)
    assert "larger than the file" in answer(path, checkpoint.load)


def laughs(depth):
    value = [1]
    for _ in range(depth):
        value = [value] * 10
    return value


ABSURD = [
    (("latent_dim",), 10**12),
    (("latent_dim",), 10**7),
    (("latent_dim",), 10**30),
    (("encoder", "hidden"), [10**12]),
    (("encoder", "hidden"), [10**7, 10**7]),
    (("decoder", "hidden"), [1] * 9000),
    (("encoder", "hidden"), laughs(30)),
    (("encoder", "activation"), "x" * 10**6),
    (("mc_samples",), 10**12),
    (("batch_size",), 10**12),
    (("epochs",), 10**30),
    (("clip_grad_norm",), "__import__('os')"),
    (("precision",), "load"),
    (("precision",), "save"),
    (("device",), "cuda:99999999999999999999"),
]


@pytest.mark.parametrize(("place", "value"), ABSURD)
def test_absurd_settings_take_no_memory_and_are_refused_or_of_no_account(place, value, contents, run, tmp_path):
    directory = tmp_path / "run"
    path = directory / "checkpoints" / "last.pt"
    shutil.copytree(run / "checkpoints", path.parent)
    torch.save(replaced(contents, ("config", *place), value), path)
    shutil.copy(path, path.with_name("best.pt"))
    before = peak(anew=True)
    message = answer(path, lambda path: trained.load(path, "cpu"))
    assert message is not None or place[0] in ("mc_samples", "batch_size", "epochs", "device")
    if place[0] != "epochs":
        said = resumed(directory, "epochs=2")
        assert said is not None or place[0] in ("batch_size", "clip_grad_norm")
    assert peak() - before < 5e8


FLOW = {"_target_": "vae_cli.distributions.FlowPrior", "transforms": 2, "hidden": [1], "bins": 8}


@pytest.mark.parametrize(
    ("latent_dim", "settings"),
    [
        (6000, {"kind": "maf"}),
        (10**9, {"kind": "nsf"}),
        (8, {"kind": "coupling", "hidden": [11_000, 11_000]}),
        (8, {"kind": "nsf", "transforms": 3000, "hidden": [1] * 900}),
        (8, {"kind": "coupling", "transforms": 10**9}),
    ],
)
def test_a_flow_larger_than_the_file_is_refused_before_it_is_built(latent_dim, settings, contents, tmp_path):
    changed = replaced(replaced(contents, ("config", "prior"), FLOW | settings), ("config", "latent_dim"), latent_dim)
    torch.save(changed, tmp_path / "x.pt")
    before, began = peak(anew=True), time.monotonic()
    assert "is too large" in answer(tmp_path / "x.pt", lambda path: trained.load(path, "cpu"))
    assert peak() - before < 1e8 and time.monotonic() - began < 20


@pytest.mark.parametrize(
    "shape", [(3, 10**6, 10**6), (1, 10**12, 1), (10**9, 8, 8), (1, 8), (0, 8, 8), (1, 8, 8.5), "abc"]
)
def test_absurd_shapes_of_the_data_take_no_memory(shape, contents, tmp_path):
    path = tmp_path / "x.pt"
    torch.save(replaced(contents, ("data", "shape"), shape), path)
    before = peak(anew=True)
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None
    assert peak() - before < 5e8


TARGETS = [
    "os.system",
    "builtins.eval",
    "shutil.rmtree",
    "subprocess.Popen",
    "torch.load",
    "torch.hub.load",
    "pathlib.Path.write_text",
    "vae_cli.cli.train",
    "vae_cli.runs.checkpoint.load",
    "vae_cli.runs.checkpoint.torch.load",
    "vae_cli.config.compose.Hydra",
    "vae_cli.runs.directory.RunDirectory",
    "vae_cli.runs.directory.logging.FileHandler",
    "vae_cli.data.Arrays",
    "vae_cli.networks.layers.nn.Linear",
    "torch.optim.Adam",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.nn.Linear",
    "torch.optim.optimizer.functools.partial",
    "antigravity.x",
    "vae_cli",
    "",
    None,
    5,
    ["vae_cli.networks.MLPEncoder"],
]


@pytest.mark.parametrize("group", ["encoder", "decoder", "posterior", "prior", "likelihood"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_config_reaches_for_nothing_but_components(group, target, contents, tmp_path):
    path = tmp_path / "x.pt"
    torch.save(replaced(contents, ("config", group, "_target_"), target), path)
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None


RESUMED = ("dataset", "objective", "optimizer", "scheduler")


def shared_out(number, target):
    """Every target with one of the groups in turn, the rest in the slow tests."""
    for place, group in enumerate(RESUMED):
        yield pytest.param(group, target, marks=[] if number % len(RESUMED) == place else pytest.mark.slow)


@pytest.mark.parametrize(
    ("group", "target"), [case for number, target in enumerate(TARGETS) for case in shared_out(number, target)]
)
def test_resuming_reaches_for_nothing_but_components(group, target, contents, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    path.parent.mkdir(parents=True)
    torch.save(replaced(contents, ("config", group, "_target_"), target), path)
    settings = compose.compose("train", [f"resume={tmp_path / 'run'}", "epochs=2"])
    if (group, target) == ("optimizer", "torch.optim.Adam"):
        return
    with pytest.raises(UserError):
        train(settings, tmp_path / "run", frozenset(["resume", "epochs"]))


# Hostile data


def npy(descr, shape, data=b"", magic=b"\x93NUMPY\x01\x00"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return magic + struct.pack("<H", len(header)) + header + data


def refused(path):
    before = peak(anew=True)
    with pytest.raises((DataError, ConfigError)) as caught:
        Arrays(str(path)).splits()
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert peak() - before < 5e8
    return message


@pytest.mark.parametrize(
    "content",
    [
        npy("|u1", "(1000000000000, 8, 8)"),
        npy("|u1", "(10, 8, 8)", bytes(639)),
        npy("|u1", "(-1, 8, 8)", bytes(640)),
        npy("|u1", "(0, 8, 8)"),
        npy("|u1", "(2, 8, 8, 8, 8)", bytes(9000)),
        npy("|O", "(1,)", pickle.dumps([Evil(os.mkdir, "ran")])),
        npy("[('a', '<f4')]", "(4, 8, 8)", bytes(2000)),
        npy("<c8", "(4, 8, 8)", bytes(5000)),
        npy("<M8[s]", "(4, 8, 8)", bytes(5000)),
        npy("<U5", "(4, 8, 8)", bytes(9000)),
        npy("|u1", "(2, 8, 8) + __import__('os').mkdir('ran')", bytes(200)),
        npy("|u1", "(" * 500 + "2" + ")" * 500, bytes(200)),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x09" + bytes(100),
    ],
)
def test_a_hostile_npy_file_is_refused_and_runs_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy")
    assert not (tmp_path / "ran").exists()


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_DOT_", "."), content)


def test_an_npz_that_unpacks_to_more_than_the_memory_is_refused_unopened(tmp_path, monkeypatch):
    from vae_cli.system import memory

    npz(tmp_path / "x.npz", train_DOT_npy=npy("|u1", "(1000, 512, 512)", bytes(1000 * 512 * 512)))
    assert (tmp_path / "x.npz").stat().st_size < 1e6
    monkeypatch.setattr(memory, "available", lambda: 1e8)
    assert "unpacks to 262 MB" in refused(tmp_path / "x.npz")


def test_an_npz_with_objects_or_paths_that_climb_writes_and_runs_nothing(tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    npz(inside / "x.npz", train_DOT_npy=npy("|O", "(1,)", pickle.dumps([Evil(os.mkdir, "ran")])))
    assert "Python objects" in refused(inside / "x.npz")
    image = npy("|u1", "(30, 8, 8)", bytes(range(256)) * 8)
    with zipfile.ZipFile(inside / "y.npz", "w") as archive:
        for name in ("train.npy", "../../climbed.npy", "/tmp/climbed_absolute.npy"):
            archive.writestr(name, image)
    assert len(Arrays(str(inside / "y.npz")).splits().train) > 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "x.npz", "y.npz"]


def test_damaged_npz_files_are_refused_or_read(tmp_path):
    path, rng = tmp_path / "x.npz", np.random.default_rng(0)
    np.savez_compressed(path, train=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), labels=np.zeros(40, int))
    whole = path.read_bytes()
    for number in range(150):
        damage = BYTES[number % 10]
        path.write_bytes(damage(bytearray(whole), rng))
        try:
            Arrays(str(path)).splits()
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


VALUES = {
    "nan": (np.full((20, 4, 4), np.nan, np.float32), "NaN"),
    "one nan": (np.where(np.arange(320).reshape(20, 4, 4) == 77, np.nan, 0.5), "NaN"),
    "inf": (np.full((20, 4, 4), np.inf), "NaN or infinite"),
    "negative": (np.full((20, 4, 4), -0.1), "not in [0, 1]"),
    "bytes as floats": (np.full((20, 4, 4), 255.0), "divide by 255"),
    "int64": (np.full((20, 4, 4), 300), "int64"),
}


def test_a_boolean_array_that_holds_bytes_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy("|b1", "(20, 8, 8)", bytes(range(256)) * 5))
    assert "says bool" in refused(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("name", VALUES)
def test_values_that_are_no_pixels_are_named(name, suffix, tmp_path):
    values, said = VALUES[name]
    path = tmp_path / f"x.{suffix}"
    np.save(path, values) if suffix == "npy" else np.savez(path, train=values)
    assert said in refused(path)


def test_a_zip_of_images_is_no_npz(tmp_path):
    npz(tmp_path / "x.npz", a_DOT_png=zlib.compress(bytes(100)))
    assert "is not in numpy's format" in refused(tmp_path / "x.npz")


def test_resuming_at_what_is_no_run_directory_is_refused(run, tmp_path):
    from vae_cli.cli import train as command

    (tmp_path / "file").touch()
    (tmp_path / "foreign" / "checkpoints").mkdir(parents=True)
    (tmp_path / "foreign" / "checkpoints" / "last.pt").write_text("hello")
    for target in ("nothing", "file", "foreign", "."):
        with pytest.raises(SystemExit) as stop:
            command([f"resume={tmp_path / target}"])
        assert stop.value.code == 1
    with pytest.raises(SystemExit) as stop:
        command([f"resume={run}", "latent_dim=5"])
    assert stop.value.code == 1


def test_a_summary_from_a_stranger_does_not_matter(run, tmp_path):
    for text in ("[]", "{}", "null", '{"status": "completed", "epochs": "x"}', "\0", json.dumps({"status": 5})):
        shutil.copytree(run, tmp_path / "run", dirs_exist_ok=True)
        (tmp_path / "run" / "summary.json").write_text(text)
        resumed(tmp_path / "run")
    assert answer(tmp_path / "run" / "checkpoints" / "last.pt", checkpoint.load) is None
    with pytest.raises(CheckpointError):
        checkpoint.find(tmp_path / "nothing")
