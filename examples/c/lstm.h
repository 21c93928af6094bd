/* The long short-term memory in single precision, forward and backward.
 *
 * Arrays lie row by row in C order. Letters: T steps, B sequences, D input size, H cells; the four
 * blocks of 4H are i f g o. The numbers of the equations are those of src/manual_bptt/lstm.py. */

#ifndef LSTM_H
#define LSTM_H

#include <stddef.h>

struct sizes {
    size_t T, B, D, H;
};

struct inputs {
    const float *x;      /* (T, B, D) */
    const float *h0, *c0; /* (B, H) */
    const float *U;      /* (4H, D) */
    const float *W;      /* (4H, H) */
    const float *b;      /* (4H) */
    float forget_offset; /* φ */
};

struct states {
    float *gates;   /* (T, B, 4H), after σ and tanh */
    float *h, *c;   /* (T, B, H) */
};

struct cotangents {
    const float *h, *c;           /* (T, B, H): ∂L/∂h_t and ∂L/∂c_t */
    const float *h_last, *c_last; /* (B, H): what reaches the last ones besides */
};

struct gradients {
    float *delta;    /* (T, B, 4H): ∂L/∂a_t */
    float *x;        /* (T, B, D) */
    float *h0, *c0;  /* (B, H) */
    float *U, *W, *b; /* as the weights */
};

/* Mistakes that can be planted in the backward pass, to see them caught. */
enum fault {
    NONE,
    FORGET_DERIVATIVE, /* (11) without σ′(f_t) */
    TANH_DERIVATIVE,   /* (10) without tanh′(c_t) */
    DROPPED_CARRY,     /* (10) without ∂c_{t+1} ⊙ f_{t+1} */
    TRANSPOSED,        /* (8) with W for Wᵀ, gate by gate */
    STATE_AFTER,       /* (13) with h_t for h_{t-1} */
    BIAS_ASSIGNED      /* (14) with = for +=: of ∂L/∂b only what was added last is left */
};

/* Equations (1) to (6): fills the states. */
void lstm_forward(struct sizes n, const struct inputs *in, const struct states *out);

/* Equations (8) to (14) and (17): fills the gradients. */
void lstm_backward(struct sizes n, const struct inputs *in, const struct states *kept,
                   const struct cotangents *d, const struct gradients *out, enum fault fault);

#endif
