// **The last block finishes.**  Blocks leave what they found in memory, and the one that comes last, whichever it is,
// does with it what has to be done once: this saves a kernel.  What it does must not depend on who it is.
//
// `arrivals` counts blocks and is 0 again at the end.  All kernels of a file share it: they run one after the other, on
// one stream.
#include "common.cuh"

static __device__ unsigned arrivals;

// Whether all other blocks of the grid have been here.  To be called once, by all threads.
__device__ __forceinline__ bool block_is_last() {
    __shared__ bool last;
    __syncthreads();  // the whole block has read and written what it wanted
    if (threadIdx.x == 0) {
        __threadfence();  // … and what it wrote is there before it is counted
        last = atomicAdd(&arrivals, 1u) == gridDim.x * gridDim.y - 1;
        if (last) arrivals = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}
