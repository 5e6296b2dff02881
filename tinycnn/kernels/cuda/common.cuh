// What every kernel file includes: the element type T, the type A that sums are taken in, and a few helpers.
//
// T is chosen by a macro (see module.py).  Arithmetic is always done in A: load with `get`, store with `put`.
// Coordinates are int; indices into whole arrays are long long, as an activation may have more than 2^31 elements.

#ifndef TINYCNN_SHIM
#include <cuda_fp16.h>
#include <cuda_bf16.h>
typedef __nv_bfloat16 bfloat16;
#define INFINITY __int_as_float(0x7f800000)
// Shared memory whose size is given at launch.
#define DYNAMIC_SHARED(type, name)                      \
    extern __shared__ __align__(16) char dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(dynamic_shared)
#endif

#if defined(TINYCNN_DOUBLE)
typedef double T;
typedef double A;
#elif defined(TINYCNN_HALF)
typedef __half T;
typedef float A;
#elif defined(TINYCNN_BFLOAT16)
typedef bfloat16 T;
typedef float A;
#else
typedef float T;
typedef float A;
#endif

__device__ __forceinline__ double get(double x) { return x; }
__device__ __forceinline__ float get(float x) { return x; }
__device__ __forceinline__ float get(__half x) { return __half2float(x); }
__device__ __forceinline__ float get(bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void put(double &y, double x) { y = x; }
__device__ __forceinline__ void put(float &y, float x) { y = x; }
__device__ __forceinline__ void put(float &y, double x) { y = (float)x; }
__device__ __forceinline__ void put(__half &y, float x) { y = __float2half_rn(x); }
__device__ __forceinline__ void put(bfloat16 &y, float x) { y = __float2bfloat16_rn(x); }

// for (EACH(i, n)): every thread of the grid takes i, i + (threads of the grid), …  A grid of any size does all n.
#define EACH(i, n)                                                                     \
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n);           \
    i += (long long)gridDim.x * blockDim.x

constexpr unsigned FULL_WARP = 0xffffffffu;

// The sum over the 32 threads of a warp, in every one of them; added in a fixed order.
template <typename S>
__device__ __forceinline__ S warp_sum(S x) {
    for (int mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(FULL_WARP, x, mask);
    return x;
}

// The sum over all threads of a block (a multiple of 32 of them, at most 1,024), in every one of them.
template <typename S>
__device__ __forceinline__ S block_sum(S x) {
    __shared__ S parts[32];
    int warps = (blockDim.x + 31) / 32, lane = threadIdx.x % 32;
    x = warp_sum(x);
    __syncthreads();  // an earlier call may still be read
    if (lane == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(lane < warps ? parts[lane] : (S)0);
}
