"""What is fitted does not depend on how many threads the machine has."""

import pytest
import torch
from threadpoolctl import threadpool_limits

from linocut.lab.training.machine import one_thread
from small_codec import make_codec


def fitted(folder, threads):
    """Every file of a codec whose contexts were fitted, and of its rotation."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            codec = make_codec(folder)
            assert torch.get_num_threads() == threads  # as it was found
    finally:
        torch.set_num_threads(before)
    paths = [*sorted(codec.iterdir()), *sorted((folder / "rotated").iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def test_tables_and_rotations_have_the_same_bytes_with_one_thread_and_with_many(tmp_path):
    one = fitted(tmp_path / "one", 1)
    assert {"energy.csv", "rotation.safetensors", "model.safetensors"} <= set(one)
    for attempt in range(2):
        many = fitted(tmp_path / f"many{attempt}", 4)
        assert [name for name in one if many[name] != one[name]] == []


def test_energies_are_written_in_nine_digits(tmp_path):
    make_codec(tmp_path)
    lines = (tmp_path / "rotated/energy.csv").read_text(encoding="utf-8").splitlines()[1:]
    for number in (float(cell) for line in lines for cell in line.split(",")[2:]):
        assert number == float(f"{number:.9g}")


def test_one_thread_ends_with_an_exception_too():
    before = torch.get_num_threads()

    @one_thread()
    def fail():
        raise ZeroDivisionError(torch.get_num_threads())

    with pytest.raises(ZeroDivisionError, match="1"):
        fail()
    assert torch.get_num_threads() == before
