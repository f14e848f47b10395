/* Attention of packed segments, forward and backward (Dao et al. 2022, arXiv:2205.14135, without its second level of
   blocks: a block of queries meets all of its keys at once).

   A family is a root segment and those that go on from it. A family and a key head are one task, done by one thread
   in one order, so that the number of threads changes no bit. Keys and values lie as float32 in the thread's own
   room: the root's first, and after them those of one segment that goes on. A query then sees every key up to its
   own place, whichever segment it is of.

   N query heads · K key heads · D head width, `wide` when filled up with zeros · L keys there is room for */

#include "numbers.h"
#include <stdlib.h>

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 4 };
#elif defined(__AVX__)
enum { LANES = 8, VECTORS = 2 };
#else
enum { LANES = 4, VECTORS = 4 };
#endif
/* A tile of sums is ROWS x PANEL, a square that is turned SQUARE x SQUARE; BLOCK queries are computed at once. */
enum { ROWS = 6, PANEL = LANES * VECTORS, SQUARE = 16, BLOCK = 8 * ROWS };

typedef float lanes __attribute__((vector_size(LANES * 4), aligned(4)));

typedef struct {
    const int *spans, *families; /* first token and the one after the last; first segment of a family */
    int heads, key_heads, width, wide, longest;
    float scaling;
} Shape;

/* What a thread computes in. Rows are [.., wide]; panels [L / PANEL, wide, PANEL]; scores [BLOCK, L + SQUARE],
   so that rows of them do not fall on one another in the cache. */
typedef struct {
    float *key, *value, *key_panels, *value_panels, *to_key, *to_value;
    float *query, *out, *to_query, *scores, *to_scores;
} Room;

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int up(int n, int unit) { return (n + unit - 1) & -unit; } /* unit is a power of two */

/* c (+)= a b: a [ROWS, depth], whose numbers lie at row·i + step·k, and b [depth, vectors]. */
static inline __attribute__((always_inline)) void
tile(const int vectors, const float *a, int64_t row, int64_t step, const float *b, int64_t ldb, int depth, float *c,
     int64_t ldc, int add) {
    lanes sums[ROWS][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sums[r][v] = add ? *(lanes *)(c + r * ldc + v * LANES) : (lanes){0};
    for (int k = 0; k < depth; k++, a += step, b += ldb)
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sums[r][v] += a[r * row] * *(const lanes *)(b + v * LANES);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            *(lanes *)(c + r * ldc + v * LANES) = sums[r][v];
}

static __attribute__((noinline)) void product(int columns, const float *a, int64_t row, int64_t step, const float *b,
                                              int64_t ldb, int depth, float *c, int64_t ldc, int add) {
    switch ((columns + LANES - 1) / LANES) {
    case 1: tile(1, a, row, step, b, ldb, depth, c, ldc, add); break;
    case 2: tile(2, a, row, step, b, ldb, depth, c, ldc, add); break;
    case 3: tile(least(3, VECTORS), a, row, step, b, ldb, depth, c, ldc, add); break; /* where there are four */
    default: tile(VECTORS, a, row, step, b, ldb, depth, c, ldc, add);
    }
}

/* Rows of numbers as float32 [rows, wide] times `scale`. */
static void widen(const Shape *shape, const number *from, int64_t stride, int rows, float scale, float *to) {
    for (int r = 0; r < rows; r++, from += stride, to += shape->wide) {
        for (int d = 0; d < shape->width; d++)
            to[d] = from_number(from[d]) * scale;
        for (int d = shape->width; d < shape->wide; d++)
            to[d] = 0;
    }
}

/* Has rows of numbers brought near while something else is computed. */
static inline void fetch(const Shape *shape, const number *from, int64_t stride, int rows) {
    for (int r = 0; r < rows; r++, from += stride)
        for (int d = 0; d < shape->width; d += 64 / (int)sizeof(number))
            __builtin_prefetch(from + d);
}

/* Float32 [rows, wide] times `scale` as rows of numbers. */
static void narrow(const Shape *shape, const float *from, int rows, float scale, number *to, int64_t stride) {
    for (int r = 0; r < rows; r++, from += shape->wide, to += stride)
        for (int d = 0; d < shape->width; d++)
            to[d] = to_number(from[d] * scale);
}

/* A square with its halves riffled into one another like a pack of cards; done four times, it is turned. */
static inline void riffle(const float *restrict from, float *restrict to) {
    for (int i = 0; i < SQUARE * SQUARE / 2; i++) {
        to[2 * i] = from[i];
        to[2 * i + 1] = from[i + SQUARE * SQUARE / 2];
    }
}

/* Rows `first` to `end` of [L, wide] into panels; their squares are written as a whole. */
static void turn(const float *rows, int first, int end, int wide, float *panels) {
    float a[SQUARE * SQUARE], b[SQUARE * SQUARE];
    for (int j = first / SQUARE * SQUARE; j < end; j += SQUARE)
        for (int d = 0; d < wide; d += SQUARE) {
            float *to = panels + ((int64_t)(j / PANEL) * wide + d) * PANEL + j % PANEL;
            for (int r = 0; r < SQUARE; r++)
                memcpy(a + r * SQUARE, rows + (int64_t)(j + r) * wide + d, SQUARE * sizeof(float));
            riffle(a, b), riffle(b, a), riffle(a, b), riffle(b, a);
            for (int r = 0; r < SQUARE; r++)
                memcpy(to + r * PANEL, a + r * SQUARE, SQUARE * sizeof(float));
        }
}

/* scores [rows, up to the last key that is seen] of queries with keys; query 0 sees `seen` keys. */
static void with_panels(const float *query, const float *panels, int rows, int seen, const Shape *shape,
                        float *scores) {
    int64_t stride = shape->longest + SQUARE;
    for (int j = 0; j < seen + rows - 1; j += PANEL)
        for (int r = 0; r < rows; r += ROWS) {
            int columns = least(PANEL, seen + least(r + ROWS, rows) - 1 - j);
            if (columns > 0)
                product(columns, query + r * shape->wide, shape->wide, 1, panels + (int64_t)j * shape->wide, PANEL,
                        shape->wide, scores + r * stride + j, stride, 0);
        }
}

/* out [rows, wide] = scores times rows of keys or values. */
static void with_rows(const float *scores, const float *keys, int rows, int seen, const Shape *shape, float *out) {
    int64_t stride = shape->longest + SQUARE, wide = shape->wide;
    for (int d = 0; d < wide; d += PANEL)
        for (int r = 0; r < rows; r += ROWS)
            product(least(PANEL, wide - d), scores + r * stride, stride, 1, keys + d, wide,
                    seen + least(r + ROWS, rows) - 1, out + r * wide + d, wide, 0);
}

/* Adds to rows of keys or values what the queries that see them give, weighed by scores. */
static void to_rows(const float *scores, const float *given, int rows, int seen, const Shape *shape, float *keys) {
    int64_t stride = shape->longest + SQUARE, wide = shape->wide;
    for (int d = 0; d < wide; d += PANEL)
        for (int j = 0; j < seen + rows - 1; j += ROWS) {
            int r = j < seen ? 0 : j - seen + 1; /* the first that sees any of them */
            product(least(PANEL, wide - d), scores + r * stride + j, 1, stride, given + r * wide + d, wide, rows - r,
                    keys + j * wide + d, wide, 1);
        }
}

/* The sum of SQUARE numbers, which are used up. */
static inline float total(float *x) {
#pragma GCC unroll 4
    for (int half = SQUARE / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

static inline float dot(const float *a, const float *b, int wide) {
    float sums[SQUARE] = {0};
    for (int d = 0; d < wide; d += SQUARE)
        for (int i = 0; i < SQUARE; i++)
            sums[i] += a[d + i] * b[d + i];
    return total(sums);
}

/* The end of a row's scores: up to where its last square ends, and what a tile reads for a row that sees more. */
static inline void end_row(float *x, int n, float value) {
    for (int i = 0; i < SQUARE; i++)
        x[n + i] = value;
}

static inline float highest(const float *x, int n) {
    float most = -INFINITY;
    n = up(n, SQUARE);
#pragma omp simd reduction(max : most)
    for (int i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* e^(x - above) in place; the sum of them. */
static inline float weigh(float *x, float above, int n) {
    float sums[SQUARE] = {0};
    for (int j = 0; j < n; j += SQUARE)
        for (int i = 0; i < SQUARE; i++)
            sums[i] += x[j + i] = exponential(x[j + i] - above);
    return total(sums);
}

/* A block of queries that come widened. Their outputs [rows, wide] are left, and `sums`, N apart, are written. */
static void block_forward(const Shape *shape, const Room *room, int rows, int seen, float *sums) {
    int64_t stride = shape->longest + SQUARE;
    with_panels(room->query, room->key_panels, rows, seen, shape, room->scores);
    float most[BLOCK], share[BLOCK];
    for (int r = 0; r < rows; r++) /* row after row, a processor would wait for each number before the next */
        end_row(room->scores + r * stride, seen + r, -INFINITY);
    for (int r = 0; r < rows; r++)
        most[r] = highest(room->scores + r * stride, seen + r);
    for (int r = 0; r < rows; r++)
        share[r] = weigh(room->scores + r * stride, most[r], seen + r);
    for (int r = 0; r < rows; r++) {
        end_row(room->scores + r * stride, seen + r, 0);
        sums[(int64_t)r * shape->heads] = most[r] + logf(share[r]);
        share[r] = 1 / share[r];
    }
    with_rows(room->scores, room->value, rows, seen, shape, room->out);
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < shape->wide; d++)
            room->out[r * shape->wide + d] *= share[r];
}

/* A block of queries that come widened, with the gradients to their outputs in `out`. What they give to keys and
   values is added, and the gradients to them are left, but for `scaling`. */
static void block_backward(const Shape *shape, const Room *room, int rows, int seen, const float *sums,
                           const float *changes) {
    int64_t stride = shape->longest + SQUARE;
    with_panels(room->query, room->key_panels, rows, seen, shape, room->scores);
    with_panels(room->out, room->value_panels, rows, seen, shape, room->to_scores);
    for (int r = 0; r < rows; r++) {
        end_row(room->scores + r * stride, seen + r, -INFINITY);
        end_row(room->to_scores + r * stride, seen + r, 0);
    }
    for (int r = 0; r < rows; r++) {
        float *x = room->scores + r * stride, *to_x = room->to_scores + r * stride;
        float sum = sums[(int64_t)r * shape->heads], change = changes[r];
        int end = up(seen + r, SQUARE);
#pragma omp simd
        for (int j = 0; j < end; j++) {
            x[j] = exponential(x[j] - sum);
            to_x[j] = x[j] * (to_x[j] - change);
        }
    }
    for (int r = 0; r < rows; r++)
        end_row(room->scores + r * stride, seen + r, 0);
    with_rows(room->to_scores, room->key, rows, seen, shape, room->to_query);
    to_rows(room->scores, room->out, rows, seen, shape, room->to_value);
    to_rows(room->to_scores, room->query, rows, seen, shape, room->to_key);
}

/* Some queries of one head. */
typedef struct {
    int64_t token;
    int head, rows;
} Block;

/* The i-th block of a segment, for one key head: all heads of the first queries, then all of the next. Beyond the last
   there are no rows. */
static Block block_at(const Shape *shape, int key_head, int start, int length, int i) {
    int shared = shape->heads / shape->key_heads, first = i / shared * BLOCK;
    return (Block){start + first, key_head * shared + i % shared, least(BLOCK, length - first)};
}

/* Room for a thread, at 64-byte borders; the first piece is what is to be given back. None is there where it is 0. */
static Room make_room(const Shape *shape, int backward) {
    int64_t keys = (int64_t)(shape->longest + SQUARE) * shape->wide, queries = BLOCK * shape->wide;
    int64_t scores = (int64_t)BLOCK * (shape->longest + SQUARE);
    float *at = aligned_alloc(64, sizeof(float) * (keys * (backward ? 6 : 3) + queries * 3 + scores * 2));
    Room room = {.key = at, .value = at + keys, .key_panels = at + 2 * keys};
    at += 3 * keys;
    if (backward) {
        room.value_panels = at, room.to_key = at + keys, room.to_value = at + 2 * keys;
        at += 3 * keys;
    }
    room.query = at, room.out = at + queries, room.to_query = at + 2 * queries;
    room.scores = at + 3 * queries, room.to_scores = room.scores + scores;
    return room;
}

/* The dimensions, with room for the most keys that a query sees. */
static Shape shape_of(const int *spans, const int *families, int count, int heads, int key_heads, int width,
                      float scaling) {
    int longest = 0;
    for (int f = 0; f < count; f++)
        for (int root = families[f], s = root, before = 0; s < families[f + 1]; s++) {
            int length = spans[2 * s + 1] - spans[2 * s];
            longest = before + length > longest ? before + length : longest;
            before = s == root ? length : before;
        }
    return (Shape){spans, families, heads, key_heads, width, up(width, SQUARE), up(longest, PANEL), scaling};
}

/* out [T, N, D] and the logarithms of sums of weights [T, N] of query [T, N, D] over key and value [T, K, D], whose
   tokens lie so many numbers apart. Families are begun in their order; the first segment of each is its root. 1 where
   memory is short, else 0. */
int attention(const number *query, const number *key, const number *value, number *out, float *sums,
               const int *spans, const int *families, int count, int64_t query_stride, int64_t key_stride,
               int64_t value_stride, int heads, int key_heads, int width, float scaling) {
    Shape shape = shape_of(spans, families, count, heads, key_heads, width, scaling);
    int64_t out_stride = (int64_t)heads * width;
    int is_short = 0;
#pragma omp parallel reduction(| : is_short)
    {
        Room room = make_room(&shape, 0);
        is_short = !room.key;
#pragma omp for schedule(dynamic)
        for (int task = 0; task < count * key_heads; task++) {
            if (is_short)
                continue;
            int family = task / key_heads, k = task % key_heads, root = families[family], before = 0;
            for (int segment = root; segment < families[family + 1]; segment++) {
                int start = spans[2 * segment], length = spans[2 * segment + 1] - start;
                int64_t own = (int64_t)before * shape.wide;
                widen(&shape, key + start * key_stride + k * width, key_stride, length, 1, room.key + own);
                widen(&shape, value + start * value_stride + k * width, value_stride, length, 1, room.value + own);
                turn(room.key, before, before + length, shape.wide, room.key_panels);
                Block now = block_at(&shape, k, start, length, 0), next;
                for (int i = 1; now.rows > 0; i++, now = next) {
                    next = block_at(&shape, k, start, length, i);
                    widen(&shape, query + now.token * query_stride + now.head * width, query_stride, now.rows, scaling,
                          room.query);
                    fetch(&shape, query + next.token * query_stride + next.head * width, query_stride, next.rows);
                    block_forward(&shape, &room, now.rows, before + (int)(now.token - start) + 1,
                                  sums + now.token * heads + now.head);
                    narrow(&shape, room.out, now.rows, 1, out + now.token * out_stride + now.head * width, out_stride);
                }
                before = segment == root ? length : before;
            }
        }
        free(room.key);
    }
    return is_short;
}

/* Gradients to query [T, N, D], key and value [T, K, D] from the one to `attention`'s out, given with out and sums.
   All but the first three lie without gaps. 1 where memory is short, else 0. */
int attention_backward(const number *query, const number *key, const number *value, const number *out,
                        const float *sums, const number *to_out, number *to_query, number *to_key, number *to_value,
                        const int *spans, const int *families, int count, int64_t query_stride, int64_t key_stride,
                        int64_t value_stride, int heads, int key_heads, int width, float scaling) {
    Shape shape = shape_of(spans, families, count, heads, key_heads, width, scaling);
    int wide = shape.wide;
    int64_t out_stride = (int64_t)heads * width, to_stride = (int64_t)key_heads * width;
    int is_short = 0;
#pragma omp parallel reduction(| : is_short)
    {
        Room room = make_room(&shape, 1);
        is_short = !room.key;
#pragma omp for schedule(dynamic)
        for (int task = 0; task < count * key_heads; task++) {
            if (is_short)
                continue;
            int family = task / key_heads, k = task % key_heads, root = families[family], before = 0;
            for (int segment = root; segment < families[family + 1]; segment++) {
                int start = spans[2 * segment], length = spans[2 * segment + 1] - start;
                int64_t own = (int64_t)before * wide, bytes = (int64_t)(length + ROWS) * wide * sizeof(float);
                widen(&shape, key + start * key_stride + k * width, key_stride, length, 1, room.key + own);
                widen(&shape, value + start * value_stride + k * width, value_stride, length, 1, room.value + own);
                turn(room.key, before, before + length, wide, room.key_panels);
                turn(room.value, before, before + length, wide, room.value_panels);
                memset(room.to_key + own, 0, bytes);
                memset(room.to_value + own, 0, bytes);
                Block now = block_at(&shape, k, start, length, 0), next;
                for (int i = 1; now.rows > 0; i++, now = next) {
                    next = block_at(&shape, k, start, length, i);
                    int64_t at = now.token * out_stride + now.head * width;
                    int64_t then = next.token * out_stride + next.head * width;
                    float changes[BLOCK];
                    widen(&shape, out + at, out_stride, now.rows, 1, room.query);
                    widen(&shape, to_out + at, out_stride, now.rows, 1, room.out);
                    for (int r = 0; r < now.rows; r++)
                        changes[r] = dot(room.query + r * wide, room.out + r * wide, wide);
                    widen(&shape, query + now.token * query_stride + now.head * width, query_stride, now.rows, scaling,
                          room.query);
                    fetch(&shape, query + next.token * query_stride + next.head * width, query_stride, next.rows);
                    fetch(&shape, out + then, out_stride, next.rows);
                    fetch(&shape, to_out + then, out_stride, next.rows);
                    block_backward(&shape, &room, now.rows, before + (int)(now.token - start) + 1,
                                   sums + now.token * heads + now.head, changes);
                    narrow(&shape, room.to_query, now.rows, scaling, to_query + at, out_stride);
                }
                if (segment != root) {
                    int64_t at = start * to_stride + k * width;
                    narrow(&shape, room.to_key + own, length, 1, to_key + at, to_stride);
                    narrow(&shape, room.to_value + own, length, 1, to_value + at, to_stride);
                }
                before = segment == root ? length : before;
            }
            int64_t at = spans[2 * root] * to_stride + k * width; /* only now is all there that others gave the root */
            narrow(&shape, room.to_key, before, 1, to_key + at, to_stride);
            narrow(&shape, room.to_value, before, 1, to_value + at, to_stride);
        }
        free(room.key);
    }
    return is_short;
}
