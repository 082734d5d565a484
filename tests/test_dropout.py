import pytest
import torch

from sklearn_cls._network.cls_token import CLSToken
from sklearn_cls._network.dropout import Dropout, generators, seed_generators


def make(p, seed=0):
    dropout = Dropout(p).train()
    dropout.generator = torch.Generator().manual_seed(seed)
    return dropout


@pytest.mark.parametrize(("p", "rate"), [(0.1, 26 / 256), (0.5, 0.5), (0.9999, 255 / 256)])
def test_the_rate_is_rounded_to_256ths_and_the_mean_is_unchanged(p, rate):
    y = make(p)(torch.full((1001, 1003), 2.0))  # the size is not a multiple of 8
    assert (y == 0).float().mean().item() == pytest.approx(rate, abs=0.002)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 2 / (1 - rate)])


def test_the_gradient_has_the_mask_of_the_output():
    x = torch.ones(1000, requires_grad=True)
    y = make(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_does_nothing_in_evaluation_or_at_rate_0():
    x = torch.randn(10)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0).train()(x) is x
    assert torch.equal(make(1 / 256)(torch.ones(1)), torch.full((1,), 256 / 255))


def test_dropout_keeps_dtype_and_shape():
    for dtype in (torch.float32, torch.bfloat16):
        y = make(0.5)(torch.ones(3, 5, dtype=dtype))
        assert y.dtype == dtype
        assert y.shape == (3, 5)


def test_masks_are_made_on_the_device_of_the_input():
    assert Dropout(0.5).train()(torch.ones(3, device="meta")).is_meta


def test_masks_come_from_the_layers_own_generator():
    x = torch.ones(100)
    before = torch.get_rng_state()
    first = make(0.5)(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, make(0.5)(x))
    assert not torch.equal(first, make(0.5, seed=1)(x))


def test_dropout_layers_share_a_generator_and_the_token_has_another():
    network = torch.nn.Sequential(Dropout(0.1), torch.nn.Linear(1, 1), Dropout(0.1))
    network.append(CLSToken("random", 4, seed=0))
    seed_generators(network, 5)
    dropout, token = generators(network)
    assert network[0].generator is network[2].generator is dropout
    assert network[3].generator is token
    assert dropout.initial_seed() == 5
    assert token.initial_seed() != 5
    assert not hasattr(network[1], "generator")
