"""The fast transport: HTTP/2 and gRPC on asyncio, for servers."""
