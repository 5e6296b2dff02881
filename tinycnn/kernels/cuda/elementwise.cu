// Activations, sums of two arrays, and sums over pixels: the twins of tinycnn/kernels/activation.py and others, each in
// one launch where NumPy takes several passes.
//
// **Element by element** an array is a row of n numbers, whatever its shape; arrays that meet have one memory order.  A
// thread takes 16 bytes at a time (`Vector`), the threads of a warp 512 neighbouring bytes, so that every array is
// read or written once, in whole lines of memory; what is left over at the end, or lies askew, goes one by one.
//
// **Softmax** sees (outer, D, inner) and works along D.  **Sums over pixels** see (B, P, C) and sum over P.
#include "common.cuh"

constexpr int V = 16 / sizeof(T);
struct __align__(16) Vector {
    T of[V];
};

template <typename... P>
__device__ __forceinline__ bool aligned(P... pointers) {
    return ((... | (unsigned long long)pointers) & 15) == 0;
}

// y = f(x), element by element.  y may be x.
template <typename F>
__device__ __forceinline__ void map(const T *x, T *y, long long n, F f) {
    long long vectors = aligned(x, y) ? n / V : 0;
    for (EACH(i, vectors)) {
        Vector xs = ((const Vector *)x)[i], ys;
        for (int k = 0; k < V; k++) put(ys.of[k], f(get(xs.of[k])));
        ((Vector *)y)[i] = ys;
    }
    for (EACH(i, n - vectors * V)) put(y[vectors * V + i], f(get(x[vectors * V + i])));
}

// z = f(x, y).  z may be x or y.
template <typename F>
__device__ __forceinline__ void map_pairs(const T *x, const T *y, T *z, long long n, F f) {
    long long vectors = aligned(x, y, z) ? n / V : 0;
    for (EACH(i, vectors)) {
        Vector xs = ((const Vector *)x)[i], ys = ((const Vector *)y)[i], zs;
        for (int k = 0; k < V; k++) put(zs.of[k], f(get(xs.of[k]), get(ys.of[k])));
        ((Vector *)z)[i] = zs;
    }
    for (EACH(i, n - vectors * V)) {
        long long at = vectors * V + i;
        put(z[at], f(get(x[at]), get(y[at])));
    }
}

// y = x·gate and its slope, where f(x, y, slope) sets the two.
template <typename F>
__device__ __forceinline__ void map_slopes(const T *x, T *y, T *slope, long long n, F f) {
    long long vectors = aligned(x, y, slope) ? n / V : 0;
    A value, derivative;
    for (EACH(i, vectors)) {
        Vector xs = ((const Vector *)x)[i], ys, slopes;
        for (int k = 0; k < V; k++) {
            f(get(xs.of[k]), value, derivative);
            put(ys.of[k], value);
            put(slopes.of[k], derivative);
        }
        ((Vector *)y)[i] = ys;
        ((Vector *)slope)[i] = slopes;
    }
    for (EACH(i, n - vectors * V)) {
        long long at = vectors * V + i;
        f(get(x[at]), value, derivative);
        put(y[at], value);
        put(slope[at], derivative);
    }
}

// ---- element by element: n numbers

extern "C" __global__ void add(const T *x, const T *y, T *z, long long n) {
    map_pairs(x, y, z, n, [](A x, A y) { return x + y; });
}

extern "C" __global__ void multiply(const T *x, const T *y, T *z, long long n) {
    map_pairs(x, y, z, n, [](A x, A y) { return x * y; });
}

extern "C" __global__ void scale(const T *x, T *y, A factor, long long n) {
    map(x, y, n, [=](A x) { return factor * x; });
}

// NaN stays NaN.
extern "C" __global__ void relu(const T *x, T *y, long long n) {
    map(x, y, n, [](A x) { return x <= 0 ? (A)0 : x; });
}

// A product, not a choice: what is not finite in dy shows in dx, as in NumPy.
extern "C" __global__ void relu_backward(const T *dy, const T *y, T *dx, long long n) {
    map_pairs(dy, y, dx, n, [](A dy, A y) { return dy * (A)(y > 0); });
}

extern "C" __global__ void leaky_relu(const T *x, T *y, A alpha, long long n) {
    map(x, y, n, [=](A x) { return x > 0 ? x : alpha * x; });
}

extern "C" __global__ void leaky_relu_backward(const T *dy, const T *x, T *dx, A alpha, long long n) {
    map_pairs(dy, x, dx, n, [=](A dy, A x) { return x > 0 ? dy : dy * alpha; });
}

// e^−x may become ∞, and 1/(1 + ∞) = 0 is right.
__device__ __forceinline__ A sigma(A x) { return 1 / (1 + exp(-x)); }

extern "C" __global__ void sigmoid(const T *x, T *y, long long n) {
    map(x, y, n, [](A x) { return sigma(x); });
}

extern "C" __global__ void sigmoid_backward(const T *dy, const T *y, T *dx, long long n) {
    map_pairs(dy, y, dx, n, [](A dy, A y) { return (1 - y) * y * dy; });
}

extern "C" __global__ void hyperbolic_tangent(const T *x, T *y, long long n) {
    map(x, y, n, [](A x) { return (A)tanh(x); });
}

extern "C" __global__ void tanh_backward(const T *dy, const T *y, T *dx, long long n) {
    map_pairs(dy, y, dx, n, [](A dy, A y) { return (1 - y * y) * dy; });
}

extern "C" __global__ void softplus(const T *x, T *y, A beta, A threshold, long long n) {
    map(x, y, n, [=](A x) {
        A t = beta * x;
        return t > threshold ? x : ((A)log1p(exp(-fabs(t))) + (t > 0 ? t : 0)) / beta;
    });
}

extern "C" __global__ void softplus_backward(const T *dy, const T *x, T *dx, A beta, A threshold, long long n) {
    map_pairs(dy, x, dx, n, [=](A dy, A x) { return beta * x > threshold ? dy : dy * sigma(beta * x); });
}

// y = x·σ(v) and σ·(1 + x·v'·(1 − σ)), given v and x·v'.
__device__ __forceinline__ void open_gate(A x, A v, A x_dv, A &y, A &slope) {
    A s = sigma(v);
    y = x * s;
    slope = s * (1 + x_dv * (1 - s));
}

extern "C" __global__ void silu(const T *x, T *y, T *slope, long long n) {
    map_slopes(x, y, slope, n, [](A x, A &y, A &slope) { open_gate(x, x, x, y, slope); });
}

extern "C" __global__ void gelu_tanh(const T *x, T *y, T *slope, long long n) {
    map_slopes(x, y, slope, n, [](A x, A &y, A &slope) {
        const A scale = 1.5957691216057308, cubic = 0.044715;  // √(8/π), γ
        A square = x * x;
        open_gate(x, scale * x * (1 + cubic * square), scale * x * (1 + 3 * cubic * square), y, slope);
    });
}

// x·Φ and Φ + x·φ, with Φ(x) = erfc(−x/√2)/2, which loses nothing on the left.
extern "C" __global__ void gelu(const T *x, T *y, T *slope, long long n) {
    map_slopes(x, y, slope, n, [](A x, A &y, A &slope) {
        const A root = 0.7071067811865476, height = 0.3989422804014327;  // 1/√2, 1/√(2π)
        A cdf = (A)0.5 * (A)erfc(-x * root), pdf = height * (A)exp((A)-0.5 * x * x);
        y = x * cdf;
        slope = cdf + x * pdf;
    });
}

// ---- softmax over D of (outer, D, inner)
//
// A group of numbers lies `inner` apart.  Where inner is 1, a warp works on a group and its lanes read neighbours;
// elsewhere a thread does, and the threads of a warp work on neighbouring groups.  Either way `lanes` threads, of which
// this is number `lane`, share the group that starts at x, and x is read from memory once and from the cache twice.

struct Group {
    long long start, stride;
    int lane, lanes;
};

__device__ __forceinline__ Group group_of(long long i, int D, long long inner, int lanes) {
    long long group = i / lanes;
    return {group / inner * D * inner + group % inner, inner, (int)(i % lanes), lanes};
}

__device__ __forceinline__ A warp_largest(A x) {
    for (int mask = 16; mask > 0; mask /= 2) {
        A other = __shfl_xor_sync(FULL_WARP, x, mask);
        x = other > x ? other : x;
    }
    return x;
}

// y = e^(x − max x)/Σ e^(x − max x).  Number of threads: groups·lanes, lanes 32 or 1.
extern "C" __global__ void softmax(const T *x, T *y, long long groups, int D, long long inner, int lanes) {
    for (EACH(i, groups * lanes)) {
        Group g = group_of(i, D, inner, lanes);
        A largest = -INFINITY, total = 0;
        for (int d = g.lane; d < D; d += lanes) {
            A v = get(x[g.start + d * g.stride]);
            largest = v > largest ? v : largest;
        }
        if (lanes > 1) largest = warp_largest(largest);
        for (int d = g.lane; d < D; d += lanes) total += exp(get(x[g.start + d * g.stride]) - largest);
        if (lanes > 1) total = warp_sum(total);
        for (int d = g.lane; d < D; d += lanes) {
            long long at = g.start + d * g.stride;
            put(y[at], exp(get(x[at]) - largest) / total);
        }
    }
}

// dx = y·(dy − Σ dy·y).
extern "C" __global__ void softmax_backward(const T *dy, const T *y, T *dx, long long groups, int D, long long inner,
                                            int lanes) {
    for (EACH(i, groups * lanes)) {
        Group g = group_of(i, D, inner, lanes);
        A total = 0;
        for (int d = g.lane; d < D; d += lanes) {
            long long at = g.start + d * g.stride;
            total += get(dy[at]) * get(y[at]);
        }
        if (lanes > 1) total = warp_sum(total);
        for (int d = g.lane; d < D; d += lanes) {
            long long at = g.start + d * g.stride;
            put(dx[at], get(y[at]) * (get(dy[at]) - total));
        }
    }
}

// ---- sums over the pixels of (B, P, C)
//
// A block of threads stands on `lanes` neighbouring channels and as many pixels as there is room for, so that a step of
// the block reads neighbouring numbers; it walks down its rows (pixels), and at the end the threads of a channel are
// added up in a tree.  Blocks: (B·chunks of rows, tiles of channels).  The first launch leaves a sum for every chunk,
// (B, chunks, C); the second adds those up, in double.  Who adds what to what depends on the shape alone.

const int MOST_THREADS = 1024;

// Leaves in `sum` of the threads below `lanes` the sum over `rows` rows of their channels; x is the first of these rows.
template <typename R, typename S>
__device__ __forceinline__ void block_column_sum(const S *x, long long rows, int C, int lanes, int c, R &sum) {
    __shared__ R parts[MOST_THREADS];
    int t = threadIdx.x, row = t / lanes, step = blockDim.x / lanes;
    sum = 0;
    if (c < C && row < step) {
#pragma unroll 4
        for (long long r = row; r < rows; r += step) sum += (R)get(x[r * C + c]);
    }
    parts[t] = sum;
    int half = 1;
    while (half < step) half *= 2;
    for (half /= 2; half > 0; half /= 2) {
        __syncthreads();
        if (row < half && row + half < step) parts[t] += parts[t + half * lanes];
    }
    sum = parts[t];
}

// One sum for every chunk of `length` rows.  Reads x once.
extern "C" __global__ void chunk_sums(const T *x, A *sums, long long P, int C, int chunks, int lanes, long long length) {
    int t = threadIdx.x, c = blockIdx.y * lanes + t % lanes;
    long long b = blockIdx.x / chunks, first = blockIdx.x % chunks * length;
    A sum;
    block_column_sum(x + (b * P + first) * C, min(length, P - first), C, lanes, c, sum);
    if (t < lanes && c < C) sums[(long long)blockIdx.x * C + c] = sum;
}

// The sums over all chunks, in double.
extern "C" __global__ void channel_sums(const A *sums, double *y, int chunks, int C, int lanes) {
    int t = threadIdx.x, c = blockIdx.y * lanes + t % lanes;
    double sum;
    block_column_sum(sums + (long long)blockIdx.x * chunks * C, chunks, C, lanes, c, sum);
    if (t < lanes && c < C) y[(long long)blockIdx.x * C + c] = sum;
}

// The same, rounded to T.
extern "C" __global__ void rounded_channel_sums(const A *sums, T *y, int chunks, int C, int lanes) {
    int t = threadIdx.x, c = blockIdx.y * lanes + t % lanes;
    double sum;
    block_column_sum(sums + (long long)blockIdx.x * chunks * C, chunks, C, lanes, c, sum);
    if (t < lanes && c < C) put(y[(long long)blockIdx.x * C + c], (A)sum);
}
