"""A package of bioimage.io passes that site's own test, and its own software predicts from it what tinyseg predicts."""

import contextlib
import io
import json
import os
import socket
import warnings
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.export.networks import CASES, trained_like
from tests.scripts import REAL
from tinyseg.data import isbi, standardize
from tinyseg.export.bioimageio.given import LICENSES, check_license
from tinyseg.export.bioimageio.package import run_bioimageio, write_bioimageio
from tinyseg.export.bioimageio.rdf import FIRST_ISBI_SECTION
from tinyseg.export.describing import describe
from tinyseg.models import MODELS, checkpoint
from tinyseg.prediction import predict
from tinyseg.prediction.predictor import Predictor

pytest.importorskip("onnx", reason="packages are written with onnx")
pytest.importorskip("onnxruntime", reason="packages are run with onnxruntime")

ROUNDING = 2e-5
SMALL = {"name": "sdunet", "width": 8, "levels": 3}
SECTIONS = {"scale": 1, "standardize": "section"}
BRAIN = {
    "kind": "brain",
    "size": 24,
    "how": "crop",
    "standardize": "slice",
    "modalities": ["FLAIR", "T1w", "T1gd", "T2w"],
}
FOUR = {"name": "sdunet", "width": 6, "levels": 3, "in_channels": 4, "num_classes": 4}


def predictor_of(options=SMALL, preprocessing=SECTIONS, classes=None, **meta):
    model = trained_like(**options)
    count = options.get("num_classes", 1)
    model.meta = {
        "preprocessing": dict(preprocessing),
        "classes": classes or [f"kind {k}" for k in range(count)],
        **meta,
    }
    return Predictor(model)


def grey(shape, dtype=np.uint8, seed=3):
    """Blobs of two sizes, in the lower half of the range of an integer type, or from 0 to 1."""
    rng = np.random.default_rng(seed)
    small = rng.normal(size=(*shape[:-2], -(-shape[-2] // 4), -(-shape[-1] // 4)))
    x = small.repeat(4, axis=-2).repeat(4, axis=-1)[..., : shape[-2], : shape[-1]] + rng.normal(0, 0.5, shape)
    x = (x - x.min()) / (x.max() - x.min())
    if np.dtype(dtype).kind == "f":
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    return (limits.min + x * (limits.max // 2 - limits.min // 2)).astype(dtype)


def write(path, predictor, image=None, license="MIT", authors=("Ada Lovelace",), **given):
    image = grey((predictor.model.in_channels, 70, 52)) if image is None else image
    write_bioimageio(path, predictor, describe(predictor.model), image, license=license, authors=authors, **given)
    return path


def read(path):
    """The description and the files of a package."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(files["rdf.yaml"]), files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bioimageio.zip"


@pytest.fixture
def core(monkeypatch):
    """bioimageio.core, its warnings left alone, without a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("bioimageio.core", reason="the site's own test is in the package bioimageio.core")

        def refuse(*_):
            raise OSError("a test wants the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            yield found


def predict_with(core, package, images):
    """What bioimageio.core makes of images (N, C, H, W) that it is given whole."""
    model = core.load_model_description(package, perform_io_checks=True)
    sample = core.digest_spec.create_sample_for_model(model, inputs=images)
    with core.create_prediction_pipeline(model) as pipeline:
        found = pipeline.predict_sample_without_blocking(sample, skip_input_padding=True, skip_output_cropping=True)
    return found.members["probabilities"].data.to_numpy()


def passes(core, source):
    """Whether the site's own test passes; on failure, what it says."""
    tested = core.load_description_and_test(source).validation_summary
    checks = [detail for detail in tested.details if "inference" in detail.name]
    assert len(checks) == 6, "three sizes, with one image and with two"
    assert tested.status == "passed", [error.msg for detail in tested.details for error in detail.errors]


NETWORKS = [(case, SECTIONS) for case in CASES if case.get("in_channels", 1) == 1] + [(FOUR, BRAIN)]


@pytest.mark.parametrize(("options", "preprocessing"), NETWORKS, ids=lambda o: "-".join(map(str, o.values()))[:40])
def test_a_package_passes_the_test_of_bioimageio(core, path, options, preprocessing):
    passes(core, write(path, predictor_of(options, preprocessing)))


@pytest.mark.slow
def test_a_large_image_keeps_its_digits(core, path):
    predictor = predictor_of()
    image = grey((1, 1024, 1100))
    write(path, predictor)
    np.testing.assert_allclose(predict_with(core, path, image[None])[0], predictor(image), atol=ROUNDING)


def test_it_passes_unpacked_too(core, path, tmp_path):
    with zipfile.ZipFile(write(path, predictor_of())) as archive:
        archive.extractall(tmp_path / "folder")
    passes(core, tmp_path / "folder" / "rdf.yaml")


def test_the_example_is_at_the_networks_pixels(core, path):
    passes(core, write(path, predictor_of(preprocessing={"scale": [0.5, 1.3], "standardize": "section"})))


def test_every_network_of_the_library_is_among_those(core):
    assert {options["name"] for options, _ in NETWORKS} == set(MODELS)


PREPARED = {
    "section": (SMALL, SECTIONS, grey((76, 60))),
    "section, 16 bits": (SMALL, SECTIONS, grey((76, 60), np.uint16)),
    "section, three channels": (
        {**SMALL, "in_channels": 3},
        SECTIONS,
        grey((3, 64, 72)) + np.uint8([[[0]], [[50]], [[90]]]),
    ),
    "unit, 8 bits": (SMALL, {"scale": 1, "standardize": "unit"}, grey((76, 60))),
    "unit, signed": (SMALL, {"scale": 1, "standardize": "unit"}, grey((76, 60), np.int16)),
    "unit, float": (SMALL, {"scale": 1, "standardize": "unit"}, grey((76, 60), np.float32)),
    "stack": (SMALL, {"scale": 1, "standardize": "stack"}, grey((76, 60))),
    "brain": (FOUR, BRAIN, grey((4, 61, 47)) * (np.hypot(*np.mgrid[-30:31, -23:24]) < 21)),
}


@pytest.mark.parametrize("case", PREPARED)
def test_bioimageio_predicts_from_a_raw_image_what_tinyseg_predicts(core, path, case):
    options, preprocessing, image = PREPARED[case]
    predictor = predictor_of(options, preprocessing)
    image = image.reshape(options.get("in_channels", 1), *image.shape[-2:])
    write(path, predictor, grey(image.shape, image.dtype, seed=9))  # a package of another image of this type
    predictor.take_statistics([image])
    found = predict_with(core, path, image[None])[0]
    np.testing.assert_allclose(found, predictor(image), atol=ROUNDING)
    assert np.ptp(found) > 0.05


def test_a_stack_is_standardized_as_one(core, path):
    predictor = predictor_of(preprocessing={"scale": 1, "standardize": "stack"})
    stack = np.stack([grey((60, 76)), grey((60, 76), seed=4) + 60])[:, None]
    write(path, predictor)
    predictor.take_statistics(stack)
    expected = np.stack([predictor(section) for section in stack])
    np.testing.assert_allclose(predict_with(core, path, stack), expected, atol=ROUNDING)
    np.testing.assert_allclose(run_bioimageio(path, stack), expected, atol=ROUNDING)


@pytest.mark.parametrize("case", PREPARED)
def test_the_self_check_follows_the_package(path, case):
    options, preprocessing, image = PREPARED[case]
    predictor = predictor_of(options, preprocessing)
    write(path, predictor, image)
    predictor.take_statistics([image.reshape(-1, *image.shape[-2:])])
    np.testing.assert_allclose(run_bioimageio(path, image), predictor(image), atol=ROUNDING)


def test_the_self_check_resizes_as_the_readme_asks(path):
    predictor = predictor_of(preprocessing={"scale": [0.5, 1.3], "standardize": "section"})
    image = grey((140, 43))  # 70 × 56 for the network, which needs multiples of 4
    about, files = read(write(path, predictor, image))
    np.testing.assert_allclose(run_bioimageio(path, image), predictor(image), atol=ROUNDING)
    assert about["config"]["tinyseg"]["scale"] == [0.5, 1.3]
    assert "0.5 of their height and 1.3 of their width" in about["description"]
    assert "Y scale of 0.5" in files["README.md"].decode()


def test_the_self_check_sees_a_wrong_description(path, tmp_path):
    predictor = predictor_of(preprocessing={"scale": 1, "standardize": "unit"})
    with zipfile.ZipFile(write(path, predictor)) as archive:
        archive.extractall(tmp_path)
    about = json.loads((tmp_path / "rdf.yaml").read_text())
    about["inputs"][0]["preprocessing"][1]["kwargs"]["gain"] = 1.0
    (tmp_path / "rdf.yaml").write_text(json.dumps(about))
    image = grey((64, 76))
    assert abs(run_bioimageio(tmp_path, image) - predictor(image)).max() > 0.05


def test_the_test_section_is_the_middle_of_the_image_at_the_networks_pixels(path):
    image = grey((700, 90))
    about, files = read(write(path, predictor_of(), image))
    x = np.load(io.BytesIO(files["test_input.npy"]))
    assert x.shape == (1, 1, 512, 88) and x.dtype == np.float32
    np.testing.assert_array_equal(x[0, 0], image[94:606, 1:89])
    image = grey((7, 37))
    small = np.load(io.BytesIO(read(write(path, predictor_of(), image))[1]["test_input.npy"]))
    assert small.shape == (1, 1, about["inputs"][0]["axes"][2]["size"]["min"], 36)
    middle = (small.shape[2] - 7) // 2
    np.testing.assert_array_equal(small[0, 0, middle : middle + 14], np.vstack([image, image[::-1]])[:, :36])


def test_the_example_goes_through_the_network_at_once(path, monkeypatch):
    monkeypatch.setattr("tinyseg.prediction.tiles.ARRAYS", 10_000)  # as in a wide network: 2 GiB are too little
    predictor = predictor_of()
    assert predictor.tile < 100
    _, files = read(write(path, predictor, grey((700, 90))))
    x, p = (np.load(io.BytesIO(files[f"test_{name}.npy"])) for name in ("input", "output"))
    np.testing.assert_allclose(p, predict(predictor.model, standardize(x[0])[:, None]), atol=ROUNDING)


def test_the_halo_covers_half_of_the_receptive_field(path):
    for levels, radius, halo, step in ((3, 25, 16, 4), (5, 121, 64, 16)):
        predictor = predictor_of({**SMALL, "width": 4, "levels": levels})
        about, _ = read(write(path, predictor))
        assert predictor.model.receptive_radius == radius
        assert about["inputs"][0]["axes"][2]["size"] == {"min": 2 * halo + step, "step": step}
        assert [axis["halo"] for axis in about["outputs"][0]["axes"][2:]] == [halo, halo]


def test_what_readers_in_java_crash_on_is_written_as_they_want_it(path):
    about, _ = read(write(path, predictor_of(), pixel_size=0.004))
    assert about["documentation"] == "README.md" and about["covers"] == ["cover.png"]  # JDLL and QuPath cast to texts
    assert about["config"]["bioimageio"]["nickname"] == "sd-unet-for-kind-0"  # JDLL takes its length
    assert "id" not in about  # JDLL asks a server for it
    for tensor in about["inputs"] + about["outputs"]:
        assert all(axis["id"] for axis in tensor["axes"])  # ids of space axes are letters for JDLL
        assert [axis["id"] for axis in tensor["axes"]] == ["batch", "channel", "y", "x"]
        assert not any("scale" in axis for axis in tensor["axes"])  # JDLL divides the halo by it
        assert all(name.isidentifier() for name in tensor["axes"][1]["channel_names"])  # until format 0.5.5
    assert all(
        axis["size"]["offset"] == 0 for axis in about["outputs"][0]["axes"][2:]
    )  # QuPath takes 1 if it is missing
    assert all("kwargs" in step for step in about["inputs"][0]["preprocessing"])
    assert about["config"]["tinyseg"]["nanometres_per_pixel"] == [4, 4]


def test_the_description_says_the_same_to_readers_of_yaml_1_1(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML reads YAML 1.1")
    unit = {"scale": [0.001, 900], "standardize": "unit"}
    predictor = predictor_of(preprocessing=unit, classes=["Zelle: *ja* 🦠 \u2028 “no”"])
    write(path, predictor, grey((3000, 2), np.uint32), description="yes: #1 'ü' \\ \"no\"", pixel_size=4e-5)
    about, files = read(path)
    assert yaml.safe_load(files["rdf.yaml"].decode()) == about
    assert about["config"]["bioimageio"]["target_structure"] == ["Zelle: *ja* 🦠 “no”"]


def test_equal_checkpoints_give_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    file = tmp_path / "best.safetensors"
    model = predictor_of().model
    checkpoint.save(file, model, **model.meta)
    os.utime(file, (1.7e9, 1.7e9))
    first, second = (write(tmp_path / f"{k}.zip", Predictor.load(file)).read_bytes() for k in range(2))
    assert first == second
    about, _ = read(tmp_path / "0.zip")
    assert about["timestamp"] == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    about, _ = read(write(tmp_path / "old.zip", Predictor.load(file)))
    assert about["timestamp"] == "1970-01-01T00:00:00Z"
    with zipfile.ZipFile(tmp_path / "old.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("given", ["yesterday", "-1", "1.5", "99999999999"])
def test_a_wrong_source_date_is_named(path, monkeypatch, given):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    with pytest.raises(ValueError, match=rf"^SOURCE_DATE_EPOCH must be seconds since 1970.*'{given}'"):
        write(path, predictor_of())
    assert not path.exists()


def test_the_cover_shows_the_section_beside_the_result(path):
    _, files = read(write(path, predictor_of(), grey((48, 900))))
    cover = np.asarray(Image.open(io.BytesIO(files["cover.png"])))
    p = np.load(io.BytesIO(files["test_output.npy"]))[0, 0]
    assert cover.shape == (48, 96, 3) and len(files["cover.png"]) < 500_000
    left = (p.shape[1] - 48) // 2
    np.testing.assert_allclose(cover[:, 48:, 1], 255 * p[:, left : left + 48], atol=0.51)
    _, files = read(write(path, predictor_of({**SMALL, "num_classes": 3}), grey((48, 900))))
    colours = np.asarray(Image.open(io.BytesIO(files["cover.png"])))[:, 48:].reshape(-1, 3)
    assert 2 <= len(np.unique(colours, axis=0)) <= 3


HISTORY = [
    {"epoch": 7, "val_loss": 0.3, "val_dice": 0.9312, "val_mean_iou": 0.8123, "train_dice": 0.99},
    {"epoch": 8, "val_dice": 0.5},
]


def test_the_readme_has_the_scores_of_the_training(path):
    predictor = predictor_of(
        training={"state": {"best": 0, "history": HISTORY}},
        config={"data": "/home/ada/secret", "epochs": 30, "sections": {"train": ["a"], "val": ["b", "c"]}},
    )
    _, files = read(write(path, predictor))
    readme = files["README.md"].decode()
    assert "## Validation\n\nScores on 2 sections that were held out from the training. Epoch 7" in readme
    assert "| Dice | 0.9312 |\n| mean IoU | 0.8123 |\n" in readme and "0.99" not in readme
    assert "loss" not in readme and "epochs 30" in readme and "synthetic" not in readme
    assert not any(b"secret" in content for content in files.values())


@pytest.mark.parametrize(
    "training", [None, {}, {"state": None}, {"state": {"history": []}}, {"state": {"history": [3]}}]
)
def test_a_checkpoint_without_scores_says_so(path, training):
    _, files = read(write(path, predictor_of(training=training, config={"data": None})))
    readme = files["README.md"].decode()
    assert "## Validation\n\nNo scores are known" in readme
    assert "It was trained on synthetic images" in readme


def test_scores_that_are_given_go_before_those_of_the_training(path):
    predictor = predictor_of(training={"state": {"best": 0, "history": HISTORY}})
    readme = read(write(path, predictor, scores={"V^Rand": 0.97}))[1]["README.md"].decode()
    assert "| V^Rand | 0.9700 |" in readme and "0.9312" not in readme


def test_a_network_trained_on_isbi_cites_it(path):
    predictor = predictor_of(config={"sections": {"train": ["0"], "val": [FIRST_ISBI_SECTION]}})
    about, _ = read(
        write(path, predictor, cite=[{"text": "Lovelace 1843", "url": "https://example.org"}], tags=["note-g"])
    )
    cited = [entry.get("doi", entry["url"]) for entry in about["cite"]]
    assert {"10.3390/diagnostics10020110", "10.3389/fnana.2015.00142", "https://example.org"} <= set(cited)
    assert {"electron-microscopy", "note-g"} <= set(about["tags"])
    about, _ = read(write(path, predictor_of()))
    assert "10.3389/fnana.2015.00142" not in [entry["doi"] for entry in about["cite"]]


def test_isbi_is_known_by_its_first_section():
    if not (REAL / "isbi2012").is_dir():
        pytest.skip("the real sections are not here")
    assert isbi.load(REAL / "isbi2012").take([0]).fingerprints() == [FIRST_ISBI_SECTION]


def test_the_license_is_spelled_as_spdx_spells_it():
    assert check_license("cc-by-4.0") == "CC-BY-4.0"
    with pytest.warns(UserWarning, match="^The license WTFPL is none of the common ones"):
        assert check_license("WTFPL") == "WTFPL"
    with pytest.raises(ValueError, match="^license must be an SPDX identifier, such as CC0-1.0.*'do what you like'"):
        check_license("do what you like")


def test_common_licenses_are_spdx_identifiers(core):
    from bioimageio.spec._internal.license_id import LicenseId

    assert [str(LicenseId(name)) for name in LICENSES] == list(LICENSES)
    with pytest.raises(ValueError):
        LicenseId("cc-by-4.0")


def test_authors_are_names_or_dicts(path):
    authors = ["Ada Lovelace", {"name": "Charles Babbage", "orcid": "0000-0001-2345-6789", "github_user": "difference"}]
    assert read(write(path, predictor_of(), authors=authors))[0]["authors"] == [{"name": "Ada Lovelace"}, authors[1]]
    assert read(write(path, predictor_of(), authors="Ada Lovelace"))[0]["authors"] == [{"name": "Ada Lovelace"}]


WRONG = {
    "no author": ({"authors": []}, "^A package of bioimage.io needs at least one author"),
    "empty": ({"authors": [" "]}, "^The name of an author must be a name without slashes"),
    "slash": ({"authors": ["Ada/Charles"]}, "^The name of an author must be a name without slashes.*'Ada/Charles'"),
    "no name": ({"authors": [{"orcid": "1"}]}, "^An author is a dict with name and any of name, affiliation"),
    "number": ({"authors": [{"name": "Ada", "orcid": 1}]}, "^An author is a dict of texts"),
    "lines": ({"authors": ["Ada\nLovelace"]}, "^An author: expected printable text in one line"),
    "name": ({"name": "Zelle/ü"}, "^name must be 5 to 128 characters.*'Zelle/ü'"),
    "description": ({"description": "a" * 1025}, "^description and tags: expected printable text.*1024"),
    "cite": ({"cite": [{"text": "somewhere"}]}, "^A citation needs a doi or a url"),
    "pixel": ({"pixel_size": 0}, "^pixel_size must be micrometres, one number or two, but is 0"),
    "channels": ({"image": grey((3, 40, 50))}, r"^image must be a section \(C, H, W\).*has 3 channels"),
    "blank": ({"image": np.full((40, 50), np.nan)}, "pixels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_person_said_wrongly_is_named(path, case):
    given, sentence = WRONG[case]
    with pytest.raises(ValueError, match=sentence):
        write(path, predictor_of(), **given)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"standardize": "volume"}, "whole volume.*--standardize slice"), ({"how": "resize"}, "resampled.*--how crop")],
)
def test_brains_that_the_format_cannot_prepare_are_refused(path, change, sentence):
    with pytest.raises(ValueError, match=f"^A package of bioimage.io cannot be made.*{sentence}"):
        write(path, predictor_of(FOUR, BRAIN | change))


def test_a_package_is_a_zip_archive(tmp_path):
    with pytest.raises(ValueError, match=r"name ends with \.zip"):
        write(tmp_path / "model.yaml", predictor_of())
    (tmp_path / "not.zip").write_text("a text")
    with pytest.raises(ValueError, match=r"not\.zip is no package that tinyseg has written"):
        run_bioimageio(tmp_path / "not.zip", grey((40, 50)))
    with pytest.raises(FileNotFoundError):
        run_bioimageio(tmp_path / "none.zip", grey((40, 50)))


def test_names_of_classes_become_different_identifiers(path):
    classes = ["1st layer", "class", "Zellkern ü", "a b", "a_b", ""]
    predictor = predictor_of({**SMALL, "num_classes": 6}, classes=classes)
    about, files = read(write(path, predictor))
    names = about["outputs"][0]["axes"][1]["channel_names"]
    assert names == ["_1st_layer", "_class", "Zellkern", "a_b", "a_b_2", "channel"]
    assert "2 Zellkern ü" in files["README.md"].decode()


def test_people_get_pictures_that_they_can_open(path):
    _, files = read(write(path, predictor_of(FOUR, BRAIN)))
    for name in ("input", "output"):
        planes = tifffile.imread(io.BytesIO(files[f"sample_{name}.tif"]))
        np.testing.assert_array_equal(planes, np.load(io.BytesIO(files[f"test_{name}.npy"]))[0])
