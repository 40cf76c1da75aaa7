"""Payment providers behind one Protocol.

base: what a gateway does, in our terms. stripe: Stripe's HTTP API. manual: money that moves outside of any API.
Only core.payments imports these modules.
"""
