// Dropout: the twins of tinycnn/kernels/dropout.py.  y = x·m/(1 − p), and dx = dy·m/(1 − p) with the same mask.
//
// **No mask is stored.**  Whether part number i is kept is a function of (key, step, i), and drawn again on the way
// back.  `place` holds key and step in device memory: the forward notes them in `saved` for its backward and moves on
// to the next step, so that every replay of a captured graph has a mask of its own.
//
// **Index map.**  One count of Philox gives 256 random bits: E = 32 parts at 8 bits each, or 8 parts at 32.  A thread
// draws for one count and keeps a word of E bits, 1 for kept.  Where single numbers are dropped, a warp then goes over
// its 32·E numbers by 16 bytes a thread, and asks the thread that has the bits for them.  Where channels or images are
// dropped, a thread stays with the part that it drew for and goes over its pixels.
//
// **Traffic.**  x is read and y written once, each way.  One launch each way.
#include "last.cuh"

typedef unsigned long long Word;
constexpr int WIDE = 16 / sizeof(T);

struct alignas(16) Pack {
    T at[WIDE];
};

// The four words that Philox4x64-10 makes of a count, with key (key, step): equations in `philox` of the specification.
struct Draw {
    Word words[4];

    __device__ __forceinline__ Draw(Word count, Word key, Word step) {
        Word x0 = count + 1, x1 = 0, x2 = 0, x3 = 0;  // NumPy's generator counts before it draws
#pragma unroll
        for (int round = 0; round < 10; round++) {
            Word high0 = __umul64hi(x0, 0xD2E7470EE14C6C93ull), low0 = x0 * 0xD2E7470EE14C6C93ull;
            Word high1 = __umul64hi(x2, 0xCA5A826395121157ull), low1 = x2 * 0xCA5A826395121157ull;
            x0 = high1 ^ x1 ^ key, x1 = low1, x2 = high0 ^ x3 ^ step, x3 = low0;
            key += 0x9E3779B97F4A7C15ull, step += 0xBB67AE8584CAA73Bull;
        }
        words[0] = x0, words[1] = x1, words[2] = x2, words[3] = x3;
    }

    // Bit i: whether part i of the E is kept.
    template <int E>
    __device__ __forceinline__ unsigned keeps(unsigned kept) const {
        constexpr int BITS = 256 / E, PER_WORD = E / 4;
        unsigned bits = 0;
#pragma unroll
        for (int i = 0; i < E; i++) {
            unsigned number = (unsigned)(words[i / PER_WORD] >> (BITS * (i % PER_WORD))) & (0xffffffffu >> (32 - BITS));
            bits |= number < kept ? 1u << i : 0u;
        }
        return bits;
    }

    // The same for any one i; `bytes`: whether E is 32, not 8.
    __device__ __forceinline__ bool keeps(int i, bool bytes, unsigned kept) const {
        int word = bytes ? i / 8 : i / 2, shift = bytes ? 8 * (i % 8) : 32 * (i % 2);
        Word w = word < 2 ? (word == 0 ? words[0] : words[1]) : (word == 2 ? words[2] : words[3]);
        return ((unsigned)(w >> shift) & (bytes ? 0xffu : 0xffffffffu)) < kept;
    }
};

// y[first + k] = x[first + k]·(scale or 0), by bit k, for the numbers below n; all at once if they are all there.
__device__ __forceinline__ void apply(const T *x, T *y, long long first, long long n, unsigned bits, A scale, bool wide) {
    if (wide && first + WIDE <= n) {
        Pack p = *reinterpret_cast<const Pack *>(x + first);
#pragma unroll
        for (int k = 0; k < WIDE; k++) put(p.at[k], get(p.at[k]) * (bits >> k & 1 ? scale : (A)0));
        *reinterpret_cast<Pack *>(y + first) = p;
        return;
    }
    for (int k = 0; k < WIDE && first + k < n; k++) put(y[first + k], get(x[first + k]) * (bits >> k & 1 ? scale : (A)0));
}

__device__ __forceinline__ bool aligned(const T *x, const T *y) {
    return ((unsigned long long)x | (unsigned long long)y) % 16 == 0;
}

template <int E>
__device__ __forceinline__ void drop_numbers(const T *x, T *y, Word key, Word step, long long n, unsigned kept, A scale) {
    int lane = threadIdx.x % 32;
    long long warp = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    long long warps = (long long)gridDim.x * blockDim.x / 32;
    bool wide = aligned(x, y);
    for (long long first = warp * 32 * E; first < n; first += warps * 32 * E) {
        unsigned own = Draw(first / E + lane, key, step).template keeps<E>(kept);
#pragma unroll
        for (int j = 0; j < E / WIDE; j++) {
            int at = (j * 32 + lane) * WIDE;  // of the 32·E numbers
            unsigned bits = __shfl_sync(FULL_WARP, own, at / E) >> (at % E);
            apply(x, y, first + at, n, bits, scale, wide);
        }
    }
}

// Part number n·B + i % B is number i of image n; V of them at a time, of one part (B = 1) or of V that follow each other.
template <int V>
__device__ __forceinline__ void drop_parts(const T *x, T *y, Word key, Word step, int N, long long D, int B, unsigned kept,
                                           A scale, bool bytes) {
    unsigned packs = B < V ? 1 : B / V, threads = gridDim.x * blockDim.x / packs * packs;
    unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    int E = bytes ? 32 : 8;
    for (long long n = blockIdx.y; n < N; n += gridDim.y) {
        long long part = B == 1 ? n : n * B + thread % packs * V;
        Draw draw(part / E, key, step);
        unsigned bits = 0;
#pragma unroll
        for (int k = 0; k < V; k++) bits |= draw.keeps((int)(part % E) + (B == 1 ? 0 : k), bytes, kept) ? 1u << k : 0u;
#pragma unroll 4
        for (long long i = (long long)thread * V; i < D; i += (long long)threads * V) {
            if (V == WIDE) apply(x + n * D, y + n * D, i, D, bits, scale, true);
            else put(y[n * D + i], get(x[n * D + i]) * (bits & 1 ? scale : (A)0));
        }
    }
}

// Note key and step in `saved`, if given, and go on to the next step when all blocks have read this one.
__device__ __forceinline__ void block_goes_on(Word *place, Word *saved, Word key, Word step) {
    if (saved && block_is_last() && threadIdx.x == 0) saved[0] = key, saved[1] = step, place[1] = step + 1;
}

// Drops single numbers.  `bytes`: whether E = 32; kept of all 256 or 2^32 random integers are below `kept`.
extern "C" __global__ void drop_each(const T *__restrict__ x, T *__restrict__ y, unsigned long long *place,
                                     unsigned long long *saved, long long n, unsigned kept, A scale, bool bytes) {
    Word key = place[0], step = place[1];
    if (bytes) drop_numbers<32>(x, y, key, step, n, kept, scale);
    else drop_numbers<8>(x, y, key, step, n, kept, scale);
    block_goes_on(place, saved, key, step);
}

// Drops channels (B = C), images (B = 1) or all (B = 1, N = 1), of N images of D numbers each.
// gridDim.x blocks go over an image, at least B/(16 bytes · 256) of them; gridDim.y over the images.
extern "C" __global__ void __launch_bounds__(256, 4)
    drop_whole(const T *__restrict__ x, T *__restrict__ y, unsigned long long *place, unsigned long long *saved, int N,
               long long D, int B, unsigned kept, A scale, bool bytes) {
    Word key = place[0], step = place[1];
    if (aligned(x, y) && D % WIDE == 0 && (B == 1 || B % WIDE == 0)) {
        drop_parts<WIDE>(x, y, key, step, N, D, B, kept, scale, bytes);
    } else {
        drop_parts<1>(x, y, key, step, N, D, B, kept, scale, bytes);
    }
    block_goes_on(place, saved, key, step);
}
