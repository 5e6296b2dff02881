// Pooling: the twins of tinycnn/kernels/pool.py.
//
// **Index map.**  Images are (N, H, W, C), what the window makes of them (N, OH, OW, C), both contiguous, C running
// fastest.  A thread makes V neighbouring channels of one output pixel (of one input pixel, on the way back): V numbers
// are 16 bytes where C is a multiple of that many, and 1 number elsewhere.  Threads that follow each other work on
// channels that follow each other, so that every access of a warp is one run of memory.  Blocks are of 256 threads; in
// a grid-stride loop any number of them does all outputs.
//
// **The way back is a gather**: an input pixel looks up the windows that it lies in and adds their gradients, always in
// the same order.  No two threads write one number, nothing is cleared first, and results repeat bit for bit.
//
// **Traffic.**  Every number is written once.  It is read once for each window that it is in, but for the first time
// from the cache: what the neighbours have just read.  Each kernel is one launch.
#include "common.cuh"

#define SIZES int N, int H, int W, int C, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW
#define GIVEN N, H, W, C, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW

constexpr int WIDE = 16 / sizeof(T);

// V numbers that are read or written at once.
template <typename S, int V>
struct alignas(sizeof(S) * V) Pack {
    S at[V];
};

template <int V, typename S>
__device__ __forceinline__ Pack<S, V> load(const S *x) {
    return *reinterpret_cast<const Pack<S, V> *>(x);
}

template <int V>
__device__ __forceinline__ void store(T *y, const A (&values)[V]) {
    Pack<T, V> p;
#pragma unroll
    for (int k = 0; k < V; k++) put(p.at[k], values[k]);
    *reinterpret_cast<Pack<T, V> *>(y) = p;
}

// Whether packs of WIDE channels can be used.  `winners` has as many of them, of a byte or two each.
__device__ __forceinline__ bool wide(int C, const void *x, const void *y, const void *winners = nullptr) {
    return C % WIDE == 0 && ((unsigned long long)x | (unsigned long long)y) % 16 == 0 &&
           (unsigned long long)winners % 16 == 0;
}

// Call body<V>(…).
#define WITH_PACKS(is_wide, body, ...)     \
    if (is_wide) body<WIDE>(__VA_ARGS__);  \
    else body<1>(__VA_ARGS__)

// Where pack number i of an (N, H, W, C) array is: channel c of pixel (h, w) of image n.
template <int V>
struct Spot {
    int n, h, w, c;
    __device__ __forceinline__ Spot(long long i, int H, int W, int C) {
        if (i >> 32) split(i, H, W, C / V);
        else split((unsigned)i, (unsigned)H, (unsigned)W, (unsigned)(C / V));  // a fifth of the time
    }
    template <typename I, typename S>
    __device__ __forceinline__ void split(I i, S H, S W, S packs) {
        c = (int)(i % packs) * V, i /= packs;
        w = (int)(i % W), i /= W;
        h = (int)(i % H), n = (int)(i / H);
    }
};

// ---- the positions of a window, and the windows over a pixel

// The positions o along one axis whose window covers row (or column) h: first … last.
struct Covering {
    int first, last;
    __device__ __forceinline__ Covering(int h, int K, int S, int P, int D, int O) {
        int before = h + P - (K - 1) * D;  // where the first window that reaches h would begin
        first = before > 0 ? (before + S - 1) / S : 0;
        last = min((h + P) / S, O - 1);
    }
};

// Which of its cells the window at o has on h; −1 if h falls between two of them (D > 1).
__device__ __forceinline__ int cell(int h, int o, int S, int P, int D) {
    int offset = h + P - o * S;
    return D == 1 ? offset : offset % D == 0 ? offset / D : -1;
}

// ---- maximum

// best = maximum over the window at (oh, ow), rank = the number of its cell in reading order.  Padding counts as −∞ and
// never wins; of equal ones the first wins; a NaN in the window makes best NaN and the first pixel the winner.
template <int V, bool RANKS>
__device__ __forceinline__ void largest(const T *x, int oh, int ow, A (&best)[V], int (&rank)[V], SIZES) {
    int first = -1;
#pragma unroll
    for (int k = 0; k < V; k++) best[k] = -INFINITY, rank[k] = -1;
    for (int kh = 0; kh < KH; kh++) {
        int h = oh * SH + kh * DH - PH;
        if (h < 0 || h >= H) continue;
        for (int kw = 0; kw < KW; kw++) {
            int w = ow * SW + kw * DW - PW;
            if (w < 0 || w >= W) continue;
            int r = kh * KW + kw;
            if (RANKS && first < 0) first = r;
            Pack<T, V> pixel = load<V>(x + ((long long)h * W + w) * C);
#pragma unroll
            for (int k = 0; k < V; k++) {
                A v = get(pixel.at[k]);
                if (v > best[k] || v != v) best[k] = v, rank[k] = r;
            }
        }
    }
    if (!RANKS) return;
    if (first < 0) first = KH * KW - 1;  // a window of nothing but padding
#pragma unroll
    for (int k = 0; k < V; k++)
        if (rank[k] < 0 || best[k] != best[k]) rank[k] = first;
}

template <int V>
__device__ __forceinline__ void max_pool_of(const T *x, T *y, SIZES) {
    A best[V];
    int rank[V];
    for (EACH(i, (long long)N * OH * OW * (C / V))) {
        Spot<V> o(i, OH, OW, C);
        largest<V, false>(x + (long long)o.n * H * W * C + o.c, o.h, o.w, best, rank, GIVEN);
        store<V>(y + i * V, best);
    }
}

template <int V, typename R>
__device__ __forceinline__ void winners_of(const T *x, T *y, R *winners, SIZES) {
    A best[V];
    int rank[V];
    for (EACH(i, (long long)N * OH * OW * (C / V))) {
        Spot<V> o(i, OH, OW, C);
        largest<V, true>(x + (long long)o.n * H * W * C + o.c, o.h, o.w, best, rank, GIVEN);
        store<V>(y + i * V, best);
        Pack<R, V> p;
#pragma unroll
        for (int k = 0; k < V; k++) p.at[k] = (R)rank[k];
        *reinterpret_cast<Pack<R, V> *>(winners + i * V) = p;
    }
}

// dx[n, h, w, c] = Σ dy[n, oh, ow, c] over the windows that the pixel won.
template <int V, typename R>
__device__ __forceinline__ void won_by(const T *dy, const R *winners, T *dx, SIZES) {
    for (EACH(i, (long long)N * H * W * (C / V))) {
        Spot<V> p(i, H, W, C);
        A sum[V] = {};
        Covering rows(p.h, KH, SH, PH, DH, OH), columns(p.w, KW, SW, PW, DW, OW);
        for (int oh = rows.first; oh <= rows.last; oh++) {
            int kh = cell(p.h, oh, SH, PH, DH);
            if (kh < 0) continue;
            for (int ow = columns.first; ow <= columns.last; ow++) {
                int kw = cell(p.w, ow, SW, PW, DW), rank = kh * KW + kw;
                if (kw < 0) continue;
                long long at = (((long long)p.n * OH + oh) * OW + ow) * C + p.c;
                Pack<R, V> won = load<V>(winners + at);
                bool any = false;
#pragma unroll
                for (int k = 0; k < V; k++) any = any || won.at[k] == rank;
                if (!any) continue;
                Pack<T, V> g = load<V>(dy + at);
#pragma unroll
                for (int k = 0; k < V; k++)
                    if (won.at[k] == rank) sum[k] += get(g.at[k]);
            }
        }
        store<V>(dx + i * V, sum);
    }
}

// y = max over the window, equation (1) of tinycnn/layers/pool.py.  Reads x, writes y.
extern "C" __global__ void max_pool(const T *__restrict__ x, T *__restrict__ y, SIZES) {
    WITH_PACKS(wide(C, x, y), max_pool_of, x, y, GIVEN);
}

// The same, and winners[n, oh, ow, c] = which cell of the window it was: a byte more to write for each y.
extern "C" __global__ void __launch_bounds__(256, 5)
    max_pool_winners(const T *__restrict__ x, T *__restrict__ y, unsigned char *__restrict__ winners, SIZES) {
    WITH_PACKS(wide(C, x, y, winners), winners_of, x, y, winners, GIVEN);
}

// The same for windows of more than 256 cells.
extern "C" __global__ void __launch_bounds__(256, 5)
    max_pool_winners_large(const T *__restrict__ x, T *__restrict__ y, unsigned short *__restrict__ winners, SIZES) {
    WITH_PACKS(wide(C, x, y, winners), winners_of, x, y, winners, GIVEN);
}

// Equation (3).  Reads winners, and dy where the pixel won; writes dx.
extern "C" __global__ void __launch_bounds__(256, 5)
    max_pool_backward(const T *__restrict__ dy, const unsigned char *__restrict__ winners, T *__restrict__ dx, SIZES) {
    WITH_PACKS(wide(C, dy, dx, winners), won_by, dy, winners, dx, GIVEN);
}

extern "C" __global__ void __launch_bounds__(256, 5)
    max_pool_backward_large(const T *__restrict__ dy, const unsigned short *__restrict__ winners, T *__restrict__ dx,
                            SIZES) {
    WITH_PACKS(wide(C, dy, dx, winners), won_by, dy, winners, dx, GIVEN);
}

// ---- mean over a window

// How many rows (or columns) count at position o: those of the image, and those of the padding if it is included.
__device__ __forceinline__ int cells(int o, int H, int K, int S, int P, bool include_pad) {
    int start = o * S - P, end = min(start + K, H + P);
    return include_pad ? end - start : min(end, H) - max(start, 0);
}

#define DIVISOR bool include_pad, int fixed
// |R(o)|, or the number `fixed` that takes its place.
#define COUNT(oh, ow) \
    (A)(fixed ? fixed : cells(oh, H, KH, SH, PH, include_pad) * cells(ow, W, KW, SW, PW, include_pad))

template <int V>
__device__ __forceinline__ void mean_pool_of(const T *x, T *y, SIZES, DIVISOR) {
    for (EACH(i, (long long)N * OH * OW * (C / V))) {
        Spot<V> o(i, OH, OW, C);
        A sum[V] = {};
        for (int kh = 0; kh < KH; kh++) {
            int h = o.h * SH + kh * DH - PH;
            if (h < 0 || h >= H) continue;
            for (int kw = 0; kw < KW; kw++) {
                int w = o.w * SW + kw * DW - PW;
                if (w < 0 || w >= W) continue;
                Pack<T, V> pixel = load<V>(x + (((long long)o.n * H + h) * W + w) * C + o.c);
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += get(pixel.at[k]);
            }
        }
        A count = COUNT(o.h, o.w);
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] /= count;
        store<V>(y + i * V, sum);
    }
}

template <int V>
__device__ __forceinline__ void mean_pool_back(const T *dy, T *dx, SIZES, DIVISOR) {
    for (EACH(i, (long long)N * H * W * (C / V))) {
        Spot<V> p(i, H, W, C);
        A sum[V] = {};
        Covering rows(p.h, KH, SH, PH, DH, OH), columns(p.w, KW, SW, PW, DW, OW);
        for (int oh = rows.first; oh <= rows.last; oh++) {
            if (cell(p.h, oh, SH, PH, DH) < 0) continue;
            for (int ow = columns.first; ow <= columns.last; ow++) {
                if (cell(p.w, ow, SW, PW, DW) < 0) continue;
                A count = COUNT(oh, ow);
                Pack<T, V> g = load<V>(dy + (((long long)p.n * OH + oh) * OW + ow) * C + p.c);
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += get(g.at[k]) / count;
            }
        }
        store<V>(dx + i * V, sum);
    }
}

// y = Σ x / |R(o)| over the window, equation (2).  Reads x, writes y.
extern "C" __global__ void __launch_bounds__(256, 5)
    mean_pool(const T *__restrict__ x, T *__restrict__ y, SIZES, DIVISOR) {
    WITH_PACKS(wide(C, x, y), mean_pool_of, x, y, GIVEN, include_pad, fixed);
}

// dx = Σ dy / |R(o)| over the windows that the pixel is in, equation (4).  Reads dy, writes dx.
extern "C" __global__ void __launch_bounds__(256, 4)
    mean_pool_backward(const T *__restrict__ dy, T *__restrict__ dx, SIZES, DIVISOR) {
    WITH_PACKS(wide(C, dy, dx), mean_pool_back, dy, dx, GIVEN, include_pad, fixed);
}

// ---- mean over bins

// Bin i of O over H pixels: ⌊i·H/O⌋ … ⌈(i + 1)·H/O⌉ − 1.  The bins over pixel h are what this says of H bins over O.
// (i·H is split into i·O·⌊H/O⌋ + i·(H mod O), the second of which has 32 bits unless both H and O have more than 16.)
struct Bin {
    int start, end;
    __device__ __forceinline__ Bin(unsigned i, unsigned H, unsigned O) {
        start = i * (H / O) + i * (H % O) / O;
        end = (i + 1) * (H / O) + ((i + 1) * (H % O) + O - 1) / O;
    }
    __device__ __forceinline__ int size() const { return end - start; }
};

#define BINS int N, int H, int W, int C, int OH, int OW

template <int V>
__device__ __forceinline__ void bin_means_of(const T *x, T *y, BINS) {
    for (EACH(i, (long long)N * OH * OW * (C / V))) {
        Spot<V> o(i, OH, OW, C);
        Bin rows(o.h, H, OH), columns(o.w, W, OW);
        A sum[V] = {}, count = (A)(rows.size() * columns.size());
        for (int h = rows.start; h < rows.end; h++)
            for (int w = columns.start; w < columns.end; w++) {
                Pack<T, V> pixel = load<V>(x + (((long long)o.n * H + h) * W + w) * C + o.c);
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += get(pixel.at[k]);
            }
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] /= count;
        store<V>(y + i * V, sum);
    }
}

template <int V>
__device__ __forceinline__ void bin_means_back(const T *dy, T *dx, BINS) {
    for (EACH(i, (long long)N * H * W * (C / V))) {
        Spot<V> p(i, H, W, C);
        A sum[V] = {};
        Bin over(p.h, OH, H), across(p.w, OW, W);
        for (int oh = over.start; oh < over.end; oh++)
            for (int ow = across.start; ow < across.end; ow++) {
                A count = (A)(Bin(oh, H, OH).size() * Bin(ow, W, OW).size());
                Pack<T, V> g = load<V>(dy + (((long long)p.n * OH + oh) * OW + ow) * C + p.c);
#pragma unroll
                for (int k = 0; k < V; k++) sum[k] += get(g.at[k]) / count;
            }
        store<V>(dx + i * V, sum);
    }
}

// A block makes one bin of up to 32 packs.  It is R rows of L threads: row r adds the pixels r, r + R, … of the bin, and
// then the rows are added by halves, in shared memory.
template <int V>
__device__ __forceinline__ void block_bin_means(const T *x, T *y, A *parts, BINS) {
    int packs = C / V, L = 1;
    while (L < packs && L < 32) L *= 2;
    int R = blockDim.x / L, lane = threadIdx.x % L, row = threadIdx.x / L, groups = (packs + L - 1) / L;
    for (long long b = blockIdx.x; b < (long long)N * OH * OW * groups; b += gridDim.x) {
        long long o = b / groups;  // number of the bin
        int c = ((int)(b % groups) * L + lane) * V;
        Bin rows((int)(o / OW % OH), H, OH), columns((int)(o % OW), W, OW);
        const T *image = x + o / ((long long)OW * OH) * H * W * C + c;
        int width = columns.size(), size = rows.size() * width;
        A sum[V] = {};
        for (int p = row; p < size && c < C; p += R) {
            int h = rows.start + p / width, w = columns.start + p % width;
            Pack<T, V> pixel = load<V>(image + ((long long)h * W + w) * C);
#pragma unroll
            for (int k = 0; k < V; k++) sum[k] += get(pixel.at[k]);
        }
        __syncthreads();  // the parts of the bin before this one may still be read
#pragma unroll
        for (int k = 0; k < V; k++) parts[k * blockDim.x + threadIdx.x] = sum[k];
        for (int half = R / 2; half > 0; half /= 2) {
            __syncthreads();
#pragma unroll
            for (int k = 0; k < V; k++)
                if (row < half) parts[k * blockDim.x + threadIdx.x] += parts[k * blockDim.x + threadIdx.x + half * L];
        }
#pragma unroll
        for (int k = 0; k < V; k++) sum[k] = parts[k * blockDim.x + threadIdx.x] / (A)size;
        if (row == 0 && c < C) store<V>(y + o * C + c, sum);
    }
}

// y = mean over each of OH×OW bins; one thread a pack, for small bins.  Reads x, writes y.
extern "C" __global__ void bin_means(const T *__restrict__ x, T *__restrict__ y, BINS) {
    WITH_PACKS(wide(C, x, y), bin_means_of, x, y, N, H, W, C, OH, OW);
}

// The same, one block a bin, for large ones (the whole image, as a rule).  A block has 256 threads.
extern "C" __global__ void __launch_bounds__(256, 4) bin_means_large(const T *__restrict__ x, T *__restrict__ y, BINS) {
    __shared__ A parts[WIDE * 256];
    if (wide(C, x, y)) block_bin_means<WIDE>(x, y, parts, N, H, W, C, OH, OW);
    else block_bin_means<1>(x, y, parts, N, H, W, C, OH, OW);
}

// dx = Σ dy / |bin| over the bins that the pixel is in.  Reads dy, writes dx.
extern "C" __global__ void bin_means_backward(const T *__restrict__ dy, T *__restrict__ dx, BINS) {
    WITH_PACKS(wide(C, dy, dx), bin_means_back, dy, dx, N, H, W, C, OH, OW);
}
