"""The services as processes of this machine: what `selvedge up` runs."""
