"""Events that were refused: kept as they were sent, looked through, and sent into the log again once the cause is mended.

`tables` and `sent` are what is kept; `finding` looks through it; `replaying` judges rejected events anew.
"""
