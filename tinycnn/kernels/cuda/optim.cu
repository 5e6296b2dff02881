// Optimizers: one launch updates every parameter of a network.
//
// Parameters, gradients and each slot of the state are flat buffers of one layout.  A table cuts them into tiles,
// (start, stop, row): block b updates elements [start, stop) of tile b with row `row` of the numbers, which are the
// same for all parameters of one group and one past.  A tile starts at a multiple of 16 bytes and so does the next: each
// thread takes 16 bytes at a time.  Memory traffic: p and the slots in use are read and written once, g is read once.
//
// numbers[row] = {keep, decay, …}: p is multiplied by `keep` (decoupled weight decay), decay·p is added to the gradient,
// and the rest is what `scalars` of the optimizer returns, in its order.  They are in memory, not arguments, so that a
// captured graph can be replayed with others.
//
// The operations are those of `update` of the optimizer in tinycnn/optim, in the same order, and so the results are, bit
// for bit.  Products go through `mul` for that: the compiler would fuse a·b + c into one operation, which rounds once
// where NumPy rounds twice.
#include "common.cuh"

constexpr int NUMBERS = 8;
constexpr int LANES = 16 / sizeof(T);

struct __align__(16) Vector {
    T x[LANES];
};

__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double mul(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }
// The larger, or NaN if either is.
__device__ __forceinline__ T maximum(T a, T b) { return a > b || a != a ? a : b; }

// average ← average + weight·(x − average)
__device__ __forceinline__ void lerp(T &average, T x, T weight) { average += mul(x - average, weight); }
// average ← β·average + weight·g²
__device__ __forceinline__ void add_square(T &average, T g, T beta, T weight) {
    average = mul(average, beta) + mul(mul(g, weight), g);
}

// The arguments of every kernel; its slots follow.  A slot that no group uses is null.
// scale: what gradients are multiplied by; skip: whether to do nothing, which is noted in skipped.  They may be null.
#define STEP const long long *tiles, const T *numbers, const T *scale, const int *skip, int *skipped, T *p, const T *g
#define STEP_ARGUMENTS tiles, numbers, scale, skip, skipped, p, g

// Call update(p, g, slots) for every element of this block's tile, weight decay applied.
template <typename Update, typename... Slots>
__device__ __forceinline__ void sweep(STEP, Update update, Slots *...slots) {
    constexpr int S = sizeof...(Slots);
    T *const at[S + 1] = {slots..., nullptr};
    const T *own = numbers + tiles[3 * blockIdx.x + 2] * NUMBERS;
    T keep = own[0], decay = own[1], share = scale ? *scale : (T)1;
    if (skip) {
        int told = *skip != 0;
        if (blockIdx.x == 0 && threadIdx.x == 0) *skipped = told;
        if (told) return;
    }
    long long stop = tiles[3 * blockIdx.x + 1];
    for (long long i = tiles[3 * blockIdx.x] + threadIdx.x * LANES; i < stop; i += blockDim.x * LANES) {
        Vector P = *(const Vector *)(p + i), G = *(const Vector *)(g + i), slot[S + 1];
#pragma unroll
        for (int j = 0; j < S; j++) slot[j] = *(const Vector *)(at[j] + i);
#pragma unroll
        for (int k = 0; k < LANES; k++) {
            T x = mul(P.x[k], keep), grad = mul(G.x[k], share), state[S + 1];
            if (decay != 0) grad += mul(P.x[k], decay);
#pragma unroll
            for (int j = 0; j < S; j++) state[j] = slot[j].x[k];
            update(x, grad, state);
            P.x[k] = x;
#pragma unroll
            for (int j = 0; j < S; j++) slot[j].x[k] = state[j];
        }
        *(Vector *)(p + i) = P;
#pragma unroll
        for (int j = 0; j < S; j++) *(Vector *)(at[j] + i) = slot[j];
    }
}

// The numbers of this block's tile, after those of weight decay.
#define SCALARS const T *n = numbers + tiles[3 * blockIdx.x + 2] * NUMBERS + 2

// v ← μ·v + share·g;  p ← p − lr·v, with nesterov p ← p − lr·(g + μ·v), without momentum p ← p − lr·g
// (The first time v is 0 and share is 1, which makes v the gradient.)
extern "C" __global__ void sgd(STEP, T *velocity) {
    SCALARS;
    T lr = n[0], mu = n[1], share = n[2];
    bool nesterov = n[3] != 0;
    if (mu == 0) {
        sweep(STEP_ARGUMENTS, [=](T &p, T g, T *) { p -= mul(g, lr); });
        return;
    }
    auto update = [=](T &p, T g, T *state) {
        T &v = state[0];
        v = mul(v, mu) + mul(g, share);
        p -= mul(nesterov ? mul(v, mu) + g : v, lr);
    };
    sweep(STEP_ARGUMENTS, update, velocity);
}

// m and v ← running means of g and g²;  p ← p − lr·m/(√v + ε), with amsgrad the largest v so far in v's place
extern "C" __global__ void adam(STEP, T *m, T *v, T *largest) {
    SCALARS;
    T lr = n[0], eps = n[1], of_m = n[2], keep_v = n[3], of_v = n[4];
    if (n[5] == 0) {
        auto update = [=](T &p, T g, T *state) {
            lerp(state[0], g, of_m);
            add_square(state[1], g, keep_v, of_v);
            p -= mul(state[0] / (root(state[1]) + eps), lr);
        };
        sweep(STEP_ARGUMENTS, update, m, v);
        return;
    }
    auto update = [=](T &p, T g, T *state) {
        lerp(state[0], g, of_m);
        add_square(state[1], g, keep_v, of_v);
        state[2] = maximum(state[2], state[1]);
        p -= mul(state[0] / (root(state[2]) + eps), lr);
    };
    sweep(STEP_ARGUMENTS, update, m, v, largest);
}

// m ← running mean of g;  u ← max(β2·u, |g| + ε);  p ← p − lr·m/u
extern "C" __global__ void adamax(STEP, T *m, T *u) {
    SCALARS;
    T lr = n[0], eps = n[1], of_m = n[2], keep_u = n[3];
    auto update = [=](T &p, T g, T *state) {
        lerp(state[0], g, of_m);
        state[1] = maximum(mul(state[1], keep_u), (g < 0 ? -g : g) + eps);
        p -= mul(state[0] / state[1], lr);
    };
    sweep(STEP_ARGUMENTS, update, m, u);
}

// m and v ← running means of g and g²;  p ← p − (now·g + ahead·m)/(√v + ε)
extern "C" __global__ void nadam(STEP, T *m, T *v) {
    SCALARS;
    T now = n[0], ahead = n[1], eps = n[2], of_m = n[3], keep_v = n[4], of_v = n[5];
    auto update = [=](T &p, T g, T *state) {
        lerp(state[0], g, of_m);
        add_square(state[1], g, keep_v, of_v);
        p -= (mul(g, now) + mul(state[0], ahead)) / (root(state[1]) + eps);
    };
    sweep(STEP_ARGUMENTS, update, m, v);
}

// m and v ← running means of g and g²;  p ← p − lr·m/(√v + ε), and while v cannot be trusted p ← p − lr·m
extern "C" __global__ void radam(STEP, T *m, T *v) {
    SCALARS;
    T lr = n[0], eps = n[1], of_m = n[2], keep_v = n[3], of_v = n[4];
    bool rectified = n[5] != 0;
    auto update = [=](T &p, T g, T *state) {
        lerp(state[0], g, of_m);
        add_square(state[1], g, keep_v, of_v);
        p -= mul(rectified ? state[0] / (root(state[1]) + eps) : state[0], lr);
    };
    sweep(STEP_ARGUMENTS, update, m, v);
}

// s ← s + g²;  p ← p − lr·g/(√s + ε)
extern "C" __global__ void adagrad(STEP, T *s) {
    SCALARS;
    T lr = n[0], eps = n[1];
    auto update = [=](T &p, T g, T *state) {
        state[0] += mul(g, g);
        p -= mul(g / (root(state[0]) + eps), lr);
    };
    sweep(STEP_ARGUMENTS, update, s);
}

// s (and m, if centered) ← running means of g² (and g);  d = g/(√(s − m²) + ε);  v ← μ·v + d;  p ← p − lr·v
// Without momentum p ← p − lr·d.
extern "C" __global__ void rmsprop(STEP, T *s, T *m, T *v) {
    SCALARS;
    T lr = n[0], eps = n[1], mu = n[2], keep = n[3], share = n[4];
    bool centered = n[5] != 0, momentum = mu != 0;
    auto divided = [=](T g, T variance) { return g / (root(variance) + eps); };
    auto variance = [](T s, T m) { return maximum(s - mul(m, m), (T)0); };
    auto pushed = [=](T &v, T d) { return v = mul(v, mu) + d; };
    if (!centered && !momentum) {
        auto update = [=](T &p, T g, T *state) {
            add_square(state[0], g, keep, share);
            p -= mul(divided(g, state[0]), lr);
        };
        sweep(STEP_ARGUMENTS, update, s);
    } else if (!centered) {
        auto update = [=](T &p, T g, T *state) {
            add_square(state[0], g, keep, share);
            p -= mul(pushed(state[1], divided(g, state[0])), lr);
        };
        sweep(STEP_ARGUMENTS, update, s, v);
    } else if (!momentum) {
        auto update = [=](T &p, T g, T *state) {
            add_square(state[0], g, keep, share);
            lerp(state[1], g, share);
            p -= mul(divided(g, variance(state[0], state[1])), lr);
        };
        sweep(STEP_ARGUMENTS, update, s, m);
    } else {
        auto update = [=](T &p, T g, T *state) {
            add_square(state[0], g, keep, share);
            lerp(state[1], g, share);
            p -= mul(pushed(state[2], divided(g, variance(state[0], state[1]))), lr);
        };
        sweep(STEP_ARGUMENTS, update, s, m, v);
    }
}

// s ← running mean of g²;  d = √((u + ε)/(s + ε))·g;  u ← running mean of d²;  p ← p − lr·d
extern "C" __global__ void adadelta(STEP, T *s, T *u) {
    SCALARS;
    T lr = n[0], eps = n[1], keep = n[2], share = n[3];
    auto update = [=](T &p, T g, T *state) {
        add_square(state[0], g, keep, share);
        T d = mul(root((state[1] + eps) / (state[0] + eps)), g);
        add_square(state[1], d, keep, share);
        p -= mul(d, lr);
    };
    sweep(STEP_ARGUMENTS, update, s, u);
}

// average ← average + weight·(x − average), for weight 1 average ← x.
// Block b has tile b of places: (address of averages, address of values, elements).  Two reads and one write.
extern "C" __global__ void follow(const long long *places, const T *weight) {
    const long long *own = places + 3 * blockIdx.x;
    T *average = (T *)own[0];
    const T *value = (const T *)own[1];
    int n = (int)own[2], vectors = (own[0] | own[1]) % 16 == 0 ? n / LANES : 0;
    T share = *weight;
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
        Vector a = ((Vector *)average)[i], x = ((const Vector *)value)[i];
#pragma unroll
        for (int k = 0; k < LANES; k++)
            if (share == 1) a.x[k] = x.x[k];
            else lerp(a.x[k], x.x[k], share);
        ((Vector *)average)[i] = a;
    }
    for (int i = vectors * LANES + threadIdx.x; i < n; i += blockDim.x)
        if (share == 1) average[i] = value[i];
        else lerp(average[i], value[i], share);
}
