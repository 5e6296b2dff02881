// Running sums of an epoch.  The specification is tinycnn/kernels/metrics.py.
//
// The logits are M rows of C numbers, with a label for each row.

#include "common.cuh"

// Whether the pair (x, i) comes before (y, j): a larger number, or an earlier one of the same; nan is largest.
__device__ __forceinline__ bool comes_first(A x, int i, A y, int j) {
    bool x_nan = x != x, y_nan = y != y;
    if (x_nan != y_nan) return x_nan;
    if (x_nan || x == y) return i < j;
    return x > y;
}

// total += N·loss, correct += how many labels are those of their row's largest logit.
//
// A warp takes a row: its threads look at every 32nd number, and the best of theirs win from one another in pairs.
// Counts are integers, so the order in which blocks add theirs makes no difference.
// Launch: blocks of whole warps, a warp for each row or for several.  Memory: logits and labels are read once.
extern "C" __global__ void count_batch(const T *logits, const long long *labels, const A *loss, long long M, int C,
                                       long long N, double *total, unsigned long long *correct) {
    if (blockIdx.x == 0 && threadIdx.x == 0) *total += (double)*loss * (double)N;
    if (labels == nullptr) return;
    int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    unsigned long long right = 0;
    for (long long row = (long long)blockIdx.x * warps + threadIdx.x / 32; row < M; row += (long long)gridDim.x * warps) {
        const T *x = logits + row * C;
        A best = -INFINITY;
        int place = C + lane;  // after every real one: a thread without numbers never wins
        for (int c = lane; c < C; c += 32) {
            A value = get(x[c]);
            if (comes_first(value, c, best, place)) best = value, place = c;
        }
        for (int mask = 16; mask > 0; mask /= 2) {
            A other = __shfl_xor_sync(FULL_WARP, best, mask);
            int other_place = __shfl_xor_sync(FULL_WARP, place, mask);
            if (comes_first(other, other_place, best, place)) best = other, place = other_place;
        }
        if (lane == 0 && place == labels[row]) right += 1;
    }
    right = block_sum(right);
    if (threadIdx.x == 0 && right) atomicAdd(correct, right);
}
