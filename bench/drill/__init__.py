"""Kills and cuts around an event hub while its consumers follow: `python -m bench.drill`."""
