"""How fast it is: `make bench`, or python tests/benchmarks/bench.py [--only step evaluation …] [--rounds N].

In every comparison all take turns, the peers in processes of their own. Values are medians; ratios are medians of each
round's ratio. outputs/bench.json holds what the table at the end shows. With a GPU the same rows are of the GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import torch
import workloads
from peers import HAVE_CAREAMICS, HAVE_PYTHAE, image_folder
from timing import Action, ActionInProcess, Goal, Row, Times, interleaved, machine, ratio, row, table, write
from workloads import MLP, NETWORKS, colored, mnist, steps, synchronized, training

from vae_cli.build import parts
from vae_cli.commands.evaluate import draws_up_to
from vae_cli.config import compose
from vae_cli.data import Data, DataFacts, Split
from vae_cli.evaluation import bounds
from vae_cli.generation import samplers
from vae_cli.system import threads
from vae_cli.training import loop
from vae_cli.training.run import run as train
from vae_cli.training.state import TrainingState

ROOT = Path(__file__).parents[2]
WARM = 25  # turns before a step is timed


class Bench:
    """The sections by name; each gives rows.

    Args:
        device: of what is timed.
        rounds: of each comparison.
    """

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.device, self.rounds = device, rounds
        self.on = "GPU" if device.type == "cuda" else "CPU"
        self.sections: dict[str, Callable[[], list[Row]]] = {
            "step": self.step,
            "plain": self.plain,
            "thousand": self.thousand,
            "conv": self.conv,
            "top_down": self.top_down,
            "resnet": self.resnet,
            "elbo": self.elbo,
            "folder": self.folder,
            "evaluation": self.evaluation,
            "sampling": self.sampling,
            "start": self.start,
            "upkeep": self.upkeep,
            "growth": self.growth,
        }

    def _step_times(self, batch_size: int, precision: str) -> Times:
        """Seconds of a step: ours with and without compile=true on the peers' images, ours on gray images that are
        binarized at every use, the products, and the peers."""
        calls, own = 10 if batch_size > 500 else 40, ["precision=" + precision, f"batch_size={batch_size}"]
        static, dynamic = mnist("static"), mnist("dynamic")
        found = {
            "ours": steps(training(static, self.device, *MLP, *own, "compile=true")),
            "ours, compile=false": steps(training(static, self.device, *MLP, *own)),
            "ours, dynamic": steps(training(dynamic, self.device, *MLP, *own, "compile=true")),
            "floor": workloads.products(batch_size, getattr(torch, precision), self.device),
        }
        actions: dict[str, Action] = {name: synchronized(step, calls, self.device) for name, step in found.items()}
        where = (batch_size, self.device.type)
        actions["textbook"] = ActionInProcess("peers:textbook_steps", dynamic.train.images.cpu(), *where, calls)
        if HAVE_PYTHAE:
            images = static.train.images[: calls * batch_size].float()
            actions["pythae"] = ActionInProcess("peers:pythae_epoch", images, *where)
        for _ in range(WARM):  # what an optimizer remembers of a pixel that stays 0 takes some steps to fade
            for action in actions.values():
                action()
        times = interleaved(actions, self.rounds)
        for action in actions.values():
            if isinstance(action, ActionInProcess):
                action.end()
        return {name: [value / calls for value in values] for name, values in times.items()}

    def step(self) -> list[Row]:
        """The training step of the MLP 784-400-20-400-784, batches of 128."""
        rows = []
        for precision in ("float32", "bfloat16"):
            times = self._step_times(128, precision)
            found = row(f"{self.on} training step, MLP, batch 128, {precision}", times, "ours", "floor")
            if precision == "float32" and self.on == "CPU":
                found.goals.append(Goal("over the floor", ratio(times, "ours", "floor"), 1.3))
                found.goals.append(Goal("as fast as the textbook", ratio(times, "textbook", "ours"), 4, at_most=False))
            if HAVE_PYTHAE:
                least = 20 if self.on == "GPU" else 1.7 if precision == "float32" else 2.2
                found.goals.append(Goal("as fast as pythae", ratio(times, "pythae", "ours"), least, at_most=False))
            rows.append(found)
        return rows

    def plain(self) -> list[Row]:
        """The same step without compile=true, of binary and of gray images, whose density pythae does not have."""
        rows = []
        for likelihood, images in (("bernoulli", mnist("static")), ("continuous_bernoulli", mnist("none"))):
            own = [*NETWORKS, f"likelihood={likelihood}"]
            actions: dict[str, Action] = {
                "ours": synchronized(steps(training(images, self.device, *own)), 40, self.device),
                "floor": synchronized(workloads.products(128, torch.float32, self.device), 40, self.device),
            }
            if HAVE_PYTHAE:
                static = mnist("static").train.images[: 40 * 128].float()
                actions["pythae"] = ActionInProcess("peers:pythae_epoch", static, 128, self.device.type)
            for _ in range(WARM):
                for action in actions.values():
                    action()
            times = interleaved(actions, self.rounds)
            if isinstance(peer := actions.get("pythae"), ActionInProcess):
                peer.end()
            each = {name: [value / 40 for value in values] for name, values in times.items()}
            found = row(f"{self.on} training step, MLP, batch 128, float32, plain, {likelihood}", each, "ours", "floor")
            if HAVE_PYTHAE:
                found.goals.append(Goal("as fast as pythae", ratio(each, "pythae", "ours"), 1.7, at_most=False))
            rows.append(found)
        return rows

    def thousand(self) -> list[Row]:
        """The same, batches of 1,000."""
        return [
            row(
                f"{self.on} training step, MLP, batch 1,000, {precision}",
                self._step_times(1000, precision),
                "ours",
                "floor",
            )
            for precision in ("float32", "bfloat16")
        ]

    def conv(self) -> list[Row]:
        """A convolutional model of 3×32×32 images, batches of 128; the floor is its layers alone, forth and back."""
        own = ["encoder=conv", "decoder=conv", "latent_dim=32"]
        return self._over_layers("conv 3×32×32, batch 128", colored(), own)

    def top_down(self) -> list[Row]:
        """A hierarchy of feature maps on MNIST, batches of 250; the floor is its layers alone, forth and back."""
        data, peer = mnist("dynamic"), {}
        if HAVE_CAREAMICS:
            images = mnist("static").train.images[:250]
            peer["careamics"] = ActionInProcess("peers:careamics_steps", images, 250, self.device.type, 2)
        return self._over_layers("model=top_down, MNIST, batch 250", data, ["model=top_down", "batch_size=250"], peer)

    def _over_layers(
        self, name: str, data: Data, own: list[str], peers: Mapping[str, ActionInProcess] | None = None
    ) -> list[Row]:
        """A step in both precisions, with compile=true and without, over its layers alone; beside two steps of peers,
        which are ended."""
        rows = []
        for precision in ("float32", "bfloat16"):
            plain = training(data, self.device, *own, f"precision={precision}")
            actions = {
                "ours": steps(training(data, self.device, *own, f"precision={precision}", "compile=true")),
                "ours, compile=false": steps(plain),
                "floor": workloads.layers_alone(plain),
            }
            timed = {k: synchronized(a, 2, self.device) for k, a in actions.items()}
            times = interleaved({**timed, **(peers or {})}, self.rounds)
            times = {name: [value / 2 for value in values] for name, values in times.items()}
            rows.append(row(f"{self.on} training step, {name}, {precision}", times, "ours", "floor"))
        for peer in (peers or {}).values():
            peer.end()
        return rows

    def resnet(self) -> list[Row]:
        """On a GPU: a residual network in bfloat16, and what it gets of the rate of large products."""
        if self.on == "CPU":
            return []
        own = ["encoder=resnet", "decoder=resnet", "latent_dim=64", "precision=bfloat16", "batch_size=512"]
        own += ["encoder.channels=[128,256]", "decoder.channels=[256,128]"]
        trained = training(colored(side=64), self.device, *own, "compile=true")
        count = workloads.operations(steps(training(colored(side=64), self.device, *own)))
        times = interleaved({"ours": synchronized(steps(trained), 5, self.device)}, self.rounds)
        seconds = statistics.median(times["ours"]) / 5
        share = 100 * count / seconds / workloads.rate(self.device, torch.bfloat16)
        return [
            Row("GPU training step, ResNet 3×64×64, batch 512, bfloat16: share of large products' rate", "%", share)
        ]

    def elbo(self) -> list[Row]:
        """After as many epochs on the same images: the test ELBO of ours in both precisions, and pythae's."""
        data, epochs = mnist("static"), 3
        test = data.test.images.float()
        found = {}
        for precision in ("float32", "bfloat16"):
            trained = training(data, self.device, *MLP, f"precision={precision}", "compile=true")
            step = steps(trained)
            for _ in range(epochs * len(trained.batches)):
                step()
            found[precision] = bounds.evaluate(trained.model, trained.objective, data.test.to(self.device), 0)["elbo"]
        theirs = {}
        if HAVE_PYTHAE:
            peer = ActionInProcess("peers:pythae_elbo", data.train.images.float(), test, 128, self.device.type, epochs)
            theirs["pythae"] = peer()
            peer.end()
        return [Row(f"test ELBO after {epochs} epochs, {p}", "nats", value, None, theirs) for p, value in found.items()]

    def folder(self) -> list[Row]:
        """Epochs of dataset=folder over 20,000 images of 64×64: the first decodes them, a second reads its cache."""
        own = ["encoder=mlp", "decoder=mlp", "latent_dim=20", "likelihood=normal"]
        with tempfile.TemporaryDirectory() as name:
            images = _pngs(Path(name) / "images", 20_000)
            line = ["dataset=folder", f"dataset.path={images}", "dataset.validation=0", *own]
            first = []
            for number in range(2):
                began = time.perf_counter()
                settings = compose.compose("train", [*line, f"dataset.cache={name}/cache{number}"])
                data = parts.dataset(settings).splits()
                _epoch(training(data, self.device, *own))
                first.append(time.perf_counter() - began)
            facts = data.facts
            held = Split(data.train.images.clone(), None, data.train.scale)
            inside = type(data)(held, None, held, facts)
            mapped, resident = training(data, self.device, *own), training(inside, self.device, *own)
            times = interleaved({"ours": lambda: _epoch(mapped), "in memory": lambda: _epoch(resident)}, rounds=5)
            reading = interleaved(
                {
                    "ours": lambda: sum(len(x) for _, (x, _) in mapped.batches.epoch(0)),
                    "ImageFolder, 2 workers": lambda: sum(len(x) for x in image_folder(images, 128, 2)),
                },
                rounds=3,
            )
        read = row("CPU reading 20,000 PNGs 64×64 for an epoch, once decoded", reading, "ours", None, "s", 1)
        again = row(f"{self.on} epoch of 20,000 PNGs 64×64, MLP, once decoded", times, "ours", None, "s", 1)
        again.goals.append(Goal("over the same images in memory", ratio(times, "ours", "in memory"), 1.1))
        began = Row(f"{self.on} epoch of 20,000 PNGs 64×64, MLP, the first", "s", statistics.median(first))
        return [began, again, read]

    def evaluation(self) -> list[Row]:
        """The log-likelihood with 500 draws of 500 images; the floor is the decoder's products, pythae's is
        extrapolated from 10 images."""
        images, draws, few = 500, 500, 10
        model = parts.model(compose.compose("train", MLP), DataFacts("m", (1, 28, 28), "binary", 0, 60_000))
        model = model.to(self.device).eval()
        split = Split((torch.rand(images, 1, 28, 28) < 0.15).to(torch.uint8), None, 1.0).to(self.device)
        together, rows = bounds.values_at_once("auto"), 2000
        multiply = workloads.forward_products(rows, [(20, 400), (400, 784)], self.device)
        actions = {
            "ours": lambda: bounds.score(model, split, draws_up_to(draws), 0, together=together),
            "floor": synchronized(multiply, images * draws // rows, self.device),
        }
        if HAVE_PYTHAE:
            actions["pythae"] = peer = ActionInProcess("peers:nll", split.images[:few].float().cpu(), draws)
        times = interleaved(actions, self.rounds)
        if HAVE_PYTHAE:
            peer.end()
            times["pythae"] = [value * images / few for value in times["pythae"]]
        found = row(f"{self.on} log-likelihood, 500 images, 500 draws", times, "ours", "floor", "s", 1)
        found.goals.append(Goal("over the floor", ratio(times, "ours", "floor"), 1.3))
        return [found]

    def sampling(self) -> list[Row]:
        """10,000 images from the prior."""
        count = 10_000
        model = parts.model(compose.compose("train", MLP), DataFacts("m", (1, 28, 28), "binary", 0, 60_000))
        model = model.to(self.device).eval()
        multiply = workloads.forward_products(samplers.CHUNK, [(20, 400), (400, 784)], self.device)
        actions = {
            "ours": lambda: sum(len(x) for x in samplers.generate_images(samplers.Sampler(model, 0), count)),
            "floor": synchronized(multiply, -(-count // samplers.CHUNK), self.device),
        }
        times = interleaved(actions, self.rounds)
        return [row(f"{self.on} sampling 10,000 images", times, "ours", "floor", "s", 1)]

    def start(self) -> list[Row]:
        """From pressing return: to the help, to the sentence about a wrong key, to the end of the first step."""
        rows, first = [], []
        for title, arguments in (("--help", ["--help"]), ("a wrong key", ["latentdim=3"])):
            call = [sys.executable, "-m", "vae_cli", "train", *arguments]
            times = interleaved({"ours": partial(subprocess.run, call, capture_output=True)}, 3)
            rows.append(row(f"start-up: {title}", times, "ours", None, "s", 1))
        for _ in range(3):
            with tempfile.TemporaryDirectory() as name:
                began = time.time()
                call = [sys.executable, __file__, "--probe", "first_step", f"{name}/run"]
                subprocess.run(call, check=True, capture_output=True)
                first.append(float(Path(f"{name}/run/first_step").read_text()) - began)
        found = Row("start-up: first step of dataset=mnist", "s", statistics.median(first))
        found.goals.append(Goal("seconds", found.ours, 8))
        return [*rows, found]

    def upkeep(self) -> list[Row]:
        """What epochs of the default model on MNIST cost beside their steps, and beside the validations."""
        with tempfile.TemporaryDirectory() as name:
            found = _probe("upkeep", f"{name}/run")
        share = 100 * (found["ends"] - found["validations"]) / found["steps"]
        kept = Row("upkeep of 20 epochs: logs, checkpoints and pictures, of the steps' time", "%", share)
        kept.goals.append(Goal("per cent", share, 3))
        validated = Row("the validations, of the steps' time", "%", 100 * found["validations"] / found["steps"])
        return [kept, validated]

    def growth(self) -> list[Row]:
        """Time and peak memory with ten times the images, and ten times the draws."""
        rows = []
        for what, small, large in (
            ("training epoch, 6,000 and 60,000 images", ["train", "6000"], ["train", "60000"]),
            ("score, 100 and 1,000 images of 500 draws", ["score", "100", "500"], ["score", "1000", "500"]),
            ("score, 100 images of 500 and 5,000 draws", ["score", "100", "500"], ["score", "100", "5000"]),
        ):
            one, ten = _probe(*small), _probe(*large)
            rows.append(Row(f"{what}: time", "×", ten["seconds"] / one["seconds"]))
            rows.append(Row(f"{what}: peak memory, the larger", "MB", ten["peak"]))
            rows.append(Row(f"{what}: peak memory, the smaller", "MB", one["peak"]))
        return rows


def _epoch(trained: TrainingState) -> None:
    step = steps(trained)
    for _ in range(len(trained.batches)):
        step()


def _pngs(folder: Path, count: int) -> Path:
    """So many smooth random images of 64×64 in ten classes."""
    from PIL import Image

    coarse = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
    for number, values in enumerate(coarse):
        place = folder / str(number % 10)
        if number < 10:
            place.mkdir(parents=True)
        small = Image.fromarray(values.permute(1, 2, 0).numpy())
        small.resize((64, 64), Image.Resampling.BICUBIC).save(place / f"{number}.png", compress_level=1)
    return folder


def _probe(*arguments: str) -> dict[str, float]:
    """What a process of its own finds, so that its peak memory is its own."""
    call = [sys.executable, __file__, "--probe", *arguments]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _first_step(directory: str) -> None:
    """Begin to train, and note when the first step is done."""
    from vae_cli import cli

    whole = loop.step

    def first(state: TrainingState, *arguments: object) -> None:
        whole(state, *arguments)  # type: ignore[arg-type]
        (Path(directory) / "first_step").write_text(str(time.time()))
        os._exit(0)

    loop.step = first  # type: ignore[assignment]
    cli.train(["dataset=mnist", f"hydra.run.dir={directory}"])


def _upkeep(directory: str) -> None:
    """Twenty epochs; seconds of the steps, of what ends an epoch, and of the validations in it."""
    spent = {"ends": 0.0, "validations": 0.0}

    def timed(name: str, key: str) -> None:
        original = getattr(loop, name)

        def wrapped(*arguments: object) -> object:
            began = time.perf_counter()
            try:
                return original(*arguments)
            finally:
                spent[key] += time.perf_counter() - began

        setattr(loop, name, wrapped)

    timed("_end_epoch", "ends")
    timed("validate", "validations")
    settings = compose.compose("train", ["dataset=mnist", "epochs=20", "report=false"])
    train(settings, Path(directory))
    lines = [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]
    spent["steps"] = sum(line["seconds"] for line in lines if line["split"] == "train")
    print(json.dumps(spent))


def _grown(kind: str, images: int, draws: int = 1) -> None:
    drawn = Split(torch.randint(0, 2, (images, 1, 28, 28), dtype=torch.uint8), None, 1.0)
    facts = DataFacts("m", (1, 28, 28), "binary", 0, images)
    model = parts.model(compose.compose("train", MLP), facts).eval()
    trained = training(workloads.Data(drawn, None, drawn, facts), torch.device("cpu"), *MLP)
    began = time.perf_counter()
    if kind == "train":
        _epoch(trained)
    else:
        bounds.score(model, drawn, draws_up_to(draws), 0, together=bounds.values_at_once("auto"))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak": _peak()}))


def _peak() -> float:
    """Megabytes that this process has held at most; the usual counter starts at its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _answer(what: str, *arguments: str) -> None:
    if what == "first_step":
        _first_step(*arguments)
    elif what == "upkeep":
        _upkeep(*arguments)
    else:
        _grown(what, *map(int, arguments))


def main() -> None:
    threads.tune()
    if sys.argv[1:2] == ["--probe"]:
        _answer(*sys.argv[2:])
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(Bench(device, 1).sections), help="sections; all of them")
    parser.add_argument("--rounds", type=int, default=15, help="of each comparison")
    parser.add_argument("--device", default=device.type)
    parser.add_argument("--json", type=Path, default=ROOT / "outputs" / "bench.json")
    chosen = parser.parse_args()
    bench, rows = Bench(torch.device(chosen.device), chosen.rounds), []
    about = machine()
    for name, section in bench.sections.items():
        if chosen.only is None or name in chosen.only:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            rows += section()
            write(chosen.json, rows, about | {"device": chosen.device, "rounds": chosen.rounds})
    print(table(rows))
    print(f"\n{about}\nwritten to {chosen.json}")


if __name__ == "__main__":
    main()
