// Local response normalisation: the twins of `normalize_response` and `normalize_response_backward` in
// tinycnn/layers/lrn.py.
//
// Arrays are (pixels, C), contiguous, n = pixels · C elements.  Thread i has element i: channel c = i mod C of its pixel.
// The neighbourhood of a channel, `before` to the left and `after` to the right as far as the pixel reaches, is next to
// it in memory: from memory it is read once, the other times from the cache.
#include "common.cuh"

#define THREADS 256

// The channel of element i.  (A remainder of 64 bits takes some forty instructions; hardly any array needs it.)
__device__ __forceinline__ int channel(long long i, int C) { return i >> 31 ? (int)(i % C) : (int)i % C; }

// s = k + alpha · Σ x² over the neighbourhood of element i.
__device__ __forceinline__ A activity(const T *__restrict__ x, long long i, int C, int before, int after, A alpha, A k) {
    int c = channel(i, C);
    A sum = 0;
    for (int o = -min(before, c); o <= min(after, C - 1 - c); o++) {
        A v = get(x[i + o]);
        sum += v * v;
    }
    return sum * alpha + k;
}

// y = x·s^(−beta).  Reads x, writes y.
extern "C" __global__ void normalize_response(const T *__restrict__ x, T *__restrict__ y, long long n, int C, int before,
                                              int after, A alpha, A beta, A k) {
    for (EACH(i, n)) put(y[i], get(x[i]) * pow(activity(x, i, C, before, after, alpha, k), -beta));
}

// t = dy·x·s^(−beta − 1) of element i, and with it dy·s^(−beta).
__device__ __forceinline__ A term(const T *__restrict__ dy, const T *__restrict__ x, long long i, int C, int before,
                                  int after, A alpha, A beta, A k, A &direct) {
    A s = activity(x, i, C, before, after, alpha, k);
    direct = get(dy[i]) * pow(s, -beta);
    return direct / s * get(x[i]);
}

// dx[c] = dy[c]·s[c]^(−beta) − 2·alpha·beta·x[c] · Σ t over the mirrored neighbourhood.
//
// A block of THREADS has as many elements in a row.  It computes t once for each of them and for `after` elements before
// and `before` elements behind (t of another pixel is computed but not used), keeps them in shared memory (`terms`, and
// dy·s^(−beta) of its own elements in `direct`), and sums up.
// Neighbourhoods too wide for that memory (staged = false) compute t anew for every use.  Reads dy and x, writes dx.
extern "C" __global__ void __launch_bounds__(THREADS) normalize_response_backward(
    const T *__restrict__ dy, const T *__restrict__ x, T *__restrict__ dx, long long n, int C, int before, int after,
    A alpha, A beta, A k, bool staged) {
    DYNAMIC_SHARED(A, terms);
    __shared__ A direct[THREADS];
    for (long long first = (long long)blockIdx.x * THREADS; first < n; first += (long long)gridDim.x * THREADS) {
        long long i = first + threadIdx.x;
        A own, other;
        if (staged) {
            __syncthreads();  // the sums before are done
            for (int j = threadIdx.x; j < THREADS + before + after; j += THREADS) {
                long long e = first - after + j;
                if (e < 0 || e >= n) continue;
                terms[j] = term(dy, x, e, C, before, after, alpha, beta, k, own);
                if (j >= after && j < after + THREADS) direct[j - after] = own;
            }
            __syncthreads();
        }
        if (i >= n) continue;
        int c = channel(i, C);
        A sum = 0;
        for (int o = -min(after, c); o <= min(before, C - 1 - c); o++)
            sum += staged ? terms[threadIdx.x + after + o] : term(dy, x, i + o, C, before, after, alpha, beta, k, other);
        if (staged) own = direct[threadIdx.x];
        else term(dy, x, i, C, before, after, alpha, beta, k, own);
        put(dx[i], own - 2 * alpha * beta * get(x[i]) * sum);
    }
}
