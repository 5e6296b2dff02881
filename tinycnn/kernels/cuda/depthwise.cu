// Depthwise convolution, a filter for every channel, by square windows of KERNEL cells with stride STRIDE: bound by
// memory, as a number that is read takes part in KERNEL² multiplications at most.
//
// Images are (N, H, W, C) and (N, OH, OW, C), filters w (C, KERNEL, KERNEL), all contiguous; C is a multiple of V.
//
// **Index map.**  A block is (lanes, rows).  A lane stands for V neighbouring channels; blockIdx.y says which `lanes`·V
// of them the block has, whose filters lie in shared memory, transposed, so that lanes read neighbours.  Each thread
// makes TILE results side by side at a time: the row of pixels that they see is loaded into registers once, V
// channels at a load, and used for all of them.  Tiles are counted row by row, image by image.
// **Traffic**: from memory, x and y once each; from the first-level cache, KERNEL rows of a tile for each of its results.
//
// Macros: KERNEL, STRIDE.
#include "common.cuh"

constexpr int V = sizeof(T) == 8 ? 2 : 4, TILE = 4, LANES = 32, THREADS = 256, CELLS = KERNEL * KERNEL;
static_assert(TILE % STRIDE == 0, "tiles of pixels must begin at the same remainder");

struct __align__(V * sizeof(T)) Pack {
    T of[V];
};

// for (EACH_TILE(t, count)): the tiles of this thread.
#define EACH_TILE(t, count)                                                                \
    long long t = (long long)blockIdx.x * blockDim.y + threadIdx.y; t < (count);           \
    t += (long long)gridDim.x * blockDim.y

#define SIZES int N, int H, int W, int C, int OH, int OW, int PH, int PW

// row[u] = image[first + u] for u < COUNT, 0 outside of 0 … size − 1; `image` is a row of it, from this thread's channels.
template <int COUNT>
__device__ __forceinline__ void load_row(const T *image, int first, int size, int C, A (&row)[COUNT][V]) {
#pragma unroll
    for (int u = 0; u < COUNT; u++) {
        bool inside = (unsigned)(first + u) < (unsigned)size;
        Pack pack = {};
        if (inside) pack = *(const Pack *)(image + (long long)(first + u) * C);
#pragma unroll
        for (int v = 0; v < V; v++) row[u][v] = get(pack.of[v]);
    }
}

// The filters of this block's channels, filters[cell][channel].
__device__ __forceinline__ void block_filters(const T *w, int C, A *filters) {
    int channels = blockDim.x * V, first = blockIdx.y * channels;
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < channels * CELLS; i += blockDim.x * blockDim.y)
        filters[i % CELLS * channels + i / CELLS] = first + i / CELLS < C ? get(w[(long long)first * CELLS + i]) : (A)0;
    __syncthreads();
}

// y[n, oh, ow, c] = b[c] + Σ w[c, kh, kw]·x[n, oh·STRIDE + kh − PH, ow·STRIDE + kw − PW, c].  b may be null.
extern "C" __global__ void __launch_bounds__(THREADS, 2) depthwise_forward(
    const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b, T *__restrict__ y, SIZES) {
    __shared__ A filters[CELLS * LANES * V];
    block_filters(w, C, filters);
    const int c = (blockIdx.y * blockDim.x + threadIdx.x) * V, across = (OW + TILE - 1) / TILE;
    if (c >= C) return;
    for (EACH_TILE(t, (long long)N * OH * across)) {
        int ow = t % across * TILE, oh = t / across % OH;
        long long n = t / across / OH;
        A sums[TILE][V];
#pragma unroll
        for (int i = 0; i < TILE * V; i++) sums[i / V][i % V] = b ? get(b[c + i % V]) : (A)0;
        for (int kh = 0; kh < KERNEL; kh++) {
            int h = oh * STRIDE + kh - PH;
            if (h < 0 || h >= H) continue;
            A row[(TILE - 1) * STRIDE + KERNEL][V];
            load_row(x + (n * H + h) * W * C + c, ow * STRIDE - PW, W, C, row);
#pragma unroll
            for (int kw = 0; kw < KERNEL; kw++) {
                const A *filter = filters + ((kh * KERNEL + kw) * blockDim.x + threadIdx.x) * V;
#pragma unroll
                for (int i = 0; i < TILE * V; i++) sums[i / V][i % V] += filter[i % V] * row[i / V * STRIDE + kw][i % V];
            }
        }
#pragma unroll
        for (int j = 0; j < TILE; j++) {
            Pack pack;
#pragma unroll
            for (int v = 0; v < V; v++) put(pack.of[v], sums[j][v]);
            if (ow + j < OW) *(Pack *)(y + ((n * OH + oh) * OW + ow + j) * C + c) = pack;
        }
    }
}

// dx[n, h, w, c] = Σ w[c, kh, kw]·dy[n, oh, ow, c] over the cells with oh·STRIDE + kh − PH = h, ow·STRIDE + kw − PW = w.
// Tiles begin at pixels with w + PW = STRIDE·q, so that j pixels on cell kw meets ow = q + (j − kw)/STRIDE, if that is
// whole: which, the compiler knows.
extern "C" __global__ void __launch_bounds__(THREADS, 2) depthwise_backward_input(
    const T *__restrict__ dy, const T *__restrict__ w, T *__restrict__ dx, SIZES) {
    __shared__ A filters[CELLS * LANES * V];
    block_filters(w, C, filters);
    constexpr int BEFORE = (KERNEL - 1) / STRIDE, COUNT = BEFORE + (TILE - 1) / STRIDE + 1;
    const int c = (blockIdx.y * blockDim.x + threadIdx.x) * V, early = PW % STRIDE;
    const int across = (W + early + TILE - 1) / TILE;
    if (c >= C) return;
    for (EACH_TILE(t, (long long)N * H * across)) {
        int column = t % across * TILE - early, h = t / across % H;
        long long n = t / across / H;
        A sums[TILE][V] = {};
        for (int kh = 0; kh < KERNEL; kh++) {
            int oh = (h + PH - kh) / STRIDE;
            if (h + PH < kh || (h + PH - kh) % STRIDE != 0 || oh >= OH) continue;
            A row[COUNT][V];
            load_row(dy + (n * OH + oh) * OW * C + c, (column + PW) / STRIDE - BEFORE, OW, C, row);
#pragma unroll
            for (int kw = 0; kw < KERNEL; kw++) {
                const A *filter = filters + ((kh * KERNEL + kw) * blockDim.x + threadIdx.x) * V;
#pragma unroll
                for (int i = 0; i < TILE * V; i++) {
                    int j = i / V, v = i % V;
                    if ((j - kw) % STRIDE == 0) sums[j][v] += filter[v] * row[BEFORE + (j - kw) / STRIDE][v];
                }
            }
        }
#pragma unroll
        for (int j = 0; j < TILE; j++) {
            Pack pack;
#pragma unroll
            for (int v = 0; v < V; v++) put(pack.of[v], sums[j][v]);
            if ((unsigned)(column + j) < (unsigned)W) *(Pack *)(dx + ((n * H + h) * W + column + j) * C + c) = pack;
        }
    }
}

// ---- dw, in two launches: sums over the tiles of a block, then over blocks
//
// Blocks along x: (chunk, group of rows of the window), the latter fastest, so that those who read the same memory run at
// the same time; a block has GROUP_ROWS rows of the window, as many as leave their sums in registers.

constexpr int GROUP_ROWS = KERNEL <= 3 ? KERNEL : 1, GROUPS = KERNEL / GROUP_ROWS;

// parts[chunk, (kh, kw), c] = Σ dy[n, oh, ow, c]·x[n, oh·STRIDE + kh − PH, ow·STRIDE + kw − PW, c] over the tiles chunk·length …
// Reads x and dy once (GROUPS times, but for the first time from the cache).
extern "C" __global__ void __launch_bounds__(THREADS, 2) depthwise_backward_weight(
    const T *__restrict__ dy, const T *__restrict__ x, A *__restrict__ parts, long long length, SIZES) {
    __shared__ A shared[THREADS][V];
    const int c = (blockIdx.y * blockDim.x + threadIdx.x) * V, across = (OW + TILE - 1) / TILE;
    const int kh = blockIdx.x % GROUPS * GROUP_ROWS, me = threadIdx.y * blockDim.x + threadIdx.x;
    const long long chunk = blockIdx.x / GROUPS, end = min((chunk + 1) * length, (long long)N * OH * across);
    A sums[GROUP_ROWS * KERNEL][V] = {};
    for (long long t = chunk * length + threadIdx.y; t < end && c < C; t += blockDim.y) {
        int ow = t % across * TILE, oh = t / across % OH;
        long long n = t / across / OH;
        A d[TILE][V];
        load_row(dy + (n * OH + oh) * OW * C + c, ow, OW, C, d);
#pragma unroll
        for (int r = 0; r < GROUP_ROWS; r++) {
            int h = oh * STRIDE + kh + r - PH;
            if (h < 0 || h >= H) continue;
            A row[(TILE - 1) * STRIDE + KERNEL][V];
            load_row(x + (n * H + h) * W * C + c, ow * STRIDE - PW, W, C, row);
#pragma unroll
            for (int kw = 0; kw < KERNEL; kw++)
#pragma unroll
                for (int i = 0; i < TILE * V; i++)
                    sums[r * KERNEL + kw][i % V] += d[i / V][i % V] * row[i / V * STRIDE + kw][i % V];
        }
    }
#pragma unroll
    for (int cell = 0; cell < GROUP_ROWS * KERNEL; cell++) {
        __syncthreads();  // the last cell may still be read
#pragma unroll
        for (int v = 0; v < V; v++) shared[me][v] = sums[cell][v];
        for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
            __syncthreads();
            if (threadIdx.y >= half) continue;
#pragma unroll
            for (int v = 0; v < V; v++) shared[me][v] += shared[me + half * blockDim.x][v];
        }
        if (threadIdx.y > 0 || c >= C) continue;
#pragma unroll
        for (int v = 0; v < V; v++) parts[(chunk * CELLS + kh * KERNEL + cell) * C + c + v] = shared[me][v];
    }
}
