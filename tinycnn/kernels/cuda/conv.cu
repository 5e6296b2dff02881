// Convolution as implicit products of matrices: the twins of tinycnn/kernels/conv/plan.py.
//
// Images are (N, H, W, C), filters w (OC, KH, KW, C/G), all contiguous.  One kernel, compiled for one of three passes:
//
//   PASS      rows m                     columns n     depth k                    a[m, k]    b[n, k]
//   FORWARD   positions (n, oh, ow)      OC/G          cells (kh, kw, c), C/G     of x       w[n, k]
//   DGRAD     pixels (n, h, w)           C/G           cells (kh, kw, o), OC/G    of dy      w[o, kh, kw, n]
//   WGRAD     cells (kh, kw, c)          OC/G          positions (n, oh, ow)      of x       dy[k, n]
//
// `a` is always made of the patches that a window sees in an image, `Reach` says where.  DGRAD is the convolution that
// `tinycnn.kernels.conv.phases` describes: pixels whose coordinates leave the same remainders on division by the stride
// meet the same cells of the filter, and each such phase is a product of its own.
//
// **Launch.**  One dimension of blocks, each a tile of one group, phase and part: column tiles run fastest, so that
// neighbouring blocks read the same patches, which are then in the cache; parts slowest.  **Parts**: where there are too
// few tiles for the GPU the depth is cut into parts that different blocks add up, and `add_parts` adds these, in order.
// **Traffic**: every pixel is read once for each cell that meets it and each tile of columns, from the cache but for
// the first time; y is written once.
#include "gemm.cuh"

#define FORWARD 0
#define DGRAD 1
#define WGRAD 2

#define SIZES int N, int H, int W, int C, int OC, int G, int OH, int OW, int KH, int KW, int SH, int SW, int PH, int PW, int DH, int DW

// What a window sees along one axis: at position i, pixels start + step·i + dilation·k for k < taps.
struct Reach {
    int start, count, step, taps, dilation;
};

// One phase along an axis of `size` pixels: pixels first, first + S, …  They meet the cells cell, cell + cell_step, …
// of the filter, in outputs that lie as `reach` says.
struct Phase {
    Reach reach;
    int cell, cell_step;

    __device__ Phase(int first, int size, int taps, int S, int P, int D) {
        int g = D, rest = S;  // g becomes gcd(D, S)
        while (rest != 0) {
            int r = g % rest;
            g = rest, rest = r;
        }
        cell_step = S / g, cell = 0;
        int end = min(cell_step, taps);
        while (cell < end && (first + P - D * cell) % S != 0) cell++;
        bool any = cell < end;
        reach.start = any ? (first + P - D * cell) / S : 0;
        reach.count = (size - first + S - 1) / S, reach.step = 1;
        reach.taps = any ? (taps - cell + cell_step - 1) / cell_step : 0, reach.dilation = -D / g;
    }
};

// ---- maps: where the elements of a and b are

// An image (N, H, W, C), of which a group of `channels` from `c` on takes part.
struct Image {
    const T *data;
    int H, W, C, c, channels;
};

// Where position m of a window begins: the pixel (n, h, w) that cell (0, 0) would meet, which may lie outside.
struct __align__(16) Corner {
    long long offset;
    int h, w;
};
constexpr int FAR = -(1 << 30);  // so far outside that no cell lies inside

// a[m, (kh, kw, c)] of FORWARD and DGRAD.
struct Patches {
    Image image;
    Reach down, across;
    const Corner *corners;  // of the rows of the tile
    long long end;

    struct Depth {
        Digits at;
        int left;
    };
    typedef Digits Step;
    struct Cell {
        int h, w;
        long long offset;
    };

    __device__ Radix radix() const { return {max(across.taps, 1), image.channels}; }
    __device__ Depth depth(long long k) const { return {radix().split(k), (int)(end - k)}; }
    __device__ Step step(int by) const { return radix().split(by); }
    __device__ __forceinline__ void advance(Depth &d, const Step &by) const {
        radix().add(d.at, by);
        d.left -= BK;
    }
    __device__ __forceinline__ Cell cell(const Depth &d) const {
        int h = d.at.high * down.dilation, w = d.at.middle * across.dilation;
        return {d.left > 0 ? h : FAR, w, ((long long)h * image.W + w) * image.C + d.at.low};
    }
    __device__ __forceinline__ const T *address(int r, const Cell &cell, bool &wanted) const {
        Corner corner = corners[r];
        wanted = (unsigned)(corner.h + cell.h) < (unsigned)image.H && (unsigned)(corner.w + cell.w) < (unsigned)image.W;
        return image.data + (wanted ? corner.offset + cell.offset : 0);
    }
};

// a[(kh, kw, c), m] of WGRAD: the same, the other way round.
struct PatchesTransposed {
    Image image;
    Reach down, across;
    int first;
    long long end;

    struct Row {
        int h, w, c;
    };
    struct Depth {
        Digits at;
        int left;
    };
    struct Step {
        Digits digits;
        int by;
    };

    __device__ Radix radix() const { return {down.count, across.count}; }
    __device__ Row row(int r) const {
        Digits cell = Radix{across.taps, image.channels}.split(first + r);
        if (cell.high >= down.taps) return {FAR, 0, 0};
        return {down.start + cell.high * down.dilation, across.start + cell.middle * across.dilation,
                image.c + cell.low};
    }
    __device__ Depth depth(long long k) const { return {radix().split(k), (int)(end - k)}; }
    __device__ Step step(int by) const { return {radix().split(by), by}; }
    __device__ __forceinline__ void advance(Depth &d, const Step &step) const {
        radix().add(d.at, step.digits);
        d.left -= step.by;
    }
    __device__ __forceinline__ const T *address(const Row &row, const Depth &d, bool &wanted) const {
        int h = row.h + d.at.middle * down.step, w = row.w + d.at.low * across.step;
        wanted = d.left > 0 && (unsigned)h < (unsigned)image.H && (unsigned)w < (unsigned)image.W;
        return image.data + (wanted ? (((long long)d.at.high * image.H + h) * image.W + w) * image.C + row.c : 0);
    }
};

// b[n, k] of FORWARD: row n of the filters is a run of memory.
struct Filters {
    const T *data;
    int first, rows;
    long long length;

    typedef long long Depth;
    typedef int Step;
    typedef long long Cell;

    __device__ Depth depth(long long k) const { return k; }
    __device__ Step step(int by) const { return by; }
    __device__ __forceinline__ void advance(Depth &k, Step by) const { k += by; }
    __device__ __forceinline__ Cell cell(Depth k) const { return k; }
    __device__ __forceinline__ const T *address(int r, Cell k, bool &wanted) const {
        wanted = first + r < rows && k < length;
        return data + (wanted ? (first + r) * length + k : 0);
    }
};

// b[c, (kh, kw, o)] of DGRAD: kh and kw count the cells of the phase.
struct FiltersTransposed {
    const T *data;
    Phase down, across;
    int first, rows, channels, KH, KW;
    long long end;

    typedef int Row;
    struct Depth {
        Digits at;
        int left;
    };
    struct Step {
        Digits digits;
        int by;
    };

    __device__ Radix radix() const { return {max(across.reach.taps, 1), channels}; }
    __device__ Row row(int r) const { return first + r; }
    __device__ Depth depth(long long k) const { return {radix().split(k), (int)(end - k)}; }
    __device__ Step step(int by) const { return {radix().split(by), by}; }
    __device__ __forceinline__ void advance(Depth &d, const Step &step) const {
        radix().add(d.at, step.digits);
        d.left -= step.by;
    }
    __device__ __forceinline__ const T *address(Row c, const Depth &d, bool &wanted) const {
        int kh = down.cell + down.cell_step * d.at.high, kw = across.cell + across.cell_step * d.at.middle;
        wanted = d.left > 0 && c < rows;
        return data + (wanted ? (((long long)d.at.low * KH + kh) * KW + kw) * rows + c : 0);
    }
};

// b[o, m] of WGRAD: dy is a matrix with a position in every row.
struct Gradient {
    const T *data;
    int first, channels;
    int OC;
    long long end;

    typedef int Row;
    typedef long long Depth;
    typedef int Step;

    __device__ Row row(int r) const { return first + r; }
    __device__ Depth depth(long long k) const { return k; }
    __device__ Step step(int by) const { return by; }
    __device__ __forceinline__ void advance(Depth &m, Step by) const { m += by; }
    __device__ __forceinline__ const T *address(Row o, Depth m, bool &wanted) const {
        wanted = o < channels && m < end;
        return data + (wanted ? m * OC + o : 0);
    }
};

// ---- the kernel

// Write the tile to y, or to this part's share of `parts`: element (r, n) to out[r] + n·stride.  out[r] < 0: no row.
template <typename TileA, typename TileB>
__device__ __forceinline__ void write(const Sums<TileA, TileB> &sums, const long long *out, int first, int columns,
                                      long long stride, const T *bias, T *y, A *parts, bool add) {
    sums.each([&](int r, int n, A sum) {
        if (out[r] < 0 || first + n >= columns) return;
        long long i = out[r] + (first + n) * stride;
        if (parts) {
            parts[i] = sum;
        } else {
            if (bias) sum += get(bias[first + n]);
            if (add) sum += get(y[i]);
            put(y[i], sum);
        }
    });
}

// y (of `size` elements) from an image and a matrix: (x, w), (dy, w) or (x, dy).  With `parts` (splits, size) given, the
// sums go there and not to y.  `add`: y += instead of =.
extern "C" __global__ void __launch_bounds__(BLOCK) convolve(const T *__restrict__ image, const T *__restrict__ matrix,
    const T *__restrict__ bias, T *__restrict__ y, A *__restrict__ parts, long long size, int splits, int row_tiles,
    bool add, SIZES) {
    DYNAMIC_SHARED(T, shared);
    __shared__ long long out[BM];
    int CG = C / G, OCG = OC / G;
    const int COLUMNS = PASS == DGRAD ? CG : OCG;
    int column_tiles = (COLUMNS + BN - 1) / BN;
    unsigned rest = blockIdx.x;
    int column = rest % column_tiles * BN;
    rest /= column_tiles;
    long long row = (long long)(rest % row_tiles) * BM;
    rest /= row_tiles;
    int group = rest % G;
    rest /= G;
#if PASS == DGRAD
    __shared__ Corner corners[BM];
    int phases_across = min(SW, W), phases_down = min(SH, H);
    int w0 = rest % phases_across, h0 = rest / phases_across % phases_down, part = rest / phases_across / phases_down;
    Phase down(h0, H, KH, SH, PH, DH), across(w0, W, KW, SW, PW, DW);
    long long rows = (long long)N * down.reach.count * across.reach.count;
    long long depth = (long long)down.reach.taps * across.reach.taps * OCG;
#elif PASS == FORWARD
    __shared__ Corner corners[BM];
    int part = rest;
    Reach down = {-PH, OH, SH, KH, DH}, across = {-PW, OW, SW, KW, DW};
    long long rows = (long long)N * OH * OW, depth = (long long)KH * KW * CG;
#else
    int part = rest;
    Reach down = {-PH, OH, SH, KH, DH}, across = {-PW, OW, SW, KW, DW};
    long long rows = (long long)KH * KW * CG, depth = (long long)N * OH * OW;
#endif
    if (row >= rows) return;  // a smaller phase

    long long each = ((depth + BK - 1) / BK + splits - 1) / splits * BK;
    long long begin = min(part * each, depth), end = min(begin + each, depth);
    int steps = (int)((end - begin + BK - 1) / BK);
    if (parts) parts += part * size;
#if PASS == WGRAD
    for (int r = threadIdx.x; r < BM; r += BLOCK) out[r] = row + r < rows ? row + r : -1;
    PatchesTransposed a = {{image, H, W, C, group * CG, CG}, down, across, (int)row, end};
    Gradient b = {matrix + group * OCG, column, OCG, OC, end};
    typedef ByDepth<BM> TileA;
    typedef ByDepth<BN> TileB;
    long long stride = rows, first = (long long)group * OCG * rows;
#else
#if PASS == FORWARD
    Image from = {image, H, W, C, group * CG, CG};
    Radix positions = {down.count, across.count};
    Patches a = {from, down, across, corners, end};
    Filters b = {matrix + (long long)group * OCG * depth, column, OCG, depth};
    typedef ByRow<BN> TileB;
    long long first = group * OCG;
#else
    Image from = {image, OH, OW, OC, group * OCG, OCG};
    Radix positions = {down.reach.count, across.reach.count};
    Patches a = {from, down.reach, across.reach, corners, end};
    FiltersTransposed b = {matrix + (long long)group * OCG * KH * KW * CG, down, across, column, CG, OCG, KH, KW, end};
    typedef ByDepth<BN> TileB;
    long long first = group * CG;
#endif
    typedef ByRow<BM> TileA;
    for (int r = threadIdx.x; r < BM; r += BLOCK) {
        corners[r] = {0, FAR, 0};
        out[r] = -1;
        if (row + r >= rows) continue;
        Digits at = positions.split(row + r);
        int h = a.down.start + a.down.step * at.middle, w = a.across.start + a.across.step * at.low;
        corners[r] = {(((long long)at.high * from.H + h) * from.W + w) * from.C + from.c, h, w};
#if PASS == FORWARD
        out[r] = (row + r) * OC;
#else
        out[r] = (((long long)at.high * H + h0 + SH * at.middle) * W + w0 + SW * at.low) * C;
#endif
    }
    const long long stride = 1;
#endif
    __syncthreads();
    Sums<TileA, TileB> sums;
    typename TileA::template Loader<VA, decltype(a)> load_a(a, begin);
    typename TileB::template Loader<VB, decltype(b)> load_b(b, begin);
    block_product<TileA, TileB>(load_a, load_b, steps, shared, sums);
    write(sums, out, column, COLUMNS, stride, bias ? bias + first : bias, y + first, parts ? parts + first : parts, add);
}

// y[i] = Σ_s parts[s, i] + bias[i % OC], or added to y; s from 0 up.  bias may be null.
// Reads parts (splits, size) once, writes y (size,).
extern "C" __global__ void add_parts(const A *__restrict__ parts, int splits, long long size,
                                     const T *__restrict__ bias, int OC, T *__restrict__ y, bool add) {
    for (EACH(i, size)) {
        A sum = 0;
#pragma unroll 4
        for (int s = 0; s < splits; s++) sum += parts[s * size + i];
        if (bias) sum += get(bias[i % OC]);
        if (add) sum += get(y[i]);
        put(y[i], sum);
    }
}
