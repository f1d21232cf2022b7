"""Records as lines: appended at a constant cost, cut where a checkpoint does not know them, refused where damaged."""

import json

import pytest

from ppl_models.inference.resuming import history
from ppl_models.inference.resuming.history import LINES, SHOWN, History

RECORDS = [{"step": i, "loss": 0.1 * i, "valid": 1.5} for i in range(5)]


def test_lines_are_appended_and_read_as_far_as_they_are_known(tmp_path):
    lines, told = History(tmp_path), []
    for count in range(1, 6):
        before = (tmp_path / LINES).stat() if count > 1 else None
        lines.append(RECORDS[:count])
        told.append(json.loads(json.dumps(lines.told())))
        if before is not None:  # the same file, and one line more
            after = (tmp_path / LINES).stat()
            assert after.st_ino == before.st_ino
            assert after.st_size - before.st_size == len(json.dumps(RECORDS[count - 1])) + 1
    assert len({len(json.dumps(each)) for each in told}) <= 2  # what a checkpoint says is no longer for more records
    for count, each in enumerate(told, 1):
        assert History(tmp_path).read(each) == RECORDS[:count]
    # one that goes on from the third cuts the others off
    again = History(tmp_path)
    again.read(told[2])
    again.append([*RECORDS[:3], {"step": 99}])
    assert History(tmp_path).read(again.told()) == [*RECORDS[:3], {"step": 99}]
    assert History(tmp_path).read(told[2]) == RECORDS[:3]
    with pytest.raises(ValueError, match="damaged: its first 4 lines are not the records"):
        History(tmp_path).read(told[3])


def test_a_line_that_a_kill_has_cut_is_no_matter(tmp_path):
    lines = History(tmp_path)
    lines.append(RECORDS[:2])
    with open(tmp_path / LINES, "ab") as file:
        file.write(b'{"step": 2, "lo')
    again = History(tmp_path)
    assert again.read(lines.told()) == RECORDS[:2]
    again.append(RECORDS[:3])
    assert (tmp_path / LINES).read_text().splitlines() == [json.dumps(record) for record in RECORDS[:3]]


def test_damaged_lines_are_refused_and_lost_ones_are_told(tmp_path):
    lines = History(tmp_path)
    lines.append(RECORDS)
    path, text = tmp_path / LINES, (tmp_path / LINES).read_bytes()
    for damaged in (text[:-1], text.replace(b"3", b"4", 1), b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{LINES} is damaged: .* remove it to go on without them"):
            History(tmp_path).read(lines.told())
    path.unlink()
    with pytest.raises(FileNotFoundError):
        History(tmp_path).read(lines.told())
    # somebody takes it away while the training goes on: all of it is written again
    lines.append([*RECORDS, {"step": 5}])
    assert History(tmp_path).read(lines.told()) == [*RECORDS, {"step": 5}]


def test_files_of_before_say_their_records_themselves(tmp_path):
    old, lines = [{"step": 1, "nll": 2.0}], History(tmp_path)
    assert lines.read(old) == [{"step": 1, "negative_elbo": 2.0}]
    (tmp_path / SHOWN).write_text(json.dumps({"history": old}))
    assert lines.read(None) == [{"step": 1, "negative_elbo": 2.0}]
    lines.append([{"step": 1}, {"step": 2}])  # they move to lines with the next one
    assert History(tmp_path).read(lines.told()) == [{"step": 1}, {"step": 2}]


def test_the_file_for_people_is_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "SELDOM", float("inf"))
    lines, shown = History(tmp_path), tmp_path / SHOWN
    lines.show(RECORDS[:1], now=False)
    assert json.loads(shown.read_text()) == {"history": RECORDS[:1]}
    lines.show(RECORDS[:2], now=False)
    assert json.loads(shown.read_text()) == {"history": RECORDS[:1]}
    lines.show(RECORDS[:2])
    assert json.loads(shown.read_text()) == {"history": RECORDS[:2]}


def test_records_that_json_does_not_know_are_named(tmp_path):
    with pytest.raises(TypeError, match="fit: a record is not JSON .*want numbers and texts"):
        History(tmp_path).append([{"step": object()}])
    assert not list(tmp_path.iterdir())
