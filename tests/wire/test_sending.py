"""The sender's pace: window, repeated acks, silence."""

from __future__ import annotations

from wire.delivery import StreamKey
from wire.sending import Mark, Parcel, Sender

A, B = StreamKey("s/a", "telemetry"), StreamKey("s/b", "telemetry")


def parcel(number: int, key: StreamKey = A) -> Parcel:
    return Parcel(b"%d" % number, (Mark(key, 1, number),), stamp=number, row=number)


def loaded(count: int, window: int = 8) -> Sender:
    sender = Sender(window)
    for number in range(count):
        sender.push(parcel(number))
    return sender


def sent(sender: Sender, now: float) -> list[int]:
    return [int(each.payload) for each in sender.send(now)]


def test_sends_each_parcel_once_and_forgets_what_is_acknowledged() -> None:
    sender = loaded(5)
    assert sent(sender, 0.0) == [0, 1, 2, 3, 4]
    assert sent(sender, 0.1) == []
    assert sender.acknowledge({(A, 1): 3}, 0.2)
    assert (len(sender), sender.oldest, sent(sender, 0.3)) == (1, 4, [])
    sender.acknowledge({(A, 1): 4}, 0.4)
    assert (len(sender), sender.due, sender.oldest) == (0, None, None)


def test_is_full_by_number_or_by_bytes() -> None:
    sender = loaded(8)
    assert not sender.free
    small = Sender(8, max_bytes=3)
    small.push(Parcel(b"xxxx", (Mark(A, 1, 0),)))
    assert not small.free
    small.acknowledge({(A, 1): 0}, 0.0)
    assert small.free


def test_silence_makes_it_probe_ever_more_slowly() -> None:
    sender = Sender(8, first_timeout_s=1.0, max_timeout_s=5.0)
    sender.push(parcel(0))
    sender.push(parcel(1))
    sent(sender, 0.0)
    assert sender.due == 1.0
    assert sent(sender, 0.9) == []
    times, now = [], 1.0
    for _ in range(5):
        assert sent(sender, now) == [0]
        assert sender.due is not None
        times.append(sender.due - now)
        now = sender.due
    assert times == [2.0, 4.0, 5.0, 5.0, 5.0]


def test_three_repeated_acks_send_the_missing_parcel_at_once_and_only_once() -> None:
    sender = loaded(6)
    sent(sender, 0.0)
    sender.acknowledge({(A, 1): 0}, 0.1)
    for expected in ([], [], [1], [], []):
        assert not sender.acknowledge({(A, 1): 0}, 0.2)
        assert sent(sender, 0.2) == expected
    assert sender.acknowledge({(A, 1): 5}, 0.3)
    assert len(sender) == 0


def test_progress_after_a_probe_opens_the_window_again() -> None:
    sender = loaded(8)
    sent(sender, 0.0)
    assert sent(sender, 1.0) == [0]
    sender.acknowledge({(A, 1): 0}, 1.1)
    assert sent(sender, 1.1) == [1, 2, 3]
    sender.acknowledge({(A, 1): 3}, 1.2)
    assert sent(sender, 1.2) == [4, 5, 6, 7]


def test_a_new_session_sends_everything_again_at_once() -> None:
    sender = loaded(4)
    sent(sender, 0.0)
    sender.acknowledge({(A, 1): 0}, 0.1)
    assert sender.recall() == 1
    assert (len(sender), sender.due, sent(sender, 0.2)) == (0, None, [])
    for number in (1, 2, 3):
        sender.push(parcel(number))
    assert sent(sender, 0.2) == [1, 2, 3]
    assert not sender.acknowledge({(A, 1): 0}, 0.3), "what was heard before still counts"


def test_without_anything_in_flight_there_is_nothing_to_recall() -> None:
    assert Sender().recall() is None


def test_a_parcel_of_several_streams_waits_for_all_of_them() -> None:
    sender = Sender()
    sender.push(Parcel(b"0", (Mark(A, 1, 5), Mark(B, 2, 9))))
    sent(sender, 0.0)
    sender.acknowledge({(A, 1): 5}, 0.1)
    sender.acknowledge({(B, 1): 99}, 0.1)
    assert len(sender) == 1
    sender.acknowledge({(B, 2): 9}, 0.1)
    assert len(sender) == 0


def test_cleared_it_remembers_nothing() -> None:
    sender = loaded(3)
    sent(sender, 0.0)
    sender.acknowledge({(A, 1): 2}, 0.1)
    sender.clear()
    sender.push(parcel(0))
    assert sender.acknowledge({(A, 1): -1}, 0.2)
    assert sent(sender, 0.2) == [0]
