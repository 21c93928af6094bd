#include "lstm.h"

#include <math.h>
#include <string.h>

static float sigmoid(float a)
{
    float e = expf(-fabsf(a)); /* never overflows */
    return (a >= 0 ? 1 : e) / (1 + e);
}

/* Of the values: σ′ = s (1 - s), and tanh′ = 1 - s² without the cancellation near |s| = 1. */
static float dsigmoid(float s) { return s * (1 - s); }
static float dtanh(float s) { return (1 - s) * (1 + s); }

static float dot(const float *u, const float *v, size_t n)
{
    float sum = 0;
    for (size_t k = 0; k < n; k++)
        sum += u[k] * v[k];
    return sum;
}

void lstm_forward(struct sizes n, const struct inputs *in, const struct states *out)
{
    const size_t B = n.B, D = n.D, H = n.H;

    for (size_t t = 0; t < n.T; t++)
        for (size_t s = 0; s < B; s++) {
            const size_t at = t * B + s;
            const float *x = in->x + at * D;
            const float *h_before = t ? out->h + (at - B) * H : in->h0 + s * H;
            const float *c_before = t ? out->c + (at - B) * H : in->c0 + s * H;
            float *h = out->h + at * H, *c = out->c + at * H;
            float *i = out->gates + at * 4 * H, *f = i + H, *g = f + H, *o = g + H;

            /* (1) a_t = U x_t + W h_{t-1} + b,  four blocks: i f g o */
            for (size_t r = 0; r < 4 * H; r++)
                i[r] = dot(in->U + r * D, x, D) + dot(in->W + r * H, h_before, H) + in->b[r];

            for (size_t k = 0; k < H; k++) {
                /* (2) i_t = σ(aⁱ_t),  f_t = σ(aᶠ_t + φ) */
                i[k] = sigmoid(i[k]);
                f[k] = sigmoid(f[k] + in->forget_offset);
                /* (3) g_t = tanh(aᵍ_t) */
                g[k] = tanhf(g[k]);
                /* (4) c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t */
                c[k] = f[k] * c_before[k] + i[k] * g[k];
                /* (5) o_t = σ(aᵒ_t) */
                o[k] = sigmoid(o[k]);
                /* (6) h_t = o_t ⊙ tanh(c_t) */
                h[k] = o[k] * tanhf(c[k]);
            }
        }
}

void lstm_backward(struct sizes n, const struct inputs *in, const struct states *kept,
                   const struct cotangents *d, const struct gradients *out, enum fault fault)
{
    const size_t T = n.T, B = n.B, D = n.D, H = n.H;
    /* What reaches h_t and c_t from later steps; after the first step, ∂L/∂h_0 and ∂L/∂c_0. */
    float *dh_next = out->h0, *dc_next = out->c0;

    memcpy(dh_next, d->h_last, B * H * sizeof(float));
    memcpy(dc_next, d->c_last, B * H * sizeof(float));
    memset(out->U, 0, 4 * H * D * sizeof(float));
    memset(out->W, 0, 4 * H * H * sizeof(float));
    memset(out->b, 0, 4 * H * sizeof(float));

    for (size_t t = T; t-- > 0;)
        for (size_t s = 0; s < B; s++) {
            const size_t at = t * B + s;
            const float *i = kept->gates + at * 4 * H, *f = i + H, *g = f + H, *o = g + H;
            const float *x = in->x + at * D, *c = kept->c + at * H;
            const float *h_before = t ? kept->h + (at - B) * H : in->h0 + s * H;
            const float *c_before = t ? kept->c + (at - B) * H : in->c0 + s * H;
            float *delta = out->delta + at * 4 * H;
            float *d_i = delta, *d_f = d_i + H, *d_g = d_f + H, *d_o = d_g + H;
            float *dh_on = dh_next + s * H, *dc_on = dc_next + s * H;

            for (size_t k = 0; k < H; k++) {
                const float tanh_c = tanhf(c[k]);
                /* (8) ∂h_t = ∂L/∂h_t + Wᵀ δ_{t+1} */
                const float dh = d->h[at * H + k] + dh_on[k];
                /* (9) δᵒ_t = ∂h_t ⊙ tanh(c_t) ⊙ σ′(o_t) */
                d_o[k] = dh * tanh_c * dsigmoid(o[k]);
                /* (10) ∂c_t = ∂L/∂c_t + ∂h_t ⊙ o_t ⊙ tanh′(c_t) + ∂c_{t+1} ⊙ f_{t+1} */
                const float bend = fault == TANH_DERIVATIVE ? 1 : dtanh(tanh_c);
                const float dc = d->c[at * H + k] + dc_on[k] + dh * o[k] * bend;
                /* (11) δⁱ_t = ∂c_t ⊙ g_t ⊙ σ′(i_t),  δᶠ_t = ∂c_t ⊙ c_{t-1} ⊙ σ′(f_t) */
                d_i[k] = dc * g[k] * dsigmoid(i[k]);
                d_f[k] = dc * c_before[k] * (fault == FORGET_DERIVATIVE ? 1 : dsigmoid(f[k]));
                /* (12) δᵍ_t = ∂c_t ⊙ i_t ⊙ tanh′(g_t) */
                d_g[k] = dc * i[k] * dtanh(g[k]);
                /* (10) what goes on to step t - 1 */
                dc_on[k] = fault == DROPPED_CARRY ? 0 : dc * f[k];
            }

            /* (8) what goes on to step t - 1: Wᵀ δ_t */
            for (size_t k = 0; k < H; k++) {
                dh_on[k] = 0;
                for (size_t r = 0; r < 4 * H; r++) {
                    const size_t row = r % H, block = r - row;
                    const float *w = in->W + block * H;
                    dh_on[k] += (fault == TRANSPOSED ? w[k * H + row] : w[row * H + k]) * delta[r];
                }
            }

            const float *h = fault == STATE_AFTER ? kept->h + at * H : h_before;
            for (size_t r = 0; r < 4 * H; r++) {
                /* (13) ∂L/∂W = Σ_t δ_t h_{t-1}ᵀ */
                for (size_t k = 0; k < H; k++)
                    out->W[r * H + k] += delta[r] * h[k];
                /* (14) ∂L/∂U = Σ_t δ_t x_tᵀ,  ∂L/∂b = Σ_t δ_t */
                for (size_t k = 0; k < D; k++)
                    out->U[r * D + k] += delta[r] * x[k];
                out->b[r] = fault == BIAS_ASSIGNED ? delta[r] : out->b[r] + delta[r];
            }

            /* (17) ∂L/∂x_t = Uᵀ δ_t */
            for (size_t k = 0; k < D; k++) {
                float sum = 0;
                for (size_t r = 0; r < 4 * H; r++)
                    sum += in->U[r * D + k] * delta[r];
                out->x[at * D + k] = sum;
            }
        }
}
