"""Slices on disk: made once, remade when anything changes, never half-used."""

import contextlib
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from brains import as_brats, change_dataset

from tinyseg.data import slice_files as module
from tinyseg.data import slices
from tinyseg.data.augment import Augment
from tinyseg.data.brain import Preparation
from tinyseg.data.brats import find_cases, read_case
from tinyseg.data.slice_sampler import SliceSampler
from tinyseg.data.slices import SliceCache
from tinyseg.data.synthetic_brain import write_brains

SHAPE = (36, 40, 16)
CROP = Preparation(size=24)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_brains(tmp_path_factory.mktemp("data"), num_cases=3, shape=SHAPE)


@pytest.fixture
def made(monkeypatch):
    """Names of the cases that are prepared."""
    names, make = [], module.make

    def record_and_make(folder, case, *rest):
        names.append(case.name)
        return make(folder, case, *rest)

    monkeypatch.setattr(module, "make", record_and_make)
    return names


def build(data, folder, preparation=CROP, **options):
    return SliceCache.build(find_cases(data), folder, preparation, progress=False, **options)


def test_slices_are_what_preparing_gives(data, tmp_path):
    cache, case = build(data, tmp_path), find_cases(data).cases[1]
    volume, label = read_case(case)
    statistics = CROP.statistics(np.moveaxis(volume, 3, 0))
    images, labels = cache.images(case.name), cache.labels(case.name)
    assert images.shape == (16, 4, 24, 24) and images.dtype == np.float16 and isinstance(images, np.memmap)
    np.testing.assert_allclose(images[7], CROP.prepare(volume[..., 7], statistics), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(labels[7], CROP.fit(label[..., 7]))
    entry = cache.entries[case.name]
    np.testing.assert_array_equal(entry.counts[7], np.bincount(labels[7].ravel(), minlength=4))
    np.testing.assert_array_equal(entry.outside + entry.counts.sum(axis=0), np.bincount(label.ravel(), minlength=4))
    assert entry.voxel == 1 and list(cache.entries) == [c.name for c in find_cases(data)]


def test_the_second_time_nothing_is_made(data, tmp_path, made):
    first = build(data, tmp_path)
    assert len(made) == 3
    again = build(data, tmp_path)
    assert len(made) == 3
    for name, entry in first.entries.items():
        np.testing.assert_array_equal(entry.counts, again.entries[name].counts)


@pytest.mark.parametrize(
    "other", [Preparation(size=20), Preparation(24, "resize"), Preparation(24, standardize="slice")]
)
def test_other_options_make_all_anew(data, tmp_path, made, other):
    build(data, tmp_path)
    assert build(data, tmp_path, other).labels("SYNTHETIC_000").shape == (16, *other.target(SHAPE[:2]))
    assert len(made) == 6


def test_a_changed_source_is_made_anew_and_a_touched_one_is_not(data, tmp_path, made):
    data = shutil.copytree(data, tmp_path / "data")
    build(data, tmp_path / "cache")
    source = data / "labelsTr" / "SYNTHETIC_001.nii.gz"
    source.touch()
    build(data, tmp_path / "cache")
    assert len(made) == 3
    other = data / "labelsTr" / "SYNTHETIC_002.nii.gz"
    source.write_bytes(other.read_bytes())
    build(data, tmp_path / "cache")
    assert made[3:] == ["SYNTHETIC_001"]


def test_an_interrupted_build_goes_on(data, tmp_path, monkeypatch, made):
    make, done = module.make, []

    def interrupted(*args):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(args)
        return make(*args)

    monkeypatch.setattr(module, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(data, tmp_path, workers=1)
    monkeypatch.setattr(module, "make", make)
    made.clear()
    build(data, tmp_path)
    assert len(made) == 2


@pytest.mark.parametrize("damage", ["no description", "half a description", "no images", "overwritten", "one number"])
def test_what_is_half_there_is_not_used(data, tmp_path, made, damage):
    build(data, tmp_path)
    path = next(tmp_path.glob("SYNTHETIC_001*.json"))
    if damage == "no description":
        path.unlink()
    elif damage == "half a description":
        path.write_text(path.read_text()[:50])
    elif damage == "overwritten":  # the size and the time stay
        labels = path.with_suffix(".labels.npy")
        status = labels.stat()
        labels.write_bytes(bytes(status.st_size))
        os.utime(labels, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif damage == "one number":
        path.write_text(re.sub(r'(voxel[\\"]+: )1', r"\g<1>2", path.read_text()))
        assert len(re.findall(r'voxel[\\"]+: 2', path.read_text())) == 1
    else:
        path.with_suffix(".images.npy").unlink()
    made.clear()
    build(data, tmp_path)
    assert made == ["SYNTHETIC_001"]


def test_a_training_beside_it_with_other_options_changes_nothing(data, tmp_path):
    first = build(data, tmp_path)
    images, labels = (np.array(first.images("SYNTHETIC_001")), np.array(first.labels("SYNTHETIC_001")))
    build(data, tmp_path, Preparation(size=16))
    build(write_brains(tmp_path / "others", 3, SHAPE, seed=5), tmp_path)  # cases of the same names
    np.testing.assert_array_equal(first.images("SYNTHETIC_001"), images)
    np.testing.assert_array_equal(first.labels("SYNTHETIC_001"), labels)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is in use")
def test_somebody_empties_the_cache_while_a_training_reads_it(data, tmp_path):
    cache, other = build(data, tmp_path / "slices"), build(data, tmp_path / "other")
    shutil.rmtree(tmp_path / "slices")
    for name in cache.entries:
        assert np.array_equal(cache.images(name), other.images(name))
        assert np.array_equal(cache.labels(name), other.labels(name))


def test_bad_cases_are_an_error_or_left_out_and_named(data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    (data / "imagesTr" / "SYNTHETIC_001.nii.gz").write_text("<html>login</html>")
    with pytest.raises(ValueError, match="a web page"):
        build(data, tmp_path / "cache")
    cache = build(data, tmp_path / "cache", skip_bad=True)
    assert list(cache.entries) == ["SYNTHETIC_000", "SYNTHETIC_002"] and "web page" in cache.skipped["SYNTHETIC_001"]
    for name in ("SYNTHETIC_000", "SYNTHETIC_002"):
        (data / "imagesTr" / f"{name}.nii.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 3 cases"):
        build(data, tmp_path / "other", skip_bad=True)


def test_one_scan_under_two_names(data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    copy = (data / "imagesTr" / "SYNTHETIC_000.nii.gz").read_bytes()
    (data / "imagesTr" / "SYNTHETIC_002.nii.gz").write_bytes(copy)
    with pytest.raises(ValueError, match=r"SYNTHETIC_002.*SYNTHETIC_000.*same scan"):
        build(data, tmp_path / "cache")
    cache = build(data, tmp_path / "cache", skip_bad=True)
    assert list(cache.entries) == ["SYNTHETIC_000", "SYNTHETIC_001"] and list(cache.skipped) == ["SYNTHETIC_002"]


def test_a_source_that_changed_without_a_new_time_or_size_is_made_anew(data, tmp_path, made):
    data = shutil.copytree(data, tmp_path / "data")
    build(data, tmp_path / "cache")
    source = data / "labelsTr" / "SYNTHETIC_001.nii.gz"
    times, content = source.stat(), bytearray(source.read_bytes())
    content[4:8] = b"date"  # of the gzip's header: another content
    source.write_bytes(content)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    build(data, tmp_path / "cache")
    assert made[3:] == ["SYNTHETIC_001"]


def test_fingerprints_tell_what_is_read_apart(data, tmp_path):
    def parts(data, **names):
        return build(data, tmp_path / "cache").fingerprints(**names)

    def differing(changed, **names):
        now = parts(changed, **(given | names))
        return {name for name in before if before[name] != now[name]}

    given = {"training": ["SYNTHETIC_000", "SYNTHETIC_001"], "validation": ["SYNTHETIC_002"]}
    before = parts(data, **given)
    assert not differing(data)
    for k in range(4):
        shutil.copytree(data, tmp_path / f"{k}")
    shutil.copy(tmp_path / "0/labelsTr/SYNTHETIC_000.nii.gz", tmp_path / "0/labelsTr/SYNTHETIC_002.nii.gz")
    assert differing(tmp_path / "0") == {"labels for validation"}
    write_brains(tmp_path / "other", 3, SHAPE, seed=5)
    shutil.copy(tmp_path / "other/imagesTr/SYNTHETIC_001.nii.gz", tmp_path / "1/imagesTr/SYNTHETIC_001.nii.gz")
    assert differing(tmp_path / "1") == {"images for training"}
    change_dataset(tmp_path / "2", modality={"0": "T2w", "1": "T1w", "2": "T1gd", "3": "FLAIR"})
    assert differing(tmp_path / "2") == {"modalities"}
    change_dataset(tmp_path / "3", labels={"0": "background", "2": "edema", "1": "core", "3": "rim"})
    assert differing(tmp_path / "3") == {"classes"}
    swapped = differing(data, training=["SYNTHETIC_000", "SYNTHETIC_002"], validation=["SYNTHETIC_001"])
    assert {"the list of the cases for training", "the list of the cases for validation"} <= swapped


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers(data, tmp_path, workers):
    assert len(build(data, tmp_path, workers=workers).entries) == 3


def small(folder, *shapes):
    """A Decathlon folder of cases of these shapes, of one modality."""
    listed = []
    for k, shape in enumerate(shapes):
        voxels = np.random.default_rng(k).integers(1, 9, shape).astype(np.int16)
        for part, array in (("imagesTr", voxels), ("labelsTr", (voxels > 7).astype(np.uint8))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), folder / part / f"C_{k}.nii.gz")
        listed.append({"image": f"imagesTr/C_{k}.nii.gz", "label": f"labelsTr/C_{k}.nii.gz"})
    about = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "lesion"}, "training": listed}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


def test_small_volumes_of_several_sizes_are_refused_before_any_is_prepared(tmp_path, made):
    data = small(tmp_path / "data", (35, 51, 4), (39, 48, 4))
    with pytest.raises(ValueError, match="C_0.* 35 × 51, and .*C_1.*39 × 48.*--how resize, or a --size of at most 35"):
        build(data, tmp_path / "cache", Preparation(size=144))
    assert not made
    for preparation in (Preparation(32), Preparation(144, "resize")):
        assert len(build(data, tmp_path / "cache", preparation).entries) == 2


def test_volumes_of_one_slice_are_taken_and_flat_images_are_refused(tmp_path):
    cache = build(small(tmp_path / "one", (20, 24, 1)), tmp_path / "cache", Preparation(16))
    assert cache.images("C_0").shape == (1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"C_0\.nii\.gz has shape \(20, 24\): expected"):
        build(small(tmp_path / "flat", (20, 24)), tmp_path / "cache")


def test_slices_that_the_network_does_not_take_are_refused_before_any_is_prepared(data, tmp_path, made):
    def check(h, w):
        raise ValueError(f"only multiples of 16, not {h} x {w}.")

    with pytest.raises(ValueError, match="--size 24 --how crop .*SYNTHETIC_000.*24 × 24. only multiples of 16"):
        build(data, tmp_path, check_shape=check)
    assert not made


def test_another_number_of_modalities_than_the_description_names(data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    change_dataset(data, modality={"0": "FLAIR", "1": "T1w"})
    with pytest.raises(ValueError, match="SYNTHETIC_000.* has 4 modalities: expected 2.*--skip-bad"):
        build(data, tmp_path / "cache")


def test_cases_that_lack_a_file_are_an_error_or_listed(data, tmp_path):
    data = shutil.copytree(data, tmp_path / "data")
    (data / "labelsTr" / "SYNTHETIC_001.nii.gz").unlink()
    found = find_cases(data, skip_bad=True)
    with pytest.raises(ValueError, match="SYNTHETIC_001.*not there.*--skip-bad"):
        SliceCache.build(found, tmp_path / "cache", CROP, progress=False)
    cache = SliceCache.build(found, tmp_path / "cache", CROP, progress=False, skip_bad=True)
    assert list(cache.entries) == ["SYNTHETIC_000", "SYNTHETIC_002"] and list(cache.skipped) == ["SYNTHETIC_001"]


@pytest.mark.parametrize("fault", ["a folder", "a link to nothing", "two files of one name"])
def test_odd_files_of_a_brats_case_are_left_out_by_name(data, tmp_path, fault):
    folder = as_brats(data, tmp_path / "brats")
    file = folder / "SYNTHETIC_001" / "SYNTHETIC_001_t1.nii.gz"
    if fault == "two files of one name":
        file.with_suffix("").touch()
    else:
        file.unlink()
        file.mkdir() if fault == "a folder" else file.symlink_to(tmp_path / "nowhere")
    cases = find_cases(folder, skip_bad=True)
    cache = SliceCache.build(cases, tmp_path / "cache", CROP, skip_bad=True, progress=False)
    assert list(cache.entries) == ["SYNTHETIC_000", "SYNTHETIC_002"]
    assert "SYNTHETIC_001_t1.nii" in cache.skipped["SYNTHETIC_001"]
    with pytest.raises((ValueError, FileNotFoundError), match=r"SYNTHETIC_001_t1\.nii"):
        build(folder, tmp_path / "cache")


def test_a_folder_that_cannot_be(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot keep slices in .*choose another cache folder"):
        build(data, tmp_path / "file")


def test_a_full_disk_is_seen_before_the_work(data, tmp_path, monkeypatch, made):
    monkeypatch.setattr(slices.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="slices of 3 cases take 0.0 GiB"):
        build(data, tmp_path)
    assert not made


def test_samples_depend_on_seed_epoch_and_index_only(data, tmp_path):
    cache = build(data, tmp_path)
    names = list(cache.entries)[:2]
    sampler = SliceSampler(cache, names, 50, seed=4)
    x, y = sampler.sample(7, 3)
    assert x.shape == (4, 24, 24) and x.dtype == np.float32 and y.shape == (24, 24) and y.dtype == np.int64
    again = SliceSampler(cache, names, 50, seed=4).sample(7, 3)
    np.testing.assert_array_equal(again[0], x)
    np.testing.assert_array_equal(again[1], y)
    others = [SliceSampler(cache, names, 50, seed=5).sample(7, 3), sampler.sample(8, 3), sampler.sample(7, 4)]
    assert not all(np.array_equal(x, other) for other, _ in others)
    assert len(sampler) == 50


def test_hflip_of_a_patient_mirrors_left_and_right(data, tmp_path):
    """The first axis of a slice goes from the patient's one side to the other, whichever way arrays are counted."""
    cache = build(data, tmp_path)
    names = list(cache.entries)[:1]
    plain = SliceSampler(cache, names, 20, empty=0)
    mirrored = SliceSampler(cache, names, 20, empty=0, augment=Augment.parse("hflip"))
    same = 0
    for index in range(20):
        (x, y), (flipped, label) = plain.sample(index, 0), mirrored.sample(index, 0)
        same += np.array_equal(x, flipped)
        if not np.array_equal(x, flipped):
            np.testing.assert_array_equal(flipped, x[:, ::-1])
            np.testing.assert_array_equal(label, y[::-1])
    assert 0 < same < 20


def test_windows_of_slices(data, tmp_path):
    cache = build(data, tmp_path)
    names = list(cache.entries)[:1]
    whole, windows = SliceSampler(cache, names, 20, empty=0), SliceSampler(cache, names, 20, empty=0, crop=(8, 16))
    places = set()
    for index in range(20):
        (x, y), (window, label) = whole.sample(index, 0), windows.sample(index, 0)
        assert window.shape == (4, 8, 16) and label.shape == (8, 16) and label.dtype == np.int64
        found = [
            (i, j) for i in range(17) for j in range(9) if np.array_equal(x[:, i : i + 8, j : j + 16], window)
        ]  # fmt: skip
        assert any(np.array_equal(y[i : i + 8, j : j + 16], label) for i, j in found)
        places.update(found)
    assert len(places) > 10


def test_shares_of_slices_and_classes(data, tmp_path):
    cache = build(data, tmp_path)
    names = list(cache.entries)

    def drawn(**options):
        sampler = SliceSampler(cache, names, 400, **options)
        return [sampler.sample(i, 0)[1] for i in range(400)]

    def share(labels, k=None):
        return np.mean([(y > 0).any() if k is None else (y == k).any() for y in labels])

    counts = np.concatenate([e.counts for e in cache.entries.values()])
    as_they_come = (counts[:, 1:] > 0).any(axis=1).mean()
    assert share(drawn()) == pytest.approx(as_they_come, abs=0.08)
    assert share(drawn(empty=0.25)) == pytest.approx(0.75, abs=0.08)
    assert share(drawn(empty=0)) == 1 and share(drawn(empty=1)) == 0
    plain, balanced = drawn(empty=0), drawn(balanced=True)
    assert share(balanced) == 1 and share(balanced, 3) > share(plain, 3)  # rims are in the fewest slices
    masks = drawn(whole_tumour=True, empty=0)
    assert masks[0].shape == (1, 24, 24) and masks[0].dtype == np.float32 and set(np.unique(masks[0])) == {0, 1}
    with pytest.raises(ValueError, match="share of the samples"):
        SliceSampler(cache, names, 10, empty=1.5)


def test_slices_of_a_kind_that_is_not_there(data, tmp_path):
    cache = build(data, tmp_path)
    for entry in cache.entries.values():
        entry.counts[:, 1:] = 1
    with pytest.raises(ValueError, match="0 without"):
        SliceSampler(cache, list(cache.entries), 10, empty=0.5)


def test_the_description_is_readable(data, tmp_path):
    build(data, tmp_path)
    about = json.loads(next(tmp_path.glob("SYNTHETIC_000*.json")).read_text())
    assert about["preparation"] == {"size": 24, "how": "crop", "standardize": "volume"}
    assert [source["name"] for source in about["sources"]] == ["SYNTHETIC_000.nii.gz"] * 2


def test_two_commands_prepare_the_same_cases_at_once(data, tmp_path, made, capfd):
    with ThreadPoolExecutor(2) as pool:
        caches = list(pool.map(lambda _: build(data, tmp_path), range(2)))
    assert sorted(made) == sorted(case.name for case in find_cases(data))  # each case once
    assert [list(cache.entries) for cache in caches] == [[case.name for case in find_cases(data)]] * 2
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["processes", "Dask", "MPI"])
def test_any_executor_prepares_the_same_slices(kind, data, tmp_path):
    """A cluster prepares hundreds of volumes; the files do not show where they were made."""
    one, two = tmp_path / "one", tmp_path / "two"
    expected = build(data, one)
    if kind == "MPI":
        mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or pytest.skip(
            "mpich is not installed"
        )
        script = tmp_path / "script.py"
        script.write_text(
            "import pathlib, sys\nfrom mpi4py.futures import MPIPoolExecutor\n"
            "from tinyseg.data.brain import Preparation\nfrom tinyseg.data.brats import find_cases\n"
            "from tinyseg.data.slices import SliceCache\n"
            f"cases, preparation = find_cases({str(data)!r}), Preparation(size=24)\n"
            "with MPIPoolExecutor() as pool:\n"
            f"    SliceCache.build(cases, {str(two)!r}, preparation, progress=False, executor=pool)\n"
        )
        command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)]
        subprocess.run(command, check=True, timeout=120)
    else:
        with contextlib.ExitStack() as stack:
            if kind == "processes":
                spawn = multiprocessing.get_context("spawn")
                pool = stack.enter_context(ProcessPoolExecutor(2, spawn))
            else:
                distributed = pytest.importorskip("distributed")
                options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
                cluster = stack.enter_context(distributed.LocalCluster(2, **options))
                client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
                pool = stack.enter_context(client.get_executor(pure=False))
            build(data, two, executor=pool)
    found = build(data, two)
    assert str(found.entries) == str(expected.entries)
    slices = {file.name for file in one.iterdir() if file.suffix in (".npy", ".json")} - {"sources.json"}
    assert len(slices) == 3 * len(expected.entries) and slices <= {file.name for file in two.iterdir()}
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in slices)
