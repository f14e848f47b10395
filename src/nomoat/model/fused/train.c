/* The elementwise pieces of a decoder block and of the output layer, forward and backward, in one pass over memory each.

   Every row is computed as if it were alone: the number of threads changes no bit. Loops are written plainly, for the
   compiler to make vectors of. */

#include "numbers.h"

/* RMSNorm of every row of x [R, H], and what each was multiplied with, [R]. */
void rms_norm(const stream *x, const stream *weight, float eps, number *y, float *scales, int rows, int width) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        const stream *in = x + (int64_t)row * width;
        number *out = y + (int64_t)row * width;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int i = 0; i < width; i++)
            squares += from_stream(in[i]) * from_stream(in[i]);
        float scale = scales[row] = 1 / sqrtf(squares / width + eps);
#pragma omp simd
        for (int i = 0; i < width; i++)
            out[i] = to_number(from_stream(in[i]) * scale * from_stream(weight[i]));
    }
}

/* The same from scales that were kept. */
void rms_norm_again(const stream *x, const stream *weight, const float *scales, number *y, int rows, int width) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++)
#pragma omp simd
        for (int i = 0; i < width; i++) {
            int64_t at = (int64_t)row * width + i;
            y[at] = to_number(from_stream(x[at]) * scales[row] * from_stream(weight[i]));
        }
}

/* Gradient to x, and `more` [R, H] where it is. */
void rms_norm_backward(const number *grad, const stream *x, const stream *weight, const float *scales,
                       const stream *more, stream *to_x, int rows, int width) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        int64_t at = (int64_t)row * width;
        const number *g = grad + at;
        const stream *in = x + at, *rest = more + at;
        float scale = scales[row], share = 0;
#pragma omp simd reduction(+ : share)
        for (int i = 0; i < width; i++)
            share += from_number(g[i]) * from_stream(weight[i]) * from_stream(in[i]);
        share *= scale * scale / width;
        if (more)
#pragma omp simd
            for (int i = 0; i < width; i++)
                to_x[at + i] = to_stream(
                    (from_number(g[i]) * from_stream(weight[i]) - from_stream(in[i]) * share) * scale +
                    from_stream(rest[i]));
        else
#pragma omp simd
            for (int i = 0; i < width; i++)
                to_x[at + i] =
                    to_stream((from_number(g[i]) * from_stream(weight[i]) - from_stream(in[i]) * share) * scale);
    }
}

/* N heads of width D of every row, which lie `apart` from one row to the next, turned by cos and sign·sin [R, D]:
   y [R, N, D]. */
void rotate(const number *x, int64_t apart, const number *cos, const number *sin, float sign, number *y, int rows,
            int heads, int width) {
    int half = width / 2;
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        const number *c = cos + (int64_t)row * width, *s = sin + (int64_t)row * width;
        for (int head = 0; head < heads; head++) {
            const number *in = x + row * apart + head * width;
            number *out = y + ((int64_t)row * heads + head) * width;
#pragma omp simd
            for (int i = 0; i < half; i++) {
                float a = from_number(in[i]), b = from_number(in[i + half]);
                out[i] = to_number(a * from_number(c[i]) - b * sign * from_number(s[i]));
                out[i + half] = to_number(b * from_number(c[i + half]) + a * sign * from_number(s[i + half]));
            }
        }
    }
}

/* SiLU(gate)·up, both [R, I] with rows that lie `apart`. */
void swiglu(const number *gate, const number *up, int64_t apart, number *y, int rows, int width) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        const number *gates = gate + row * apart, *ups = up + row * apart;
        number *out = y + (int64_t)row * width;
#pragma omp simd
        for (int i = 0; i < width; i++) {
            float g = from_number(gates[i]);
            out[i] = to_number(g / (1 + exponential(-g)) * from_number(ups[i]));
        }
    }
}

/* Gradients to gate and up, each [R, I]. */
void swiglu_backward(const number *grad, const number *gate, const number *up, int64_t apart, number *to_gate,
                     number *to_up, int rows, int width) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        const number *grads = grad + (int64_t)row * width, *gates = gate + row * apart, *ups = up + row * apart;
        number *of_gate = to_gate + (int64_t)row * width, *of_up = to_up + (int64_t)row * width;
#pragma omp simd
        for (int i = 0; i < width; i++) {
            float d = from_number(grads[i]), g = from_number(gates[i]), share = 1 / (1 + exponential(-g));
            of_up[i] = to_number(d * g * share);
            of_gate[i] = to_number(d * from_number(ups[i]) * share * (1 + g * (1 - share)));
        }
    }
}

/* Of logits [R, V] log p of every row's target. With `scales` [R], the logits become `scale` times less than the
   gradient of that to them, which is 1 at the target less every p: exponentials need no second look then. */
void log_share(number *logits, const int64_t *targets, float *logp, float *scales, int rows, int vocabulary) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        number *x = logits + (int64_t)row * vocabulary, *target = x + targets[row];
        float highest = -INFINITY, total = 0, own = from_number(*target);
#pragma omp simd reduction(max : highest)
        for (int v = 0; v < vocabulary; v++)
            highest = from_number(x[v]) > highest ? from_number(x[v]) : highest;
        if (scales) {
#pragma omp simd reduction(+ : total)
            for (int v = 0; v < vocabulary; v++) {
                float e = exponential(from_number(x[v]) - highest);
                total += e;
                x[v] = to_number(-e);
            }
            *target = to_number(total - exponential(own - highest));
            scales[row] = 1 / total;
        } else {
#pragma omp simd reduction(+ : total)
            for (int v = 0; v < vocabulary; v++)
                total += exponential(from_number(x[v]) - highest);
        }
        logp[row] = own - highest - logf(total);
    }
}

/* Of logits [R, C], which are the columns from `first` on of more, what their softmax needs (Milakov and Gimelshein 2018,
   arXiv:1805.02867): the `highest` [R] so far, the sum of e^(x - highest) of all `others` [R] than the target, and the
   logit of the target, `own` [R], once it is met. With `fades` [R] the logits become -e^(x - highest), 0 at the target,
   and what was made of earlier ones is to be multiplied with a row's fade. */
void share_on(number *logits, const int64_t *targets, int64_t first, float *highest, float *others, float *own,
              float *fades, int rows, int columns) {
#pragma omp parallel for schedule(static)
    for (int row = 0; row < rows; row++) {
        number *x = logits + (int64_t)row * columns;
        int64_t target = targets[row] - first;
        float most = highest[row], total = 0;
#pragma omp simd reduction(max : most)
        for (int v = 0; v < columns; v++)
            most = from_number(x[v]) > most ? from_number(x[v]) : most;
        if (target >= 0 && target < columns) {
            own[row] = from_number(x[target]);
            x[target] = to_number(-INFINITY);
        }
        if (fades) {
#pragma omp simd reduction(+ : total)
            for (int v = 0; v < columns; v++) {
                float e = exponential(from_number(x[v]) - most);
                total += e;
                x[v] = to_number(-e);
            }
            fades[row] = exponential(highest[row] - most);
        } else {
#pragma omp simd reduction(+ : total)
            for (int v = 0; v < columns; v++)
                total += exponential(from_number(x[v]) - most);
        }
        others[row] = others[row] * exponential(highest[row] - most) + total;
        highest[row] = most;
    }
}
