/* One pass over a matrix: histogram of its 2-byte codes, outliers of groups, sums of columns, and what each
 * quantization scheme makes of it. The rules of quantization are those of mx.quantize on the CPU; python
 * compares the two before it relies on this file (quantsim.py).
 *
 * A row is taken in segments of up to SEGMENT values, and these are laid out by their place within a block of
 * BLOCK: values[place][block]. Every quantization group is a whole number of blocks, so that all loops below
 * run along blocks and no vector has to be summed up within itself: five times faster than group by group.
 * No fast-math: values that are not finite are met as such.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SEGMENT 2048 /* values held at once: they stay in the first-level cache */
#define BLOCK 16
#define BLOCKS (SEGMENT / BLOCK)
#define CODES 65536

enum { BF16, F16, F32 };
enum { AFFINE, MXFP4, MXFP8, NVFP4 };

typedef struct {
  int32_t mode, bits, group, scale_type, round_exponent, unused;
  double error2, scale_sum, bias_sum; /* sums over elements, and over groups */
  float error_max, scale_max, bias_max, unused2;
} Scheme;

/* A segment: its values, and of each block the smallest, the largest and the sum of magnitudes. */
typedef struct {
  float values[BLOCK][BLOCKS], low[BLOCKS], high[BLOCKS], sum[BLOCKS];
} Segment;

static inline float from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t to_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline float larger(float a, float b) { return a > b ? a : b; }
static inline float smaller(float a, float b) { return a < b ? a : b; }

static inline float half(uint16_t h) { /* a NaN or infinity comes out as a large number: the caller counts them */
  return from_bits(to_bits(from_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f) | (uint32_t)(h & 0x8000) << 16);
}

static float round_bf16(float x) {
  uint32_t u = to_bits(x);
  return from_bits((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u);
}

static float round_f16(float x) {
  float a = fabsf(x), step;
  if (a >= 65520.0f) return x < 0 ? -INFINITY : INFINITY;
  if (a < 0x1p-14f) step = 0x1.8p-1f; /* 2^-24 lies between what is below */
  else step = 0x1.8p13f * from_bits(to_bits(a) & 0x7f800000u);
  a = (a + step) - step;
  return x < 0 ? -a : a;
}

static inline float rounded(float x, int type) {
  return type == BF16 ? round_bf16(x) : type == F16 ? round_f16(x) : x;
}

/* ---- reading ---- */

static inline float widened(const void *data, int type, int64_t at) {
  if (type == F32) return ((const float *)data)[at];
  uint16_t h = ((const uint16_t *)data)[at];
  return type == BF16 ? from_bits((uint32_t)h << 16) : half(h);
}

static inline __attribute__((always_inline)) void lay_out(const void *data, int type, int64_t at, int blocks, Segment *restrict s) {
  if (type == F32) {
    const float *restrict from = (const float *)data + at;
    for (int b = 0; b < blocks; b++) for (int j = 0; j < BLOCK; j++) s->values[j][b] = from[b * BLOCK + j];
    return;
  }
  uint16_t turned[BLOCK][BLOCKS];
  const uint16_t *restrict from = (const uint16_t *)data + at;
  for (int b = 0; b < blocks; b++) for (int j = 0; j < BLOCK; j++) turned[j][b] = from[b * BLOCK + j];
  for (int j = 0; j < BLOCK; j++)
    for (int b = 0; b < blocks; b++)
      s->values[j][b] = type == BF16 ? from_bits((uint32_t)turned[j][b] << 16) : half(turned[j][b]);
}

static inline __attribute__((always_inline)) void look(Segment *restrict s, int blocks) {
  for (int b = 0; b < blocks; b++) { s->low[b] = s->high[b] = s->values[0][b]; s->sum[b] = fabsf(s->values[0][b]); }
  for (int j = 1; j < BLOCK; j++)
    for (int b = 0; b < blocks; b++) {
      float x = s->values[j][b];
      s->low[b] = smaller(x, s->low[b]); s->high[b] = larger(x, s->high[b]); s->sum[b] += fabsf(x);
    }
}

/* counts: two tables of CODES, so that neighbours of one value need not wait for each other */
static void count(const uint16_t *restrict h, int64_t n, uint32_t *restrict counts) {
  int64_t i = 0;
  for (; i + 3 < n; i += 4) {
    uint64_t four; memcpy(&four, h + i, 8);
    counts[four & 0xffff]++;
    counts[CODES + (four >> 16 & 0xffff)]++;
    counts[four >> 32 & 0xffff]++;
    counts[CODES + (four >> 48)]++;
  }
  for (; i < n; i++) counts[h[i]]++;
}

/* ---- the schemes: a scale for each group, then the error of each value ---- */

/* A power of two near 1 / top: errors are squared after it, so that no square underflows. */
static inline float unit(float top) {
  int32_t e = (int32_t)(to_bits(top) >> 23) - 127;
  e = e < -126 ? -126 : e > 125 ? 125 : e;
  return from_bits((uint32_t)(127 - e) << 23);
}

#define MAGIC 12582912.0f /* adding and subtracting it rounds to the nearest integer, halves to even */

/* What a segment is quantized with, block by block: x is decoded from round((x - offset) / step); in the mx
 * formats `step` is the inverse of their power of two. */
typedef struct {
  float step[BLOCKS], offset[BLOCKS], scale[BLOCKS], bias[BLOCKS], unit[BLOCKS];
} Grid;

static inline float group_top(const Segment *s, int b, int n, float *low, float *high) {
  float lo = s->low[b], hi = s->high[b];
  for (int i = 1; i < n; i++) { lo = smaller(s->low[b + i], lo); hi = larger(s->high[b + i], hi); }
  *low = lo; *high = hi;
  return larger(fabsf(lo), fabsf(hi));
}

static void affine_grid(Scheme *q, const Segment *restrict s, int blocks, Grid *restrict grid) {
  int n = q->group / BLOCK;
  float bins = (float)((1 << q->bits) - 1);
  for (int b = 0; b < blocks; b += n) {
    float lo, hi, top = group_top(s, b, n, &lo, &hi);
    int below = fabsf(lo) > fabsf(hi);
    float scale = larger((hi - lo) / bins, 1e-7f), edge = below ? lo : hi, bias = 0;
    scale = below ? scale : -scale;
    float q0 = rintf(edge / scale);
    if (q0 != 0) { scale = edge / q0; bias = edge; }
    float kept_scale = rounded(scale, q->scale_type), kept_bias = rounded(bias, q->scale_type);
    for (int i = b; i < b + n; i++) {
      grid->step[i] = scale; grid->offset[i] = bias; grid->scale[i] = kept_scale;
      grid->bias[i] = kept_bias; grid->unit[i] = unit(top);
    }
    float size = fabsf(kept_scale), shift = fabsf(kept_bias);
    q->scale_sum += size; q->scale_max = larger(size, q->scale_max);
    q->bias_sum += shift; q->bias_max = larger(shift, q->bias_max);
  }
}

static inline float e2m1(float a) { /* the nearest of 0 .5 1 1.5 2 3 4 6, the smaller of two as near */
  a = smaller(a, 6.0f);
  float small = (a > 0.25f ? 0.5f : 0) + (a > 0.75f ? 0.5f : 0);
  float large = from_bits((to_bits(a) + 0x1fffff) & 0xffc00000u); /* one bit of mantissa, halves down */
  return a < 1.0f ? small : large;
}

static inline float e4m3(float a) { /* a >= 0; rounds halves to even, saturates */
  a = smaller(a, 448.0f);
  uint32_t u = to_bits(a);
  float normal = from_bits((u + 0x7ffff + (u >> 20 & 1)) & 0xfff00000u);
  float small = (a + 24576.0f) - 24576.0f; /* below 2^-6 the spacing is 2^-9 */
  return a < 0x1p-6f ? small : normal;
}

/* The scale of the mx formats: a power of two from the largest magnitude over the format's largest. MLX keeps
 * its exponent in a byte that wraps: below 2^-127 what is decoded overflows, and the errors are infinite.
 * Returns its inverse, which is exact. */
static float power(const Scheme *q, float top, float largest, int type, float *kept) {
  float r = rounded(top / largest, type);
  if (r == 0) return *kept = 1.0f;
  int e = 0;
  float m = frexpf(r, &e); /* r = m 2^e, m in [1/2, 1) */
  if (q->round_exponent) e = m > 0x1.6a09e6p-1f ? e : e - 1;
  else if (m == 0.5f) e -= 1;
  *kept = ldexpf(1.0f, ((e + 127) & 255) - 127);
  return ldexpf(1.0f, e < -127 ? 127 : -e);
}

static void floating_grid(Scheme *q, const Segment *restrict s, int blocks, int type, Grid *restrict grid) {
  int n = q->group / BLOCK;
  for (int b = 0; b < blocks; b += n) {
    float lo, hi, top = group_top(s, b, n, &lo, &hi);
    float scale, step;
    if (q->mode == NVFP4) {
      scale = e4m3(rounded(top / 6.0f, type));
      step = scale > 0 ? scale : INFINITY; /* a scale of 0 decodes to zeros */
    } else step = power(q, top, q->mode == MXFP4 ? 6.0f : 448.0f, type, &scale);
    for (int i = b; i < b + n; i++) { grid->step[i] = step; grid->scale[i] = scale; grid->unit[i] = unit(top); }
    q->scale_sum += scale; q->scale_max = larger(scale, q->scale_max);
  }
}

/* For each value x of a segment what DECODE makes of it, y, and the squared and largest error of each block. */
#define ERRORS(DECODE)                                                                          \
  for (int j = 0; j < BLOCK; j++)                                                               \
    for (int b = 0; b < blocks; b++) {                                                          \
      float x = s->values[j][b], y;                                                             \
      DECODE                                                                                    \
      float e = (x - y) * grid.unit[b];                                                         \
      if (out) out[b * BLOCK + j] = y;                                                          \
      square[b] += e * e; most[b] = larger(fabsf(e), most[b]);                                  \
    }

static inline __attribute__((always_inline)) void apply(Scheme *q, const Segment *restrict s, int blocks, float *restrict out, int type) {
  Grid grid;
  float square[BLOCKS], most[BLOCKS];
  for (int b = 0; b < blocks; b++) square[b] = most[b] = 0;
  if (q->mode == AFFINE) {
    float bins = (float)((1 << q->bits) - 1);
    affine_grid(q, s, blocks, &grid);
    ERRORS({
      float c = (x - grid.offset[b]) / grid.step[b];
      c = smaller(larger(c, 0.0f), bins);
      y = ((c + MAGIC) - MAGIC) * grid.scale[b] + grid.bias[b];
    })
  } else {
    floating_grid(q, s, blocks, type, &grid);
    if (q->mode == MXFP8) ERRORS({ y = copysignf(e4m3(fabsf(x) * grid.step[b]) * grid.scale[b], x); })
    else if (q->mode == MXFP4) ERRORS({ y = copysignf(e2m1(fabsf(x) * grid.step[b]) * grid.scale[b], x); })
    else ERRORS({ y = copysignf(e2m1(fabsf(x) / grid.step[b]) * grid.scale[b], x); })
  }
  double total = 0;
  for (int b = 0; b < blocks; b++) {
    total += (double)square[b] / ((double)grid.unit[b] * grid.unit[b]);
    q->error_max = larger(most[b] / grid.unit[b], q->error_max);
  }
  q->error2 += total;
}

/* max / mean of the magnitudes of each group of g = n blocks; a group of zeros gives 0 */
static void ratios(const Segment *restrict s, int blocks, int n, float *restrict out) {
  for (int b = 0; b < blocks; b += n) {
    float lo, hi, top = group_top(s, b, n, &lo, &hi), sum = 0;
    for (int i = b; i < b + n; i++) sum += s->sum[i];
    out[b / n] = sum > 0 ? top / (sum / (float)(n * BLOCK)) : 0.0f;
  }
}

static inline __attribute__((always_inline)) void segment(
    const void *data, int type, int64_t at, int blocks, float (*restrict columns)[BLOCKS], int n_sizes,
    const int32_t *sizes, float **outliers, int n_schemes, Scheme *schemes) {
  Segment s;
  lay_out(data, type, at, blocks, &s);
  look(&s, blocks);
  for (int j = 0; j < BLOCK; j++) for (int b = 0; b < blocks; b++) columns[j][b] += fabsf(s.values[j][b]);
  for (int k = 0; k < n_sizes; k++) ratios(&s, blocks, sizes[k] / BLOCK, outliers[k] + at / sizes[k]);
  for (int k = 0; k < n_schemes; k++) apply(schemes + k, &s, blocks, 0, type);
}

/* ---- what python calls ---- */

/* data: (rows, cols) of `type`, one row after the other. counts: 2 CODES zeros for 2-byte types, else NULL.
 * columns: cols zeros, gets the sum of |w| of each column. sizes: of groups for outliers, multiples of BLOCK that
 * divide cols; outliers: for each rows cols / size floats. The groups of the schemes divide cols. */
void survey_matrix(const void *data, int type, int64_t rows, int64_t cols, uint32_t *counts, double *columns,
                   int n_sizes, const int32_t *sizes, float **outliers, int n_schemes, Scheme *schemes) {
  if (cols % BLOCK) { /* no group divides it: n_sizes and n_schemes are 0 */
    for (int64_t r = 0; r < rows; r++) {
      if (counts) count((const uint16_t *)data + r * cols, cols, counts);
      for (int64_t c = 0; c < cols; c++) columns[c] += fabsf(widened(data, type, r * cols + c));
    }
    return;
  }
  float sums[BLOCK][BLOCKS];
  int64_t together = cols < SEGMENT ? SEGMENT / cols : 1; /* rows that fill a segment */
  for (int64_t c = 0; c < cols; c += SEGMENT) {
    int64_t wide = cols - c < SEGMENT ? cols - c : SEGMENT;
    for (int64_t r0 = 0; r0 < rows; r0 += 64 * together) { /* 64 values: float32 is exact enough for their sum */
      memset(sums, 0, sizeof sums);
      for (int64_t r = r0; r < r0 + 64 * together && r < rows; r += together) {
        int64_t at = r * cols + c, n = together < rows - r ? together : rows - r;
        int blocks = (int)(n * wide / BLOCK);
        if (counts) count((const uint16_t *)data + at, n * wide, counts);
        switch (blocks) { /* loops of a known length are better vectors */
          case BLOCKS: segment(data, type, at, BLOCKS, sums, n_sizes, sizes, outliers, n_schemes, schemes); break;
          case 96: segment(data, type, at, 96, sums, n_sizes, sizes, outliers, n_schemes, schemes); break;
          default: segment(data, type, at, blocks, sums, n_sizes, sizes, outliers, n_schemes, schemes);
        }
      }
      for (int64_t b = 0; b < together * wide / BLOCK; b++)
        for (int j = 0; j < BLOCK; j++) columns[c + (b * BLOCK + j) % wide] += sums[j][b];
    }
  }
}

/* out: what the scheme makes of n values, n a multiple of its group; n is taken as one row. */
void survey_decode(const void *data, int type, int64_t n, Scheme *scheme, float *out) {
  Segment s;
  for (int64_t at = 0; at < n; at += SEGMENT) {
    int blocks = (int)((n - at < SEGMENT ? n - at : SEGMENT) / BLOCK);
    lay_out(data, type, at, blocks, &s);
    look(&s, blocks);
    apply(scheme, &s, blocks, out + at, type);
  }
}

/* The values at places k and k + 1 (or k again, at the end) of n floats >= 0 put in order. scratch: CODES zeros. */
void survey_select(const float *data, int64_t n, int64_t k, uint32_t *scratch, float *found) {
  for (int64_t i = 0; i < n; i++) scratch[to_bits(data[i]) >> 16]++;
  for (int which = 0; which < 2; which++) {
    int64_t want = k + which < n ? k + which : n - 1, before = 0;
    uint32_t bin = 0;
    while (before + scratch[bin] <= want) before += scratch[bin++];
    uint32_t low[CODES / 256] = {0}; /* two more rounds of a byte each */
    for (int64_t i = 0; i < n; i++) { uint32_t u = to_bits(data[i]); if (u >> 16 == bin) low[u >> 8 & 0xff]++; }
    uint32_t middle = 0;
    while (before + low[middle] <= want) before += low[middle++];
    memset(low, 0, sizeof low);
    for (int64_t i = 0; i < n; i++) { uint32_t u = to_bits(data[i]); if (u >> 8 == (bin << 8 | middle)) low[u & 0xff]++; }
    uint32_t last = 0;
    while (before + low[last] <= want) before += low[last++];
    found[which] = from_bits(bin << 16 | middle << 8 | last);
  }
}

/* f32: counts of the upper 16 bits of |w| (CODES / 2), and sums over what is finite: sum, sum of |w|. */
void survey_count32(const float *data, int64_t n, uint32_t *counts, double *sums) {
  double sum = 0, absolute = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t u = to_bits(data[i]) & 0x7fffffffu;
    counts[u >> 16]++;
    if (u < 0x7f800000u) { sum += data[i]; absolute += fabsf(data[i]); }
  }
  sums[0] = sum; sums[1] = absolute;
}

/* f32: sums of the 2nd and 4th power of w - mean and of w^2, over what is finite; counts, for each of the
 * n_bins upper halves wanted, of the lower 16 bits (n_bins, CODES). */
void survey_moments32(const float *data, int64_t n, double mean, int n_bins, const uint16_t *bins, uint32_t *counts,
                      double *sums) {
  double second = 0, fourth = 0, square = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t u = to_bits(data[i]) & 0x7fffffffu;
    if (u >= 0x7f800000u) continue;
    double x = data[i], d = (x - mean) * (x - mean);
    square += x * x; second += d; fourth += d * d;
    for (int b = 0; b < n_bins; b++) if (u >> 16 == bins[b]) counts[(int64_t)b * CODES + (u & 0xffff)]++;
  }
  sums[0] = second; sums[1] = fourth; sums[2] = square;
}
