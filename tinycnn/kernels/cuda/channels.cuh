// What batch normalisation knows of a channel, and how it gets to know it: shared by batchnorm.cu and dense.cu.
//
// It is kept as five rows of a small matrix, `vectors` (5, C), in A:
//
//     m        the mean, rounded            d = x − m
//     off      mean − m: what m misses      x̂ = (d − off)·inv_std
//     inv_std  1/√(variance + ε)
//     a, c     γ·inv_std and β − off·a      y = d·a + c
#include "norm.cuh"

enum { M_, OFF, INV_STD, A_, C_ };  // the rows of `vectors`

// [y > 0] for y as forward rounded it when it stored it.
__device__ __forceinline__ bool is_open(A y) {
    T stored;
    put(stored, y);
    return get(stored) > 0;
}

// What follows from the mean and 1/σ of channel c: the five vectors.
__device__ __forceinline__ void describe(A *vectors, int C, int c, double mean, double inv_std, const A *w, const A *b) {
    A m = (A)mean;
    double off = mean - m, a = inv_std * (w ? w[c] : (A)1);
    vectors[M_ * C + c] = m;
    vectors[OFF * C + c] = (A)off;
    vectors[INV_STD * C + c] = (A)inv_std;
    vectors[A_ * C + c] = (A)a;
    vectors[C_ * C + c] = (A)((b ? b[c] : (A)0) - off * a);
}

// Move the running averages of channel c by `share` of the way to the mean and the unbiased variance of M values.
__device__ __forceinline__ void move_averages(
    A *running_mean, A *running_var, int c, double mean, double var, long long M, double share) {
    running_mean[c] = (A)((1 - share) * running_mean[c] + share * mean);
    running_var[c] = (A)((1 - share) * running_var[c] + share * (var * M / (M - 1)));
}

// Call finish(c, mean, variance) for every channel c of x, once, in some thread of the last block of its tile.
//
// For a grid of (tiles, P) blocks (TX, TY), with R rows per block.  Reads x; parts (P, 2, C) take the mean of each run of
// R rows and the sum of squared deviations from it.  The last block of a tile joins them: the variance of all is the mean
// of the variances plus the variance of the means.  lanes and bases are shared memory.
template <class Finish>
__device__ __forceinline__ void block_moments(
    const T *__restrict__ x, double *parts, long long M, int C, int R, int ticket, double (&lanes)[2 * V * WAITING],
    A (&bases)[V * THREADS], Finish finish) {
    int P = gridDim.y, run = P - 1 - blockIdx.y, tx = threadIdx.x, ty = threadIdx.y, TY = blockDim.y;
    Place place(M, C, R, run);
    Moments moments;
    for (ROWS(place, row)) {
        Pack p[UNROLL];
        long long i = place.index(row, C);
        EACH_U if (EXISTS(place, row, u)) p[u] = load(x, i + u * place.step);
        moments.add(p, place, row, row == ty);
    }
    if (ty == 0) EACH_V bases[tx * V + v] = moments.k[v];
    __syncthreads();
    double sums[2 * V];
    EACH_V {
        moments.rebase(v, bases[tx * V + v], max(0, (place.rows - ty + TY - 1) / TY));
        sums[v] = moments.s1[v], sums[V + v] = moments.s2[v];
    }
    block_columns(sums, lanes);
    if (ty == 0 && place.rows) EACH_V {
        double by = sums[v] / place.rows, *part = parts + 2LL * run * C + place.vector * V + v;
        part[0] = bases[tx * V + v] + by;
        part[C] = sums[V + v] - sums[v] * by;
    }
    if (!block_is_last(ticket)) return;

    double base[V];
    EACH_V base[v] = place.rows ? __ldcg(parts + place.vector * V + v) : 0, sums[v] = sums[V + v] = 0;
    for (int p = ty; place.rows && p < P; p += TY) {
        double N = min((long long)R, M - (long long)p * R);
        const double *part = parts + 2LL * p * C + place.vector * V;
        EACH_V {
            double by = __ldcg(part + v) - base[v];
            sums[v] += N * by;
            sums[V + v] += __ldcg(part + C + v) + N * by * by;
        }
    }
    block_columns(sums, lanes);
    if (ty == 0 && place.rows) EACH_V {
        double by = sums[v] / M;
        finish(place.vector * V + v, base[v] + by, max(sums[V + v] / M - by * by, 0.0));
    }
}
