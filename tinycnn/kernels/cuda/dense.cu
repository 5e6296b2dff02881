// Dense blocks: the twins of the functions of tinycnn/kernels/dense.py and of `channel_moments` in tinycnn/layers/dense.py.
//
// A *part* is some neighbouring channels of a wider array: M rows of C columns, `pitch` numbers from one row to the next.
// Other arrays are contiguous.  norm.cuh says how threads divide them up, channels.cuh what the `vectors` are; moments are
// mean and variance, two rows `pitch` apart of a small matrix in double, corrections q and r likewise.
//
// A step of one layer's norm is two kernels forward, `know` (a single block) and `normalize_part`, and one backward,
// `add_up_part`; a channel is measured once (`measure_part`) and corrected once (`correct`), however many layers read it.
// The gate is made again from x, by the very same operations (`fused`): y is not read.
//
// **Precision.**  Gradients that wait for their correction are in A: it takes off their mean, and what 16 bits would have
// rounded off before, next to that mean, may be large next to what is left.
#include "channels.cuh"

// As Pack, in A.
struct alignas(V * sizeof(A)) Wide {
    A v[V];
};
__device__ __forceinline__ Wide load_wide(const A *x, long long vector) {
    return reinterpret_cast<const Wide *>(x)[vector];
}

// Index of the vector of a place in row `row` of a run that begins at row `first`, in an array of that pitch.
__device__ __forceinline__ long long at(const Place &place, long long first, int row, int pitch) {
    return (first + row) * (pitch / V) + place.vector;
}

// Mean and variance of every channel of x, which is contiguous.
//
// Grid (tiles, P), block (TX, TY), R rows per block; parts (P, 2, C).
extern "C" __global__ void __launch_bounds__(THREADS, 4) measure_part(
    const T *__restrict__ x, double *parts, double *moments, long long M, int C, int pitch, int R, int ticket) {
    __shared__ double lanes[2 * V * WAITING];
    __shared__ A bases[V * THREADS];
    block_moments(x, parts, M, C, R, ticket, lanes, bases, [=](int c, double mean, double var) {
        moments[c] = mean, moments[pitch + c] = var;
    });
}

// The vectors of a norm, from the moments of its input, towards which its running averages are moved; without moments
// from these averages.  One block.
extern "C" __global__ void __launch_bounds__(THREADS) know(
    const double *__restrict__ moments, A *vectors, const A *__restrict__ w, const A *__restrict__ b, A *running_mean,
    A *running_var, long long *count, long long M, int C, int pitch, double eps, double momentum) {
    double share = momentum;
    if (moments && count && momentum < 0) share = 1.0 / (*count + 1);  // the average of all batches
    __syncthreads();  // all have read the count
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        double mean = moments ? moments[c] : running_mean[c], var = moments ? moments[pitch + c] : running_var[c];
        describe(vectors, C, c, mean, 1 / sqrt(var + eps), w, b);
        if (moments && running_mean) move_averages(running_mean, running_var, c, mean, var, M, share);
    }
    if (moments && count && threadIdx.x == 0) *count += 1;
}

// y = max(d·a + c, 0).  Grid (tiles, runs of R rows), block (TX, TY).  Reads x, a part, writes y.
extern "C" __global__ void __launch_bounds__(THREADS, 4) normalize_part(
    const T *__restrict__ x, T *__restrict__ y, const A *__restrict__ vectors, long long M, int C, int pitch, int R) {
    Place place(M, C, R, blockIdx.y);
    long long first = (long long)blockIdx.y * R;
    Numbers m(vectors + M_ * C, place), a(vectors + A_ * C, place), c(vectors + C_ * C, place);
    for (ROWS(place, row)) {
        Pack p[UNROLL];
        EACH_U if (EXISTS(place, row, u)) p[u] = load(x, at(place, first, row + u * blockDim.y, pitch));
        EACH_U if (EXISTS(place, row, u)) {
            EACH_V {
                A value = fused(get(p[u].v[v]) - m.v[v], a.v[v], c.v[v]);
                if (value < 0) value = 0;  // a NaN stays
                put(p[u].v[v], value);
            }
            store(y, place.index(row, C) + u * place.step, p[u]);
        }
    }
}

// dγ = Σ g·x̂ and dβ = Σ g, written to (or added to) the gradients dw and db; a·g is added to dx, if there is one, and what
// is still to be taken from it to the correction, if there is one:
//
//     q = inv_std·a·dγ/M,    r = a·dβ/M − off·q
//
// Grid (tiles, P), block (TX, TY), R rows per block; parts (P, 2, C).  Reads dy and x, a part; dx is a part, too.
extern "C" __global__ void __launch_bounds__(THREADS, 2) add_up_part(
    const T *__restrict__ dy, const T *__restrict__ x, const A *__restrict__ vectors, A *__restrict__ dx, double *parts,
    double *correction, A *dw, A *db, long long M, int C, int x_pitch, int dx_pitch, int correction_pitch, int R,
    bool add_w, bool add_b, int ticket) {
    __shared__ double lanes[2 * V * WAITING];
    int P = gridDim.y, run = P - 1 - blockIdx.y, ty = threadIdx.y, TY = blockDim.y;
    long long first = (long long)run * R;
    Place place(M, C, R, run);
    Numbers m(vectors + M_ * C, place), a(vectors + A_ * C, place), c(vectors + C_ * C, place);
    double sums[2 * V];
    EACH_V sums[v] = sums[V + v] = 0;
    for (ROWS(place, row)) {
        Pack g[UNROLL], p[UNROLL];
        Wide into[UNROLL];
        EACH_U if (EXISTS(place, row, u)) {
            g[u] = load(dy, place.index(row, C) + u * place.step);
            p[u] = load(x, at(place, first, row + u * TY, x_pitch));
            if (dx) into[u] = load_wide(dx, at(place, first, row + u * TY, dx_pitch));
        }
        A s1[V], s2[V];
        EACH_V s1[v] = s2[v] = 0;
        EACH_U if (EXISTS(place, row, u)) {
            EACH_V {
                A d = get(p[u].v[v]) - m.v[v], value = get(g[u].v[v]);
                if (!is_open(fused(d, a.v[v], c.v[v]))) value = 0;
                s1[v] += value, s2[v] += value * d;
                if (dx) into[u].v[v] += a.v[v] * value;
            }
            if (dx) reinterpret_cast<Wide *>(dx)[at(place, first, row + u * TY, dx_pitch)] = into[u];
        }
        EACH_V sums[v] += s1[v], sums[V + v] += s2[v];
    }
    block_columns(sums, lanes);
    if (ty == 0 && place.rows) EACH_V {
        double *part = parts + 2LL * run * C + place.vector * V + v;
        part[0] = sums[v], part[C] = sums[V + v];
    }
    if (!block_is_last(ticket)) return;

    EACH_V sums[v] = sums[V + v] = 0;
    for (int p = ty; place.rows && p < P; p += TY) {
        const double *part = parts + 2LL * p * C + place.vector * V;
        EACH_V sums[v] += __ldcg(part + v), sums[V + v] += __ldcg(part + C + v);
    }
    block_columns(sums, lanes);
    if (ty == 0 && place.rows) EACH_V {
        int i = place.vector * V + v;
        double off = vectors[OFF * C + i], inv_std = vectors[INV_STD * C + i], gain = vectors[A_ * C + i];
        double total = sums[v], dot = (sums[V + v] - off * total) * inv_std, q = inv_std * gain * dot / M;
        if (correction) correction[i] += q, correction[correction_pitch + i] += gain * total / M - off * q;
        if (dw) dw[i] = (A)dot + (add_w ? dw[i] : (A)0);
        if (db) db[i] = (A)total + (add_b ? db[i] : (A)0);
    }
}

// dx = g − (d·q + r), or g where there are no moments.  Grid (tiles, runs of R rows), block (TX, TY).  Reads x and g, parts.
extern "C" __global__ void __launch_bounds__(THREADS) correct(
    const T *__restrict__ x, const A *__restrict__ g, const double *__restrict__ moments,
    const double *__restrict__ correction, T *__restrict__ dx, long long M, int C, int x_pitch, int g_pitch,
    int correction_pitch, int R) {
    Place place(M, C, R, blockIdx.y);
    long long first = (long long)blockIdx.y * R;
    A m[V], q[V], r[V];
    EACH_V {
        int c = place.vector * V + v;
        bool exists = moments && place.rows;
        m[v] = exists ? (A)moments[c] : 0;
        q[v] = exists ? (A)correction[c] : 0;
        r[v] = exists ? (A)correction[correction_pitch + c] : 0;
    }
    for (ROWS(place, row)) {
        Wide d[UNROLL];
        Pack p[UNROLL];
        EACH_U if (EXISTS(place, row, u)) {
            d[u] = load_wide(g, at(place, first, row + u * blockDim.y, g_pitch));
            if (moments) p[u] = load(x, at(place, first, row + u * blockDim.y, x_pitch));
        }
        EACH_U if (EXISTS(place, row, u)) {
            EACH_V {
                if (moments) d[u].v[v] -= fused(get(p[u].v[v]) - m[v], q[v], r[v]);
                put(p[u].v[v], d[u].v[v]);
            }
            store(dx, place.index(row, C) + u * place.step, p[u]);
        }
    }
}
