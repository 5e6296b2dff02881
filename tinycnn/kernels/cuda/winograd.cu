// Winograd's convolution, F(M×M, 3×3): the steps around its products, for the twins in winograd.py.
//
// `tinycnn.kernels.conv.winograd` derives it: tiles d of the input go to the t² points (t = M + 2) as K d Kᵀ, and come
// back the same way with another K; in between there is one product for each point.  V, the input at the points, is
// (tiles, t², C), so that the products of all points are one convolution by a window of one pixel with t² groups.
//
// **Launch.**  One thread makes all points of one channel of one tile: threads of a warp have neighbouring channels, so
// every access of a warp is one run of memory.  A tile is held in registers: all loops are unrolled.
// **Traffic.**  x is read (t/M)² times, all but the first time from the cache; V is written once, t²/M² times as large.
#include "common.cuh"

constexpr int POINTS = M + 2;

// out (R×R) = K d Kᵀ for a tile d (S×S) and K (R×S), row by row.
template <int R, int S>
__device__ __forceinline__ void both_sides(const A *__restrict__ K, const A (&d)[S][S], A (&out)[R][R]) {
    A half[R][S];
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int b = 0; b < S; b++) {
            half[i][b] = 0;
#pragma unroll
            for (int a = 0; a < S; a++) half[i][b] += K[i * S + a] * d[a][b];
        }
#pragma unroll
    for (int i = 0; i < R; i++)
#pragma unroll
        for (int j = 0; j < R; j++) {
            out[i][j] = 0;
#pragma unroll
            for (int b = 0; b < S; b++) out[i][j] += half[i][b] * K[j * S + b];
        }
}

// V[tile, p, c] of tiles of S×S pixels that begin M pixels from each other, the first at (−PH, −PW); 0 outside.
template <int S>
__device__ __forceinline__ void to_points(const T *x, const A *K, T *V, int N, int H, int W, int C, int TH, int TW,
                                          int PH, int PW) {
    for (EACH(i, (long long)N * TH * TW * C)) {
        int c = i % C, tw = i / C % TW, th = i / ((long long)C * TW) % TH;
        long long tile = i / C, n = tile / ((long long)TW * TH);
        A d[S][S], points[POINTS][POINTS];
#pragma unroll
        for (int a = 0; a < S; a++)
#pragma unroll
            for (int b = 0; b < S; b++) {
                int h = M * th - PH + a, w = M * tw - PW + b;
                bool inside = h >= 0 && h < H && w >= 0 && w < W;
                d[a][b] = inside ? get(x[((n * H + h) * W + w) * C + c]) : (A)0;
            }
        both_sides(K, d, points);
#pragma unroll
        for (int p = 0; p < POINTS * POINTS; p++)
            put(V[(tile * (POINTS * POINTS) + p) * C + c], points[p / POINTS][p % POINTS]);
    }
}

// V of the input: K = Bᵀ, tiles overlap by two pixels.
extern "C" __global__ void __launch_bounds__(128)
    input_to_points(const T *__restrict__ x, const A *__restrict__ K, T *__restrict__ V, int N, int H, int W, int C,
                    int TH, int TW, int PH, int PW) {
    to_points<POINTS>(x, K, V, N, H, W, C, TH, TW, PH, PW);
}

// dM of the gradient: K = A, tiles of M×M.
extern "C" __global__ void __launch_bounds__(128)
    gradient_to_points(const T *__restrict__ dy, const A *__restrict__ K, T *__restrict__ dM, int N, int H, int W,
                       int C, int TH, int TW) {
    to_points<M>(dy, K, dM, N, H, W, C, TH, TW, 0, 0);
}

// y (N, OH, OW, OC) from its points (tiles, t², OC): K = Aᵀ; plus the bias, if there is one.
extern "C" __global__ void __launch_bounds__(128)
    points_to_output(const T *__restrict__ points, const A *__restrict__ K, const T *__restrict__ bias,
                     T *__restrict__ y, int N, int OH, int OW, int OC, int TH, int TW) {
    for (EACH(i, (long long)N * TH * TW * OC)) {
        int c = i % OC, tw = i / OC % TW, th = i / ((long long)OC * TW) % TH;
        long long tile = i / OC, n = tile / ((long long)TW * TH);
        A m[POINTS][POINTS], out[M][M];
#pragma unroll
        for (int p = 0; p < POINTS * POINTS; p++)
            m[p / POINTS][p % POINTS] = get(points[(tile * (POINTS * POINTS) + p) * OC + c]);
        both_sides(K, m, out);
        A b = bias ? get(bias[c]) : (A)0;
#pragma unroll
        for (int a = 0; a < M; a++)
#pragma unroll
            for (int e = 0; e < M; e++) {
                int h = M * th + a, w = M * tw + e;
                if (h < OH && w < OW) put(y[((n * OH + h) * OW + w) * OC + c], out[a][e] + b);
            }
    }
}

// U of filters (OC, 3, 3, C): K = G.  (t², OC, C); or for dx, of the turned filters, (t², C, OC).
extern "C" __global__ void __launch_bounds__(128)
    filters_to_points(const T *__restrict__ w, const A *__restrict__ K, T *__restrict__ U, int OC, int C, bool turned) {
    int inner = turned ? OC : C;
    for (EACH(i, (long long)OC * C)) {
        int o = turned ? i % inner : i / inner, c = turned ? i / inner : i % inner;
        A g[3][3], points[POINTS][POINTS];
#pragma unroll
        for (int a = 0; a < 3; a++)
#pragma unroll
            for (int b = 0; b < 3; b++) {
                int cell = turned ? (2 - a) * 3 + 2 - b : a * 3 + b;
                g[a][b] = get(w[((long long)o * 9 + cell) * C + c]);
            }
        both_sides(K, g, points);
#pragma unroll
        for (int p = 0; p < POINTS * POINTS; p++) put(U[(long long)p * OC * C + i], points[p / POINTS][p % POINTS]);
    }
}

// dw (OC, 3, 3, C), written or added to, from dU (t², OC, C): K = Gᵀ.
extern "C" __global__ void __launch_bounds__(128)
    points_to_filters(const T *__restrict__ dU, const A *__restrict__ K, T *__restrict__ dw, int OC, int C, bool add) {
    for (EACH(i, (long long)OC * C)) {
        long long o = i / C;
        int c = i % C;
        A points[POINTS][POINTS], out[3][3];
#pragma unroll
        for (int p = 0; p < POINTS * POINTS; p++)
            points[p / POINTS][p % POINTS] = get(dU[(long long)p * OC * C + i]);
        both_sides(K, points, out);
#pragma unroll
        for (int k = 0; k < 9; k++) {
            T &to = dw[(o * 9 + k) * C + c];
            put(to, add ? get(to) + out[k / 3][k % 3] : out[k / 3][k % 3]);
        }
    }
}
