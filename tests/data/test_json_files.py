"""JSON of users and of other programs: taken if it has the declared shape, refused in a sentence if not."""

import os

import msgspec
import pytest

from tinyseg.data.json_files import check_shape, read_json, read_sealed, write_json, write_sealed


class Entry(msgspec.Struct):
    label: str


class Record(msgspec.Struct):
    files: dict[str, str]
    training: list[Entry] = []
    classes: list[str] | None = None


def test_a_file_of_the_shape_is_read_and_its_other_fields_are_left_out(tmp_path):
    write_json(tmp_path / "r.json", {"files": {"a": "b"}, "training": [{"label": "x", "more": 1}], "other": [None]})
    record = read_json(tmp_path / "r.json", Record, "a record")
    assert record == Record({"a": "b"}, [Entry("x")])


def test_a_byte_order_mark_before_the_json_is_read_over(tmp_path):
    (tmp_path / "r.json").write_bytes(b'\xef\xbb\xbf{"files": {}}')
    assert read_json(tmp_path / "r.json", Record, "a record").files == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", "expected object, found array"),
        ("null", "expected object, found null"),
        ("3", "expected object, found int"),
        ("{}", "the field that is missing is files"),
        ('{"files": {"a": 1}}', r"expected str, found int at files\[\.\.\.\]"),
        ('{"files": {}, "training": [{"label": null}]}', r"expected str, found null at training\[0\]\.label"),
        ('{"files"', "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_its_name_and_the_field(tmp_path, text, found):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=rf"r\.json is not a record: .*{found}"):
        read_json(tmp_path / "r.json", Record, "a record")


def test_a_file_in_another_encoding_is_refused_with_its_name(tmp_path):
    (tmp_path / "r.json").write_bytes('{"files": {"a": "ü"}}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"r\.json is not a record: it cannot be read as JSON"):
        read_json(tmp_path / "r.json", Record, "a record")


def test_what_was_read_elsewhere_is_checked_the_same_way():
    with pytest.raises(ValueError, match=r"the checkpoint's metadata: expected str, found int at \[1\]\."):
        check_shape(["a", 2], list[str], "the checkpoint's metadata")


def test_nan_and_infinity_are_written_as_null(tmp_path):
    write_json(tmp_path / "r.json", [float("nan"), float("inf"), 1.5])
    assert read_json(tmp_path / "r.json", list[float | None], "numbers") == [None, None, 1.5]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"files": {"a": "\\ud800"}}', "surrogates not allowed"), ('{"files": {}, "n": 1' + "0" * 5000 + "}", "limit"),
        ('{"files": {}, "files": {}}', '"files" twice'),
    ],
)  # fmt: skip
def test_half_a_letter_a_number_without_end_and_a_key_twice_are_refused(tmp_path, text, found):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=rf"r\.json .*{found}"):
        read_json(tmp_path / "r.json", Record, "a record")
    (tmp_path / "r.json").write_text('{"files": {"a": "\\ud83d\\ude00"}}')
    assert read_json(tmp_path / "r.json", Record, "a record").files == {"a": "\N{GRINNING FACE}"}


def test_a_number_too_large_for_a_float_is_refused_with_its_place():
    with pytest.raises(ValueError, match="the file: Number out of range"):
        check_shape(10**400, float, "the file")


def test_a_sealed_file_is_read_until_a_letter_of_it_changes(tmp_path):
    write_sealed(tmp_path / "r.json", {"files": {"a": "b"}, "classes": ["x"]})
    assert read_sealed(tmp_path / "r.json", Record, "a record").files == {"a": "b"}
    text = (tmp_path / "r.json").read_text()
    for other in (text.replace('"b"', '"c"'), text.replace("sha1", "sha2"), '{"files": {}}'):
        (tmp_path / "r.json").write_text(other)
        with pytest.raises(ValueError, match=r"r\.json is not a record: it was changed"):
            read_sealed(tmp_path / "r.json", Record, "a record")


@pytest.mark.timeout(60)
def test_a_key_twice_among_a_hundred_thousand_is_found_soon(tmp_path):
    text = "{" + ", ".join(f'"k{k}": 0' for k in [*range(100_000), 99_999]) + "}"
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=r'r\.json has "k99999" twice'):
        read_json(tmp_path / "r.json", Record, "a record")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(60)
def test_a_pipe_or_a_device_of_the_name_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "r.json")
    with pytest.raises(ValueError, match=r"r\.json is not a record: it is a folder, a device or a pipe"):
        read_json(tmp_path / "r.json", Record, "a record")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"zero\.json is not a record"):
        read_json(tmp_path / "zero.json", Record, "a record")
