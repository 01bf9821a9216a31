"""From rendered source to a differentiable op: the only part of SMAC that holds tensors."""
