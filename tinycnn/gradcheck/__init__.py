"""Is this backward right?  A gradient checker for any layer, this package's or your own.

    report = tinycnn.gradcheck(layer, x)      # print(report), report.ok
    assert_gradients(layer, x)                # in tests

A layer is anything with ``forward(x)`` and ``backward(dy)``.  The loss is L = ⟨v, y⟩ with a random cotangent v, so
that dL/dy = v and backward(v) must be dL/dx.  For the input and for each parameter by itself:

**Directional derivatives.**  For a random direction u, ⟨dL/dx, u⟩ must equal d/dt L(x + t·u) at 0, which
`extrapolate` computes to about twelve digits.  One number, but every entry of the gradient is in it; three directions
leave a mistake no room.  No component of u or v is near 0.

**Taylor remainder.**  L(x + h·u) − L(x) − h·⟨dL/dx, u⟩ is O(h²) if the gradient is right and O(h) if it is not.  The
slope over four halvings of h is 2 or 1: a verdict without a tolerance.

**Jacobian.**  Where it is small it is compared entry by entry, which says *where* a mistake is.

**Kinks.**  All points of a difference must lie on one side of every kink; see `tinycnn.gradcheck.numeric`.  With
an input full of ties, directions are used that keep them.

**The contract.**  Backward is linear in dy, zero for zero, bit for bit repeatable even after other calls, adds to
the parameters' gradients, respects ``requires_grad=False``, and mutates nothing that is not its own.

When something is wrong the report names the likely cause: mistakes leave fingerprints (`tinycnn.gradcheck.diagnosis`).

Sources: extrapolation, Ridders 1982, "Accurate computation of F'(x) and F'(x)F''(x)"; the Taylor test, Farrell et
al. 2013, "Automated derivation of the adjoint of high-level transient finite element programs", section 6; the complex
step, Squire & Trapp 1998, "Using complex variables to estimate derivatives of real functions".
"""

from .check import assert_gradients, gradcheck
from .numeric import gapped
from .report import Entry, Finding, GradReport

__all__ = ["Entry", "Finding", "GradReport", "assert_gradients", "gapped", "gradcheck"]
