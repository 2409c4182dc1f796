"""CUDA's libraries, stood in for: memory is the host's, and no kernel computes anything.

ONNX Runtime's real CUDA provider starts on them, takes or refuses options, decides which operators of a graph are its own, and runs graphs to their
end; only what comes out is wrong. So much of a GPU's way can be seen to work on a machine without one.
"""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

RUNTIME = r"""
#include <stdlib.h>
#include <string.h>
typedef void *P;
static int take(P *p, size_t n) { if (posix_memalign(p, 256, n ? n : 1)) return 2; memset(*p, 0, n); return 0; }
int cudaMalloc(P *p, size_t n) { return take(p, n); }
int cudaMallocHost(P *p, size_t n) { return take(p, n); }
int cudaHostAlloc(P *p, size_t n, unsigned f) { return take(p, n); }
int cudaMallocFromPoolAsync(P *p, size_t n, P pool, P s) { return take(p, n); }
int cudaFree(P p) { free(p); return 0; }
int cudaFreeHost(P p) { free(p); return 0; }
int cudaFreeAsync(P p, P s) { free(p); return 0; }
int cudaMemcpy(P d, P s, size_t n, int k) { memmove(d, s, n); return 0; }
int cudaMemcpyAsync(P d, P s, size_t n, int k, P t) { memmove(d, s, n); return 0; }
int cudaMemset(P d, int v, size_t n) { memset(d, v, n); return 0; }
int cudaMemsetAsync(P d, int v, size_t n, P t) { memset(d, v, n); return 0; }
int cudaMemGetInfo(size_t *f, size_t *t) { *f = *t = 16ul << 30; return 0; }
int cudaMemPoolGetAttribute(P pool, int a, P v) { memset(v, 0, 8); return 0; }
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *n) { *n = 0; return 0; }
int cudaDriverGetVersion(int *n) { *n = 13000; return 0; }
int cudaRuntimeGetVersion(int *n) { *n = 13000; return 0; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 6 : 1024; return 0; }
/* Offsets of cudaDeviceProp, the same in CUDA 12 and 13 but for the last, where CUDA 13 has no clock rate before it. */
static int properties(char *p) {
    memset(p, 0, 720);
    strcpy(p, "Stand-in");
    *(size_t *)(p + 288) = 16ul << 30; /* memory */
    *(size_t *)(p + 296) = 49152;      /* shared memory of a block */
    *(int *)(p + 308) = 32;            /* warp */
    *(int *)(p + 320) = 1024;          /* threads of a block */
    *(int *)(p + 360) = 8;             /* compute capability 8.6 */
    *(int *)(p + 364) = 6;
    *(int *)(p + 384) = *(int *)(p + 388) = 46; /* multiprocessors */
    return 0;
}
int cudaGetDeviceProperties(P p, int d) { return properties(p); }
int cudaGetDeviceProperties_v2(P p, int d) { return properties(p); }
const char *cudaGetErrorString(int e) { return "stand-in"; }
const char *cudaGetErrorName(int e) { return "standIn"; }
int cudaEventElapsedTime(float *ms, P a, P b) { *ms = 0; return 0; }
/* Threads of a block, registers, and the architectures that a kernel is for. */
int cudaFuncGetAttributes(int *a, P f) { memset(a, 0, 40); a[6] = 1024; a[7] = 32; a[8] = a[9] = 86; return 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, P f, int b, size_t s, unsigned g) { *n = 1; return 0; }
int cudaPointerGetAttributes(P a, P p) { memset(a, 0, 24); *(int *)a = 2; ((P *)a)[1] = p; return 0; }
int cudaStreamIsCapturing(P s, int *c) { *c = 0; return 0; }
int cudaLaunchHostFunc(P s, void (*f)(P), P u) { f(u); return 0; }
P *__cudaRegisterFatBinary(P f) { return calloc(1, 64); }
int __cudaPopCallConfiguration(unsigned *grid, unsigned *block, size_t *s, P *t) {
    for (int i = 0; i < 3; i++) grid[i] = block[i] = 1;
    *s = 0; *t = 0; return 0;
}
int cudaGetDriverEntryPointByVersion(P n, P *f, unsigned v, unsigned long long g, int *r) { *f = 0; if (r) *r = 1; return 0; }
"""
"""What has to do or to tell something; every other function only says that all went well."""

CUDNN = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
size_t cudnnGetVersion(void) { return 91002; }
const char *cudnnGetErrorString(int s) { return "stand-in"; }
void cudnnGetLastErrorString(char *m, size_t n) { if (n) *m = 0; }
int cudnnBackendCreateDescriptor(int t, void **d) { *d = calloc(1, 4096); return 0; }
/* One engine for every graph (attributes 202 and 300), without knobs, notes or workspace. */
int cudnnBackendGetAttribute(void *d, int attribute, int type, int64_t wanted, int64_t *count, void *out) {
    int64_t n = 0;
    if (type == 15) n = attribute == 202 || attribute == 300;
    if (type == 3 || type == 23) { n = 1; if (out && wanted > 0) memset(out, 0, wanted * (type == 3 ? 8 : 4)); }
    if (count) *count = n;
    return 0;
}
int cudnnGetTensorNdDescriptor(void *d, int n, int *type, int *count, int *dims, int *strides) {
    *type = 0; *count = 3;
    for (int i = 0; i < 3; i++) dims[i] = strides[i] = 1;
    return 0;
}
int cudnnGetRNNWeightParams(void *h, void *r, int l, size_t n, void *w, int i, void *md, void **m, void *bd, void **b) { *m = *b = w; return 0; }
int cudnnGetRNNWeightSpaceSize(void *h, void *r, size_t *n) { *n = 1 << 20; return 0; }
int cudnnGetRNNTempSpaceSizes(void *h, void *r, int m, void *x, size_t *a, size_t *b) { if (a) *a = 1 << 16; if (b) *b = 1 << 16; return 0; }
int cudnnGetReductionIndicesSize(void *h, void *r, void *a, void *c, size_t *n) { *n = 0; return 0; }
int cudnnGetReductionWorkspaceSize(void *h, void *r, void *a, void *c, size_t *n) { *n = 0; return 0; }
int cudnnDropoutGetStatesSize(void *h, size_t *n) { *n = 1024; return 0; }
"""


def build(provider: Path, folder: Path) -> None:
    """Compile the libraries that a CUDA provider of ONNX Runtime asks for into a folder. Needs `cc` and `nm`."""
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for line in subprocess.run(["nm", "-D", "--undefined-only", provider], check=True, capture_output=True, text=True).stdout.splitlines():
        name, _, library = line.split()[-1].partition("@")
        if library.startswith("libcu"):
            wanted[library].add(name)
        elif re.match(r"cu[A-Z]", name):
            wanted["libcuda.so.1"].add(name)
    wanted["libcudnn.so.9"] |= {name.decode() for name in re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes())}  # found at the first use
    wanted["libcurand.so.10"].update()
    for library, names in wanted.items():
        _compile(library, names, folder)


def _compile(library: str, names: set[str], folder: Path) -> None:
    source = RUNTIME if "cudart" in library else CUDNN if "cudnn" in library else "#include <stdlib.h>\n"
    own = set(re.findall(r"(\w+)\((?:[^;{]*)\) \{", source))
    for name in sorted(names - own):
        makes = "Create" in name or name in ("cudaLibraryLoadData", "cudaLibraryGetKernel", "__cudaGetKernel")
        source += f"int {name}(void **made) {{ {'*made = calloc(1, 4096); ' if makes else ''}return 0; }}\n"
    (folder / f"{library}.c").write_text(source)
    (folder / f"{library}.map").write_text(f"{library} {{ global: *; }};\n")
    options = ["-w", "-O1", "-shared", "-fPIC", f"-Wl,-soname,{library}", f"-Wl,--version-script={folder / library}.map"]
    subprocess.run(["cc", *options, folder / f"{library}.c", "-o", folder / library], check=True)
