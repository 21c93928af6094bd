"""Manual against autodiff: whole training gradients, timed so that a sceptic can believe it."""
