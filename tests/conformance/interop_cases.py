"""The cases that the interop clients of both languages have, and what their soaks are given."""

# All but those that need an authentication service or a load reporting service beside ours.
CASES = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "rpc_soak",
    "channel_soak",
]

SOAK_FLAGS = [
    "--soak_iterations=20",
    "--soak_num_threads=2",
    # A machine that is busy is no failure of the server.
    "--soak_per_iteration_max_acceptable_latency_ms=20000",
    "--soak_overall_timeout_seconds=25",
]
