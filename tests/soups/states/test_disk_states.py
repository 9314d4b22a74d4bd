import pytest
import torch
from models import MODELS

from graphsparse.soups.states.disk_states import DiskStates


def test_what_was_written_is_read(tmp_path):
    states = DiskStates(tmp_path)
    written = [MODELS["BatchNorm and a tied weight"]().state_dict() for _ in range(3)]
    for state in written:
        states.append(state)
    assert len(states) == 3
    for i, state in enumerate(written):
        assert states[i].keys() == state.keys()
        for name, value in states[i].items():
            assert torch.equal(value, state[name])
            assert value.dtype == state[name].dtype


def test_what_is_changed_later_is_not_in_the_file(tmp_path):
    states, state = DiskStates(tmp_path), {"w": torch.zeros(3).t()}
    states.append(state)
    state["w"] += 1
    assert states[0]["w"].tolist() == [0, 0, 0]


def test_no_such_state(tmp_path):
    states = DiskStates(tmp_path)
    states.append({"w": torch.zeros(1)})
    for index in (1, -1):
        with pytest.raises(IndexError, match="there are 1 states"):
            states[index]
    assert [len(state) for state in states] == [1]
