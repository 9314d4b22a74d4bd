import pytest
import torch

from graphsparse.utils.call_model import eval_mode, keep_mode


@pytest.fixture
def model():
    """A model in training mode with a frozen part."""
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    model[1][0].eval()
    return model


def modes(model):
    return [module.training for module in model.modules()]


def test_every_part_gets_its_own_mode_back(model):
    assert modes(model) == [True, True, True, False]
    with eval_mode(model):
        assert modes(model) == [False] * 4
    assert modes(model) == [True, True, True, False]


def test_also_after_an_error(model):
    def interrupted():
        with keep_mode(model):
            model.eval()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert modes(model) == [True, True, True, False]


def test_a_module_that_overrides_train_is_told():
    class Merging(torch.nn.Module):
        told = ()

        def train(self, mode=True):
            self.told = (*self.told, mode)
            return super().train(mode)

    model = Merging()
    with eval_mode(model):
        pass
    assert model.told == (False, True)
