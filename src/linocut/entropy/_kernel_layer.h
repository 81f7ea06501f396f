/* Layers of a context network in AVX2 or better; see _kernel.c, which includes this once for each
 * set of instructions: LAYER and LAST (names), TARGET, and MULTIPLY_ADD (sums + pairs . weights).
 *
 * Two rows of x are woven into pairs, so that one instruction multiplies and adds both:
 *
 *   a0 a1 a2 ...  b0 b1 b2 ...  -->  (a0 b0) (a1 b1) (a2 b2) ...  times (weight of a, weight of b)
 *
 * The weave parts lanes 0-3, 8-11 from 4-7, 12-15; packing two sums puts them in order again.
 */

#define WEAVE(x, pitch, i, low, high)                                                    \
    do {                                                                                 \
        const __m256i even = _mm256_loadu_si256((const __m256i *)((x) + 2 * (i) * (pitch))); \
        const __m256i odd =                                                              \
            _mm256_loadu_si256((const __m256i *)((x) + (2 * (i) + 1) * (pitch)));        \
        low = _mm256_unpacklo_epi16(even, odd);                                          \
        high = _mm256_unpackhi_epi16(even, odd);                                         \
    } while (0)

__attribute__((target(TARGET))) static inline void LAYER(const int16_t *x, ptrdiff_t pitch,
                                                         int pairs, const int16_t *weights,
                                                         const int32_t *bias, int hidden,
                                                         int16_t *out, int16_t *mirrored)
{
    const __m256i most = _mm256_set1_epi16(CAP), least = _mm256_setzero_si256();
    __m256i woven[MAX_INPUTS / 2][2];
    for (int i = 0; i < pairs; i++)
        WEAVE(x, pitch, i, woven[i][0], woven[i][1]);
    for (int start = 0; start < hidden; start += BLOCK) {
        __m256i sums[BLOCK][2];
        for (int b = 0; b < BLOCK; b++)
            sums[b][0] = sums[b][1] = _mm256_setzero_si256();
        UNROLL_4 /* gcc copies all sums from one round to the next */
        for (int i = 0; i < pairs; i++, weights += 2 * BLOCK) {
            for (int b = 0; b < BLOCK; b++) {
                int32_t two;
                memcpy(&two, weights + 2 * b, sizeof two);
                const __m256i weight = _mm256_set1_epi32(two);
                sums[b][0] = MULTIPLY_ADD(sums[b][0], woven[i][0], weight);
                sums[b][1] = MULTIPLY_ADD(sums[b][1], woven[i][1], weight);
            }
        }
        for (int b = 0; b < BLOCK; b++) {
            const __m256i add = _mm256_set1_epi32(bias[start + b]);
            __m256i packed = _mm256_packs_epi32(
                _mm256_srai_epi32(_mm256_add_epi32(add, sums[b][0]), SHIFT),
                _mm256_srai_epi32(_mm256_add_epi32(add, sums[b][1]), SHIFT));
            packed = _mm256_min_epi16(_mm256_max_epi16(packed, least), most);
            _mm256_storeu_si256((__m256i *)(out + (start + b) * LANES), packed);
            if (mirrored) {
                packed = _mm256_packs_epi32(
                    _mm256_srai_epi32(_mm256_sub_epi32(add, sums[b][0]), SHIFT),
                    _mm256_srai_epi32(_mm256_sub_epi32(add, sums[b][1]), SHIFT));
                packed = _mm256_min_epi16(_mm256_max_epi16(packed, least), most);
                _mm256_storeu_si256((__m256i *)(mirrored + (start + b) * LANES), packed);
            }
        }
    }
}

__attribute__((target(TARGET))) static inline void LAST(const int16_t *x, int pairs,
                                                        const int16_t *weights, int32_t bias,
                                                        int32_t *numbers)
{
    __m256i low = _mm256_set1_epi32(bias), high = low;
    for (int i = 0; i < pairs; i++) {
        __m256i woven_low, woven_high;
        int32_t two;
        memcpy(&two, weights + 2 * i, sizeof two);
        const __m256i weight = _mm256_set1_epi32(two);
        WEAVE(x, LANES, i, woven_low, woven_high);
        low = MULTIPLY_ADD(low, woven_low, weight);
        high = MULTIPLY_ADD(high, woven_high, weight);
    }
    _mm256_storeu_si256((__m256i *)numbers, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(numbers + 8), _mm256_permute2x128_si256(low, high, 0x31));
}

#undef WEAVE
#undef LAYER
#undef LAST
#undef TARGET
#undef MULTIPLY_ADD
