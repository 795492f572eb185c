// Subnormal numbers are zero for a thread, while an object of this lives.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ldmlr {

// What fades (moments of classes that are seldom drawn, probabilities of classes far away) becomes subnormal,
// and such numbers are many times slower.
class FlushSubnormals {
  public:
#if defined(__x86_64__)
    FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
    ~FlushSubnormals() { _mm_setcsr(before_); }
    FlushSubnormals(const FlushSubnormals &) = delete;
    FlushSubnormals &operator=(const FlushSubnormals &) = delete;

  private:
    unsigned before_;
#endif
};

}  // namespace ldmlr
