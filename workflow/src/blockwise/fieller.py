"""Ratios of two means over the same clusters, with an interval that may be open.

Source: Fieller, Some problems in interval estimation, J. R. Stat. Soc. B 16 (1954).
"""

import math
from collections.abc import Mapping, Sequence

from scipy.special import stdtrit  # type: ignore[import-untyped]  # scipy ships no types

from blockwise.statistics import CONFIDENCE, MIN_CLUSTERS, Interval


def ratio_of_means(
    numerators: Mapping[str, float], denominators: Mapping[str, float]
) -> Interval | None:
    """Ratio of two means over the same clusters, with Fieller's 95% interval.

    A ratio in each cluster would have no mean where a denominator may be near zero; the ratio of
    the means has an interval that is exact for normal pairs. Where the mean denominator does not
    differ from zero there is none: any ratio would agree with the data.

    Args:
        numerators: value by cluster, each finite.
        denominators: value by cluster, each finite.

    Returns:
        The ratio, with the smallest and largest mean numerator over the mean denominator as its
        range; `None` where no cluster has both or the mean denominator is zero.
    """
    shared = sorted(numerators.keys() & denominators.keys())
    above, below = ([one[name] for name in shared] for one in (numerators, denominators))
    if not shared or math.fsum(below) == 0:
        return None
    num = len(shared)
    mean_above, mean_below = math.fsum(above) / num, math.fsum(below) / num
    ends = [value / mean_below for value in above]
    low, high = _fieller_bounds(above, below)
    return Interval(mean_above / mean_below, low, high, min(ends), max(ends), num, num)


def _fieller_bounds(
    above: Sequence[float], below: Sequence[float]
) -> tuple[float, float] | tuple[None, None]:
    """Ends of Fieller's interval; none below `MIN_CLUSTERS` pairs or where it is unbounded."""
    num = len(above)
    if num < MIN_CLUSTERS:
        return None, None
    mean_above, mean_below = math.fsum(above) / num, math.fsum(below) / num
    share = float(stdtrit(num - 1, (1 + CONFIDENCE) / 2)) ** 2 / (num * (num - 1))
    pairs = [(x - mean_above, y - mean_below) for x, y in zip(above, below, strict=True)]
    square = mean_below**2 - share * math.fsum(y * y for _, y in pairs)
    middle = mean_above * mean_below - share * math.fsum(x * y for x, y in pairs)
    rest = mean_above**2 - share * math.fsum(x * x for x, _ in pairs)
    if square <= 0:
        return None, None
    reach = math.sqrt(max(middle**2 - square * rest, 0.0))  # a last bit may fall below zero
    return (middle - reach) / square, (middle + reach) / square
