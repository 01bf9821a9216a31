"""approx(L, tol, max_rank): a mask of lags as a few exponentials, and the error measured."""

from smac.certified.fit import Fit as Fit
from smac.certified.resolve import resolve as resolve
