import pytest
import torch

from sklearn_cls._network.cls_token import CLSToken
from sklearn_cls._network.dropout import Dropout, seed_generators
from sklearn_cls._network.encoder import CLSEncoder

STRATEGIES = ["learned", "zeros", "fixed", "random"]


def test_only_learned_is_trained():
    for strategy in STRATEGIES:
        assert len(list(CLSToken(strategy, 8, seed=0).parameters())) == (strategy == "learned")


def test_learned_starts_small_and_the_draws_are_standard_normal():
    values = {s: CLSToken(s, 10_000, seed=0).value for s in STRATEGIES}
    assert values["learned"].std().item() == pytest.approx(0.02, rel=0.05)
    assert (values["zeros"] == 0).all()
    assert values["fixed"].std().item() == pytest.approx(1, rel=0.05)
    assert values["random"].std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("strategy", ["learned", "zeros", "fixed"])
def test_all_but_random_give_every_sequence_the_same_token(strategy):
    token = CLSToken(strategy, 8, seed=0).train()
    first = token(3)
    assert first.shape == (3, 1, 8)
    assert torch.equal(first, token(3))
    assert torch.equal(first[0], first[2])


def test_random_draws_anew_for_every_sequence_and_every_forward_pass_in_training():
    token = CLSToken("random", 8, seed=0).train()
    first, second = token(3), token(3)
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first, second)


def test_random_is_one_draw_of_the_seed_in_prediction():
    token = CLSToken("random", 8, seed=0).eval()
    assert torch.equal(token(3), token(1).expand(3, 1, 8))
    assert torch.equal(token(1), CLSToken("random", 8, seed=0).eval()(1))
    assert not torch.equal(token(1), CLSToken("random", 8, seed=1).eval()(1))


@pytest.mark.parametrize("strategy", ["zeros", "fixed", "random"])
def test_constants_are_saved_with_the_network(strategy):
    saved = CLSToken(strategy, 8, seed=0).state_dict()
    other = CLSToken(strategy, 8, seed=1)
    other.load_state_dict(saved)
    assert torch.equal(other.value, saved["value"])


def test_the_token_moves_no_other_weight_and_no_dropout_mask():
    outputs, weights = [], []
    for strategy in STRATEGIES:
        torch.manual_seed(0)
        encoder = CLSEncoder(n_features=2, n_classes=3, cls_strategy=strategy, dropout=0.5)
        seed_generators(encoder, 0)
        encoder.train()
        encoder(torch.zeros(4, 6, 2))
        weights.append({k: v for k, v in encoder.state_dict().items() if "token" not in k})
        outputs.append(encoder.embedding.dropout(torch.ones(100)))
    for other_weights, output in zip(weights[1:], outputs[1:], strict=True):
        for name, value in weights[0].items():
            assert torch.equal(value, other_weights[name])
        assert torch.equal(outputs[0], output)


def test_dropout_drops_its_rate_and_keeps_the_mean():
    dropout = Dropout(0.1).train()
    dropout.generator = torch.Generator().manual_seed(0)
    y = dropout(torch.ones(1001, 1003))  # no multiple of 8
    assert (y == 0).float().mean().item() == pytest.approx(0.1, abs=0.003)
    assert y.mean().item() == pytest.approx(1, abs=0.002)
    assert len(y.unique()) == 2


def test_dropout_masks_the_gradient_as_it_masks_the_value():
    dropout = Dropout(0.3).train()
    x = torch.ones(1000, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_does_nothing_in_evaluation():
    x = torch.randn(10)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0).train()(x) is x


def test_dropout_near_1_still_keeps_something():
    dropout = Dropout(0.9999).train()
    assert dropout(torch.ones(100_000)).mean().item() == pytest.approx(1, abs=0.3)
