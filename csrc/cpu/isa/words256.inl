// Eight words of AVX2, of four bytes or two shorts each; a file includes it after vec256.inl, and defines mul_add.

template <Whole whole>
struct Words {
  using Lane = int32_t;
  static constexpr Whole kWhole = whole;
  static constexpr int kProducts = int(whole);
  static constexpr int32_t kZero = zero_of(whole);
  __m256i v;
  static Words load(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
  static Words broadcast(const int32_t* p) { return {_mm256_set1_epi32(*p)}; }
  void store(int32_t* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
};
using Bytes = Words<Whole::kBytes>;
using Shorts = Words<Whole::kShorts>;

template <Whole whole>
static inline Words<whole> add(Words<whole> a, Words<whole> b) {
  return {_mm256_add_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Words<whole> sub(Words<whole> a, Words<whole> b) {
  return {_mm256_sub_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Words<whole> max(Words<whole> a, Words<whole> b) {
  return {_mm256_max_epi32(a.v, b.v)};
}
template <Whole whole>
static inline Vec to_float(Words<whole> a) {
  return {_mm256_cvtepi32_ps(a.v)};
}
