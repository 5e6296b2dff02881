// Batch normalisation: the twins of `batch_norm_forward` and `batch_norm_backward` in tinycnn/layers/batchnorm.py.
//
// An activation is a matrix of M = N·H·W rows and C columns (NHWC memory); norm.cuh says how threads divide it up.
// What is known of a channel is kept as five rows of a small matrix, `vectors` (5, C), in A, see channels.cuh:
//
//     m, off, inv_std, a, c      d = x − m      x̂ = (d − off)·inv_std      y = d·a + c
//
// Forward is two kernels, `measure` and `normalize` (in evaluation one, `normalize_fixed`), backward two, `add_up` and
// `input_gradient` (in evaluation only the first).  Bytes moved per element of 4 bytes, with ReLU:
//
//                           reads                  writes              together
//     forward               x · x (s)              y (gates ¼)         12   (with a shortcut 16¼)
//     backward              dy x (gates ¼) · g x   (ds) dx             20   (with a shortcut 24¼)
//
// **The gate.**  g = dy·[y > 0] needs y, but y is not read: without a shortcut it is made again from x by the very same
// operations (`fused`); with one, forward leaves a byte per vector, a bit for every channel, in `gates`.
//
// **Cache.**  `measure` and `add_up` go through the rows from the last to the first: what the kernel before wrote last
// is still in the cache then, and what they read last the kernel after them reads first.
#include "channels.cuh"

// Mean and variance of every channel, the vectors, and the running averages moved towards them.
//
// Grid (tiles, P), block (TX, TY), R rows per block; parts (P, 2, C).  Reads x.
extern "C" __global__ void __launch_bounds__(THREADS, 4) measure(
    const T *__restrict__ x, double *parts, A *vectors, const A *__restrict__ w, const A *__restrict__ b,
    A *running_mean, A *running_var, const long long *count, long long M, int C, int R, double eps, double momentum,
    int ticket) {
    __shared__ double lanes[2 * V * WAITING];
    __shared__ A bases[V * THREADS];
    block_moments(x, parts, M, C, R, ticket, lanes, bases, [=](int c, double mean, double var) {
        describe(vectors, C, c, mean, 1 / sqrt(var + eps), w, b);
        if (running_mean) {
            double share = momentum < 0 ? 1.0 / (*count + 1) : momentum;  // < 0: the average of all batches
            move_averages(running_mean, running_var, c, mean, var, M, share);
        }
    });
}

// y = d·a + c (+ s), and ReLU, of the rows of a thread.
__device__ __forceinline__ void write_rows(
    const T *__restrict__ x, const T *__restrict__ shortcut, T *__restrict__ y, unsigned char *__restrict__ gates,
    const Numbers &m, const Numbers &a, const Numbers &c, const Place &place, int C, bool relu) {
    for (ROWS(place, row)) {
        Pack p[UNROLL], s[UNROLL];
        long long i = place.index(row, C);
        EACH_U if (EXISTS(place, row, u)) p[u] = load(x, i + u * place.step);
        EACH_U if (EXISTS(place, row, u) && shortcut) s[u] = load(shortcut, i + u * place.step);
        EACH_U if (EXISTS(place, row, u)) {
            unsigned open = 0;
            EACH_V {
                A value = fused(get(p[u].v[v]) - m.v[v], a.v[v], c.v[v]);
                if (shortcut) value += get(s[u].v[v]);
                if (relu && value < 0) value = 0;  // a NaN stays
                put(p[u].v[v], value);
                open |= (get(p[u].v[v]) > 0) << v;
            }
            store(y, i + u * place.step, p[u]);
            if (gates) gates[i + u * place.step] = open;
        }
    }
}

// y from the vectors.  Grid (tiles, runs of R rows), block (TX, TY).  Reads x (and the shortcut), writes y (and gates);
// counts the batch.
extern "C" __global__ void __launch_bounds__(THREADS, 4) normalize(
    const T *__restrict__ x, const T *__restrict__ shortcut, T *__restrict__ y, unsigned char *__restrict__ gates,
    const A *__restrict__ vectors, long long *count, long long M, int C, int R, bool relu) {
    Place place(M, C, R, blockIdx.y);
    Numbers m(vectors + M_ * C, place), a(vectors + A_ * C, place), c(vectors + C_ * C, place);
    write_rows(x, shortcut, y, gates, m, a, c, place, C, relu);
    if (count && blockIdx.x + blockIdx.y + threadIdx.x + threadIdx.y == 0) *count += 1;
}

// The same from given statistics; the vectors are written for backward.
extern "C" __global__ void __launch_bounds__(THREADS, 4) normalize_fixed(
    const T *__restrict__ x, const T *__restrict__ shortcut, T *__restrict__ y, unsigned char *__restrict__ gates,
    A *vectors, const A *__restrict__ w, const A *__restrict__ b, const A *__restrict__ mean,
    const A *__restrict__ var, long long M, int C, int R, double eps, bool relu) {
    Place place(M, C, R, blockIdx.y);
    Numbers m(mean, place), a(var, place, 1), c(b, place), gain(w, place, 1);
    EACH_V {
        A inv_std = 1 / sqrt(a.v[v] + (A)eps);
        a.v[v] = inv_std * gain.v[v];
        if (place.rows && blockIdx.y == 0 && threadIdx.y == 0) {
            A *own = vectors + place.vector * V + v;
            own[M_ * C] = m.v[v], own[OFF * C] = 0, own[INV_STD * C] = inv_std;
            own[A_ * C] = a.v[v], own[C_ * C] = c.v[v];
        }
    }
    write_rows(x, shortcut, y, gates, m, a, c, place, C, relu);
}

// dγ = Σ g·x̂ and dβ = Σ g, written to (or added to) the gradients dw and db, and what `input_gradient` needs of them:
//
//     dx = a·(g − dβ/M − x̂·dγ/M) = a·g − (d·q + r),    q = inv_std·a·dγ/M,    r = a·dβ/M − off·q
//
// Grid (tiles, P), block (TX, TY), R rows per block.  Reads dy and x (and gates); writes ds = g if there was a shortcut,
// and if statistics are fixed, when nothing more is needed for it, dx = a·g.  parts (P, 2, C) take the sums of every
// block, the last block of a tile adds them up.
extern "C" __global__ void __launch_bounds__(THREADS, 2) add_up(
    const T *__restrict__ dy, const T *__restrict__ x, const unsigned char *__restrict__ gates,
    const A *__restrict__ vectors, T *__restrict__ ds, T *__restrict__ dx, double *parts, A *qr, A *dw, A *db,
    long long M, int C, int R, bool relu, bool add_w, bool add_b, int ticket) {
    __shared__ double lanes[2 * V * WAITING];
    int P = gridDim.y, run = P - 1 - blockIdx.y, ty = threadIdx.y, TY = blockDim.y;
    Place place(M, C, R, run);
    Numbers m(vectors + M_ * C, place), a(vectors + A_ * C, place), c(vectors + C_ * C, place);
    double sums[2 * V];
    EACH_V sums[v] = sums[V + v] = 0;
    for (ROWS(place, row)) {
        Pack g[UNROLL], p[UNROLL];
        unsigned open[UNROLL];
        long long i = place.index(row, C);
        EACH_U if (EXISTS(place, row, u)) g[u] = load(dy, i + u * place.step), p[u] = load(x, i + u * place.step);
        EACH_U if (EXISTS(place, row, u) && gates) open[u] = gates[i + u * place.step];
        A s1[V], s2[V];
        EACH_V s1[v] = s2[v] = 0;
        EACH_U if (EXISTS(place, row, u)) {
            EACH_V {
                A d = get(p[u].v[v]) - m.v[v], value = get(g[u].v[v]);
                if (relu && !(gates ? open[u] >> v & 1 : is_open(fused(d, a.v[v], c.v[v])))) value = 0;
                s1[v] += value, s2[v] += value * d;
                put(g[u].v[v], value);
                put(p[u].v[v], a.v[v] * value);
            }
            if (ds) store(ds, i + u * place.step, g[u]);
            if (dx) store(dx, i + u * place.step, p[u]);
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
        int c = place.vector * V + v;
        double off = vectors[OFF * C + c], inv_std = vectors[INV_STD * C + c], gain = vectors[A_ * C + c];
        double total = sums[v], dot = (sums[V + v] - off * total) * inv_std, q = inv_std * gain * dot / M;
        qr[c] = (A)q, qr[C + c] = (A)(gain * total / M - off * q);
        if (dw) dw[c] = (A)dot + (add_w ? dw[c] : (A)0);
        if (db) db[c] = (A)total + (add_b ? db[c] : (A)0);
    }
}

// dx = a·g − (d·q + r).  Grid (tiles, runs of R rows), block (TX, TY).  Reads g and x, writes dx.  With `relu` g is dy
// still without its gate.
extern "C" __global__ void __launch_bounds__(THREADS) input_gradient(
    const T *__restrict__ g, const T *__restrict__ x, const A *__restrict__ vectors, const A *__restrict__ qr,
    T *__restrict__ dx, long long M, int C, int R, bool relu) {
    Place place(M, C, R, blockIdx.y);
    Numbers m(vectors + M_ * C, place), a(vectors + A_ * C, place), c(vectors + C_ * C, place);
    Numbers q(qr, place), r(qr + C, place);
    for (ROWS(place, row)) {
        Pack d[UNROLL], p[UNROLL];
        long long i = place.index(row, C);
        EACH_U if (EXISTS(place, row, u)) d[u] = load(g, i + u * place.step), p[u] = load(x, i + u * place.step);
        EACH_U if (EXISTS(place, row, u)) {
            EACH_V {
                A deviation = get(p[u].v[v]) - m.v[v], value = get(d[u].v[v]);
                if (relu && !is_open(fused(deviation, a.v[v], c.v[v]))) value = 0;
                put(p[u].v[v], a.v[v] * value - fused(deviation, q.v[v], r.v[v]));
            }
            store(dx, i + u * place.step, p[u]);
        }
    }
}
