"""Uses a GPU through its driver's library alone: no framework has to be installed.

gpu.py hold MIB SECONDS    has memory for a while
gpu.py fill                allocates until there is no memory left
gpu.py bad                 has a kernel write where it must not
"""
import ctypes
import sys
import time

cuda = ctypes.CDLL("libcuda.so.1")

# A kernel that writes to an address that belongs to nobody.
BAD = b"""
.version 6.4
.target sm_50
.address_size 64
.visible .entry bad()
{
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 0x10;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
"""


def check(result):
    """Raises what the driver says, in the words that frameworks use."""
    if result == 0:
        return
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(result, ctypes.byref(text))
    raise RuntimeError("CUDA error: " + (text.value or b"unknown").decode())


def allocate(mebibytes):
    pointer = ctypes.c_uint64()
    check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(mebibytes << 20)))


def main():
    context, device = ctypes.c_void_p(), ctypes.c_int()
    check(cuda.cuInit(0))
    check(cuda.cuDeviceGet(ctypes.byref(device), 0))
    check(cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device))
    what = sys.argv[1]
    if what == "hold":
        allocate(int(sys.argv[2]))
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
    elif what == "fill":
        while True:
            allocate(256)
            time.sleep(0.01)
    elif what == "bad":
        module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        check(cuda.cuModuleLoadData(ctypes.byref(module), BAD))
        check(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"bad"))
        check(cuda.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None))
        check(cuda.cuCtxSynchronize())


main()
