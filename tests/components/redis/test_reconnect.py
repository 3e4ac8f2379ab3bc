"""Which connections ``reconnect`` kills, and which it never does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recovery.components.redis.reconnect import Reconnect, is_expendable, stale


def entry(number: int, idle: int, flags: str = "N", **said: str) -> dict[str, str]:
    return {"id": str(number), "idle": str(idle), "flags": flags, "sub": "0", "psub": "0", **said}


def test_blocked_subscribed_replicating_and_transacting_clients_are_spared() -> None:
    spared = [
        entry(1, 9999, "b"),
        entry(2, 9999, "S"),
        entry(3, 9999, "P", sub="1"),
        entry(4, 9999, "x", multi="2"),
        entry(5, 9999, "O"),
    ]

    assert not [client for client in spared if is_expendable(client)]


def test_on_a_server_with_room_only_long_idle_connections_go() -> None:
    listed = [entry(1, 10), entry(2, 301)]

    doomed = stale(listed, Reconnect(), most=100, own=0)

    assert [client["id"] for client in doomed] == ["2"]


def test_on_a_full_server_the_longest_idle_make_room() -> None:
    listed = [entry(number, idle=number) for number in range(10, 20)]

    doomed = stale(listed, Reconnect(goal_percent=70), most=10, own=0)

    assert [client["id"] for client in doomed] == ["19", "18", "17"]


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["N", "b", "S", "P"])), max_size=60),
    st.integers(0, 60),
)
def test_our_own_connection_and_spared_ones_never_go(
    clients: list[tuple[int, str]], own: int
) -> None:
    listed = [entry(number, idle, flags) for number, (idle, flags) in enumerate(clients)]

    doomed = stale(listed, Reconnect(), most=10, own=own)

    assert all(int(client["id"]) != own and client["flags"] == "N" for client in doomed)
