// Forming a batch: the twin of `assemble` in tinycnn/data/augment.py.
//
// All images are bytes (number of images, H, W, C) in the memory of the GPU; a batch of them is gathered, moved,
// mirrored, coloured, scaled and written as (N, H, W, C) in one pass.  What happens to each image was drawn by the CPU.
// The result is the specification's to the bit: the colours' products and sums are rounded one by one (no fused
// multiply-add), and scaling, a difference and then a product, offers nothing to fuse.
//
// A block works on one row of one image at a time (row = n·H + h), its threads on neighbouring elements j = w·C + c, so
// that each row is written in one run and read in one run, backwards where it is mirrored.  Memory traffic: each byte
// is read once (with colours C times, but for the first from the cache), each element of y written once.
#include "common.cuh"

// y[n, h, w, c] = (q[c] − scale[0, c]) · scale[1, c], where q is the pixel that moves to (h, w) of image n of the batch.
// moves holds four rows of N: down, right, mirrored, upside down; colours N matrices (C, C + 1); either may be null.
// Launch: any number of blocks of any size; a block for each row is enough.
extern "C" __global__ void assemble(const unsigned char *__restrict__ images, const long long *__restrict__ indices,
                                    const long long *__restrict__ moves, const float *__restrict__ colours,
                                    const A *__restrict__ scale, T *__restrict__ y, long long N, int H, int W, int C) {
    for (long long row = blockIdx.x; row < N * H; row += gridDim.x) {
        long long n = row / H, h = row % H, down = 0, right = 0;
        bool mirrored = false;
        if (moves) {
            down = moves[n], right = moves[N + n], mirrored = moves[2 * N + n] != 0;
            if (moves[3 * N + n] != 0) h = H - 1 - h;
        }
        h -= down;
        bool row_inside = h >= 0 && h < H;
        const unsigned char *x = images + (row_inside ? (indices[n] * H + h) * W * C : 0);
        for (int j = threadIdx.x; j < W * C; j += blockDim.x) {
            int c = j % C;
            long long w = (mirrored ? W - 1 - j / C : j / C) - right;
            bool inside = row_inside && w >= 0 && w < W;
            float q = inside ? x[w * C + c] : 0;
            if (colours) {
                const float *m = colours + (n * C + c) * (C + 1);
                q = m[C];
                for (int k = 0; k < C; k++) q = __fadd_rn(q, __fmul_rn(inside ? x[w * C + k] : 0, m[k]));
                q = rintf(q < 0 ? 0 : q > 255 ? 255 : q);
            }
            put(y[row * W * C + j], (A)(((A)q - scale[c]) * scale[C + c]));
        }
    }
}
