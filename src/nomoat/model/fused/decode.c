/* One token more in each of R rows, float32, on a processor: the pieces of a decoder block.

   Every row is computed as if it were alone, in one order of additions: neither the rows beside it nor the number
   of threads changes a bit of it. Loops over slots are written plainly, for the compiler to make vectors of. */

#include "numbers.h"

typedef float lanes __attribute__((vector_size(32), aligned(4)));

enum { LANES = 8, PANEL = 2 * LANES, TOGETHER = 6, PIECE = 128 };

/* W [O, I] as [O / 16, I, 16], the last outputs filled up with zeros. */
void pack(const float *weight, float *panels, int inputs, int outputs) {
#pragma omp parallel for schedule(static)
    for (int first = 0; first < outputs; first += PANEL) {
        float *panel = panels + (int64_t)first * inputs;
        for (int o = first; o < first + PANEL; o++)
            for (int i = 0; i < inputs; i++)
                panel[i * PANEL + o - first] = o < outputs ? weight[(int64_t)o * inputs + i] : 0;
    }
}

/* Sums of `rows` rows of x with 16 outputs' weights, which lie [I, 16]. Both loops over rows are unrolled. */
static inline __attribute__((always_inline)) void
tile(const int rows, const float *x, const float *panel, int inputs, float y[][PANEL]) {
    lanes low[TOGETHER] = {0}, high[TOGETHER] = {0};
    for (int i = 0; i < inputs; i++) {
        __builtin_prefetch(panel + (inputs + i) * PANEL); /* the next panel comes while this one is multiplied */
        lanes a = *(const lanes *)(panel + i * PANEL), b = *(const lanes *)(panel + i * PANEL + LANES);
        for (int r = 0; r < rows; r++) {
            low[r] += x[r * inputs + i] * a;
            high[r] += x[r * inputs + i] * b;
        }
    }
    for (int r = 0; r < rows; r++) {
        *(lanes *)y[r] = low[r];
        *(lanes *)(y[r] + LANES) = high[r];
    }
}

/* y [R, O] = x [R, I] Wᵀ + bias [O] + more [R, O], the last two where they are. */
void linear(const float *x, const float *panels, const float *bias, const float *more, float *y, int rows,
            int inputs, int outputs) {
#pragma omp parallel for schedule(static)
    for (int first = 0; first < outputs; first += PANEL) {
        const float *panel = panels + (int64_t)first * inputs;
        int columns = outputs - first < PANEL ? outputs - first : PANEL;
        for (int row = 0; row < rows; row += TOGETHER) {
            const float *in = x + (int64_t)row * inputs;
            int many = rows - row < TOGETHER ? rows - row : TOGETHER;
            float sums[TOGETHER][PANEL];
            switch (many) {
            case 1: tile(1, in, panel, inputs, sums); break;
            case 2: tile(2, in, panel, inputs, sums); break;
            case 3: tile(3, in, panel, inputs, sums); break;
            case 4: tile(4, in, panel, inputs, sums); break;
            case 5: tile(5, in, panel, inputs, sums); break;
            default: tile(6, in, panel, inputs, sums);
            }
            for (int r = 0; r < many; r++) {
                int64_t at = (int64_t)(row + r) * outputs + first;
                for (int c = 0; c < columns; c++)
                    y[at + c] = sums[r][c] + (bias ? bias[first + c] : 0) + (more ? more[at + c] : 0);
            }
        }
    }
}

static inline float dot(const float *a, const float *b, int n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static inline void normalize(const float *x, const float *weight, float eps, float *y, int n) {
    float scale = 1 / sqrtf(dot(x, x, n) / n + eps);
#pragma omp simd
    for (int i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

/* RMSNorm of every row of x [R, H]. */
void rms_norm(const float *x, const float *weight, float eps, float *y, int rows, int width) {
    for (int row = 0; row < rows; row++)
        normalize(x + row * width, weight, eps, y + row * width, width);
}

/* SiLU(gate)·up of both [R, 2·I], gate first: y [R, I]. */
void swiglu(const float *both, float *y, int rows, int width) {
    for (int row = 0; row < rows; row++) {
        const float *gate = both + (int64_t)row * 2 * width, *up = gate + width;
#pragma omp simd
        for (int i = 0; i < width; i++)
            y[(int64_t)row * width + i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
    }
}

/* A head [D] normed where it has a weight and turned where it has angles. */
static inline void place(float *head, const float *weight, float eps, const float *cos, const float *sin, int width) {
    if (weight)
        normalize(head, weight, eps, head, width);
    if (cos)
        for (int i = 0, j = width / 2; j < width; i++, j++) {
            float a = head[i], b = head[j];
            head[i] = a * cos[i] - b * sin[i];
            head[j] = b * cos[j] + a * sin[j];
        }
}

/* Attention of N query heads over K heads of keys and values [.., K, L, D], into which this token's are written.
   qkv [R, (N + 2·K)·D] is changed; cos and sin [R, D] and the heads' norms may be absent; a window of 0 is none;
   scores is room for [R, N, seen]; mixed [R, N·D] is what comes out. */
void attend(float *qkv, const float *cos, const float *sin, const float *query_norm, const float *key_norm, float eps,
            float *keys, float *values, const int64_t *positions, float *scores, float *mixed, int rows, int heads,
            int key_heads, int width, int length, int seen, int window, float scaling) {
    int shared = heads / key_heads;
#pragma omp parallel for collapse(2) schedule(static)
    for (int row = 0; row < rows; row++)
        for (int k = 0; k < key_heads; k++) {
            const float *c = cos ? cos + row * width : 0, *s = sin ? sin + row * width : 0;
            int last = (int)positions[row], first = window && last >= window ? last - window + 1 : 0;
            int64_t at = ((int64_t)row * key_heads + k) * length * width;
            float *own = qkv + (int64_t)row * (heads + 2 * key_heads) * width;
            float *key = own + (heads + k) * width, *value = key + key_heads * width;
            place(key, key_norm, eps, c, s, width);
            memcpy(keys + at + (int64_t)last * width, key, width * sizeof(float));
            memcpy(values + at + (int64_t)last * width, value, width * sizeof(float));
            for (int n = k * shared; n < (k + 1) * shared; n++) {
                float *query = own + n * width, *out = mixed + ((int64_t)row * heads + n) * width;
                float *weights = scores + ((int64_t)row * heads + n) * seen, highest = -INFINITY, total = 0;
                place(query, query_norm, eps, c, s, width);
                for (int t = first; t <= last; t++) {
                    weights[t] = dot(query, keys + at + (int64_t)t * width, width) * scaling;
                    highest = weights[t] > highest ? weights[t] : highest;
                }
#pragma omp simd reduction(+ : total)
                for (int t = first; t <= last; t++)
                    total += weights[t] = exponential(weights[t] - highest);
                memset(out, 0, width * sizeof(float));
                for (int t = first; t <= last; t++) {
                    float share = weights[t] / total;
                    const float *slot = values + at + (int64_t)t * width;
#pragma omp simd
                    for (int i = 0; i < width; i++)
                        out[i] += share * slot[i];
                }
            }
        }
}

/* Where the running sum of e^(logits - highest) first exceeds uniform [R] times its total, and the logarithm of that
   one's share. Sums of pieces are run over first, and then one piece; what has no share is never chosen. */
void draw(const float *logits, const float *uniform, int64_t *chosen, float *logp, int rows, int vocabulary) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        const float *x = logits + (int64_t)row * vocabulary;
        int pieces = (vocabulary + PIECE - 1) / PIECE, last = 0;
        float sums[pieces], highest = -INFINITY;
        double total = 0;
#pragma omp simd reduction(max : highest)
        for (int v = 0; v < vocabulary; v++)
            highest = x[v] > highest ? x[v] : highest;
        for (int piece = 0; piece < pieces; piece++) {
            int end = vocabulary < (piece + 1) * PIECE ? vocabulary : (piece + 1) * PIECE;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int v = piece * PIECE; v < end; v++)
                sum += exponential(x[v] - highest);
            sums[piece] = sum;
            total += sum;
            last = sum > 0 ? piece : last;
        }
        double wanted = uniform[row] * total, before = 0;
        int piece = 0;
        while (piece < last && before + sums[piece] <= wanted)
            before += sums[piece++];
        int end = vocabulary < (piece + 1) * PIECE ? vocabulary : (piece + 1) * PIECE, found = piece * PIECE;
        for (int v = found; v < end && before <= wanted; v++) {
            float share = exponential(x[v] - highest);
            before += share;
            found = share > 0 ? v : found;
        }
        chosen[row] = found;
        logp[row] = x[found] - highest - (float)log(total);
    }
}
