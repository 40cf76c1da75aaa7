"""Getting paid: methods, charges, refunds, the provider's webhooks.

models · methods · setups · attempts · collect (begin, charge, record) · outcomes · dunning (pure) · resolve · external · excess · refund
inbound · reconcile · declines (pure) · provider · gateways · queries
"""
