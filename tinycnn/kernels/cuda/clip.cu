// Gradient norms and clipping, and whether numbers are finite.
//
// The arrays are anywhere: row t of the table `places` is (address, elements) of a tile, see places.py.  A block works
// through tiles b, b + blocks, …, its threads side by side, 16 bytes each where the address allows.  The number of
// blocks depends on the number of tiles alone, and so does the order of every sum.
#include "common.cuh"

#ifndef NORM
#define NORM 2  // which norm: 1, 2, 3 for the largest, 0 for any other
#endif

constexpr int LANES = 16 / sizeof(T);

struct __align__(16) Vector {
    T x[LANES];
};

// Call visit(x) for those of n elements from `first` on that are this thread's; write them back if WRITES.
template <bool WRITES, typename Visit>
__device__ __forceinline__ void visit_tile(T *first, int n, Visit visit) {
    int vectors = (long long)first % 16 == 0 ? n / LANES : 0;
#pragma unroll(WRITES ? 1 : 4)  // loads ahead of what is done with them
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
        Vector own = ((const Vector *)first)[i];
#pragma unroll
        for (int k = 0; k < LANES; k++) visit(own.x[k]);
        if (WRITES) ((Vector *)first)[i] = own;
    }
    for (int i = vectors * LANES + threadIdx.x; i < n; i += blockDim.x) {
        T own = first[i];
        visit(own);
        if (WRITES) first[i] = own;
    }
}

// for (EACH_TILE(t)): the tiles of this block.
#define EACH_TILE(t) int t = blockIdx.x; t < tiles; t += gridDim.x

__device__ __forceinline__ double join(double a, double b) {
    return NORM != 3 ? a + b : a > b || a != a ? a : b;
}

// All threads' x joined, in every one of them.
__device__ __forceinline__ double block_join(double x) {
    __shared__ double parts[32];
    for (int mask = 16; mask > 0; mask /= 2) x = join(x, __shfl_xor_sync(FULL_WARP, x, mask));
    __syncthreads();  // an earlier call may still be read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0;
    for (int mask = 16; mask > 0; mask /= 2) x = join(x, __shfl_xor_sync(FULL_WARP, x, mask));
    return x;
}

// result = (Σ|x|^q)^(1/q)·scale, factor = min(1, most/(result + 1e-6))·scale, not_finite = whether the result is.
//
// Sums are taken in double.  Each block joins its tiles into parts[b]; the block that comes last, whichever it is, joins
// the parts, in the order of blocks.  `done` counts blocks and is 0 again at the end.  x is read once.
extern "C" __global__ void gradient_norm(const long long *places, int tiles, double q, double most, const A *scale,
                                         double *parts, unsigned *done, double *result, A *factor, int *not_finite) {
    double total = 0;
    for (EACH_TILE(t))
        visit_tile<false>((T *)places[2 * t], (int)places[2 * t + 1], [&](T &own) {
            double x = fabs((double)get(own));
            total = join(total, NORM == 2 ? x * x : NORM == 0 ? pow(x, q) : x);
        });
    total = block_join(total);
    bool last = false;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = total;
        __threadfence();  // the part is there before it is counted
        last = atomicAdd(done, 1u) == gridDim.x - 1;
        __threadfence();
    }
    if (block_join(last) == 0) return;  // thread 0 tells the others
    total = 0;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) total = join(total, ((volatile double *)parts)[b]);
    total = block_join(total);
    if (threadIdx.x != 0) return;
    double share = scale ? (double)*scale : 1;
    double found = (NORM == 2 ? sqrt(total) : NORM == 0 ? pow(total, 1 / q) : total) * share;
    double shrink = most / (found + 1e-6);
    *result = found;
    *factor = (A)((shrink >= 1 ? 1 : shrink) * share);
    if (not_finite) *not_finite = !(found - found == 0);
    *done = 0;
}

// x ← x·factor, unless that is 1.  One read and one write.
extern "C" __global__ void scale(const long long *places, int tiles, const A *factor) {
    A by = *factor;
    if (by == 1) return;
    for (EACH_TILE(t))
        visit_tile<true>((T *)places[2 * t], (int)places[2 * t + 1], [=](T &x) { put(x, get(x) * by); });
}

// x ← min(max(x, −most), most).  One read and one write.
extern "C" __global__ void limit(const long long *places, int tiles, A most) {
    for (EACH_TILE(t))
        visit_tile<true>((T *)places[2 * t], (int)places[2 * t + 1], [=](T &own) {
            A x = get(own);
            put(own, x > most ? most : x < -most ? -most : x);  // a NaN remains one
        });
}

// answer = false if an element of x is infinite or not a number; it is true before.  x is read once, in tiles of `size`.
extern "C" __global__ void check_finite(T *x, long long n, int size, bool *answer) {
    bool all = true;
    for (long long start = (long long)blockIdx.x * size; start < n; start += (long long)gridDim.x * size)
        visit_tile<false>(x + start, (int)(n - start < size ? n - start : size), [&](T &own) {
            A v = get(own);
            all = all && v - v == 0;  // inf − inf is NaN
        });
    if (!all) *answer = false;
}
