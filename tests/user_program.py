"""A program of somebody who uses tinyseg, and whose type checker is strict: `make lint` runs mypy --strict on it.

`assert_type` is an error of mypy's if an expression has another type. `tests/test_annotations.py` runs the program.
"""

import sys
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np

import tinyseg as ts
from tinyseg import nn, ops
from tinyseg.data import Augment, Loader, Sections, SegmentationDataset, em_sections, isbi, load_stack, standardize
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import Case, find_cases, read_case
from tinyseg.data.class_masks import Classes, parse_class_names
from tinyseg.data.images import open_image
from tinyseg.data.slice_sampler import SliceSampler
from tinyseg.data.slices import SliceCache
from tinyseg.data.split import split
from tinyseg.data.synthetic import write_sections
from tinyseg.data.synthetic_brain import write_brains
from tinyseg.isbi_metrics import IsbiScores, isbi_scores, label_scores, thin, v_info, v_rand
from tinyseg.metrics.instances import Matches, adapted_rand_error, average_precision, match_objects
from tinyseg.metrics.patients import PatientScores
from tinyseg.models import UNet
from tinyseg.prediction.instances import find_instances, measure_instances
from tinyseg.prediction.predictor import Predictor, labels
from tinyseg.training import RunDirectory, Step, evaluate, fit
from tinyseg.training.step import Figures


class Residual(nn.Module):
    """A layer of one's own."""

    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        self.depthwise = nn.DepthwiseConv2d(channels, 3, padding="same", rng=rng)
        self.norm = nn.GroupNorm(2, channels)
        self.drop = nn.Dropout(0.1, rng=rng)

    def forward(self, x: ts.Tensor) -> ts.Tensor:
        return x + ops.relu(self.norm(self.drop(self.depthwise(x))))


class Net(nn.Module):
    """A network of one's own."""

    multiple = 1
    receptive_radius = 2

    def __init__(self, in_channels: int = 1, num_classes: int = 1, width: int = 4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.in_channels, self.num_classes = in_channels, num_classes
        self.stem = nn.Conv2d(in_channels, width, (3, 3), padding="same", rng=rng, activation="relu")
        self.body = nn.Sequential(Residual(width, rng), nn.ReLU())
        self.head = nn.PointwiseConv2d(width, num_classes, rng=rng)

    def forward(self, x: ts.Tensor | np.ndarray) -> ts.Tensor:
        return self.head(self.body(self.stem(x)))


class Square(ts.Function):
    """An op of one's own."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.saved = x
        y: np.ndarray = x * x
        return y

    def backward(self, gy: np.ndarray) -> np.ndarray:
        gx: np.ndarray = 2 * gy * self.saved
        return gx


class Plain(ts.optim.Optimizer):
    """An optimizer of one's own."""

    def update(self, w: np.ndarray, g: np.ndarray) -> None:
        w -= self.lr * g


@ts.no_grad()
def mean_logit(model: nn.Module, x: np.ndarray) -> float:
    """Return the mean of what a network says."""
    y: ts.Tensor = model(x)
    return y.mean().item()


def compute() -> None:
    """Compute with tensors."""
    x = ts.Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    assert_type(np.float32(2) * x + x / 2 - x**2, ts.Tensor)
    assert_type((-x).sum(axis=0).reshape(2, 1), ts.Tensor)
    assert_type(x.shape, tuple[int, ...])
    loss = Square()(x).mean()
    loss.backward()
    assert x.grad is not None and x.grad.shape == x.shape
    x.data -= 0.1 * x.grad
    assert_type(loss.item(), float)
    assert_type(ops.concat([ops.pad(x.detach().reshape(1, 1, 2, 2), 1), np.ones((1, 2, 4, 4))]), ts.Tensor)
    assert_type(ops.softmax(np.ones((1, 3, 2, 2))).data, np.ndarray)
    ts.check_grads(lambda a: Square()(a), np.ones((2, 3)))
    with ts.using(kernels="reference"):
        assert_type(ts.backend.kernels_in_use(), str)
    assert_type(ts.backend.parse_device("auto"), Literal["cpu", "gpu"])


def train(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Train for some steps, and return the last loss."""
    optimizer = ts.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = ts.optim.CosineAnnealingLR(optimizer, T_max=2)
    for _ in range(2):
        loss = ops.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        assert_type(ts.optim.clip_grad_norm(model.parameters(), 1.0), float)
        optimizer.step()
        schedule.step()
    plain = Plain(model.parameters(), lr=1e-3)
    assert_type(Step(model, plain, clip=1.0)(x, y), Figures)
    return loss.item()


def run(folder: Path) -> UNet:
    """Train U-Net by the loop of the library, and return what the folder of the run holds."""
    data = isbi.load(write_sections(folder / "data", 3, 32))
    assert_type(data, Sections)
    assert_type(isbi.load(folder / "data", classes="auto").classes, Classes | None)
    assert_type(parse_class_names("background=0,nucleus=85").write(np.array([[0, 1]])), np.ndarray)
    parts, val = data.resized((32, 32)).split(1)
    assert parts.labels is not None and val.labels is not None
    data_set = SegmentationDataset(standardize(parts.images), parts.labels, Augment.parse("hflip,zoom=0.1"))
    loader = Loader(data_set, batch_size=1, workers=0)
    x, y = next(loader.epoch(0))
    assert_type(x, np.ndarray)
    model = ts.models.build("sdunet", width=4, levels=2)
    assert_type(model, UNet)
    assert_type(model(x), ts.Tensor)
    optimizer = ts.optim.Adam(model.parameters())
    images, truth = standardize(val.images), val.labels

    def validate(model: UNet) -> dict[str, float]:
        scores, probabilities = evaluate(model, images, truth)
        assert_type(probabilities, np.ndarray)
        return scores

    result = fit(
        Step(model, optimizer),
        loader,
        validate,
        schedule=ts.optim.StepLR(optimizer, 10),
        epochs=1,
        run=RunDirectory(folder / "run"),
        meta={"preprocessing": {"scale": [1, 1], "standardize": "section"}},
        progress=False,
        callback=lambda row: print(row["train_loss"]),
    )
    assert_type(result, dict[str, Any])
    return ts.checkpoint.load(folder / "run" / "best.safetensors").eval()


def prepare_brains(folder: Path) -> None:
    """Make a data set of the slices of brains."""
    cases = find_cases(write_brains(folder / "brains", num_cases=3, shape=(16, 20, 16)))
    assert_type(cases.cases, tuple[Case, ...])
    volume, _ = read_case(next(iter(cases)))
    assert_type(volume, np.ndarray)
    with open_image(cases.cases[0].images[0]) as image:
        assert_type(next(iter(image)), np.ndarray)
    cache = SliceCache.build(cases, folder / "slices", Preparation(16), workers=0, progress=False)
    assert_type(cache, SliceCache)
    train, _, _ = split([case.name for case in cases], (1, 1, 1))
    x, y = SliceSampler(cache, train, length=2, augment=Augment.default()).sample(0, epoch=0)
    assert_type(x, np.ndarray)


def score(probability: np.ndarray, truth: np.ndarray) -> None:
    """Score a prediction in several ways."""
    mask = probability > 0.5
    assert_type(ts.metrics.dice(mask, truth, empty="one"), float)
    pooled = ts.metrics.BinaryScores()
    pooled.update(probability, truth)
    assert_type(pooled.compute(), dict[str, float])
    classes = ts.metrics.SegmentationScores(2, ["background", "cell"], regions={"all": (0, 1)})
    classes.update(mask[None].astype(np.uint8), truth[None].astype(np.uint8))
    assert_type(classes.per_image(), list[dict[str, Any]])
    assert_type(ts.metrics.mean_interval([0.5, 0.75, None]), tuple[float, float] | None)
    assert_type(v_rand(probability, truth) + v_info(probability, truth), float)
    found = isbi_scores(probability, truth, thresholds=[0.25, 0.5])
    assert_type(found, IsbiScores)
    assert_type(found.v_rand, float)
    assert_type(found.v_info_sections, np.ndarray)
    assert_type(label_scores(thin(mask), thin(truth)).info_split, float)
    patients = PatientScores(["tumour"], None)
    patients.add("first", mask, truth, voxel=1.0)
    assert_type(patients.report(), dict[str, Any])


def score_objects(probability: np.ndarray, truth: np.ndarray) -> None:
    """Score the objects of a section."""
    found = find_instances(probability, seed_threshold=0.9, min_size=10)
    assert_type(found, np.ndarray)
    assert_type(measure_instances(found, (0.5, 0.5)), list[dict[str, float]])
    assert_type(match_objects(truth, found) + match_objects(truth, found), Matches)
    assert_type(average_precision(truth, found, (0.5, 0.75)), np.ndarray)
    assert_type(adapted_rand_error(truth, found), float)


def look(model: UNet, folder: Path, images: np.ndarray, truth: np.ndarray, probability: np.ndarray) -> None:
    """Draw pictures, and count what the network costs."""
    ts.plots.curves([{"train_loss": 1.0}, {"train_loss": 0.5}], folder / "curves.png")
    ts.plots.predictions(images, truth, probability, str(folder / "predictions.png"), max_rows=1)
    assert_type(ts.profile.summary(model, (1, 1, 32, 32), show=False).parameters, int)
    assert_type(ts.profile.latency(model, (1, 1, 32, 32), repeats=1).quartiles, tuple[float, float])


def main(folder: Path) -> None:
    """Do all of it."""
    compute()
    images, truth = em_sections(num_sections=2, size=32)
    x, y = standardize(images)[:, None], truth[:, None]
    net = Net()
    assert_type(train(net, x, y), float)
    assert_type(mean_logit(net, x), float)
    assert_type(net.to("cpu").eval(), Net)
    assert_type(ts.prediction.predict(net, x, tile=32, transforms="flips"), np.ndarray)
    prepare_brains(folder)
    model = run(folder)
    assert_type(model.num_classes, int)
    predictor = Predictor.load(folder / "run" / "best.safetensors", memory=1 << 28)
    stack, names = load_stack(folder / "data" / "train-volume.tif")
    masks, _ = load_stack(folder / "data" / "train-labels.tif")
    assert_type(names, list[str])
    probability = np.stack([predictor(section)[0] for section in stack])
    assert_type(labels(predictor(stack[0])), np.ndarray)
    score(probability[0], truth[0])
    score_objects(probability[0], truth[0])
    look(model, folder, stack, masks > 0, probability)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
