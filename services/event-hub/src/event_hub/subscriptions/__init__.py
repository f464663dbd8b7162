"""``selvedge.eventhub.v1.EventHub/Subscribe``: events by filter and position, nothing twice."""
