// im2col and col2im: the twins of `gather` and `scatter` in tinycnn/kernels/im2col.py, both of them gathers.
//
// x is (N, H, W, C); cols has a row for each position (n, oh, ow), with the numbers (g, kh, kw, c) of the patch there, c
// below CG = C/G; all contiguous.  A block is (lanes, rows): lanes run along c, so that a warp moves runs of memory,
// 16 bytes a thread where CG allows (V elements; 1 elsewhere); rows are positions or pixels, which are taken apart into
// their coordinates once and not for every number.
#include "common.cuh"

#define SIZES int N, int H, int W, int C, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW, int G

template <int V>
struct __align__(V * sizeof(T)) Pack {
    T of[V];
};

// for (EACH_ROW(m, M)): the rows of this thread.
#define EACH_ROW(m, M)                                                                       \
    long long m = (long long)blockIdx.x * blockDim.y + threadIdx.y; m < (M);                 \
    m += (long long)gridDim.x * blockDim.y

// cols[m, (g, kh, kw, c)] = x[n, oh·SH + kh·DH − PH, ow·SW + kw·DW − PW, g·CG + c], 0 outside.
// Reads x once for each cell of the window, from memory about once; writes cols once.
template <int V>
__device__ __forceinline__ void gather_packs(const T *x, T *cols, SIZES) {
    const int CG = C / G / V, cells = KH * KW, width = G * cells * CG;  // in packs
    for (EACH_ROW(m, (long long)N * OH * OW)) {
        int ow = m % OW, oh = m / OW % OH;
        long long n = m / OW / OH;
        for (int k = threadIdx.x; k < width; k += blockDim.x) {
            int c = k % CG, cell = k / CG % cells, g = k / CG / cells;
            int h = oh * SH + cell / KW * DH - PH, w = ow * SW + cell % KW * DW - PW;
            Pack<V> pack = {};
            if (h >= 0 && h < H && w >= 0 && w < W)
                pack = ((const Pack<V> *)x)[((n * H + h) * W + w) * (C / V) + g * CG + c];
            ((Pack<V> *)cols)[m * width + k] = pack;
        }
    }
}

// x[n, h, w, g·CG + c] = Σ cols[(n, oh, ow), (g, kh, kw, c)] over the (kh, kw) and (oh, ow) that read (h, w): cells
// in order, at most one position each, so that no two threads write one number.  Reads cols once, writes x once.
template <int V>
__device__ __forceinline__ void scatter_packs(const T *cols, T *x, SIZES) {
    const int CG = C / G / V, cells = KH * KW, width = G * cells * CG;  // in packs
    for (EACH_ROW(pixel, (long long)N * H * W)) {
        int w = pixel % W, h = pixel / W % H;
        long long n = pixel / W / H;
        for (int k = threadIdx.x; k < G * CG; k += blockDim.x) {
            int c = k % CG, g = k / CG;
            A sums[V] = {};
            for (int kh = 0; kh < KH; kh++) {
                int t = h + PH - kh * DH, oh = t / SH;
                if (t < 0 || t % SH != 0 || oh >= OH) continue;
                for (int kw = 0; kw < KW; kw++) {
                    int u = w + PW - kw * DW, ow = u / SW;
                    if (u < 0 || u % SW != 0 || ow >= OW) continue;
                    long long m = (n * OH + oh) * OW + ow;
                    Pack<V> pack = ((const Pack<V> *)cols)[m * width + (g * cells + kh * KW + kw) * CG + c];
                    for (int i = 0; i < V; i++) sums[i] += get(pack.of[i]);
                }
            }
            Pack<V> pack;
            for (int i = 0; i < V; i++) put(pack.of[i], sums[i]);
            ((Pack<V> *)x)[pixel * (G * CG) + k] = pack;
        }
    }
}

constexpr int LONGEST = 16 / sizeof(T);

// Whether packs of LONGEST elements may be moved: groups are whole packs, and memory begins at one.
__device__ __forceinline__ bool by_packs(const T *x, const T *cols, int CG) {
    return CG % LONGEST == 0 && (((unsigned long long)x | (unsigned long long)cols) & 15) == 0;
}

extern "C" __global__ void gather(const T *x, T *cols, SIZES) {
    if (by_packs(x, cols, C / G))
        gather_packs<LONGEST>(x, cols, N, H, W, C, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G);
    else
        gather_packs<1>(x, cols, N, H, W, C, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G);
}

extern "C" __global__ void scatter(const T *cols, T *x, SIZES) {
    if (by_packs(x, cols, C / G))
        scatter_packs<LONGEST>(cols, x, N, H, W, C, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G);
    else
        scatter_packs<1>(cols, x, N, H, W, C, OH, OW, KH, KW, SH, SW, PH, PW, DH, DW, G);
}
