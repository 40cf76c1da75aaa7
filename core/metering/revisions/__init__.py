"""Other definitions of a metric: counted beside it, compared with it, and put in its place in one transaction.

`models` is what is kept, `proposing` checks and begins a revision, `settling` applies or discards it, `sweeping` deletes sums nobody
reads any more. The aggregator counts a revision's past in the same steps as that of a new metric.
"""
