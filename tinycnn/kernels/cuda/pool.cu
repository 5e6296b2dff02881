// Pooling: the twins of tinycnn/kernels/pool.py.
//
// Arrays are (N, H, W, C) and (N, OH, OW, C), contiguous.  Element i of an output is (n, oh, ow, c) with c running
// fastest, so that the threads of a warp work on neighbouring channels and every access of a warp is one run of memory.
// Each thread makes one element at a time; a pixel is read once for each window that it is in, from the cache but for
// the first time.
#include "common.cuh"

// The arguments that describe images and the window, in the order of `pool.py`.
#define SIZES int N, int H, int W, int C, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW

// y[n, oh, ow, c] = max over the window.  Padding counts as −∞; a NaN in the window wins.
// One thread per output.  Reads x (from memory once), writes y.
extern "C" __global__ void max_pool(const T *__restrict__ x, T *__restrict__ y, SIZES) {
    for (EACH(i, (long long)N * OH * OW * C)) {
        int c = i % C, ow = i / C % OW, oh = i / ((long long)C * OW) % OH;
        long long n = i / ((long long)C * OW * OH);
        A best = -INFINITY;
        for (int kh = 0; kh < KH; kh++) {
            int h = oh * SH + kh * DH - PH;
            if (h < 0 || h >= H) continue;
            for (int kw = 0; kw < KW; kw++) {
                int w = ow * SW + kw * DW - PW;
                if (w < 0 || w >= W) continue;
                A v = get(x[((n * H + h) * W + w) * C + c]);
                if (v > best || v != v) best = v;
            }
        }
        put(y[i], best);
    }
}
