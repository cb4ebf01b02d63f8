import numpy as np
import torch

from shards.decode.buffers import Buffers


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_once_it_is_forgotten() -> None:
    buffers = Buffers()
    first = buffers.take((3, 4), np.float32)
    where = address(first)
    del first
    assert address(buffers.take((3, 4), np.float32)) == where


def test_a_slice_keeps_its_memory_taken() -> None:
    buffers = Buffers()
    first = buffers.take((3, 4), np.uint8)
    first[1] = 7
    part = first[1, 1:3]
    del first
    other = buffers.take((3, 4), np.uint8)
    other[:] = 9
    assert part.tolist() == [7, 7]


def test_a_tensor_keeps_its_memory_taken() -> None:
    buffers = Buffers()
    tensor = torch.from_numpy(buffers.take((2, 5), np.float32)).fill_(1.0).T[1:]
    buffers.take((2, 5), np.float32)[:] = 2.0
    assert tensor.eq(1.0).all()


def test_a_smaller_array_fits_into_memory_that_is_there_and_a_larger_one_gets_its_own() -> None:
    buffers = Buffers()
    where = address(buffers.take((100,), np.uint8))
    small = buffers.take((5, 2), np.float32)
    assert address(small) == where
    assert small.shape == (5, 2)
    assert buffers.take((200,), np.uint8).nbytes == 200


def test_arrays_in_use_at_once_do_not_overlap() -> None:
    buffers = Buffers()
    arrays = [buffers.take((50,), np.uint8) for _ in range(4)]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [set(array.tolist()) for array in arrays] == [{0}, {1}, {2}, {3}]


def test_an_empty_array_can_be_taken() -> None:
    assert Buffers().take((0,), np.uint8).shape == (0,)
