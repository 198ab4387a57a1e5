/* Plain BLAS names over a BLAS with 64-bit integers.
 *
 * numpy's wheel carries an OpenBLAS whose names end in 64_ and whose integers have 64 bits; MLX and the
 * LAPACK beside it call the plain names with 32-bit integers. Loaded before MLX with RTLD_GLOBAL, the
 * functions below answer those calls and widen the integers; products with a few rows they compute themselves.
 * bind_blas() must have returned 0 first.
 * Only these names become global: numpy's library itself stays private to numpy and to this file.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

typedef int64_t wide;

#define CBLAS(call) call(cblas_sgemm) call(cblas_dgemm) call(cblas_cgemm)
#define REAL(call, p) \
  call(p##gemm) call(p##gemv) call(p##ger) call(p##symv) call(p##syrk) call(p##syr2k) call(p##trmm) call(p##trsm)
#define FORTRAN(call) REAL(call, s) REAL(call, d)

#define DECLARE(name) static void (*wide_##name)();
CBLAS(DECLARE)
FORTRAN(DECLARE)
static int (*get_threads)(void);

/* 0, or how many names the library at `path` lacks; -1 if it cannot be opened. */
int bind_blas(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  int missing = 0;
  if (library == NULL) return -1;
#define BIND(name, suffix) \
  if ((*(void **)&wide_##name = dlsym(library, "scipy_" #name suffix)) == NULL) missing++;
#define BIND_C(name) BIND(name, "64_")
#define BIND_FORTRAN(name) BIND(name, "_64_")
  CBLAS(BIND_C)
  FORTRAN(BIND_FORTRAN)
  if ((*(void **)&get_threads = dlsym(library, "scipy_openblas_get_num_threads64_")) == NULL) missing++;
  return missing;
}

#define CBLAS_GEMM(own, name, scalar, array)                                                             \
  void own(int order, int ta, int tb, int m, int n, int k, scalar alpha, const array *a, int lda,       \
            const array *b, int ldb, scalar beta, array *c, int ldc) {                                   \
    ((void (*)(int, int, int, wide, wide, wide, scalar, const array *, wide, const array *, wide,        \
               scalar, array *, wide))wide_##name)(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta,  \
                                                   c, ldc);                                              \
  }
static CBLAS_GEMM(packed_sgemm, cblas_sgemm, float, float)
CBLAS_GEMM(cblas_dgemm, cblas_dgemm, double, double)
CBLAS_GEMM(cblas_cgemm, cblas_cgemm, const void *, void)

/* y = x w^T for the few rows of a model that speaks: OpenBLAS packs all of w first, which takes ten times as long
 * as to read it. Every number is summed in one order, so a row does not depend on how many stand beside it. */
#define FEW 16         /* rows; above them packing pays */
#define FEW_ALONE 64   /* where OpenBLAS has one thread, too */
#define FEW_THREADS 4  /* of OpenBLAS; more of them pack faster than one thread reads, save where w is small */
#define SMALL (1 << 20)
#define LANES 8
#define ROWS 4    /* times COLUMNS: so many sums fit the 16 registers of AVX2 */
#define COLUMNS 3
#define TOGETHER 4   /* sums that are added up at once */
#define AHEAD 4096   /* floats from the weights in work to those that are fetched meanwhile */
#define LINE 16      /* floats of a cache line */
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef float anywhere __attribute__((vector_size(4 * LANES), aligned(4)));
#define ALWAYS static inline __attribute__((always_inline))
#define EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < n; i++)
#ifdef __clang__
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int places __attribute__((vector_size(4 * LANES)));
#define MIX(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* What the lanes of each of four sums add up to. */
ALWAYS void totals(const lanes *sum, float *whole) {
  lanes ab = MIX(sum[0], sum[1], 0, 8, 1, 9, 4, 12, 5, 13) + MIX(sum[0], sum[1], 2, 10, 3, 11, 6, 14, 7, 15);
  lanes cd = MIX(sum[2], sum[3], 0, 8, 1, 9, 4, 12, 5, 13) + MIX(sum[2], sum[3], 2, 10, 3, 11, 6, 14, 7, 15);
  lanes all = MIX(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + MIX(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
  EACH(i, TOGETHER) whole[i] = all[i] + all[i + TOGETHER];
}

/* rows and columns are constants wherever this is inlined, so that the sums stay in registers.
 * ahead: of the weights that this block has to fetch; step: how far it moves while LANES of k are done. */
ALWAYS void block(int rows, int columns, const float *ahead, wide step, wide k, float alpha, const float *x, wide ldx,
                  const float *w, wide ldw, float beta, float *y, wide ldy) {
  lanes sum[ROWS * COLUMNS + TOGETHER - 1];
  float whole[ROWS * COLUMNS + TOGETHER - 1];
  wide i = 0;
  EACH(s, rows * columns + TOGETHER - 1) sum[s] = (lanes){0};
  for (; i + LANES <= k; i += LANES, ahead += step) {
    EACH(f, (columns * LANES + LINE - 1) / LINE) __builtin_prefetch(ahead + f * LINE, 0, 2);
    EACH(c, columns) {
      lanes weights = *(const anywhere *)(w + c * ldw + i);
      EACH(r, rows) sum[r * columns + c] += weights * *(const anywhere *)(x + r * ldx + i);
    }
  }
  EACH(t, (rows * columns + TOGETHER - 1) / TOGETHER) totals(sum + t * TOGETHER, whole + t * TOGETHER);
  EACH(r, rows) EACH(c, columns) {
    float one = whole[r * columns + c], *to = y + r * ldy + c;
    for (wide j = i; j < k; j++) one += w[c * ldw + j] * x[r * ldx + j];
    *to = alpha * one + (beta == 0 ? 0 : beta * *to); /* y may hold NaN where beta is 0 */
  }
}

#define DOWN(rows) m -= rows, x += rows * ldx, y += rows * ldy, ahead += step * (k / LANES)

/* All rows for a few columns, whose weights so stay in the cache nearest by. The blocks share out the fetching of
 * weights that come after: into the second cache, since the first holds x. What lies behind the last is fetched in
 * vain, or not at all where there is no memory. */
ALWAYS void strip(int columns, wide m, wide k, float alpha, const float *x, wide ldx, const float *w, wide ldw,
                  float beta, float *y, wide ldy) {
  const float *ahead = w + AHEAD;
  wide blocks = m / ROWS + (m & 2) / 2 + (m & 1), step = (columns * LANES + blocks - 1) / blocks;
  for (; m >= ROWS; DOWN(ROWS)) block(ROWS, columns, ahead, step, k, alpha, x, ldx, w, ldw, beta, y, ldy);
  for (; m >= 2; DOWN(2)) block(2, columns, ahead, step, k, alpha, x, ldx, w, ldw, beta, y, ldy);
  if (m) block(1, columns, ahead, step, k, alpha, x, ldx, w, ldw, beta, y, ldy);
}

ALWAYS void all_rows(wide m, wide n, wide k, float alpha, const float *x, wide ldx, const float *w, wide ldw,
                     float beta, float *y, wide ldy) {
  wide j = 0;
  for (; j + COLUMNS <= n; j += COLUMNS)
    strip(COLUMNS, m, k, alpha, x, ldx, w + j * ldw, ldw, beta, y + j, ldy);
  for (; j < n; j++) strip(1, m, k, alpha, x, ldx, w + j * ldw, ldw, beta, y + j, ldy);
}

static void few_rows(wide m, wide n, wide k, float alpha, const float *x, wide ldx, const float *w, wide ldw,
                     float beta, float *y, wide ldy) {
  all_rows(m, n, k, alpha, x, ldx, w, ldw, beta, y, ldy);
}

#if defined(__x86_64__) && !defined(PLAIN) /* elsewhere the plain registers are all there are */
__attribute__((target("avx2,fma"))) static void few_rows_wide(
    wide m, wide n, wide k, float alpha, const float *x, wide ldx, const float *w, wide ldw, float beta,
    float *y, wide ldy) {
  all_rows(m, n, k, alpha, x, ldx, w, ldw, beta, y, ldy);
}
#define FEW_ROWS (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? few_rows_wide : few_rows)
#else
#define FEW_ROWS few_rows
#endif

enum { ROW_MAJOR = 101, AS_IS = 111, TRANSPOSED = 112 };

void cblas_sgemm(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc) {
  int threads = get_threads(), most = threads == 1 ? FEW_ALONE : FEW;
  int few = order == ROW_MAJOR && ta == AS_IS && tb == TRANSPOSED && m > 0 && m <= most;
  if (few && (threads <= FEW_THREADS || (wide)n * k <= SMALL))
    FEW_ROWS(m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  else
    packed_sgemm(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* Fortran: every argument by reference; the hidden text lengths behind them are never read. */
typedef const char *text;
typedef const int *num;
#define W(x) const wide wide_##x = *x;

#define GEMM(name, real)                                                                                  \
  void name##_(text ta, text tb, num m, num n, num k, const real *alpha, const real *a, num lda,          \
               const real *b, num ldb, const real *beta, real *c, num ldc) {                              \
    W(m) W(n) W(k) W(lda) W(ldb) W(ldc)                                                                   \
    ((void (*)(text, text, const wide *, const wide *, const wide *, const real *, const real *,          \
               const wide *, const real *, const wide *, const real *, real *, const wide *))wide_##name)( \
        ta, tb, &wide_m, &wide_n, &wide_k, alpha, a, &wide_lda, b, &wide_ldb, beta, c, &wide_ldc);        \
  }
#define GEMV(name, real)                                                                                  \
  void name##_(text trans, num m, num n, const real *alpha, const real *a, num lda, const real *x,        \
               num incx, const real *beta, real *y, num incy) {                                           \
    W(m) W(n) W(lda) W(incx) W(incy)                                                                      \
    ((void (*)(text, const wide *, const wide *, const real *, const real *, const wide *, const real *,  \
               const wide *, const real *, real *, const wide *))wide_##name)(                            \
        trans, &wide_m, &wide_n, alpha, a, &wide_lda, x, &wide_incx, beta, y, &wide_incy);                \
  }
#define GER(name, real)                                                                                   \
  void name##_(num m, num n, const real *alpha, const real *x, num incx, const real *y, num incy,         \
               real *a, num lda) {                                                                        \
    W(m) W(n) W(incx) W(incy) W(lda)                                                                      \
    ((void (*)(const wide *, const wide *, const real *, const real *, const wide *, const real *,        \
               const wide *, real *, const wide *))wide_##name)(                                          \
        &wide_m, &wide_n, alpha, x, &wide_incx, y, &wide_incy, a, &wide_lda);                             \
  }
#define SYMV(name, real)                                                                                  \
  void name##_(text uplo, num n, const real *alpha, const real *a, num lda, const real *x, num incx,      \
               const real *beta, real *y, num incy) {                                                     \
    W(n) W(lda) W(incx) W(incy)                                                                           \
    ((void (*)(text, const wide *, const real *, const real *, const wide *, const real *, const wide *,  \
               const real *, real *, const wide *))wide_##name)(                                          \
        uplo, &wide_n, alpha, a, &wide_lda, x, &wide_incx, beta, y, &wide_incy);                          \
  }
#define SYRK(name, real)                                                                                  \
  void name##_(text uplo, text trans, num n, num k, const real *alpha, const real *a, num lda,            \
               const real *beta, real *c, num ldc) {                                                      \
    W(n) W(k) W(lda) W(ldc)                                                                               \
    ((void (*)(text, text, const wide *, const wide *, const real *, const real *, const wide *,          \
               const real *, real *, const wide *))wide_##name)(                                          \
        uplo, trans, &wide_n, &wide_k, alpha, a, &wide_lda, beta, c, &wide_ldc);                          \
  }
#define SYR2K(name, real)                                                                                 \
  void name##_(text uplo, text trans, num n, num k, const real *alpha, const real *a, num lda,            \
               const real *b, num ldb, const real *beta, real *c, num ldc) {                              \
    W(n) W(k) W(lda) W(ldb) W(ldc)                                                                        \
    ((void (*)(text, text, const wide *, const wide *, const real *, const real *, const wide *,          \
               const real *, const wide *, const real *, real *, const wide *))wide_##name)(              \
        uplo, trans, &wide_n, &wide_k, alpha, a, &wide_lda, b, &wide_ldb, beta, c, &wide_ldc);            \
  }
#define TRXM(name, real)                                                                                  \
  void name##_(text side, text uplo, text ta, text diag, num m, num n, const real *alpha, const real *a,  \
               num lda, real *b, num ldb) {                                                               \
    W(m) W(n) W(lda) W(ldb)                                                                               \
    ((void (*)(text, text, text, text, const wide *, const wide *, const real *, const real *,            \
               const wide *, real *, const wide *))wide_##name)(                                          \
        side, uplo, ta, diag, &wide_m, &wide_n, alpha, a, &wide_lda, b, &wide_ldb);                       \
  }
#define ALL(p, real)                                                                                      \
  GEMM(p##gemm, real) GEMV(p##gemv, real) GER(p##ger, real) SYMV(p##symv, real) SYRK(p##syrk, real)       \
  SYR2K(p##syr2k, real) TRXM(p##trmm, real) TRXM(p##trsm, real)
ALL(s, float)
ALL(d, double)
