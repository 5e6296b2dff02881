// Layer normalisation: the twins of `layer_norm_forward` and `layer_norm_backward` in tinycnn/layers/layernorm.py.
//
// Examples are the rows of a matrix (N, M), contiguous.  Forward and dx are one kernel each, a block for every example:
// thread ty takes vectors ty, ty + TY, … of V features (a matrix of M/V rows and V columns, in the words of norm.cuh).
// Both read their input twice, the second time from the cache, and write once.  dγ and dβ, sums over the examples, are
// sums of columns: a third kernel.  What is known of an example is three numbers in `statistics` (3, N): m,
// off = mean − m, and inv_std, as in batchnorm.cu.
#include "norm.cuh"

// V numbers of γ or β.
__device__ __forceinline__ void features(A (&v)[V], const A *row, int vector, A otherwise) {
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = row ? row[vector * V + i] : otherwise;
}

// Statistics and y = γ·x̂ + β.  Grid N, block (1, TY).
extern "C" __global__ void __launch_bounds__(THREADS, 3) layer_norm_forward(
    const T *__restrict__ x, T *__restrict__ y, A *statistics, const A *__restrict__ w, const A *__restrict__ b, int N,
    int M, double eps) {
    __shared__ double lanes[2 * WAITING];
    __shared__ A base, found[3];
    int n = blockIdx.x, ty = threadIdx.y, TY = blockDim.y, vectors = M / V;
    Place place(0, 1, 1, (long long)n * vectors, vectors);
    Moments moments;
    for (ROWS(place, row)) {
        Pack p[UNROLL];
        long long i = place.origin + row;
        EACH_U if (EXISTS(place, row, u)) p[u] = load(x, i + u * place.step);
        moments.add(p, place, row, row == ty);
    }
    if (ty == 0) base = moments.k[0];
    __syncthreads();
    double totals[2] = {0, 0}, own = max(0, (vectors - ty + TY - 1) / TY);
    EACH_V {
        moments.rebase(v, base, own);
        totals[0] += moments.s1[v], totals[1] += moments.s2[v];
    }
    block_total(totals, lanes);
    if (ty == 0) {
        double by = totals[0] / M, mean = base + by, var = max(totals[1] / M - by * by, 0.0);
        A m = (A)mean;
        found[0] = statistics[n] = m;
        found[1] = statistics[N + n] = (A)(mean - m);
        found[2] = statistics[2LL * N + n] = (A)(1 / sqrt(var + eps));
    }
    __syncthreads();
    A m = found[0], inv_std = found[2], shift = -found[1] * inv_std;
    for (ROWS(place, row)) {
        Pack p[UNROLL];
        long long i = place.origin + row;
        EACH_U if (EXISTS(place, row, u)) p[u] = load(x, i + u * place.step);
        EACH_U if (EXISTS(place, row, u)) {
            A gain[V], bias[V];
            features(gain, w, row + u * TY, 1), features(bias, b, row + u * TY, 0);
            EACH_V put(p[u].v[v], fused(fused(get(p[u].v[v]) - m, inv_std, shift), gain[v], bias[v]));
            store(y, i + u * place.step, p[u]);
        }
    }
}

// dx = inv_std·γ·dy − (d·q + r), d = x − m, with q = inv_std²·mean(γ·dy·x̂) and r = inv_std·mean(γ·dy) − off·q.
// Grid N, block (1, TY).
extern "C" __global__ void __launch_bounds__(THREADS, 3) input_gradient(
    const T *__restrict__ dy, const T *__restrict__ x, const A *__restrict__ statistics, const A *__restrict__ w,
    T *__restrict__ dx, int N, int M) {
    __shared__ double lanes[2 * WAITING];
    __shared__ A found[2];
    int n = blockIdx.x, TY = blockDim.y, vectors = M / V;
    A m = statistics[n], off = statistics[N + n], inv_std = statistics[2LL * N + n];
    Place place(0, 1, 1, (long long)n * vectors, vectors);
    double totals[2] = {0, 0};
    for (ROWS(place, row)) {
        Pack g[UNROLL], p[UNROLL];
        long long i = place.origin + row;
        EACH_U if (EXISTS(place, row, u)) g[u] = load(dy, i + u * place.step), p[u] = load(x, i + u * place.step);
        A s1 = 0, s2 = 0;
        EACH_U if (EXISTS(place, row, u)) {
            A gain[V];
            features(gain, w, row + u * TY, 1);
            EACH_V {
                A value = gain[v] * get(g[u].v[v]);
                s1 += value, s2 += value * (get(p[u].v[v]) - m);
            }
        }
        totals[0] += s1, totals[1] += s2;
    }
    block_total(totals, lanes);
    if (threadIdx.y == 0) {
        double dot = (totals[1] - off * totals[0]) * inv_std, q = (double)inv_std * inv_std * dot / M;
        found[0] = (A)q, found[1] = (A)(inv_std * totals[0] / M - off * q);
    }
    __syncthreads();
    A q = found[0], r = found[1];
    for (ROWS(place, row)) {
        Pack g[UNROLL], p[UNROLL];
        long long i = place.origin + row;
        EACH_U if (EXISTS(place, row, u)) g[u] = load(dy, i + u * place.step), p[u] = load(x, i + u * place.step);
        EACH_U if (EXISTS(place, row, u)) {
            A gain[V];
            features(gain, w, row + u * TY, 1);
            EACH_V put(p[u].v[v], inv_std * gain[v] * get(g[u].v[v]) - fused(get(p[u].v[v]) - m, q, r));
            store(dx, i + u * place.step, p[u]);
        }
    }
}

// dγ = Σ dy·x̂ and dβ = Σ dy over the examples, written to (or added to) dw and db.
// Grid (tiles, P), block (TX, TY), R examples per block.  Reads dy and x; parts (P, 2, M) take the sums of every block,
// the last block of a tile adds them up.
extern "C" __global__ void __launch_bounds__(THREADS, 2) weight_gradients(
    const T *__restrict__ dy, const T *__restrict__ x, const A *__restrict__ statistics, double *parts, A *dw, A *db,
    int N, int M, int R, bool add_w, bool add_b, int ticket) {
    __shared__ double lanes[2 * V * WAITING];
    int P = gridDim.y, run = blockIdx.y, ty = threadIdx.y, TY = blockDim.y;
    Place place(N, M, R, run);
    double sums[2 * V];
    EACH_V sums[v] = sums[V + v] = 0;
    for (ROWS(place, row)) {
        Pack g[UNROLL], p[UNROLL];
        A m[UNROLL], shift[UNROLL], inv_std[UNROLL];
        long long i = place.index(row, M);
        EACH_U if (EXISTS(place, row, u)) {
            g[u] = load(dy, i + u * place.step), p[u] = load(x, i + u * place.step);
            const A *own = statistics + (long long)run * R + row + u * TY;
            m[u] = own[0], inv_std[u] = own[2LL * N], shift[u] = -own[N] * inv_std[u];
        }
        EACH_V {
            A s1 = 0, s2 = 0;
            EACH_U if (EXISTS(place, row, u)) {
                A value = get(g[u].v[v]);
                s1 += value, s2 += value * fused(get(p[u].v[v]) - m[u], inv_std[u], shift[u]);
            }
            sums[v] += s1, sums[V + v] += s2;
        }
    }
    block_columns(sums, lanes);
    if (ty == 0 && place.rows) EACH_V {
        double *part = parts + 2LL * run * M + place.vector * V + v;
        part[0] = sums[v], part[M] = sums[V + v];
    }
    if (!block_is_last(ticket)) return;

    EACH_V sums[v] = sums[V + v] = 0;
    for (int p = ty; place.rows && p < P; p += TY) {
        const double *part = parts + 2LL * p * M + place.vector * V;
        EACH_V sums[v] += __ldcg(part + v), sums[V + v] += __ldcg(part + M + v);
    }
    block_columns(sums, lanes);
    if (ty == 0 && place.rows) EACH_V {
        int f = place.vector * V + v;
        if (dw) dw[f] = (A)sums[V + v] + (add_w ? dw[f] : (A)0);
        if (db) db[f] = (A)sums[v] + (add_b ? db[f] : (A)0);
    }
}
