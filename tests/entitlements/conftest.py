"""The queue of these tests is in memory."""

import dramatiq
import dramatiq.broker
from dramatiq.brokers.stub import StubBroker

if dramatiq.broker.global_broker is None:  # importing the workers would connect to a real queue
    dramatiq.set_broker(StubBroker())
