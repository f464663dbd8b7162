"""The peer's event side: signed clients register their interests and hear of the ledger's news.

The way of an event: a source hands blocks to the processor, which builds the events somebody is
registered for, serialises each once, and offers the same bytes to the outbox of every consumer.
"""
