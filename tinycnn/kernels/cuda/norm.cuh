// What the normalisation kernels share: wide loads, sums over columns, and statistics that keep their digits.
//
// **Columns.**  Arrays are matrices of M rows (pixels) and C columns (channels), contiguous.  A thread works on V
// neighbouring columns (up to 16 bytes of them where C allows, see `vector_width` in norm.py), called a *vector*, and on many
// rows.  A block is TX × TY threads: TX vectors side by side, TY rows at a time.  The tile of TX vectors is named by
// blockIdx.x, the run of rows by blockIdx.y.
//
// **Accuracy.**  A thread adds UNROLL rows in A, then goes on in double: no rounding grows with the number of rows, and
// there are so few operations in double that GPUs with hardly any units for them do not mind.  Squares are taken of
// deviations from a number that is near, (x − k)², never of x itself (see `Moments`).
//
// **Order.**  Every sum is taken in an order that depends on shapes alone, so that results repeat bit for bit.
#include "common.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
constexpr int V = WIDTH;
#define UNROLL 4
#define THREADS 256  // the most in a block (the second number of __launch_bounds__ are blocks to a multiprocessor)
#define WAITING (2 * THREADS / 3 + 6)  // the most whose sums `block_columns` keeps: half of TY, rounded up, times TX

// V neighbouring elements, loaded and stored by one instruction.
struct alignas(V * sizeof(T)) Pack {
    T v[V];
};

__device__ __forceinline__ Pack load(const T *x, long long vector) { return reinterpret_cast<const Pack *>(x)[vector]; }
__device__ __forceinline__ void store(T *x, long long vector, const Pack &p) { reinterpret_cast<Pack *>(x)[vector] = p; }

// x·a + c, rounded once: the same bits in every kernel, whatever the compiler makes of other products and sums.
__device__ __forceinline__ float fused(float x, float a, float c) { return __fmaf_rn(x, a, c); }
__device__ __forceinline__ double fused(double x, double a, double c) { return fma(x, a, c); }

// The place of a thread: its vector of columns, and of a run of rows every TY-th from threadIdx.y on.
struct Place {
    int vector, rows, step;  // own vector; rows in the run, 0 where there is no such vector; vectors from row to row · TY
    long long origin;        // index of the own vector in the first row of the run
    __device__ __forceinline__ Place(long long M, int C, int R, int run) {
        int vectors = C / V;
        vector = blockIdx.x * blockDim.x + threadIdx.x;
        rows = vector < vectors ? (int)min((long long)R, M - (long long)run * R) : 0;
        step = blockDim.y * vectors;
        origin = (long long)run * R * vectors + vector;
    }
    // Any vector, if it is below `end`, of `rows` rows from `first` on.
    __device__ __forceinline__ Place(int vector, int end, int vectors, long long first, int rows)
        : vector(vector), rows(vector < end ? rows : 0), step(blockDim.y * vectors), origin(first * vectors + vector) {}
    __device__ __forceinline__ long long index(int row, int C) const { return origin + (long long)row * (C / V); }
};

// for (ROWS(place, row)): the rows of a thread, UNROLL at a time: row + u·TY for u < UNROLL, as far as EXISTS.
#define ROWS(place, row) int row = threadIdx.y; row < (place).rows; row += UNROLL * blockDim.y
#define EXISTS(place, row, u) (row + u * (int)blockDim.y < (place).rows)
#define EACH_V _Pragma("unroll") for (int v = 0; v < V; v++)
#define EACH_U _Pragma("unroll") for (int u = 0; u < UNROLL; u++)

// What a row of C numbers has for the columns of a place; `otherwise` where there is no such row.
struct Numbers {
    A v[V];
    __device__ __forceinline__ Numbers(const A *row, const Place &place, A otherwise = 0) {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = row && place.rows ? row[place.vector * V + i] : otherwise;
    }
};

// Sums of x and of (x − mean)² of V columns over the rows of one thread, relative to k.
//
// k is the mean of the first rows, so that x − k loses no digit that the variance needs: were they all far from the
// others, k would still be at most √(n/UNROLL) deviations from the mean of the n rows.
struct Moments {
    A k[V];
    double s1[V], s2[V];

    __device__ __forceinline__ Moments() {
        EACH_V k[v] = 0, s1[v] = s2[v] = 0;
    }

    // Take in UNROLL rows of the place, from `row` on; the first ones say what k is.
    __device__ __forceinline__ void add(const Pack (&x)[UNROLL], const Place &place, int row, bool first) {
        EACH_V {
            if (first) {
                A near = 0;
                EACH_U near += (EXISTS(place, row, u) ? get(x[u].v[v]) : get(x[0].v[v])) * (A)(1.0 / UNROLL);
                k[v] = near;
            }
            A sum = 0, squares = 0;
            EACH_U {
                A d = EXISTS(place, row, u) ? get(x[u].v[v]) - k[v] : 0;
                sum += d, squares += d * d;
            }
            s1[v] += sum, s2[v] += squares;
        }
    }

    // Make the sums of column v, of n rows, relative to `base`: Σ (x − k + k − base)² multiplied out.
    __device__ __forceinline__ void rebase(int v, double base, double n) {
        double by = (double)k[v] - base;
        s2[v] += by * (2 * s1[v] + n * by);
        s1[v] += n * by;
    }
};

// Add up `own` over TY threads, ty = 0 … TY − 1, of each of TX columns; ty = 0 gets the sums.
// (In halves: threads ty and ty + half, then half as many again.  `lanes` has room for K · WAITING numbers.)
template <int K>
__device__ __forceinline__ void block_tree(double (&own)[K], double *lanes, int TX, int TY, int tx, int ty) {
    for (int size = TY; size > 1;) {
        int half = (size + 1) / 2;
        __syncthreads();  // what was there before has been read
        if (ty >= half && ty < size)
#pragma unroll
            for (int i = 0; i < K; i++) lanes[(i * half + ty - half) * TX + tx] = own[i];
        __syncthreads();
        if (ty < size - half)
#pragma unroll
            for (int i = 0; i < K; i++) own[i] += lanes[(i * half + ty) * TX + tx];
        size = half;
    }
}

// The sums over all threads with the same threadIdx.x, in those with threadIdx.y = 0.
template <int K>
__device__ __forceinline__ void block_columns(double (&own)[K], double *lanes) {
    block_tree(own, lanes, blockDim.x, blockDim.y, threadIdx.x, threadIdx.y);
}

// The sums over all threads of the block, in the first.
template <int K>
__device__ __forceinline__ void block_total(double (&own)[K], double *lanes) {
    block_tree(own, lanes, 1, blockDim.x * blockDim.y, 0, threadIdx.y * blockDim.x + threadIdx.x);
}

// **The last block finishes.**  Blocks that share a sum each leave their part in memory, and the one that arrives last
// adds the parts up, in their own order, whoever it is: this saves a kernel.  A ticket counts the arrivals; the last
// block puts it back to 0.  (Kernels that run at the same time need tickets of their own: the wrapper deals them out.)
#define TICKETS 4096
static __device__ unsigned tickets[TICKETS];

// Whether all other blocks of this blockIdx.x have been here: then their parts can be read (with __ldcg).
static __device__ __forceinline__ bool block_is_last(int ticket) {
    __shared__ bool last;
    __threadfence();  // our part is to be seen by all before we are counted
    __syncthreads();
    if (gridDim.y == 1) return true;  // there may be more tiles than tickets, but then none has a second block
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        unsigned *mine = tickets + (ticket + blockIdx.x) % TICKETS;
        last = atomicAdd(mine, 1u) == gridDim.y - 1;
        if (last) *mine = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}
