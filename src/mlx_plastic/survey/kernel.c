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

#define INLINE inline __attribute__((always_inline))

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

static inline float power_of_two(int e) { /* e in [-149, 128]; 2^128 is infinity */
  return from_bits(e < -126 ? 1u << (e + 149) : (uint32_t)(e + 127) << 23);
}

static inline float half(uint16_t h) { /* a NaN or infinity comes out as a large number: the caller counts them */
  return from_bits(to_bits(from_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f) | (uint32_t)(h & 0x8000) << 16);
}

static inline float round_bf16(float x) {
  uint32_t u = to_bits(x);
  return from_bits((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u);
}

static inline float round_f16(float x) {
  float a = fabsf(x);
  float step = a < 0x1p-14f ? 0x1.8p-1f /* 2^-24 lies between what is below */ : 0x1.8p13f * from_bits(to_bits(a) & 0x7f800000u);
  return copysignf(a >= 65520.0f ? INFINITY : (a + step) - step, x);
}

static inline float rounded(float x, int type) {
  return type == BF16 ? round_bf16(x) : type == F16 ? round_f16(x) : x;
}

/* ---- reading ---- */

static inline float decoded(uint16_t code, int type) { return type == BF16 ? from_bits((uint32_t)code << 16) : half(code); }

static inline float widened(const void *data, int type, int64_t at) {
  return type == F32 ? ((const float *)data)[at] : decoded(((const uint16_t *)data)[at], type);
}

static INLINE void lay_out(const void *data, int type, int64_t at, int blocks, Segment *restrict s) {
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

static INLINE void look(Segment *restrict s, int blocks) {
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

#define LANES 8 /* sums and maxima side by side, so that none waits for the one before */

static INLINE double sum_of(const float *restrict x, int n) { /* of magnitudes */
  double sums[LANES] = {0};
  int i = 0;
  for (; i + LANES <= n; i += LANES) for (int l = 0; l < LANES; l++) sums[l] += fabsf(x[i + l]);
  for (; i < n; i++) sums[0] += fabsf(x[i]);
  for (int l = 1; l < LANES; l++) sums[0] += sums[l];
  return sums[0];
}

static INLINE float top_of(const float *restrict x, int n) { /* of magnitudes */
  float top[LANES] = {0};
  int i = 0;
  for (; i + LANES <= n; i += LANES) for (int l = 0; l < LANES; l++) top[l] = larger(fabsf(x[i + l]), top[l]);
  for (; i < n; i++) top[0] = larger(fabsf(x[i]), top[0]);
  for (int l = 1; l < LANES; l++) top[0] = larger(top[l], top[0]);
  return top[0];
}

/* Of each group a number, written to each of its n blocks. */
static INLINE void spread(const float *restrict from, int groups, int n, float *restrict to) {
  for (int g = 0; g < groups; g++) for (int i = 0; i < n; i++) to[g * n + i] = from[g];
}

/* Groups are short and many: these loops run along groups, without a branch, for each length and type of its own. */
static INLINE void affine_groups(Scheme *q, const Segment *restrict s, int groups, int n, int kept, Grid *restrict grid) {
  float step[BLOCKS], offset[BLOCKS], scale[BLOCKS], bias[BLOCKS], units[BLOCKS];
  float bins = (float)((1 << q->bits) - 1);
  for (int g = 0; g < groups; g++) {
    float lo, hi, top = group_top(s, g * n, n, &lo, &hi);
    int below = fabsf(lo) > fabsf(hi);
    float even = larger((hi - lo) / bins, 1e-7f), edge = below ? lo : hi;
    even = below ? even : -even;
    float q0 = rintf(edge / even);
    step[g] = q0 != 0 ? edge / q0 : even; offset[g] = q0 != 0 ? edge : 0;
    scale[g] = rounded(step[g], kept); bias[g] = rounded(offset[g], kept); units[g] = unit(top);
  }
  q->scale_sum += sum_of(scale, groups); q->scale_max = larger(top_of(scale, groups), q->scale_max);
  q->bias_sum += sum_of(bias, groups); q->bias_max = larger(top_of(bias, groups), q->bias_max);
  spread(step, groups, n, grid->step); spread(offset, groups, n, grid->offset); spread(scale, groups, n, grid->scale);
  spread(bias, groups, n, grid->bias); spread(units, groups, n, grid->unit);
}

static void affine_grid(Scheme *q, const Segment *s, int blocks, Grid *grid) {
#define OF_LENGTH(kept)                                                       \
  switch (q->group / BLOCK) {                                                 \
    case 2: affine_groups(q, s, blocks / 2, 2, kept, grid); break;            \
    case 4: affine_groups(q, s, blocks / 4, 4, kept, grid); break;            \
    default: affine_groups(q, s, blocks / 8, 8, kept, grid);                  \
  }
  if (q->scale_type == BF16) OF_LENGTH(BF16)
  else if (q->scale_type == F16) OF_LENGTH(F16)
  else OF_LENGTH(F32)
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

/* The scale of the mx formats: a power of two from the largest magnitude over the format's largest, r. MLX keeps
 * its exponent in a byte that wraps: below 2^-127 what is decoded overflows, and the errors are infinite.
 * Returns its inverse, which is exact. */
static INLINE float power(float r, int round_exponent, float *kept) {
  int small = r < 0x1p-126f; /* then its exponent lies in its mantissa */
  uint32_t u = to_bits(small ? r * 0x1p32f : r);
  int32_t e = (int32_t)(u >> 23) - (small ? 158 : 126), m = (int32_t)(u & 0x7fffff); /* r = (1/2 + m) 2^e */
  e -= m <= (round_exponent ? 0x3504f3 /* of sqrt(1/2) */ : 0);
  *kept = r == 0 ? 1.0f : power_of_two(((e + 127) & 255) - 127);
  return r == 0 ? 1.0f : power_of_two(e < -127 ? 127 : -e);
}

static INLINE void floating_groups(Scheme *q, const Segment *restrict s, int groups, int n, int type, Grid *restrict grid) {
  float step[BLOCKS], scale[BLOCKS], units[BLOCKS], largest = q->mode == MXFP8 ? 448.0f : 6.0f;
  for (int g = 0; g < groups; g++) {
    float lo, hi, top = group_top(s, g * n, n, &lo, &hi), r = rounded(top / largest, type);
    if (n == 1) { /* nvfp4 */
      scale[g] = e4m3(r);
      step[g] = scale[g] > 0 ? scale[g] : INFINITY; /* a scale of 0 decodes to zeros */
    } else step[g] = power(r, q->round_exponent, &scale[g]);
    units[g] = unit(top);
  }
  q->scale_sum += sum_of(scale, groups); q->scale_max = larger(top_of(scale, groups), q->scale_max);
  spread(step, groups, n, grid->step); spread(scale, groups, n, grid->scale); spread(units, groups, n, grid->unit);
}

static INLINE void floating_grid(Scheme *q, const Segment *s, int blocks, int type, Grid *grid) {
  if (q->mode == NVFP4) floating_groups(q, s, blocks, 1, type, grid);
  else floating_groups(q, s, blocks / 2, 2, type, grid);
}

/* Sixteen times the same, written out: so the loop around it is the one along blocks, and what belongs to a block stays
 * in a register. */
#define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

/* Of value j of block b, x, what DECODE makes of it, y; its error is added to those of its block. */
#define ERROR(j, DECODE)                                                                        \
  {                                                                                             \
    float x = s->values[j][b], y;                                                               \
    DECODE                                                                                      \
    float e = (x - y) * unit;                                                                   \
    if (out) turned[j][b] = y;                                                                  \
    sum += e * e; largest = larger(fabsf(e), largest);                                          \
  }
#define ERRORS(ONE)                                                                             \
  for (int b = 0; b < blocks; b++) {                                                            \
    float step = grid.step[b], scale = grid.scale[b], unit = grid.unit[b], sum = 0, largest = 0; \
    EACH(ONE)                                                                                   \
    square[b] = sum; most[b] = largest;                                                         \
  }

#define AFFINE_VALUE(j) ERROR(j, {                                                              \
  float c = smaller(larger((x - grid.offset[b]) / step, 0.0f), bins);                           \
  y = ((c + MAGIC) - MAGIC) * scale + grid.bias[b];                                             \
})
#define MXFP8_VALUE(j) ERROR(j, { y = copysignf(e4m3(fabsf(x) * step) * scale, x); })
#define MXFP4_VALUE(j) ERROR(j, { y = copysignf(e2m1(fabsf(x) * step) * scale, x); })
#define NVFP4_VALUE(j) ERROR(j, { y = copysignf(e2m1(fabsf(x) / step) * scale, x); })

static INLINE void apply(Scheme *q, const Segment *restrict s, int blocks, float *restrict out, int type) {
  Grid grid;
  float square[BLOCKS], most[BLOCKS], turned[BLOCK][BLOCKS];
  if (q->mode == AFFINE) {
    float bins = (float)((1 << q->bits) - 1);
    affine_grid(q, s, blocks, &grid);
    ERRORS(AFFINE_VALUE)
  } else {
    floating_grid(q, s, blocks, type, &grid);
    if (q->mode == MXFP8) ERRORS(MXFP8_VALUE)
    else if (q->mode == MXFP4) ERRORS(MXFP4_VALUE)
    else ERRORS(NVFP4_VALUE)
  }
  if (out) for (int b = 0; b < blocks; b++) for (int j = 0; j < BLOCK; j++) out[b * BLOCK + j] = turned[j][b];
  double totals[LANES] = {0}, scaled[BLOCKS];
  for (int b = 0; b < blocks; b++) {
    scaled[b] = (double)square[b] / ((double)grid.unit[b] * grid.unit[b]); /* float32 could not hold it */
    most[b] /= grid.unit[b];
  }
  for (int b = 0; b < blocks; b++) totals[b % LANES] += scaled[b];
  for (int l = 0; l < LANES; l++) q->error2 += totals[l];
  q->error_max = larger(top_of(most, blocks), q->error_max);
}

/* max / mean of the magnitudes of each group of n blocks; a group of zeros gives 0 */
static INLINE void ratios_of(const Segment *restrict s, int groups, int n, float *restrict out) {
  for (int g = 0; g < groups; g++) {
    float lo, hi, top = group_top(s, g * n, n, &lo, &hi), sum = s->sum[g * n];
    for (int i = 1; i < n; i++) sum += s->sum[g * n + i];
    float mean = sum / (float)(n * BLOCK);
    out[g] = sum > 0 ? top / mean : 0.0f;
  }
}

static INLINE void ratios(const Segment *s, int blocks, int n, float *out) {
  switch (n) { /* a known length again */
    case 2: ratios_of(s, blocks / 2, 2, out); break;
    case 4: ratios_of(s, blocks / 4, 4, out); break;
    case 8: ratios_of(s, blocks / 8, 8, out); break;
    default: ratios_of(s, blocks / n, n, out);
  }
}

static INLINE void segment(
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

/* What the counts of 2-byte codes say (CODES). sums: how many values are finite and how many are not, then sums over
 * the finite ones: w, |w|, w^2, and the 2nd and 4th power of w - mean. reached: of each code without its sign how many
 * finite values are as near to zero or nearer (CODES / 2). */
void survey_codes(const uint32_t *counts, int type, double *sums, int64_t *reached) {
  const uint32_t *minus = counts + CODES / 2;
  int infinite = type == BF16 ? 0x7f80 : 0x7c00;
  int64_t n = 0, bad = 0;
  double sum = 0, absolute = 0, square = 0, second = 0, fourth = 0;
  for (int c = 0; c < infinite; c++) {
    int64_t met = (int64_t)counts[c] + minus[c];
    reached[c] = n += met;
    if (!met) continue;
    double x = decoded((uint16_t)c, type), all = x * (double)met;
    sum += x * (double)((int64_t)counts[c] - minus[c]); absolute += all; square += x * all;
  }
  for (int c = infinite; c < CODES / 2; c++) { bad += (int64_t)counts[c] + minus[c]; reached[c] = n; }
  double mean = n ? sum / (double)n : 0;
  for (int c = 0; c < infinite; c++) {
    if (!counts[c] && !minus[c]) continue;
    double x = decoded((uint16_t)c, type), above = (x - mean) * (x - mean), below = (x + mean) * (x + mean);
    second += above * counts[c] + below * minus[c];
    fourth += above * above * counts[c] + below * below * minus[c];
  }
  double found[] = {(double)n, (double)bad, sum, absolute, square, second, fourth};
  memcpy(sums, found, sizeof found);
}

/* The value at place k of n floats >= 0 put in order, byte by byte. */
static float at_place(const float *values, int64_t n, int64_t k) {
  uint32_t found = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    int64_t counts[256] = {0};
    for (int64_t i = 0; i < n; i++) {
      uint32_t u = to_bits(values[i]);
      counts[u >> shift & 0xff] += (uint64_t)(u ^ found) >> shift < 256; /* those that begin as what was found does */
    }
    uint32_t byte = 0;
    while (counts[byte] <= k) k -= counts[byte++];
    found |= byte << shift;
  }
  return from_bits(found);
}

/* The values at places k and k + 1 (or k again, at the end) of n floats >= 0 put in order. scratch: CODES zeros;
 * room: n floats. */
void survey_select(const float *data, int64_t n, int64_t k, uint32_t *scratch, float *room, float *found) {
  for (int64_t i = 0; i < n; i++) scratch[to_bits(data[i]) >> 16]++;
  int64_t next = k + 1 < n ? k + 1 : k, before = 0, m = 0;
  uint32_t first = 0;
  while (before + scratch[first] <= k) before += scratch[first++];
  uint32_t last = first;
  for (int64_t upto = before + scratch[first]; upto <= next; upto += scratch[last]) last++;
  for (int64_t i = 0; i < n; i++) { /* what begins as the two do: few, so they are taken out first */
    uint32_t u = to_bits(data[i]) >> 16;
    room[m] = data[i];
    m += u >= first && u <= last;
  }
  found[0] = at_place(room, m, k - before);
  found[1] = at_place(room, m, next - before);
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
