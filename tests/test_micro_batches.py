import pytest
import torch

from sklearn_cls._training.micro_batches import run_in_micro_batches, split_batch


def a_batch(n):
    inputs = {
        "x": torch.arange(2.0 * n).view(n, 2), "is_padding": None,
        "sample_weight": torch.linspace(0.5, 2, n), "target": torch.eye(n),
    }  # fmt: skip
    return inputs, torch.arange(n)


@pytest.mark.parametrize(("n_micro_batches", "sizes"), [(1, [7]), (2, [3, 4]), (16, [1] * 7)])
def test_a_batch_is_split_into_nearly_equal_parts_of_at_least_one_sequence(n_micro_batches, sizes):
    inputs, y = a_batch(7)
    parts = split_batch((inputs, y), n_micro_batches)
    assert [len(part_y) for _, part_y in parts] == sizes
    assert torch.equal(torch.cat([part_y for _, part_y in parts]), y)
    assert all(part["is_padding"] is None for part, _ in parts)
    for name in ("x", "sample_weight", "target"):
        assert torch.equal(torch.cat([part[name] for part, _ in parts]), inputs[name])


def test_each_group_of_a_batch_is_split():
    inputs, y = a_batch(7)
    groups = [part for part, _ in split_batch((inputs, y), 2)]
    assert len(split_batch((groups, y), 1)) == 2
    parts = split_batch((groups, y), 2)
    assert [len(part_y) for _, part_y in parts] == [1, 2, 2, 2]
    assert torch.equal(torch.cat([part_y for _, part_y in parts]), y)
    assert torch.equal(torch.cat([part["x"] for part, _ in parts]), inputs["x"])


class Step:
    """A training step of a linear model that runs out of memory above `capacity` sequences."""

    def __init__(self, capacity):
        self.capacity, self.sizes = capacity, []
        self.weight = torch.ones(2, requires_grad=True)

    def __call__(self, batch, fraction):
        inputs, y = batch
        self.sizes.append(len(y))
        loss = fraction * (inputs["x"] @ self.weight * inputs["sample_weight"]).mean()
        loss.backward()
        if len(y) > self.capacity:  # gradients of a failed attempt must not count
            raise torch.OutOfMemoryError
        return {"loss": loss.detach(), "y_pred": inputs["x"]}

    def zero_grad(self):
        self.weight.grad = None

    def run(self, n_micro_batches=1, batch=None):
        batch = a_batch(7) if batch is None else batch
        return run_in_micro_batches(self, batch, n_micro_batches, self.zero_grad)


@pytest.mark.parametrize("capacity", [7, 4, 3, 1])
def test_micro_batches_give_the_loss_gradient_and_output_of_the_whole_batch(capacity):
    whole, step = Step(7), Step(capacity)
    expected, _ = whole.run()
    result, n_micro_batches = step.run()
    assert n_micro_batches == {7: 1, 4: 2, 3: 4, 1: 8}[capacity]
    assert result["loss"].item() == pytest.approx(expected["loss"].item())
    assert torch.equal(result["y_pred"], expected["y_pred"])
    torch.testing.assert_close(step.weight.grad, whole.weight.grad)


@pytest.mark.parametrize("capacity", [4, 2])
def test_groups_give_the_loss_gradient_and_output_of_the_whole_batch(capacity):
    whole, step = Step(7), Step(capacity)
    expected, _ = whole.run()
    inputs, y = a_batch(7)
    groups = [
        {name: None if v is None else v[a:b] for name, v in inputs.items()}
        for a, b in ((0, 4), (4, 5), (5, 7))
    ]
    result, n_micro_batches = step.run(batch=(groups, y))
    assert n_micro_batches == {4: 1, 2: 2}[capacity]
    assert result["loss"].item() == pytest.approx(expected["loss"].item())
    assert torch.equal(result["y_pred"], expected["y_pred"])
    torch.testing.assert_close(step.weight.grad, whole.weight.grad)


def test_the_next_batch_starts_with_the_number_of_micro_batches_that_fit():
    step = Step(3)
    _, n_micro_batches = step.run()
    step.sizes.clear()
    step.run(n_micro_batches)
    assert step.sizes == [1, 2, 2, 2]


def test_a_single_sequence_that_does_not_fit_into_memory_raises():
    step = Step(0)
    with pytest.raises(torch.OutOfMemoryError):
        step.run()
    assert step.sizes == [7, 3, 1, 1]
