"""Is the money right? Invariants that verify, the health page and the end of every scenario check.

rule · books, billing (the rules) · check (run them)
"""

from core.selfcheck.check import Finding, codes, run

__all__ = ["Finding", "codes", "run"]
