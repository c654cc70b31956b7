"""The synthetic stack: repeatable, shaped as asked, and in its numbers like the real one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import label

from tinyseg.data import isbi, synthetic
from tinyseg.data.synthetic import _Tissue, em_sections
from tinyseg.data.writing import write_atomically

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "isbi2012"


@pytest.fixture(scope="module")
def stack():
    return em_sections(num_sections=12, size=256, seed=0)


@pytest.fixture(scope="module")
def real():
    if not (REAL / "train-volume.tif").is_file():
        pytest.skip(f"no real data in {REAL}")
    images, labels = (tifffile.imread(REAL / f"train-{name}.tif") for name in ("volume", "labels"))
    halved = (stack.reshape(-1, 256, 2, 256, 2).mean((2, 4)) for stack in (images, labels))
    return next(halved).round().astype(np.uint8), next(halved) > 127


def best_threshold_iou(images, labels):
    """Membrane IoU of the best single grey level: the score that needs no learning."""
    masks = (images < level for level in range(20, 200, 2))
    return max((dark & ~labels).sum() / (dark | ~labels).sum() for dark in masks)


def spectrum(images):
    """Mean log10 power in eight rings of spatial frequency up to 0.5 cycles a pixel."""
    power = np.mean([np.abs(np.fft.fft2(image - image.mean())) ** 2 / image.size for image in images], axis=0)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in power.shape), indexing="ij"))
    rings = np.linspace(0, 0.5, 9)
    return np.array([np.log10(power[(frequency > a) & (frequency <= b)].mean()) for a, b in itertools.pairwise(rings)])


def test_shapes_and_types():
    images, labels = em_sections(num_sections=3, size=(48, 80), seed=4)
    assert images.shape == labels.shape == (3, 48, 80)
    assert images.dtype == np.uint8 and labels.dtype == bool
    assert em_sections(1, 32)[0].shape == (1, 32, 32)


def test_the_same_seed_gives_the_same_stack_and_another_gives_another():
    first, second, other = (em_sections(2, (64, 96), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[1] != other[1]).mean() > 0.1


def test_a_section_does_not_depend_on_how_many_there_are():
    few, many = em_sections(2, (64, 96)), _Tissue(64, 96, seed=0)
    many.section(29)  # in the next block of cells
    for k in (1, 0):
        image, label = many.section(k)
        np.testing.assert_array_equal(image, few[0][k])
        np.testing.assert_array_equal(label, few[1][k])


def test_every_block_and_every_seed_has_cells_and_a_warp_of_its_own():
    tissue, other = _Tissue(64, 96, seed=0), _Tissue(64, 96, seed=1)
    radii = [tissue.block(0).radius, tissue.block(1).radius, other.block(0).radius]
    assert len({radius[:20].tobytes() for radius in radii}) == 3
    assert not np.array_equal(tissue.warp[0][0].k, other.warp[0][0].k)


@pytest.mark.parametrize("seed", range(3))
def test_about_a_fifth_is_membrane_and_it_is_dark(seed, stack):
    images, labels = stack if seed == 0 else em_sections(2, 256, seed)
    assert 0.17 < 1 - labels.mean() < 0.27
    assert images[labels].mean() - images[~labels].mean() > 30


def test_membranes_are_in_proportion_to_the_size():
    coarse, fine = (em_sections(1, size, seed=1)[1] for size in (128, 384))
    assert coarse.mean() == pytest.approx(fine.mean(), abs=0.02)
    resized = fine[:, 1::3, 1::3]  # the centre pixel of each 3x3: the same place in the field
    assert (resized == coarse).mean() > 0.99


def test_cells_are_of_all_sizes_and_closed(stack):
    areas = np.concatenate([np.bincount(label(section)[0].ravel())[1:] for section in stack[1]])
    assert 60 < len(areas[areas > 8]) / len(stack[1]) < 200  # about 110 a section in the real stack
    assert np.percentile(areas, 98) > 10 * np.median(areas)


def test_neighbouring_sections_are_alike_and_distant_ones_are_not(stack):
    membrane = ~stack[1]

    def agreement(step):
        return (membrane[:-step] & membrane[step:]).sum() / (membrane[:-step] | membrane[step:]).sum()

    chance = 0.22 / (2 - 0.22)
    assert agreement(1) > 2 * chance
    assert agreement(1) > agreement(3) > agreement(10)
    assert agreement(10) < 1.5 * chance


def test_a_threshold_does_not_solve_it(stack):
    assert 0.3 < best_threshold_iou(*stack) < 0.55


def test_it_is_like_the_real_stack(stack, real):
    (images, labels), (real_images, real_labels) = stack, real
    assert best_threshold_iou(images, labels) == pytest.approx(best_threshold_iou(real_images, real_labels), abs=0.08)
    assert labels.mean() == pytest.approx(real_labels.mean(), abs=0.04)
    assert images.mean() == pytest.approx(real_images.mean(), abs=10)
    percentiles = [5, 25, 50, 75, 95]
    np.testing.assert_allclose(np.percentile(images, percentiles), np.percentile(real_images, percentiles), atol=14)
    np.testing.assert_allclose(spectrum(images), spectrum(real_images), atol=0.35)


@pytest.mark.parametrize(
    "wrong", [{"num_sections": 0}, {"size": 8}, {"size": (64, 8)}, {"size": (1, 64, 64)}, {"seed": -1}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match="em_sections needs num_sections >= 1"):
        em_sections(**wrong)


def test_a_disk_that_fills_up_leaves_no_half_stack_and_the_next_call_goes_on(tmp_path, monkeypatch):
    def full(path, content):
        if path.name == "train-labels.tif":
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            synthetic.write_sections(tmp_path, num_sections=2, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["train-volume.tif"]
    images, labels = em_sections(2, 32)
    found = isbi.load(synthetic.write_sections(tmp_path, num_sections=2, size=32), labels="required")
    assert np.array_equal(found.images, images) and np.array_equal(found.labels, labels)
    written = (tmp_path / "train-volume.tif").stat().st_mtime_ns
    synthetic.write_sections(tmp_path, num_sections=2, size=32)
    assert (tmp_path / "train-volume.tif").stat().st_mtime_ns == written
