"""Measurements of running services, each beside raw grpc.aio: `python -m bench`."""
