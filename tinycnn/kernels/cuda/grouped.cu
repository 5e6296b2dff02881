// Convolution in groups of few channels, of any kind: where tiles of a matrix product would be mostly empty.
//
// Images are (N, H, W, C) and (N, OH, OW, OC), filters w (OC, KH, KW, C/G), all contiguous; CG = C/G, OCG = OC/G.
//
// **Index map.**  A block is (32, rows): lane threadIdx.x stands for a channel of the result, blockIdx.y says which 32 the
// block has; rows are positions or pixels.  Lanes of one group read the same numbers, others their neighbours, so that
// a warp reads runs of memory.  The filters of the block lie in shared memory, [term][lane].
// **Traffic**: x and y once from memory; every number once for each term from the cache.
#include "common.cuh"

#define SIZES int N, int H, int W, int C, int OC, int G, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW

constexpr int LANES = 32;

// for (EACH_ROW(m, M)): the rows of this thread.
#define EACH_ROW(m, M)                                                                       \
    long long m = (long long)blockIdx.x * blockDim.y + threadIdx.y; m < (M);                 \
    m += (long long)gridDim.x * blockDim.y

// y[n, oh, ow, o] = b[o] + Σ w[o, kh, kw, c]·x[n, h, w, g·CG + c].  b may be null.  Terms: (kh, kw, c).
extern "C" __global__ void grouped_forward(const T *__restrict__ x, const T *__restrict__ w, const T *__restrict__ b,
                                           T *__restrict__ y, SIZES) {
    DYNAMIC_SHARED(A, filters);
    const int CG = C / G, terms = KH * KW * CG, lane = threadIdx.x, first = blockIdx.y * LANES, o = first + lane;
    for (int i = threadIdx.y * LANES + lane; i < terms * LANES; i += blockDim.y * LANES)
        filters[i % terms * LANES + i / terms] = first + i / terms < OC ? get(w[(long long)first * terms + i]) : (A)0;
    __syncthreads();
    if (o >= OC) return;
    const A bias = b ? get(b[o]) : (A)0;
    const T *channels = x + o / (OC / G) * CG;
    for (EACH_ROW(m, (long long)N * OH * OW)) {
        int ow = m % OW, oh = m / OW % OH;
        long long n = m / OW / OH;
        A sum = bias;
        for (int kh = 0; kh < KH; kh++) {
            int h = oh * SH + kh * DH - PH;
            if (h < 0 || h >= H) continue;
            for (int kw = 0; kw < KW; kw++) {
                int v = ow * SW + kw * DW - PW;
                if (v < 0 || v >= W) continue;
                const T *pixel = channels + ((n * H + h) * W + v) * C;
                const A *filter = filters + (kh * KW + kw) * CG * LANES + lane;
                for (int c = 0; c < CG; c++) sum += filter[c * LANES] * get(pixel[c]);
            }
        }
        put(y[m * OC + o], sum);
    }
}

// dx[n, h, w, i] = Σ w[o, kh, kw, i % CG]·dy[n, oh, ow, o] over the cells and positions that read the pixel, and the o of
// the group.  Terms: (o, kh, kw).
extern "C" __global__ void grouped_backward_input(const T *__restrict__ dy, const T *__restrict__ w, T *__restrict__ dx,
                                                  SIZES) {
    DYNAMIC_SHARED(A, filters);
    const int CG = C / G, OCG = OC / G, cells = KH * KW, terms = OCG * cells, lane = threadIdx.x;
    const int c = blockIdx.y * LANES + lane, g = c / CG;
    for (int k = threadIdx.y; k < terms; k += blockDim.y)
        filters[k * LANES + lane] = c < C ? get(w[((long long)g * terms + k) * CG + c % CG]) : (A)0;
    __syncthreads();
    if (c >= C) return;
    for (EACH_ROW(m, (long long)N * H * W)) {
        int v = m % W, h = m / W % H;
        long long n = m / W / H;
        A sum = 0;
        for (int kh = 0; kh < KH; kh++) {
            int t = h + PH - kh * DH, oh = t / SH;
            if (t < 0 || t % SH != 0 || oh >= OH) continue;
            for (int kw = 0; kw < KW; kw++) {
                int u = v + PW - kw * DW, ow = u / SW;
                if (u < 0 || u % SW != 0 || ow >= OW) continue;
                const T *position = dy + ((n * OH + oh) * OW + ow) * OC + g * OCG;
                const A *filter = filters + (kh * KW + kw) * LANES + lane;
                for (int o = 0; o < OCG; o++) sum += filter[o * cells * LANES] * get(position[o]);
            }
        }
        put(dx[m * C + c], sum);
    }
}

// parts[chunk, (kh, kw, c), o] = Σ dy[n, oh, ow, o]·x[n, h, w, g·CG + c] over the positions chunk·length …
// Blocks along x: (chunk, term), the latter fastest, so that those who read the same memory run at the same time.
extern "C" __global__ void grouped_backward_weight(const T *__restrict__ dy, const T *__restrict__ x,
                                                   A *__restrict__ parts, long long length, SIZES) {
    __shared__ A shared[1024];
    const int CG = C / G, terms = KH * KW * CG, o = blockIdx.y * LANES + threadIdx.x;
    const int term = blockIdx.x % terms, kw = term / CG % KW, kh = term / CG / KW;
    const int channel = o / (OC / G) * CG + term % CG, me = threadIdx.y * LANES + threadIdx.x;
    const long long chunk = blockIdx.x / terms, end = min((chunk + 1) * length, (long long)N * OH * OW);
    A sum = 0;
    for (long long m = chunk * length + threadIdx.y; m < end && o < OC; m += blockDim.y) {
        int h = m / OW % OH * SH + kh * DH - PH, v = m % OW * SW + kw * DW - PW;
        if (h < 0 || h >= H || v < 0 || v >= W) continue;
        sum += get(dy[m * OC + o]) * get(x[((m / OW / OH * H + h) * W + v) * C + channel]);
    }
    shared[me] = sum;
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) shared[me] += shared[me + half * LANES];
    }
    if (threadIdx.y == 0 && o < OC) parts[(long long)blockIdx.x * OC + o] = shared[me];
}

// dw[o, term] = Σ parts[chunk, term, o] over the chunks, or added to it: the second launch of this dw and of depthwise.cu's.
// A block is (32, rows): 32 columns (term, o) of parts, rows of chunks.
extern "C" __global__ void finish_weight(const A *__restrict__ parts, T *__restrict__ dw, int chunks, int terms, int OC,
                                         bool add) {
    __shared__ A shared[1024];
    const long long width = (long long)terms * OC, column = (long long)blockIdx.x * LANES + threadIdx.x;
    const int me = threadIdx.y * LANES + threadIdx.x;
    A sum = 0;
    if (column < width) {
#pragma unroll 4
        for (int chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) sum += parts[chunk * width + column];
    }
    shared[me] = sum;
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) shared[me] += shared[me + half * LANES];
    }
    if (threadIdx.y > 0 || column >= width) return;
    T &to = dw[column % OC * terms + column / OC];
    put(to, add ? get(to) + shared[me] : shared[me]);
}
