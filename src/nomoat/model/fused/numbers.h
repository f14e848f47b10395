/* Numbers as they lie in memory, float32 or bfloat16, and what is computed with them, which is always float32.

   `stream` is what the residual sum and the norms' weights are in (-DSTREAM=32 or 16), `number` what products are in
   (-DNUMBER=32 or 16). */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float from_32(float x) { return x; }
static inline float to_32(float x) { return x; }

static inline float from_16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

/* To the nearest bfloat16, ties to even; what is no number stays none. */
static inline uint16_t to_16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#if STREAM == 16
typedef uint16_t stream;
#define from_stream from_16
#define to_stream to_16
#else
typedef float stream;
#define from_stream from_32
#define to_stream to_32
#endif

#if NUMBER == 16
typedef uint16_t number;
#define from_number from_16
#define to_number to_16
#else
typedef float number;
#define from_number from_32
#define to_number to_32
#endif

/* e^x by Cody and Waite: x = n·ln 2 + r with |r| <= ln 2 / 2, and Cephes' polynomial of r; 0 below -87, and never
   more than e^88, so that nothing overflows. */
static inline float exponential(float x) {
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504f + 12582912.0f; /* 1.5·2^23: what is added to it is rounded to a whole number */
    int32_t power;
    memcpy(&power, &n, 4);
    n -= 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t scale = (power + 127) << 23;
    float two_to_n;
    memcpy(&two_to_n, &scale, 4);
    return x < -87.0f ? 0.0f : p * two_to_n;
}
