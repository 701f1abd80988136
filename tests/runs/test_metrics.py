"""Metrics: rows are whole, later rows of a dead process go, and a full disk is said."""

import json

import pytest

import metaception as mc
from metaception.runs.files import disk_errors, plain, write_json
from metaception.runs.metrics import Metrics, clock, read_rows

TIMING = {"step": 0, "seconds": 0.0, "steps_per_second": 0.0}


def _write(folder, steps, *, after=-1, seeds=(0,)):
    metrics = Metrics(folder, after, list(seeds))
    for step in steps:
        metrics.write({"step": step, "loss": [0.5] * len(seeds)}, TIMING | {"step": step})
    metrics.close()
    return metrics.rows


def test_rows_after_the_checkpoint_and_a_torn_line_are_cut_off(tmp_path):
    _write(tmp_path, (0, 10, 20, 30))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 40, "lo')
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [0, 10, 20, 30]
    rows = _write(tmp_path, (30,), after=20)
    assert [row["step"] for row in rows] == [0, 10, 20, 30]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 10, 20, 30]
    assert [row["step"] for row in read_rows(tmp_path / "timing.jsonl")] == [0, 10, 20, 30]


def test_a_last_line_without_its_end_is_torn_even_if_it_reads_well(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0}\n{"step": 1}')
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 0}]


def test_tensorboard_has_the_rows(tmp_path):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401 (the writer whose format is read here)

    _write(tmp_path, (0, 10), seeds=(3, 4))
    (file,) = (tmp_path / "tensorboard").iterdir()
    raw, events = file.read_bytes(), []
    while raw:
        # A record is: length (8 bytes), its checksum (4), the event, its checksum (4).
        length = int.from_bytes(raw[:8], "little")
        events.append(Event.FromString(raw[12 : 12 + length]))
        raw = raw[16 + length :]
    tags = {(event.step, value.tag) for event in events for value in event.summary.value}
    assert tags == {(s, t) for s in (0, 10) for t in ("loss/seed_3", "loss/seed_4", "time/steps_per_second")}


def test_a_full_disk_is_said(tmp_path):
    metrics = Metrics(tmp_path, -1, [0])
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(mc.RunError) as caught, disk_errors("the metrics", "Free some space."):
        metrics.write({"step": 0, "loss": [1.0]}, TIMING)
    assert str(caught.value) == "the disk is full: could not write the metrics. Free some space."
    metrics.close()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "test.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["test.json"]


def test_numbers_are_written_so_that_they_come_back():
    import numpy as np

    third = np.float32(1) / np.float32(3)
    assert json.dumps(plain({"x": [third, np.float32("nan"), np.inf, np.int32(3), True]})) == (
        '{"x": [0.33333334, null, null, 3, true]}'
    )
    assert np.float32(plain(third)) == third


def test_the_clock_goes_on_over_the_processes_of_a_run(tmp_path):
    rows = [(0, 1.0), (10, 5.0), (20, 9.0), (30, 2.5), (40, 4.0), (50, 0.5)]
    lines = [json.dumps({"step": step, "seconds": seconds, "steps_per_second": 1.0}) for step, seconds in rows]
    (tmp_path / "timing.jsonl").write_text("\n".join(lines) + "\n")
    assert clock(tmp_path) == {0: 1.0, 10: 5.0, 20: 9.0, 30: 11.5, 40: 13.0, 50: 13.5}
