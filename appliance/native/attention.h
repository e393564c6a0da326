// Attention: softmax(QK)V, for each sequence of a batch by itself.
//
// The original goes through 64 x 64 tiles of all queries and keys, converts the mask at each and
// skips those that are all hidden. Here queries whose keys begin at the same key form a block. In an
// encoder's batch a block is a sequence, and nothing hidden is computed; in a decoder's it is a piece
// of a sequence, and little hidden is computed. Only what these models need is done here (no ALiBi,
// sinks or soft cap; keys and values in float16); the rest is left to the original.

#pragma once

#include "panels.h"

namespace {

#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int ATTENTION_COLUMNS = 12;  // of two vectors: of 32 registers 26 are used
#else
constexpr int ATTENTION_COLUMNS = 6;  // of two vectors: of 16 registers 14 are used
#endif
constexpr int64_t QUERIES_MAX = 64;  // of one block: its scores stay in L2
constexpr int64_t KEYS_MAX = 2048;   // bounds the scratch buffer: 1.5 MiB for heads of 64

// One head of one stream: strides in elements, `mask` null when every key is seen.
struct Head {
    const float* queries;
    const half *keys, *values, *mask;
    float* out;
    int64_t query_stride, key_stride, value_stride, mask_stride, out_stride;
    int64_t size, query_count, key_count;
    float scale;
};

// From the first to past the last key that this query sees. In a batch of several sequences that is
// the query's own sequence: all the rest is never computed.
Range visible_keys(const Head& head, int64_t query) {
    Range keys{0, head.key_count};
    if (head.mask == nullptr) return keys;
    const half* row = head.mask + query * head.mask_stride;
    constexpr int64_t step = 16;
    const auto all_hidden = [&](int64_t at) {
        uint16_t seen = 0;
        for (int64_t i = 0; i < step; i++) seen |= row[at + i] ^ MINUS_INFINITY;
        return seen == 0;
    };
    while (keys.begin + step <= keys.end && all_hidden(keys.begin)) keys.begin += step;
    while (keys.begin < keys.end && row[keys.begin] == MINUS_INFINITY) keys.begin++;
    while (keys.end - step >= keys.begin && all_hidden(keys.end - step)) keys.end -= step;
    while (keys.begin < keys.end && row[keys.end - 1] == MINUS_INFINITY) keys.end--;
    return keys;
}

// Turn scores into e^(scale * score + mask - maximum), in place; return 1 / their sum.
float soften(float* scores, const half* mask, int64_t count, float scale) {
    const floats never = all(-std::numeric_limits<float>::infinity());
    const auto masked = [&](int64_t at, int64_t present) {
        floats x = load(scores + at) * all(scale);
        if (mask != nullptr) {
            half last[LANES] = {};
            const bool whole = present >= LANES;  // never read past the end of the mask
            if (!whole) std::memcpy(last, mask + at, present * sizeof(half));
            x = x + load_halves(whole ? mask + at : last);
        }
        return present >= LANES ? x : keep_first(x, present, never);
    };
    floats maximum = never;
    for (int64_t i = 0; i < count; i += LANES) {
        const floats x = masked(i, count - i);
        store(scores + i, x);
        maximum = larger(maximum, x);
    }
    maximum = all(largest(maximum));
    floats sum = all(0.0f);
    for (int64_t i = 0; i < count; i += LANES) {
        const floats x = exponential(load(scores + i) - maximum);
        const floats kept = count - i >= LANES ? x : keep_first(x, count - i, all(0.0f));
        store(scores + i, kept);
        sum = sum + kept;
    }
    return 1.0f / total(sum);
}

// Queries whose keys begin at the same one are computed together, as two matrix products around a softmax:
// scores are whole rows, so there is no running maximum to correct as in flash attention.
template <int V>
class AttentionBlocks {
public:
    // Masks may have changed since the last operation.
    void begin() { looked_at_ = nullptr; }

    void compute(const Head& head) {
        look(head);
        Range keys{0, 0};
        for (int64_t query = 0, past; query < head.query_count; query = past) {
            Range seen = visible_[query];
            past = query + 1;
            while (past < head.query_count && past - query < QUERIES_MAX) {
                const Range next = visible_[past];
                if (next.begin != seen.begin) break;
                // In a causal sequence each query sees one key more; the mask hides it from the others.
                seen.end = std::max(seen.end, next.end);
                past++;
            }
            if (query == 0 || seen.begin != keys.begin || seen.end != keys.end) pack(head, seen);
            keys = seen;
            compute_block(head, query, past - query, keys);
        }
    }

private:
    static constexpr int64_t width = V * LANES;
    Scratch scratch_, ranges_;
    Range* visible_ = nullptr;         // of each query
    const half* looked_at_ = nullptr;  // the mask that they were found in
    float *key_panels_ = nullptr, *value_panels_ = nullptr, *scores_ = nullptr;
    int64_t padded_ = 0;

    // Find what each query sees, once for all heads that share a mask.
    void look(const Head& head) {
        if (head.mask != nullptr && head.mask == looked_at_) return;
        looked_at_ = head.mask;
        visible_ = ranges_.take<Range>(head.query_count);
        for (int64_t query = 0; query < head.query_count; query++) visible_[query] = visible_keys(head, query);
    }

    void pack(const Head& head, Range keys) {
        const int64_t count = keys.end - keys.begin;
        padded_ = (count + width - 1) / width * width;
        key_panels_ = scratch_.take<float>((2 * head.size + QUERIES_MAX) * padded_);
        value_panels_ = key_panels_ + head.size * padded_;
        scores_ = value_panels_ + head.size * padded_;
        for (int64_t key = 0; key < count; key += width) {
            pack_panel<V>(head.keys + (keys.begin + key) * head.key_stride, head.key_stride,
                          std::min(width, count - key), head.size, key_panels_ + key * head.size);
        }
        for (int64_t key = 0; key < count; key++) {
            const half* from = head.values + (keys.begin + key) * head.value_stride;
            for (int64_t i = 0; i < head.size; i += LANES) {
                float* panel = value_panels_ + i / width * width * padded_;
                store(panel + key * width + i % width, load_halves(from + i));
            }
        }
    }

    void compute_block(const Head& head, int64_t query, int64_t queries, Range keys) {
        const int64_t count = keys.end - keys.begin;
        for (int64_t key = 0; key < count; key += width) {
            multiply_panel<V, ATTENTION_COLUMNS>(
                key_panels_ + key * head.size, width, head.size, head.queries + query * head.query_stride,
                head.query_stride, queries, scores_ + key, padded_, false);
        }
        float norm[QUERIES_MAX] = {};
        for (int64_t i = 0; i < queries && count > 0; i++) {
            const half* mask = head.mask ? head.mask + (query + i) * head.mask_stride + keys.begin : nullptr;
            norm[i] = soften(scores_ + i * padded_, mask, count, head.scale);
        }
        float* out = head.out + query * head.out_stride;
        for (int64_t i = 0; i < head.size; i += width) {  // with no keys at all this writes zeros
            multiply_panel<V, ATTENTION_COLUMNS>(
                value_panels_ + i * padded_, width, count, scores_, padded_, queries, out + i, head.out_stride,
                false);
        }
        for (int64_t i = 0; i < queries; i++) {
            for (int64_t j = 0; j < head.size; j++) out[i * head.out_stride + j] *= norm[i];
        }
    }
};

// Whether this is attention without ALiBi, soft cap or sinks.
bool is_plain_attention(const ggml_compute_params* params, const ggml_tensor* out) {
    const ggml_tensor *q = out->src[0], *k = out->src[1], *v = out->src[2], *mask = out->src[3];
    return !params->use_ref && out->src[4] == nullptr && q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 &&
           v->type == GGML_TYPE_F16 && out->type == GGML_TYPE_F32 && (!mask || mask->type == GGML_TYPE_F16) &&
           q->nb[0] == sizeof(float) && k->nb[0] == sizeof(half) && v->nb[0] == sizeof(half) &&
           k->ne[0] == v->ne[0] && k->ne[0] % LANES == 0 && k->ne[1] <= KEYS_MAX &&
           q->ne[1] > 1 && q->ne[2] >= params->nth && float_parameter(out, 1) == 0.0f &&
           float_parameter(out, 2) == 0.0f;
}

template <int V>
void attend(const ggml_compute_params* params, ggml_tensor* out) {
    thread_local AttentionBlocks<V> blocks;
    const ggml_tensor *q = out->src[0], *k = out->src[1], *v = out->src[2], *mask = out->src[3];
    const Range heads = share(params, q->ne[2] * q->ne[3]);
    blocks.begin();
    for (int64_t i = heads.begin; i < heads.end; i++) {
        const int64_t i2 = i % q->ne[2], i3 = i / q->ne[2];
        Head head{};
        head.queries = at<float>(q, i2, i3);
        head.keys = at<half>(k, i2 * k->ne[2] / q->ne[2], i3 * k->ne[3] / q->ne[3]);
        head.values = at<half>(v, i2 * v->ne[2] / q->ne[2], i3 * v->ne[3] / q->ne[3]);
        head.mask = mask ? at<half>(mask, i2 % mask->ne[2], i3 % mask->ne[3]) : nullptr;
        head.out = static_cast<float*>(out->data) + (i3 * q->ne[1] * q->ne[2] + i2) * v->ne[0];
        head.query_stride = q->nb[1] / sizeof(float);
        head.key_stride = k->nb[1] / sizeof(half);
        head.value_stride = v->nb[1] / sizeof(half);
        head.mask_stride = mask ? mask->nb[1] / sizeof(half) : 0;
        head.out_stride = q->ne[2] * v->ne[0];
        head.size = v->ne[0];
        head.query_count = q->ne[1];
        head.key_count = k->ne[1];
        head.scale = float_parameter(out, 0);
        blocks.compute(head);
    }
}

bool attention(const ggml_compute_params* params, ggml_tensor* out) {
    if (!is_plain_attention(params, out)) return false;
    if (out->src[2]->ne[0] % (2 * LANES) == 0) {
        attend<2>(params, out);
    } else {
        attend<1>(params, out);
    }
    return true;
}

}  // namespace
