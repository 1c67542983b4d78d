"""Numbers as texts, for tables and answers."""

import math
import statistics
from collections.abc import Iterable


def mean_and_deviation(values: Iterable[float | None], digits: int = 4) -> str:
    """Say the mean and, of several values, the sample standard deviation; "n/a" of none.

    None and NaN are no values.
    """
    values = [value for value in values if value is not None and not math.isnan(value)]
    if not values:
        return "n/a"
    deviation = f" ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):,.{digits}f}{deviation}"
