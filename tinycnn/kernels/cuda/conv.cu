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
// few tiles for the GPU the depth is cut into parts that different blocks add up, and parts.cu adds these, in order.
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

// A map of rows (`ByRow`) has a place for every row of the tile; one of depths (`ByDepth`) has an entry for every depth
// of a step.  `address` puts the two together.

// Where along the depth a thread is: (block, kh, kw, c), c running fastest.  Channels are taken in blocks, and all cells
// of one block before the next, so that what was read for a cell is still in the L1 cache for its neighbours.
struct Cell {
    Digits at;  // kh, kw, and c within the block
    int c0;     // the block's first channel; behind the last block, no channel
};

struct Cells {
    int taps_down, taps_across, channels;

    __device__ __forceinline__ int count() const { return taps_down * taps_across; }
    __device__ __forceinline__ bool has_blocks() const { return channels % BK == 0; }
    __device__ __forceinline__ Radix radix() const { return {max(taps_across, 1), has_blocks() ? BK : channels}; }
    __device__ __forceinline__ Cell at(int k) const {
        int size = max(count(), 1) * radix().low;
        return {radix().split(k % size), k / size * radix().low};
    }
    __device__ __forceinline__ Digits step() const { return radix().split(BK); }
    __device__ __forceinline__ void advance(Cell &cell, const Digits &step) const {
        radix().add(cell.at, step);
        if (cell.at.high >= taps_down) cell.at.high -= taps_down, cell.c0 += radix().low;
    }
    __device__ __forceinline__ bool inside(const Cell &cell) const { return cell.c0 < channels; }
};

// An image (N, H, W, C), of which channels from `first` on take part.
struct Image {
    const T *data;
    int H, W, C, first;

    __device__ __forceinline__ int index(int n, int h, int w) const { return ((n * H + h) * W + w) * C + first; }
};

// A pixel: where the window begins at a position (the pixel that cell (0, 0) would meet, which may lie outside), or what
// is to be added to come to a cell.
struct __align__(16) Pixel {
    int offset, h, w, none;
};
constexpr int FAR = -(1 << 30);  // so far outside that nothing is met there; a multiple of 16 bytes, as all addresses are

__device__ __forceinline__ const T *meet(const Image &image, const Pixel &corner, const Pixel &cell, bool &wanted) {
    int4 at = *(const int4 *)&corner;  // one load
    wanted = (unsigned)(at.y + cell.h) < (unsigned)image.H && (unsigned)(at.z + cell.w) < (unsigned)image.W;
    return image.data + (at.x + cell.offset);
}

// a[m, k] of FORWARD and DGRAD: rows are positions, depths are cells.
struct Patches {
    Image image;
    Reach down, across;
    Cells cells;
    const Pixel *corners;  // of the rows of the tile

    typedef Cell Depth;
    typedef Digits Step;

    __device__ __forceinline__ Depth depth(int k) const { return cells.at(k); }
    __device__ __forceinline__ Step step() const { return cells.step(); }
    __device__ __forceinline__ void advance(Depth &d, const Step &step) const { cells.advance(d, step); }
    __device__ __forceinline__ Pixel place(const Depth &d) const {
        int h = d.at.high * down.dilation, w = d.at.middle * across.dilation;
        return {(h * image.W + w) * image.C + d.c0 + d.at.low, cells.inside(d) ? h : FAR, w, 0};
    }
    __device__ __forceinline__ const T *address(int r, const Pixel &cell, bool &wanted) const {
        return meet(image, corners[r], cell, wanted);
    }
};

// a[(kh, kw, c), m] of WGRAD: rows are cells, depths are positions.
struct PatchesTransposed {
    Image image;
    Reach down, across;
    int channels, first, end;

    struct Depth {
        Digits at;  // n, oh, ow
        int left;
    };
    typedef Digits Step;
    typedef Pixel Row;
    typedef Pixel Entry;

    __device__ __forceinline__ Radix radix() const { return {down.count, across.count}; }
    __device__ __forceinline__ Row row(int r) const {
        Digits cell = Radix{across.taps, channels}.split(first + r);
        if (cell.high >= down.taps) return {0, FAR, 0, 0};
        int h = cell.high * down.dilation, w = cell.middle * across.dilation;
        return {(h * image.W + w) * image.C + cell.low, h, w, 0};
    }
    __device__ __forceinline__ Depth depth(int k) const { return {radix().split(k), end - k}; }
    __device__ __forceinline__ Step step() const { return radix().split(BK); }
    __device__ __forceinline__ void advance(Depth &d, const Step &step) const {
        radix().add(d.at, step);
        d.left -= BK;
    }
    __device__ __forceinline__ Entry entry(const Depth &d) const {
        int h = down.start + d.at.middle * down.step, w = across.start + d.at.low * across.step;
        return {image.index(d.at.high, h, w), d.left > 0 ? h : FAR, w, 0};
    }
    __device__ __forceinline__ const T *address(const Row &row, const Entry &corner, bool &wanted) const {
        return meet(image, corner, row, wanted);
    }
};

// b[n, k] of FORWARD: a row of the filters is a run of memory, but for the order of the blocks.
struct Filters {
    const T *data;
    int first, rows;
    Cells cells;

    struct Depth {
        int offset, cell;  // cell: counts the cells of a block, where there are several blocks
    };
    typedef int Step;

    __device__ __forceinline__ int length() const { return cells.count() * cells.channels; }
    __device__ __forceinline__ Depth depth(int k) const {
        if (!cells.has_blocks()) return {k, 0};
        int cell = k / BK % cells.count(), block = k / BK / cells.count();
        return {cell * cells.channels + block * BK + k % BK, cell};
    }
    __device__ __forceinline__ Step step() const { return cells.has_blocks() ? cells.channels : BK; }
    __device__ __forceinline__ void advance(Depth &d, Step step) const {
        d.offset += step, d.cell += cells.has_blocks();
        if (d.cell == cells.count()) d.cell = 0, d.offset -= length() - BK;
    }
    __device__ __forceinline__ Depth place(const Depth &d) const { return d; }
    __device__ __forceinline__ const T *address(int r, const Depth &place, bool &wanted) const {
        wanted = place.offset < length() && first + r < rows;
        return data + ((first + r) * length() + place.offset);
    }
};

// b[c, k] of DGRAD, where k runs over the cells of a phase and their OC/G filters.
struct FiltersTransposed {
    const T *data;
    Phase down, across;
    Cells cells;
    int first, rows, KH, KW;

    typedef int Row;
    typedef Cell Depth;
    typedef Digits Step;
    typedef int Entry;

    __device__ __forceinline__ Row row(int r) const { return first + r < rows ? first + r : FAR; }
    __device__ __forceinline__ Depth depth(int k) const { return cells.at(k); }
    __device__ __forceinline__ Step step() const { return cells.step(); }
    __device__ __forceinline__ void advance(Depth &d, const Step &step) const { cells.advance(d, step); }
    __device__ __forceinline__ Entry entry(const Depth &d) const {
        int kh = down.cell + down.cell_step * d.at.high, kw = across.cell + across.cell_step * d.at.middle;
        return cells.inside(d) ? (((d.c0 + d.at.low) * KH + kh) * KW + kw) * rows : FAR;
    }
    __device__ __forceinline__ const T *address(Row c, Entry filter, bool &wanted) const {
        wanted = filter + c >= 0;
        return data + (filter + c);
    }
};

// b[o, m] of WGRAD: dy is a matrix with a position in every row.
struct Gradient {
    const T *data;
    int first, channels, OC, end;

    typedef int Row;
    typedef int Depth;
    typedef int Step;
    typedef int Entry;

    __device__ __forceinline__ Row row(int r) const { return first + r < channels ? first + r : FAR; }
    __device__ __forceinline__ Depth depth(int k) const { return k; }
    __device__ __forceinline__ Step step() const { return BK; }
    __device__ __forceinline__ void advance(Depth &m, Step by) const { m += by; }
    __device__ __forceinline__ Entry entry(Depth m) const { return m < end ? m * OC : FAR; }
    __device__ __forceinline__ const T *address(Row o, Entry position, bool &wanted) const {
        wanted = position + o >= 0;
        return data + (position + o);
    }
};

// ---- the kernel

// RUN neighbours in memory, written at once where they lie so.
template <typename S, int RUN>
struct __align__(sizeof(S) * RUN) Run {
    S v[RUN];
};

// Write the tile to y, or to this part's share of `parts`: element (r, n) to out[r] + n·stride.  out[r] < 0: no row.
// `together`: runs of columns lie together, and none reaches over the last column.
template <typename TileA, typename TileB>
__device__ __forceinline__ void write(const Sums<TileA, TileB> &sums, const int *out, int first, int columns, int stride,
                                      bool together, const T *bias, T *y, A *parts, bool add) {
    constexpr int RUN = Sums<TileA, TileB>::RUN;
    sums.each([&](int r, int n, const A *run) {
        n += first;
        if (out[r] < 0 || n >= columns) return;
        if (together) {
            int i = out[r] + n;
            Run<A, RUN> own;
            Run<T, RUN> rounded;
#pragma unroll
            for (int e = 0; e < RUN; e++) {
                own.v[e] = run[e];
                A sum = run[e];
                if (bias) sum += get(bias[n + e]);
                if (add) sum += get(y[i + e]);
                put(rounded.v[e], sum);
            }
            if (parts)
                *(Run<A, RUN> *)(parts + i) = own;
            else
                *(Run<T, RUN> *)(y + i) = rounded;
            return;
        }
#pragma unroll
        for (int e = 0; e < RUN && n + e < columns; e++) {
            int i = out[r] + (n + e) * stride;
            A sum = run[e];
            if (parts) {
                parts[i] = sum;
                continue;
            }
            if (bias) sum += get(bias[n + e]);
            if (add) sum += get(y[i]);
            put(y[i], sum);
        }
    });
}

// y (of `size` elements) from an image and a matrix: (x, w), (dy, w) or (x, dy).  With `parts` (splits, size) given, the
// sums go there and not to y.  `add`: y += instead of =.  No array may have more than 2^30 elements.
extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT) convolve(const T *__restrict__ image, const T *__restrict__ matrix,
    const T *__restrict__ bias, T *__restrict__ y, A *__restrict__ parts, int size, int splits, int row_tiles, bool add,
    SIZES) {
    DYNAMIC_SHARED(T, shared);
    __shared__ int out[BM];
    int CG = C / G, OCG = OC / G;
    const int COLUMNS = PASS == DGRAD ? CG : OCG;
    unsigned rest = blockIdx.x, column_tiles = (COLUMNS + BN - 1) / BN;
    int column = rest % column_tiles * BN;
    rest /= column_tiles;
    int row = rest % row_tiles * BM;
    rest /= row_tiles;
    int group = G == 1 ? 0 : rest % G;
    if (G > 1) rest /= G;
#if PASS == DGRAD
    int phases_across = min(SW, W), phases_down = min(SH, H);
    int w0 = rest % phases_across, h0 = rest / phases_across % phases_down, part = rest / phases_across / phases_down;
    Phase down(h0, H, KH, SH, PH, DH), across(w0, W, KW, SW, PW, DW);
    int rows = N * down.reach.count * across.reach.count, depth = down.reach.taps * across.reach.taps * OCG;
#else
    int part = rest;
    Reach down = {-PH, OH, SH, KH, DH}, across = {-PW, OW, SW, KW, DW};
    int rows = PASS == FORWARD ? N * OH * OW : KH * KW * CG, depth = PASS == FORWARD ? KH * KW * CG : N * OH * OW;
#endif
    if (row >= rows) return;  // a smaller phase

    int steps = (depth + BK - 1) / BK, each = splits == 1 ? steps : (steps + splits - 1) / splits;
    int begin = min(part * each, steps);
    steps = min(each, steps - begin), begin *= BK;
#if PASS == WGRAD
    typedef ByDepth<BM> TileA;
    typedef ByDepth<BN> TileB;
    __shared__ TileA::Table<PatchesTransposed> corners;
    __shared__ TileB::Table<Gradient> positions;
    for (int r = threadIdx.x; r < BM; r += BLOCK) out[r] = row + r < rows ? row + r : -1;
    int end = min(begin + steps * BK, depth);
    PatchesTransposed a = {{image, H, W, C, group * CG}, down, across, CG, row, end};
    Gradient b = {matrix + group * OCG, column, OCG, OC, end};
    TileA::Loader<VA, PatchesTransposed> load_a(a, corners, begin, 0);
    TileB::Loader<VB, Gradient> load_b(b, positions, begin, 32);
    int stride = rows, first = group * OCG * rows;
#else
    __shared__ Pixel corners[BM];
    typedef ByRow<BM> TileA;
#if PASS == FORWARD
    Patches a = {{image, H, W, C, group * CG}, down, across, {KH, KW, CG}, corners};
    Filters b = {matrix + group * OCG * depth, column, OCG, a.cells};
    typedef ByRow<BN> TileB;
    TileB::Loader<VB, Filters> load_b(b, begin);
    int first = group * OCG;
#else
    typedef ByDepth<BN> TileB;
    __shared__ TileB::Table<FiltersTransposed> filters;
    Cells cells = {down.reach.taps, across.reach.taps, OCG};
    Patches a = {{image, OH, OW, OC, group * OCG}, down.reach, across.reach, cells, corners};
    FiltersTransposed b = {matrix + group * OCG * KH * KW * CG, down, across, cells, column, CG, KH, KW};
    TileB::Loader<VB, FiltersTransposed> load_b(b, filters, begin, 0);
    int first = group * CG;
#endif
    TileA::Loader<VA, Patches> load_a(a, begin);
    for (int r = threadIdx.x; r < BM; r += BLOCK) {
        corners[r] = {0, FAR, 0, 0};
        out[r] = -1;
        if (row + r >= rows) continue;
        Digits at = Radix{a.down.count, a.across.count}.split(row + r);
        int h = a.down.start + a.down.step * at.middle, w = a.across.start + a.across.step * at.low;
        corners[r] = {a.image.index(at.high, h, w), h, w, 0};
#if PASS == FORWARD
        out[r] = (row + r) * OC;
#else
        out[r] = ((at.high * H + h0 + SH * at.middle) * W + w0 + SW * at.low) * C;
#endif
    }
    const int stride = 1;
#endif
    for (int s = 0; s < STAGES; s++) load_a.prepare(s), load_b.prepare(s);
    __syncthreads();
    Sums<TileA, TileB> sums;
    block_product<TileA, TileB>(load_a, load_b, steps, shared, sums);
    bool together = stride == 1 && COLUMNS % Sums<TileA, TileB>::RUN == 0 && size % Sums<TileA, TileB>::RUN == 0;
    if (parts) parts += (long long)part * size + first;
    write(sums, out, column, COLUMNS, stride, together, bias ? bias + first : bias, y + first, parts, add);
}
