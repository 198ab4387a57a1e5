/* Plain BLAS names over a BLAS with 64-bit integers.
 *
 * numpy's wheel carries an OpenBLAS whose names end in 64_ and whose integers have 64 bits; MLX and the
 * LAPACK beside it call the plain names with 32-bit integers. Loaded before MLX with RTLD_GLOBAL, the
 * functions below answer those calls and widen the integers. bind_blas() must have returned 0 first.
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
  return missing;
}

#define CBLAS_GEMM(name, scalar, array)                                                                  \
  void name(int order, int ta, int tb, int m, int n, int k, scalar alpha, const array *a, int lda,       \
            const array *b, int ldb, scalar beta, array *c, int ldc) {                                   \
    ((void (*)(int, int, int, wide, wide, wide, scalar, const array *, wide, const array *, wide,        \
               scalar, array *, wide))wide_##name)(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta,  \
                                                   c, ldc);                                              \
  }
CBLAS_GEMM(cblas_sgemm, float, float)
CBLAS_GEMM(cblas_dgemm, double, double)
CBLAS_GEMM(cblas_cgemm, const void *, void)

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
