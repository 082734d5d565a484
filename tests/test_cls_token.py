import pytest
import torch

from sklearn_cls._network.cls_token import CLS_STRATEGIES, CLSToken
from sklearn_cls._network.dropout import seed_generators
from sklearn_cls._network.encoder import CLSEncoder


def test_only_the_learned_token_is_trained():
    for strategy in CLS_STRATEGIES:
        assert len(list(CLSToken(strategy, 8, seed=0).parameters())) == (strategy == "learned")


def test_initial_values_of_the_token():
    values = {s: CLSToken(s, 10_000, seed=0).value for s in CLS_STRATEGIES}
    assert values["learned"].std().item() == pytest.approx(0.02, rel=0.05)
    assert (values["zeros"] == 0).all()
    assert values["fixed"].std().item() == pytest.approx(1, rel=0.05)
    assert torch.equal(values["random"], values["fixed"])
    for value in values.values():
        assert abs(value.mean().item()) < 0.05


@pytest.mark.parametrize("strategy", ["learned", "fixed", "random"])
def test_the_seed_determines_the_value(strategy):
    before = torch.get_rng_state()
    value = CLSToken(strategy, 8, seed=0).value
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is not used
    assert torch.equal(value, CLSToken(strategy, 8, seed=0).value)
    assert not torch.equal(value, CLSToken(strategy, 8, seed=1).value)


@pytest.mark.parametrize("is_training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("strategy", CLS_STRATEGIES)
def test_only_random_in_training_varies_by_sequence_and_by_call(strategy, is_training):
    token = CLSToken(strategy, 8, seed=0).train(is_training)
    first, second = token(3), token(3)
    assert first.shape == (3, 1, 8)
    if strategy == "random" and is_training:
        assert not torch.allclose(first[0], first[1])
        assert not torch.allclose(first, second)
    else:
        assert torch.equal(first, token.value.expand(3, 1, 8))
        assert torch.equal(first, second)


@pytest.mark.parametrize("strategy", ["zeros", "fixed", "random"])
def test_constant_values_are_saved_with_the_network(strategy):
    saved = CLSToken(strategy, 8, seed=0).state_dict()
    other = CLSToken(strategy, 8, seed=1)
    other.load_state_dict(saved)
    assert torch.equal(other.value, saved["value"])


def test_the_strategy_changes_no_other_weight_and_no_dropout_mask():
    outputs, weights = [], []
    for strategy in CLS_STRATEGIES:
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
