"""`python -m event_hub`: the same as the console script `event-hub`."""

from event_hub.main import main

main()
