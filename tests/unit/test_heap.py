"""Where a picture's memory comes from, asked of glibc itself, in a process of its own: the limits are for a whole process."""

import subprocess
import sys

import pytest

_MAPPED_BLOCKS = """
import ctypes
from orchestrator.heap import bound_heap

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Info
{prepare}
libc.free(libc.malloc(16 << 20))  # from which glibc learns that large pieces come and go
before = libc.mallinfo2().hblks
picture = libc.malloc(1280 * 720 * 3 // 2)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.parametrize(("prepare", "mapped"), [("", 0), ("bound_heap()", 1)], ids=["as glibc learns", "bounded"])
def test_a_picture_is_mapped_for_itself_whatever_was_freed_before(prepare: str, mapped: int) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc only")
    code = _MAPPED_BLOCKS.format(prepare=prepare)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == mapped
