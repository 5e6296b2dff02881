// Losses and their gradients, each in one launch: the twins of tinycnn/kernels/loss.py.
//
// **Sums in a fixed order.**  Each block adds its losses in double and leaves the sum in parts[b]; the last block adds the
// parts (see last.cuh).  Which losses a block adds depends on shapes alone, so that results repeat bit for bit.
//
// **Traffic.**  Logits and targets are read from memory once, the gradient is written once.  (Cross-entropy goes over a
// row three times: for the maximum, for the sum of exponentials and for the gradient.  A row is still in the cache then.)
//
// A gradient is multiplied by *scale, if given, before it is rounded to T: those of float16 would vanish otherwise.
#include "last.cuh"

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }
__device__ __forceinline__ float logarithm1p(float x) { return log1pf(x); }
__device__ __forceinline__ double logarithm1p(double x) { return log1p(x); }

#define NOT_A_NUMBER __int_as_float(0x7fc00000)

// loss = (Σ over all threads of the grid)/divisor.  parts has a number for every block.
__device__ __forceinline__ void block_finish(double total, double divisor, double *parts, A *loss) {
    total = block_sum(total);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
    if (!block_is_last()) return;
    total = 0;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) total += ((volatile double *)parts)[b];
    total = block_sum(total);
    if (threadIdx.x == 0) *loss = (A)(total / divisor);
}

// The arguments that kernels share.
#define LOGITS const T *__restrict__ x, const A *__restrict__ targets
#define RESULTS T *__restrict__ dx, A *losses, A *loss, double *parts

// ---- cross-entropy

#define OPTIONS const double *given, const A *scale, unsigned long long *outside
#define SMOOTHING A keep, A share, bool mean
#define LABELS const long long *labels, const A *weight, long long M, int C, long long ignored

// How much a label counts in a mean: its class's weight, or nothing if it is ignored or no class.
__device__ __forceinline__ double counted(long long y, const A *weight, int C, long long ignored) {
    if (y == ignored || y < 0 || y >= C) return 0;
    return weight ? (double)weight[y] : 1;
}

// What a mean divides by, Σ w_y, added up by every block for itself: for few labels.
__device__ __forceinline__ double block_total(LABELS) {
    double total = 0;
    for (long long m = threadIdx.x; m < M; m += blockDim.x) total += counted(labels[m], weight, C, ignored);
    return block_sum(total);
}

// The threads that work on one row: a warp, or the block.
template <bool BLOCK>
struct Team {
    int thread, size;
    long long first, step;  // rows

    __device__ __forceinline__ Team() {
        size = BLOCK ? blockDim.x : 32;
        thread = threadIdx.x % size;
        first = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / size;
        step = (long long)gridDim.x * blockDim.x / size;
    }
    __device__ __forceinline__ A sum(A x) const { return BLOCK ? block_sum(x) : warp_sum(x); }
    __device__ __forceinline__ A largest(A x) const {
        for (int mask = 16; mask > 0; mask /= 2) x = larger(x, __shfl_xor_sync(FULL_WARP, x, mask));
        if (!BLOCK) return x;
        __shared__ A parts[32];
        // those of the row before are read no more: there were sums since, with barriers of their own
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
        __syncthreads();
        for (int w = 0; w < (int)blockDim.x / 32; w++) x = larger(x, parts[w]);
        return x;
    }
    __device__ static __forceinline__ A larger(A x, A y) { return x > y ? x : y; }
};

// The weights q of one row, equation (1) of tinycnn/losses/cross_entropy.py.
struct Weights {
    const A *soft, *weight;  // of this row; of the classes
    int label;               // −1 if there is none
    A counts, keep, share;   // 1 or 0; 1 − ε; ε/C
    __device__ __forceinline__ A operator()(int c) const {
        A q = soft ? soft[c] * keep : c == label ? keep : (A)0;
        return (q + share) * (weight ? weight[c] : (A)1) * counts;
    }
};

// loss and dx of all rows.  A row with a label that is no class gets NaN, and its number and label go into `outside`:
// the smallest number of all, with the label in the lower half.
template <bool BLOCK>
__device__ __forceinline__ double block_cross_entropy(const T *x, const A *soft, T *dx, A *losses, const A *scale,
                                                      unsigned long long *outside, LABELS, A keep, A share, A divisor) {
    Team<BLOCK> team;
    A factor = scale ? *scale : (A)1;
    double total = 0;
    for (long long m = team.first; m < M; m += team.step) {
        Weights q = {soft ? soft + m * C : 0, weight, -1, 1, keep, share};
        if (labels) {
            long long y = labels[m];
            bool wrong = y != ignored && (y < 0 || y >= C);
            q.label = wrong || y == ignored ? -1 : (int)y;
            q.counts = wrong ? (A)NOT_A_NUMBER : (A)(y != ignored);
            if (wrong && outside && team.thread == 0) {
                int shown = (int)max(min(y, 0x7fffffffll), -0x80000000ll);
                atomicMin(outside, (unsigned long long)m << 32 | (unsigned)shown);
            }
        }
        A top = -INFINITY, sum = 0, all = 0, loss = 0;
        for (int c = team.thread; c < C; c += team.size) top = team.larger(top, get(x[m * C + c]));
        top = team.largest(top);
        for (int c = team.thread; c < C; c += team.size) sum += exponential(get(x[m * C + c]) - top), all += q(c);
        A log_sum = logarithm(team.sum(sum));
        all = team.sum(all);
        for (int c = team.thread; c < C; c += team.size) {
            A own = q(c), log_p = get(x[m * C + c]) - top - log_sum;
            if (own != 0) loss -= own * log_p;
            put(dx[m * C + c], (exponential(log_p) * all - own) / divisor * factor);
        }
        loss = team.sum(loss);
        if (team.thread == 0) {
            if (losses) losses[m] = loss;
            total += loss;
        }
    }
    return total;
}

template <bool BLOCK>
__device__ __forceinline__ void block_losses(LOGITS, RESULTS, OPTIONS, LABELS, SMOOTHING) {
    double divisor = !mean ? 1 : !labels ? (double)M : given ? *given : block_total(labels, weight, M, C, ignored);
    A d = divisor == 0 ? (A)1 : (A)divisor;  // if nothing counts, all q and with them dx are 0 already
    double total = block_cross_entropy<BLOCK>(x, targets, dx, losses, scale, outside, labels, weight, M, C, ignored,
                                              keep, share, d);
    if (loss) block_finish(total, divisor, parts, loss);
}
#define GIVEN \
    x, targets, dx, losses, loss, parts, given, scale, outside, labels, weight, M, C, ignored, keep, share, mean

// Softmax and cross-entropy of M rows of C logits, with the gradient; a warp a row.  `targets` are soft ones, if there
// are no labels; `losses` are wanted for 'none', `loss` otherwise; `given` is what `label_total` has found, if that has run;
// `weight` is that of the classes, keep 1 − ε, share ε/C.
extern "C" __global__ void cross_entropy(LOGITS, RESULTS, OPTIONS, LABELS, SMOOTHING) { block_losses<false>(GIVEN); }

// The same with a block a row, for many classes.
extern "C" __global__ void cross_entropy_many(LOGITS, RESULTS, OPTIONS, LABELS, SMOOTHING) { block_losses<true>(GIVEN); }

// What a mean divides by, for many labels.
extern "C" __global__ void label_total(const long long *labels, const A *weight, long long M, int C, long long ignored,
                                       double *parts, double *total) {
    double own = 0;
    for (EACH(m, M)) own += counted(labels[m], weight, C, ignored);
    own = block_sum(own);
    if (threadIdx.x == 0) parts[blockIdx.x] = own;
    if (!block_is_last()) return;
    own = 0;
    for (unsigned b = threadIdx.x; b < gridDim.x; b += blockDim.x) own += ((volatile double *)parts)[b];
    own = block_sum(own);
    if (threadIdx.x == 0) *total = own;
}

// ---- losses element by element

#define EXTENT const A *scale, long long n, bool mean

// f(i, value, slope) sets the loss of element i and its derivative.
template <typename F>
__device__ __forceinline__ void block_elements(LOGITS, RESULTS, EXTENT, F f) {
    A divisor = mean ? (A)n : (A)1, factor = scale ? *scale : (A)1, value, slope;
    double total = 0;
    for (EACH(i, n)) {
        f(i, value, slope);
        put(dx[i], slope / divisor * factor);
        if (losses) losses[i] = value;
        total += value;
    }
    if (loss) block_finish(total, mean ? (double)n : 1, parts, loss);
}

// (x − t)², with slope 2·(x − t).
extern "C" __global__ void squared_error(LOGITS, RESULTS, EXTENT) {
    block_elements(x, targets, dx, losses, loss, parts, scale, n, mean, [&](long long i, A &value, A &slope) {
        A difference = get(x[i]) - targets[i];
        value = difference * difference, slope = 2 * difference;
    });
}

// w·((1 − t)·softplus(x) + r·t·softplus(−x)), with slope w·((1 − t)·σ(x) − r·t·σ(−x)); see BCEWithLogitsLoss.
extern "C" __global__ void binary_cross_entropy(LOGITS, RESULTS, EXTENT, const A *weight, const A *pos_weight) {
    block_elements(x, targets, dx, losses, loss, parts, scale, n, mean, [&](long long i, A &value, A &slope) {
        A v = get(x[i]), w = weight ? weight[i] : (A)1;
        A e = exponential(v < 0 ? v : -v), tail = logarithm1p(e);  // softplus(−|v|)
        A high = 1 / (1 + e), low = e / (1 + e);                   // σ(|v|), σ(−|v|)
        A t = targets[i], yes = t * (pos_weight ? pos_weight[i] : (A)1), no = 1 - targets[i];
        value = (no * ((v > 0 ? v : 0) + tail) + yes * ((v < 0 ? -v : 0) + tail)) * w;
        slope = (no * (v > 0 ? high : low) - yes * (v > 0 ? low : high)) * w;
    });
}
