"""The receiver in detail, and sender and receiver together against a model of the pipe between them."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from wire import codec
from wire.delivery import CLOSED_SEQ, Position, Received, Receiver, StreamKey
from wire.messages import Body, Frame, GapBody, Predecessor, ReadingsBody, Record, SchemaBody
from wire.sending import Mark, Parcel, Sender

KEY = StreamKey("s/e", "telemetry")


def schema(name: str = "s1", predecessor: tuple[int, int] | None = None) -> SchemaBody:
    before = None if predecessor is None else Predecessor(epoch=predecessor[0], last_seq=predecessor[1])
    return SchemaBody(schema_hash=name, config_hash="c", points=[], predecessor=before)


def readings(value: float = 0.0, name: str = "s1") -> ReadingsBody:
    return ReadingsBody(schema_hash=name, base=1, point=[0], dt=[0], value=[value])


def gap(last_seq: int, count: int = 0) -> GapBody:
    return GapBody(last_seq=last_seq, count=count, start=0, end=0)


def record(epoch: int, seq: int, body: Body | None = None) -> Record:
    if body is None:
        body = schema() if seq == 0 else readings(seq)
    return Record(source=KEY.source, stream="telemetry", epoch=epoch, seq=seq, body=body)


def places(items: list[Received]) -> list[tuple[int, int, str]]:
    return [(item.record.epoch, item.record.seq, item.record.body.kind) for item in items]


def take(receiver: Receiver) -> list[tuple[int, int, str]]:
    out = places(receiver.take())
    receiver.committed()
    return out


def acked(receiver: Receiver) -> list[tuple[int, int]]:
    return [(item.epoch, item.seq) for item in receiver.acks(1)]


def test_lets_out_in_order_what_came_in_disorder() -> None:
    receiver = Receiver({})
    for seq in (2, 0, 3, 1, 1, 0):
        receiver.offer(record(5, seq))
    assert take(receiver) == [(5, 0, "schema"), (5, 1, "readings"), (5, 2, "readings"), (5, 3, "readings")]
    assert receiver.tally.repeats == 2
    assert receiver.positions() == {KEY: Position(5, 4)}


def test_acknowledges_after_the_commit_only() -> None:
    receiver = Receiver({})
    receiver.offer(record(5, 0))
    assert acked(receiver) == []
    receiver.take()
    assert acked(receiver) == []
    receiver.committed()
    assert acked(receiver) == [(5, 0)]
    assert acked(receiver) == []


def test_answers_repeats_and_early_records_at_once_with_what_is_committed() -> None:
    receiver = Receiver({KEY: Position(5, 3)})
    receiver.offer(record(5, 1))
    assert acked(receiver) == [(5, 2)]
    receiver.offer(record(5, 7))
    assert acked(receiver) == [(5, 2)]


def test_takes_no_more_readings_than_asked_and_names_the_position_of_what_it_gave() -> None:
    receiver = Receiver({KEY: Position(5, 1)}, schemas={KEY: ["s1"]})
    for seq in range(1, 6):
        receiver.offer(record(5, seq))
    assert receiver.waiting_readings == 5
    assert len(receiver.take(2)) == 2
    assert receiver.positions()[KEY] == Position(5, 3)
    assert (receiver.waiting_readings, len(receiver)) == (3, 3)


def test_drops_what_exceeds_the_window_but_never_the_next_record() -> None:
    receiver = Receiver({KEY: Position(5, 1)}, window=2, schemas={KEY: ["s1"]})
    for seq in (3, 4, 5):
        receiver.offer(record(5, seq))
    assert receiver.tally.overflow == 1
    receiver.offer(record(5, 1))
    receiver.offer(record(5, 2))
    assert [seq for _, seq, _ in take(receiver)] == [1, 2, 3, 4]


def test_holds_a_stream_whose_schema_is_unknown_and_asks_for_it() -> None:
    receiver = Receiver({KEY: Position(5, 1)})
    receiver.offer(record(5, 1))
    assert take(receiver) == []
    assert receiver.acks(1)[0].want_schema == "s1"
    receiver.offer(record(5, -1, schema()))
    assert take(receiver) == [(5, -1, "schema"), (5, 1, "readings")]
    assert receiver.acks(1)[0].want_schema is None


def test_a_known_schema_is_not_repeated_to_the_consumer_but_the_question_is_answered() -> None:
    receiver = Receiver({KEY: Position(5, 4)}, schemas={KEY: ["s1"]})
    receiver.offer(record(5, -1, schema()))
    assert take(receiver) == []
    assert acked(receiver) == [(5, 3)]


def test_a_gap_stands_for_its_range() -> None:
    receiver = Receiver({KEY: Position(5, 1)}, schemas={KEY: ["s1"]})
    receiver.offer(record(5, 6))
    receiver.offer(record(5, 3))
    receiver.offer(record(5, 1, gap(5, 40)))
    assert take(receiver) == [(5, 1, "gap"), (5, 6, "readings")]
    assert receiver.positions()[KEY].next_seq == 7


def test_only_the_missing_tail_of_a_gap_is_let_out() -> None:
    receiver = Receiver({KEY: Position(5, 4)}, schemas={KEY: ["s1"]})
    receiver.offer(record(5, 1, gap(9)))
    assert take(receiver) == [(5, 4, "gap")]
    assert acked(receiver) == [(5, 9)]


def test_enters_the_next_epoch_when_the_one_before_is_complete() -> None:
    receiver = Receiver({KEY: Position(5, 2)}, schemas={KEY: ["s1"]})
    receiver.offer(record(6, 0, schema("s1", (5, 3))))
    receiver.offer(record(6, 1))
    assert take(receiver) == []
    assert set(acked(receiver)) == {(5, 1), (6, -1)}
    receiver.offer(record(5, 3))
    receiver.offer(record(5, 2))
    assert [place[:2] for place in take(receiver)] == [(5, 2), (5, 3), (6, 0), (6, 1)]
    assert receiver.positions()[KEY] == Position(6, 2, (5,))


def test_writes_a_gap_where_a_predecessor_is_unknown_and_tells_the_next_hop() -> None:
    receiver = Receiver({KEY: Position(5, 2)}, schemas={KEY: ["s1"]})
    receiver.offer(record(6, 0, schema()))
    out = receiver.take()
    assert places(out) == [(5, 2, "gap"), (6, 0, "schema")]
    assert isinstance(out[0].record.body, GapBody)
    assert out[0].record.body.reason == "unknown"
    assert isinstance(out[1].record.body, SchemaBody)
    assert out[1].record.body.predecessor == Predecessor(epoch=5, last_seq=2)
    assert codec.decode(Record, out[1].raw) == out[1].record
    assert receiver.tally.gaps == 1


def test_a_closed_epoch_stays_closed_and_its_sender_is_told() -> None:
    receiver = Receiver({KEY: Position(6, 2, (5,))}, schemas={KEY: ["s1"]})
    receiver.offer(record(5, 7))
    assert take(receiver) == []
    assert acked(receiver) == [(5, CLOSED_SEQ)]
    receiver.offer(record(7, 0, schema("s1", (5, 6))))
    assert take(receiver) == [(6, 2, "gap"), (7, 0, "schema")]
    assert receiver.positions()[KEY] == Position(7, 1, (5, 6))


def test_says_where_it_stands_without_being_asked() -> None:
    receiver = Receiver({KEY: Position(5, 3)})
    receiver.remind([KEY, StreamKey("s/unknown", "telemetry")])
    assert acked(receiver) == [(5, 2)]
    receiver.offer(record(5, 3, schema()))
    receiver.take()
    receiver.remind([KEY])
    assert acked(receiver) == [(5, 2)], "taken is not committed"


def test_asks_for_an_epoch_it_has_never_seen() -> None:
    receiver = Receiver({})
    receiver.offer(record(6, 0, schema("s1", (5, 3))))
    assert set(acked(receiver)) == {(5, -1), (6, -1)}
    receiver.offer(record(5, 0, gap(3)))
    assert take(receiver) == [(5, 0, "gap"), (6, 0, "schema")]


class Source:
    """A model of an outbox: what is committed, and how far it is acknowledged."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.acked: dict[int, int] = {}
        self.sender = Sender(8)
        self.pushed = 0
        self.epoch = 0
        self.seq = 0

    def commit(self, *, reopen: bool = False) -> None:
        if reopen or not self.records:
            before = (self.epoch, self.seq - 1) if self.records else None
            self.epoch, self.seq = self.epoch + 1, 0
            body: Body = schema("s1", before)
        else:
            body = readings(len(self.records))
        self.records.append(record(self.epoch, self.seq, body))
        self.seq += 1

    def restart(self) -> None:
        """A new process: what was in flight is forgotten, what is committed stays."""
        self.sender = Sender(8)
        self.pushed = next(
            (index for index, each in enumerate(self.records) if each.seq > self.acked.get(each.epoch, -1)),
            len(self.records),
        )

    def send(self, now: float) -> list[bytes]:
        while self.sender.free and self.pushed < len(self.records):
            each = self.records[self.pushed]
            frame = codec.join_frame([codec.encode_record(each)])
            self.sender.push(Parcel(frame, (Mark(KEY, each.epoch, each.seq),), row=self.pushed))
            self.pushed += 1
        return [parcel.payload for parcel in self.sender.send(now)]

    def resume(self) -> None:
        """A new session: what was in flight is read again."""
        row = self.sender.recall()
        self.pushed = self.pushed if row is None else row

    def hear(self, epoch: int, seq: int, now: float) -> None:
        self.acked[epoch] = max(seq, self.acked.get(epoch, -1))
        self.sender.acknowledge({(KEY, epoch): seq}, now)


class Target:
    """A receiver whose process may die; what it committed survives."""

    def __init__(self) -> None:
        self.stored: list[Received] = []
        self.positions: dict[StreamKey, Position] = {}
        self.restart()

    def restart(self) -> None:
        self.receiver = Receiver(self.positions, window=16, schemas={KEY: ["s1"]})

    def commit(self) -> None:
        self.stored += self.receiver.take(3)
        self.positions = self.receiver.positions()
        self.receiver.committed()


class World:
    """Source, target and the two pipes between them; each method is one thing that can happen."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.source, self.target = Source(), Target()
        self.up: list[bytes] = []
        self.down: list[tuple[int, int]] = []

    def step(self, name: str) -> None:
        self.now += self.rng.random()
        getattr(self, name)()
        self.down += [(item.epoch, item.seq) for item in self.target.receiver.acks(1)]
        while self.down and self.rng.random() < 0.5:
            self.source.hear(*self.down.pop(self.rng.randrange(len(self.down))), self.now)

    def commit(self) -> None:
        self.source.commit()

    def reopen(self) -> None:
        self.source.commit(reopen=True)

    def send(self) -> None:
        self.up += self.source.send(self.now)

    def deliver(self) -> None:
        if self.up:
            for each in codec.decode(Frame, self.up.pop(self.rng.randrange(len(self.up)))).records:
                self.target.receiver.offer(each)

    def drop(self) -> None:
        if self.up:
            self.up.pop(self.rng.randrange(len(self.up)))

    def repeat(self) -> None:
        if self.up:
            self.up.append(self.rng.choice(self.up))

    def take(self) -> None:
        self.target.commit()

    def forget_acks(self) -> None:
        self.down.clear()

    def restart_source(self) -> None:
        self.source.restart()

    def restart_target(self) -> None:
        self.target.restart()

    def new_session(self) -> None:
        """Either end has just begun to listen again; what the target says of itself may come late or never."""
        self.target.receiver.remind([KEY])
        self.source.resume()


STEPS = st.lists(
    st.sampled_from(["commit"] * 4 + ["send"] * 4 + ["deliver"] * 8 + ["take", "drop", "repeat", "reopen"])
    | st.sampled_from(["restart_source", "restart_target", "forget_acks", "new_session"]),
    max_size=150,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 2**32))
def test_every_committed_record_arrives_once_and_in_order(steps: list[str], seed: int) -> None:
    world = World(seed)
    source, target = world.source, world.target
    for name in steps:
        world.step(name)
        committed = [(each.epoch, each.seq) for each in source.records]
        assert [place[:2] for place in places(target.stored)] == committed[: len(target.stored)]
    for _ in range(3000):
        for name in ("send", "deliver", "take"):
            world.step(name)
        world.now += 3.0
        if len(target.stored) == len(source.records):
            break
    assert [item.record for item in target.stored] == source.records
    assert target.receiver.tally.gaps == 0
