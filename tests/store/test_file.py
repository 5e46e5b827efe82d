"""A file of arrays and values is read as it was written, or not at all."""

from __future__ import annotations

import json
import multiprocessing
import resource
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from perturbflow.store._file import read_file, write_file

KIND, ADVICE = "a test", "Write it again."
ARRAYS = {
    "part/matrix": np.arange(6.0).reshape(2, 3),
    "part/same shape": np.arange(6.0, 12.0).reshape(2, 3),
    "number": np.array(2.5, dtype=np.float32),
    "empty": np.zeros((0, 3), dtype=np.int16),
    "flags": np.array([True, False]),
    "bytes": np.arange(50, dtype=np.uint8),
}
VALUES = {"names": ["ä", "b"], "nested": {"step": 3, "loss": 0.1, "best": float("inf")}, "nothing": None}


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return read_file(path, kind=KIND, advice=ADVICE)


def is_as_written(path: Path) -> bool:
    arrays, values = read(path)
    return values == VALUES and list(arrays) == sorted(ARRAYS, key=list(arrays).index) and all(
        (arrays[name].dtype, arrays[name].shape, arrays[name].tobytes()) == (each.dtype, each.shape, each.tobytes())
        for name, each in ARRAYS.items()
    )  # fmt: skip


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "folder" / "file"
    write_file(path, ARRAYS, VALUES, kind=KIND)
    return path


def refuse(path: Path) -> None:
    """Assert that a file is refused, with its name and what to do."""
    with pytest.raises((ValueError, OSError), match=f"Expected {KIND} in ") as error:
        read(path)
    assert str(path) in str(error.value)
    assert ADVICE in str(error.value)


def test_everything_is_read_as_it_was_written(written):
    assert is_as_written(written)
    assert [path.name for path in written.parent.iterdir()] == ["file"]


def test_order_in_memory_does_not_matter(tmp_path):
    write_file(tmp_path / "file", {"a": ARRAYS["part/matrix"].T[::-1]}, {}, kind=KIND)
    found, values = read(tmp_path / "file")
    np.testing.assert_array_equal(found["a"], ARRAYS["part/matrix"].T[::-1])
    assert values == {}


def test_every_length_is_refused(written):
    whole = written.read_bytes()
    for n in range(len(whole)):
        written.write_bytes(whole[:n])
        refuse(written)
    for more in (b"\0", whole):
        written.write_bytes(whole + more)
        refuse(written)


@pytest.mark.parametrize("n_bytes", [1, 7, 64])
def test_every_range_of_zeros_is_refused_or_changes_nothing(written, n_bytes):
    whole, n_refused = written.read_bytes(), 0
    for start in range(0, len(whole), 1 if n_bytes == 1 else n_bytes):
        changed = whole[:start] + bytes(len(whole[start : start + n_bytes])) + whole[start + n_bytes :]
        written.write_bytes(changed)
        try:
            assert is_as_written(written)
        except (ValueError, OSError):
            refuse(written)
            n_refused += 1
        else:
            start_of_arrays = 8 + struct.unpack("<Q", whole[:8])[0]
            assert changed == whole or start < start_of_arrays
    assert n_refused > 0.5 * len(whole) / n_bytes


def test_random_bytes_are_refused(written):
    whole, rng = written.read_bytes(), np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 8)):
            changed[place] = rng.integers(256)
        written.write_bytes(changed)
        try:
            assert is_as_written(written)
        except (ValueError, OSError):
            refuse(written)


def header_of(whole: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def with_header(header: dict[str, Any], arrays: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + arrays


def of_matrix(**entries: Any) -> Any:
    return lambda header: header["part/matrix"].update(entries)


HEADERS: dict[str, Any] = {
    "many rows": of_matrix(shape=[2**40, 3]),
    "more than can be counted": of_matrix(shape=[2**62, 2**62, 4]),
    "far end": of_matrix(data_offsets=[0, 2**50]),
    "transposed": of_matrix(shape=[3, 2]),
    "flat": of_matrix(shape=[6]),
    "negative": of_matrix(shape=[-2, -3]),
    "whole numbers": of_matrix(dtype="I64"),
    "eight bits": of_matrix(dtype="F8_E4M3", shape=[48]),
    "sixteen bits": of_matrix(dtype="BF16", shape=[2, 12]),
    "no type": of_matrix(dtype="object"),
    "swapped": lambda header: header.update(
        {"part/matrix": header["part/same shape"], "part/same shape": header["part/matrix"]}
    ),
    "renamed": lambda header: header.update({"part/other": header.pop("part/matrix")}),
    "left out": lambda header: header.pop("part/matrix"),
    "other values": lambda header: header["__metadata__"].update(values="{}"),
    "half of the values": lambda header: header["__metadata__"].update(values="[1"),
    "another kind": lambda header: header["__metadata__"].update(perturbflow="another"),
    "no checksum": lambda header: header["__metadata__"].pop("sha256"),
    "no values": lambda header: header["__metadata__"].pop("values"),
    "nothing but arrays": lambda header: header.pop("__metadata__"),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_wrong_headers_are_refused(written, change):
    header, arrays = header_of(written.read_bytes())
    written.write_bytes(with_header(header, arrays))
    assert is_as_written(written)  # written like this, it is the same
    change(header)
    written.write_bytes(with_header(header, arrays))
    refuse(written)


@pytest.mark.parametrize("length", [0, 1, 2**20, 10**8, 2**40, 2**63, 2**64 - 1])
def test_wrong_lengths_of_headers_are_refused(written, length):
    written.write_bytes(struct.pack("<Q", length) + written.read_bytes()[8:])
    refuse(written)


def test_deep_values_are_refused(written):
    text = "[" * 100_000 + "]" * 100_000
    save_file({}, written, metadata={"perturbflow": KIND, "values": text, "sha256": "0"})
    refuse(written)


@pytest.mark.parametrize("text", ["[]", "3", "null", "[" * 9999 + "]" * 9999], ids=["list", "number", "none", "deep"])
def test_values_without_names_are_refused(written, monkeypatch, text):
    monkeypatch.setattr("perturbflow.store._file.json.dumps", lambda values: text)
    write_file(written, ARRAYS, {}, kind=KIND)
    refuse(written)


def test_other_files_are_refused(tmp_path):
    for name, content in {"empty": b"", "text": b"hello " * 99, "zip": b"PK\3\4" + bytes(999)}.items():
        (tmp_path / name).write_bytes(content)
        refuse(tmp_path / name)
    save_file({"a": np.ones(2)}, tmp_path / "arrays")
    with pytest.raises(ValueError, match="found a file with other content, or from an earlier version"):
        read(tmp_path / "arrays")
    write_file(tmp_path / "other", {}, {}, kind="another test")
    with pytest.raises(ValueError, match="found a file with other content"):
        read(tmp_path / "other")
    with pytest.raises(IsADirectoryError, match=r"found an unreadable file: Is a directory\. Write it again\."):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="found an unreadable file: No such file"):
        read(tmp_path / "absent")


def limited(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        write_file(path, {"a": np.ones(10_000)}, {}, kind=KIND)
    except OSError:
        raise SystemExit(3) from None


def test_a_disk_that_fills_up_leaves_the_earlier_file(written):
    process = multiprocessing.get_context("spawn").Process(target=limited, args=(written,))
    process.start()
    process.join(60)
    assert process.exitcode == 3
    assert is_as_written(written)
    assert [path.name for path in written.parent.iterdir()] == ["file"]


def killed(path: Path) -> None:
    import os
    import signal

    os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)  # once all is written
    write_file(path, {"a": np.ones(3)}, {}, kind=KIND)


def test_what_a_killed_writer_left_is_removed_by_the_next(written):
    process = multiprocessing.get_context("spawn").Process(target=killed, args=(written,))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert len(list(written.parent.iterdir())) == 2
    assert is_as_written(written)
    write_file(written, ARRAYS, VALUES, kind=KIND)
    assert [path.name for path in written.parent.iterdir()] == ["file"]


def write_often(path: Path, number: int, seconds: float) -> None:
    end, k = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        k += 1
        size = 10_000 if number else 500  # other lengths, so that halves would not fit
        write_file(path, {"a": np.full(size, number), "b": np.full(size, k)}, {"number": number, "k": k}, kind=KIND)


def test_readers_beside_two_writers_find_whole_files(tmp_path):
    path = tmp_path / "file"
    write_file(path, {"a": np.full(500, 0), "b": np.full(500, 0)}, {"number": 0, "k": 0}, kind=KIND)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_often, args=(path, number, 2.0)) for number in (0, 1)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        arrays, values = read(path)
        assert (arrays["a"] == values["number"]).all()
        assert (arrays["b"] == values["k"]).all()
        assert len(arrays["a"]) == len(arrays["b"]) == (10_000 if values["number"] else 500)
        seen.add((values["number"], values["k"]))
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(seen) > 20
    assert {number for number, _ in seen} == {0, 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_header_can_be_read_without_this_package(written):
    with safe_open(written, framework="numpy") as file:
        assert json.loads(file.metadata()["values"])["names"] == ["ä", "b"]
