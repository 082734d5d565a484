import pytest
import torch

from sklearn_cls._network.code_embedding import CHANNELS_PER_CODE, CodeEmbedding

NAN = torch.nan


def make(*n_categories):
    torch.manual_seed(0)
    return CodeEmbedding(n_categories)


def test_each_feature_has_rows_for_its_categories_for_other_codes_and_for_missing_codes():
    codes = make(2, 3)
    assert codes.weight.shape == (4 + 5, CHANNELS_PER_CODE)
    x = torch.tensor([[[0, 0], [1, 1], [2, 2], [NAN, 3], [NAN, NAN]]])
    assert codes.rows(x).tolist() == [[[0, 4], [1, 5], [2, 6], [3, 7], [3, 8]]]


def test_the_channels_of_a_step_are_the_rows_of_its_codes():
    codes, x = make(2, 3), torch.tensor([[[1.0, 3.0]], [[NAN, 0.0]]])
    channels = codes(x, None)
    assert channels.shape == (2, 1, codes.n_channels)
    assert torch.equal(channels[:, 0], codes.weight[torch.tensor([[1, 7], [3, 4]])].flatten(1))


@pytest.mark.parametrize("value", [-1.0, 0.5, 2.5, 4.0, 1e30, torch.inf, -torch.inf])
def test_a_value_that_is_no_code_has_the_row_of_codes_not_seen_in_fit(value):
    assert make(3).rows(torch.tensor([[[value]]])).item() == 0


def test_padding_is_zero_whatever_is_in_it():
    x = torch.tensor([[[1.0], [2.0], [NAN]], [[1.0], [1.0], [1.0]]])
    is_padding = torch.tensor([[False, False, True], [False, True, True]])
    codes = make(2)
    channels = codes(x, is_padding)
    assert (channels[is_padding] == 0).all()
    assert torch.equal(channels[~is_padding], codes(x, None)[~is_padding])


def test_all_channels_of_a_feature_together_vary_as_much_as_a_number_at_initialization():
    assert make(*[64] * 80).weight.square().sum(1).mean().item() == pytest.approx(1, rel=0.05)


def test_the_channels_of_many_categories_are_smaller_at_initialization():
    few, many = make(4, 6400).weight.split([6, 6402])
    assert many.square().sum(1).mean().item() == pytest.approx(0.01, rel=0.05)
    assert torch.equal(few, make(4, 20).weight[:6])


def test_rows_that_no_training_data_reach_are_zero_and_the_others_are_unchanged():
    codes, initial = make(2, 3), make(2, 3).weight
    is_reached = torch.tensor([False, True, True, False, True, False, False, True, False])
    assert codes.zero_unreached_rows(is_reached).all()
    assert (codes.weight[~is_reached] == 0).all()
    assert torch.equal(codes.weight[is_reached], initial[is_reached])


def test_a_feature_that_does_not_vary_is_zero_and_its_channels_are_unused():
    codes = make(1, 3)
    is_reached = torch.tensor([False, True, False, True, True, True, True, True])
    is_used = codes.zero_unreached_rows(is_reached)
    assert is_used.tolist() == [False] * CHANNELS_PER_CODE + [True] * CHANNELS_PER_CODE
    assert (codes.weight[:3] == 0).all()
    assert (codes.weight[3:] != 0).all()
