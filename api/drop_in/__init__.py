"""Wire formats that people already send, in front of the same pipeline: their clients work when they are pointed here.

`cloud_events` `openmeter` `lago` `stripe_events` translate, one dialect each; `translation` is what they share; `front` is the way in.
"""
