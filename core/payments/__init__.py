"""Getting paid: methods, charges, refunds, the provider's webhooks.

models · methods · collect (begin, charge, record) · dunning (pure schedule) · refund · inbound · reconcile · declines (pure) · gateways · queries
"""
