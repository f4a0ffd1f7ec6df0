"""The learning rate of a step: a linear warmup, then a cosine down to a fraction of the peak."""

import math

from blockwise.config.mxfp4 import Optimizer


def learning_rate(step: int, optimizer: Optimizer, num_steps: int) -> float:
    """Learning rate with which a step updates the weights.

    The warmup climbs in equal parts from above zero and reaches the peak with its last step. The
    cosine ends on `final_learning_rate_frac` of the peak with the last step of the run. A warmup
    as long as the run or longer leaves no room for the cosine: the rate climbs to the end.

    Args:
        step: counted from 0.
        optimizer: peak, warmup and final fraction.
        num_steps: length of the run.
    """
    assert 0 <= step < num_steps, f"step {step} of {num_steps}"
    warmup_steps = max(optimizer.warmup_steps, 1)  # a warmup of one step starts at the peak
    if step < warmup_steps:
        return optimizer.learning_rate * ((step + 1) / warmup_steps)
    progress_frac = (step + 1 - warmup_steps) / (num_steps - warmup_steps)
    cosine_frac = (1 + math.cos(math.pi * progress_frac)) / 2
    final_frac = optimizer.final_learning_rate_frac
    return optimizer.learning_rate * (final_frac + (1 - final_frac) * cosine_frac)
