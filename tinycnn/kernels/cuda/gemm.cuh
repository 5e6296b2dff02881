// A product of two matrices, tile by tile: the core of convolution and of linear layers.
//
//     y[m, n] = Σ_k a[m, k]·b[n, k]
//
// The matrices are never there: a *map* says where element (m, k) lies in the image or among the filters, and the
// elements are copied straight from there into shared memory (an *implicit* GEMM).  One block makes a tile of BM×BN
// elements of y, in steps of BK along the depth k:
//
//     global memory --copy_async--> shared memory (STAGES steps, one in use, the others on their way)
//                   --fetch-->      registers     --multiply--> sums in registers
//
// Each warp makes WM×WN of the tile.  Sums are taken in order of k, so results do not depend on timing.
//
// Macros: BM, BN, BK, WM, WN, STAGES; TENSOR 1 to multiply on tensor cores (float: rounded to TF32; sums in float).
#include "common.cuh"

constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN, BLOCK = 32 * WARPS_M * WARPS_N;
constexpr int E = 16 / sizeof(T);  // elements in 16 bytes, the longest load

static_assert(BM % WM == 0 && BN % WN == 0 && STAGES >= 2, "warps must cover the tile");

// How many blocks should have room on a multiprocessor, going by the registers that a thread needs: its sums, and about
// as many more as are added here.
constexpr int REGISTERS = BM * BN / BLOCK * (int)(sizeof(A) / 4) + (TENSOR ? 64 : 120);
constexpr int RESIDENT = 65536 / (BLOCK * REGISTERS) > 1 ? 65536 / (BLOCK * REGISTERS) : 1;

// ---- instructions of the GPU (tests/cuda_shim.h has them in plain C++)

#ifndef TINYCNN_SHIM
// Begin to copy BYTES to shared memory, `offset` elements from `shared` on; or that many zeros if the source is not
// `wanted`, which may then lie anywhere.
template <int BYTES>
__device__ __forceinline__ void copy_async(T *shared, int offset, const T *global, bool wanted) {
    unsigned to = (unsigned)__cvta_generic_to_shared(shared) + offset * sizeof(T);
    int bytes = wanted ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
    else if constexpr (BYTES >= 4)
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(global), "n"(BYTES), "r"(bytes)
                     : "memory");
    else
        *(unsigned short *)(shared + offset) = wanted ? *(const unsigned short *)global : 0;
}
// What was begun since the last call is one group.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Wait until all but the last PENDING groups of this thread are there.
template <int PENDING>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8×8 matrices of 16-bit elements (8×4 of 32-bit ones): lane l says where row l % 8 of matrix l / 8 is, and gets
// row l / 4 of each, word l % 4.  `_trans`: of the transposed matrices, 16-bit elements only.
#define MMA_LOAD(variant)                                                                          \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" variant ".shared.b16 {%0, %1, %2, %3}, [%4];"         \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                      \
                 : "r"((unsigned)__cvta_generic_to_shared(shared) + offset * (unsigned)sizeof(T)) : "memory")
__device__ __forceinline__ void mma_load(unsigned r[4], const T *shared, int offset) { MMA_LOAD(""); }
__device__ __forceinline__ void mma_load_trans(unsigned r[4], const T *shared, int offset) { MMA_LOAD(".trans"); }
// To the nearest number of 8 + 10 bits, ties away from zero.
__device__ __forceinline__ unsigned to_tf32(unsigned x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(__uint_as_float(x)));
    return y;
}
// c (16×8) += a (16×k) b (k×8), all of it spread over the warp: lane l, with g = l / 4 and t = l % 4, has
// c[g][2t], c[g][2t + 1], c[g + 8][2t], c[g + 8][2t + 1];  and of a and b what `fetch_a` and `fetch_b` give it.
#define MMA_ASM(shape, type)                                                                             \
    asm("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
        "{%8, %9}, {%0, %1, %2, %3};"                                                                    \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                 \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
__device__ __forceinline__ void mma_multiply(float, float c[4], const unsigned a[4], const unsigned b[2]) {
    MMA_ASM("m16n8k8", "tf32");
}
__device__ __forceinline__ void mma_multiply(__half, float c[4], const unsigned a[4], const unsigned b[2]) {
    MMA_ASM("m16n8k16", "f16");
}
__device__ __forceinline__ void mma_multiply(bfloat16, float c[4], const unsigned a[4], const unsigned b[2]) {
    MMA_ASM("m16n8k16", "bf16");
}
#endif

// ---- numbers that count without division

// The digits of a number: (high·MIDDLE + middle)·LOW + low.
struct Digits {
    int high, middle, low;
};

struct Radix {
    int middle, low;

    __device__ __forceinline__ Digits split(unsigned n) const {
        unsigned rest = n / low;
        return {(int)(rest / middle), (int)(rest % middle), (int)(n % low)};
    }
    // Digit by digit, each with at most one carry.
    __device__ __forceinline__ void add(Digits &d, const Digits &step) const {
        d.low += step.low, d.middle += step.middle, d.high += step.high;
        if (d.low >= low) d.low -= low, d.middle++;
        if (d.middle >= middle) d.middle -= middle, d.high++;
    }
};

// ---- tiles in shared memory

// A tile of ROWS×BK whose rows lie one after the other: tile[row][k].  Rows are 16 bytes apart more than they are
// long, so that eight of them, read at the same k, lie in different banks.
template <int ROWS>
struct ByRow {
    static constexpr int STRIDE = BK + E, SIZE = ROWS * STRIDE;
    static __device__ __forceinline__ int at(int row, int k) { return row * STRIDE + k; }

    // Copy the tile: V elements along the depth at a time.  The map has a table of the rows, if it needs one.
    template <int V, typename Map>
    struct Loader {
        static constexpr int CHUNKS = BK / V, STEP = BLOCK / CHUNKS;
        static_assert(BLOCK % CHUNKS == 0, "every thread keeps to its place along the depth");
        const Map &map;
        typename Map::Depth depth;
        typename Map::Step step;

        __device__ __forceinline__ Loader(const Map &map, int k)
            : map(map), depth(map.depth(k + threadIdx.x % CHUNKS * V)), step(map.step()) {}

        __device__ __forceinline__ void prepare(int) {}

        // Addresses first, then copies: they depend on shared memory themselves, and to read it between copies is slow.
        __device__ __forceinline__ void load(T *tile, int) {
            constexpr int LOADS = (ROWS + STEP - 1) / STEP, BATCH = LOADS < 4 ? LOADS : 4;
            auto place = map.place(depth);
            int own = threadIdx.x / CHUNKS;
            T *to = tile + own * STRIDE + threadIdx.x % CHUNKS * V;
#pragma unroll
            for (int i = 0; i < LOADS; i += BATCH) {
                const T *from[BATCH];
                bool wanted[BATCH];
#pragma unroll
                for (int j = 0; j < BATCH; j++) from[j] = map.address((i + j) * STEP + own, place, wanted[j]);
#pragma unroll
                for (int j = 0; j < BATCH; j++)
                    if (ROWS % STEP == 0 || (i + j) * STEP + own < ROWS)
                        copy_async<V * sizeof(T)>(to, (i + j) * STEP * STRIDE, from[j], wanted[j]);
            }
            map.advance(depth, step);
        }
    };

    // For plain arithmetic: out[e][i], e < E, is element k + e of row first + lane + LANES·i.
    template <int COUNT, int LANES>
    static __device__ __forceinline__ void fetch(const T *tile, int first, int lane, int k, T out[E][COUNT]) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            struct __align__(16) { T v[E]; } run;
            *(uint4 *)&run = *(const uint4 *)(tile + (first + lane + LANES * i) * STRIDE + k);
#pragma unroll
            for (int e = 0; e < E; e++) out[e][i] = run.v[e];
        }
    }
    template <int LANES>
    static __device__ __forceinline__ int row_of(int lane, int i) { return lane + LANES * i; }

    // For tensor cores: rows first…first + 15 and 32 bytes of depth from k on.
    static __device__ __forceinline__ void fetch_a(const T *tile, int first, int k, unsigned a[4]) {
        int lane = threadIdx.x % 32;
        mma_load(a, tile + lane % 16 * STRIDE + lane / 16 * E, first * STRIDE + k);
    }
    static __device__ __forceinline__ void fetch_b(const T *tile, int first, int k, unsigned b[4]) {
        int lane = threadIdx.x % 32;
        mma_load(b, tile + (lane % 8 + lane / 16 * 8) * STRIDE + lane / 8 % 2 * E, first * STRIDE + k);
    }
};

// The same tile with the elements of one depth together: tile[k][row], for sources in which neighbouring rows are
// neighbours in memory.
template <int ROWS>
struct ByDepth {
    static constexpr int STRIDE = ROWS + 8, SIZE = BK * STRIDE;
    static __device__ __forceinline__ int at(int row, int k) { return k * STRIDE + row; }

    // Where the depths of STAGES steps lie, in shared memory.  Written step by step, by BK threads, each of which keeps to
    // its place in a step; where the next one is they remember here too, as registers are scarce.
    template <typename Map>
    struct Table {
        typename Map::Entry entries[STAGES * BK];
        typename Map::Depth depths[BK];
    };

    // Copy the tile: V rows at a time.  Threads from `helper` on write the table.
    template <int V, typename Map>
    struct Loader {
        static constexpr int CHUNKS = ROWS / V, STEP = BLOCK / CHUNKS < BK ? BLOCK / CHUNKS : BK;
        static_assert(BLOCK % CHUNKS == 0 && BK % STEP == 0, "every thread keeps to its rows");
        const Map &map;
        Table<Map> &table;
        typename Map::Row row;
        typename Map::Step step;
        int t;

        __device__ __forceinline__ Loader(const Map &map, Table<Map> &table, int k, int helper)
            : map(map), table(table), row(map.row(threadIdx.x % CHUNKS * V)), step(map.step()), t(threadIdx.x - helper) {
            if ((unsigned)t < BK) table.depths[t] = map.depth(k + t);
        }

        __device__ __forceinline__ void prepare(int slot) {
            if ((unsigned)t >= BK) return;
            auto depth = table.depths[t];
            table.entries[slot * BK + t] = map.entry(depth);
            map.advance(depth, step);
            table.depths[t] = depth;
        }
        __device__ __forceinline__ void load(T *tile, int slot) {
            constexpr int LOADS = BK / STEP, BATCH = LOADS < 4 ? LOADS : 4;
            int own = threadIdx.x / CHUNKS;
            if (BLOCK / CHUNKS > BK && own >= BK) return;
            T *to = tile + own * STRIDE + threadIdx.x % CHUNKS * V;
            const typename Map::Entry *entries = table.entries + slot * BK + own;
#pragma unroll
            for (int i = 0; i < LOADS; i += BATCH) {
                const T *from[BATCH];
                bool wanted[BATCH];
#pragma unroll
                for (int j = 0; j < BATCH; j++) from[j] = map.address(row, entries[(i + j) * STEP], wanted[j]);
#pragma unroll
                for (int j = 0; j < BATCH; j++)
                    copy_async<V * sizeof(T)>(to, (i + j) * STEP * STRIDE, from[j], wanted[j]);
            }
        }
    };

    // out[e][i] is element k + e of a row; rows lie E by E, as one load brings them.
    template <int COUNT, int LANES>
    static __device__ __forceinline__ void fetch(const T *tile, int first, int lane, int k, T out[E][COUNT]) {
        static_assert(COUNT % E == 0, "rows are loaded 16 bytes at a time");
#pragma unroll
        for (int e = 0; e < E; e++)
#pragma unroll
            for (int i = 0; i < COUNT; i += E)
                *(uint4 *)&out[e][i] = *(const uint4 *)(tile + (k + e) * STRIDE + first + row_of<LANES>(lane, i));
    }
    template <int LANES>
    static __device__ __forceinline__ int row_of(int lane, int i) { return E * lane + i % E + E * LANES * (i / E); }

    static __device__ __forceinline__ void fetch_a(const T *tile, int first, int k, unsigned a[4]) {
        int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        if constexpr (sizeof(T) == 2) {
            mma_load_trans(a, tile + (lane % 8 + lane / 16 * 8) * STRIDE + lane / 8 % 2 * 8, k * STRIDE + first);
        } else {
            const unsigned *at = (const unsigned *)(tile + (k + t) * STRIDE + first + g);
            a[0] = at[0], a[1] = at[8], a[2] = at[4 * STRIDE], a[3] = at[4 * STRIDE + 8];
        }
    }
    static __device__ __forceinline__ void fetch_b(const T *tile, int first, int k, unsigned b[4]) {
        int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        if constexpr (sizeof(T) == 2) {
            mma_load_trans(b, tile + (lane % 8 + lane / 8 % 2 * 8) * STRIDE + lane / 16 * 8, k * STRIDE + first);
        } else {
            const unsigned *at = (const unsigned *)(tile + (k + t) * STRIDE + first + g);
            b[0] = at[0], b[1] = at[4 * STRIDE], b[2] = at[8], b[3] = at[4 * STRIDE + 8];
        }
    }
};

// ---- the sums that a thread holds of its warp's WM×WN

#if TENSOR
template <typename TileA, typename TileB>
struct Sums {
    static constexpr int DEPTH = 32 / sizeof(T);
    float c[WM / 16][WN / 8][4] = {};

    __device__ __forceinline__ void multiply(const T *a_tile, const T *b_tile) {
        int warp = threadIdx.x / 32;
        const T *a_own = a_tile + TileA::at(warp / WARPS_N * WM, 0), *b_own = b_tile + TileB::at(warp % WARPS_N * WN, 0);
#pragma unroll
        for (int k = 0; k < BK; k += DEPTH) {
            unsigned a[WM / 16][4], b[WN / 16][4];
#pragma unroll
            for (int i = 0; i < WM / 16; i++) TileA::fetch_a(a_own, 16 * i, k, a[i]), round(a[i]);
#pragma unroll
            for (int j = 0; j < WN / 16; j++) TileB::fetch_b(b_own, 16 * j, k, b[j]), round(b[j]);
#pragma unroll
            for (int i = 0; i < WM / 16; i++)
#pragma unroll
                for (int j = 0; j < WN / 8; j++) mma_multiply(T(), c[i][j], a[i], b[j / 2] + j % 2 * 2);
        }
    }
    static __device__ __forceinline__ void round(unsigned r[4]) {
        if constexpr (sizeof(T) == 4)
#pragma unroll
            for (int i = 0; i < 4; i++) r[i] = to_tf32(r[i]);
    }

    // store(row, column, sums) for every run of sums that this thread has: RUN neighbours in a row of the tile.
    static constexpr int RUN = 2;
    template <typename Store>
    __device__ __forceinline__ void each(Store store) const {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        int m = warp / WARPS_N * WM + lane / 4, n = warp % WARPS_N * WN + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < WM / 16; i++)
#pragma unroll
            for (int e = 0; e < 4; e += 2)
#pragma unroll
                for (int j = 0; j < WN / 8; j++) store(m + 16 * i + e / 2 * 8, n + 8 * j, &c[i][j][e]);
    }
};
#else
// The lanes of a warp are an 8×4 grid.
template <typename TileA, typename TileB>
struct Sums {
    static constexpr int TM = WM / 8, TN = WN / 4;
    A c[TM][TN] = {};

    __device__ __forceinline__ void multiply(const T *a_tile, const T *b_tile) {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32, m = warp / WARPS_N * WM, n = warp % WARPS_N * WN;
#pragma unroll
        for (int k = 0; k < BK; k += E) {
            T a[E][TM], b[E][TN];
            TileA::template fetch<TM, 8>(a_tile, m, lane / 4, k, a);
            TileB::template fetch<TN, 4>(b_tile, n, lane % 4, k, b);
#pragma unroll
            for (int e = 0; e < E; e++)
#pragma unroll
                for (int i = 0; i < TM; i++)
#pragma unroll
                    for (int j = 0; j < TN; j++) c[i][j] += a[e][i] * b[e][j];
        }
    }

    static constexpr int RUN = 1;
    template <typename Store>
    __device__ __forceinline__ void each(Store store) const {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32, m = warp / WARPS_N * WM, n = warp % WARPS_N * WN;
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++)
                store(m + TileA::template row_of<8>(lane / 4, i), n + TileB::template row_of<4>(lane % 4, j), &c[i][j]);
    }
};
#endif

// Add `steps` steps of BK to the sums of the block's tile.  Every thread must call it, a barrier after the first STAGES
// steps were prepared.
template <typename TileA, typename TileB, typename LoadA, typename LoadB>
__device__ __forceinline__ void block_product(LoadA &a, LoadB &b, int steps, T *shared, Sums<TileA, TileB> &sums) {
    constexpr int STAGE = TileA::SIZE + TileB::SIZE;
    auto load = [&](int stage) {
        a.load(shared + stage * STAGE, stage);
        b.load(shared + stage * STAGE + TileA::SIZE, stage);
    };
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < steps) load(s);
        copy_commit();
    }
    int stage = 0;
    for (int i = 0; i < steps; i++) {
        copy_wait<STAGES - 2>();
        __syncthreads();  // step i is there for all threads; and all are done with step i - 1, whose place is free
        if (i + STAGES - 1 < steps) {
            load(stage == 0 ? STAGES - 1 : stage - 1);
            a.prepare(stage), b.prepare(stage);  // of step i + STAGES; nobody needs those of step i any more
        }
        copy_commit();
        sums.multiply(shared + stage * STAGE, shared + stage * STAGE + TileA::SIZE);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
}
