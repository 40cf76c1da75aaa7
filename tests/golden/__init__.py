"""Golden cases: figures of other billing systems, answered by this product's pure functions.

Run `python -m tests.golden DIR`. An adapter a file translates a case's input to calls of the core; it knows no expected value.
"""
