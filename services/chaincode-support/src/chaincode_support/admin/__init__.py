"""Administration of the peer: requests that are signed by who asks, and what they ask for."""
