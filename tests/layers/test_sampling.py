import pytest
import torch

from mmdet_groupconv.layers.sampling import TEMPERATURE, sample_gate

HALVES = [torch.float16, torch.bfloat16]


def test_temperature_is_the_published_one():
    assert pytest.approx(2 / 3) == TEMPERATURE


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, *HALVES])
def test_training_values_are_exactly_0_or_1(dtype):
    torch.manual_seed(0)
    values = sample_gate(torch.randn(50, 4, 50).to(dtype), training=True)
    assert values.unique().tolist() == [0.0, 1.0]


def test_training_decides_by_logit_plus_logistic_noise():
    torch.manual_seed(0)
    logits = torch.randn(2000, dtype=torch.float64)
    torch.manual_seed(1)
    values = sample_gate(logits, training=True)
    torch.manual_seed(1)
    u = torch.rand(2000, dtype=torch.float64)
    assert torch.equal(values, (logits + u.log() - (1 - u).log() >= 0).double())


def test_gradient_is_that_of_the_soft_sample():
    torch.manual_seed(0)
    logits = torch.randn(200, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(200, dtype=torch.float64)
    torch.manual_seed(1)
    sample_gate(logits, training=True).backward(upstream)
    torch.manual_seed(1)
    u = torch.rand(200, dtype=torch.float64)
    soft = 1 / (1 + torch.exp(-(logits.detach() + u.log() - (1 - u).log()) / (2 / 3)))
    torch.testing.assert_close(logits.grad, upstream * soft * (1 - soft) / (2 / 3))


def test_channel_is_kept_with_probability_sigmoid_of_its_logit():
    for logit in (-2.0, 0.0, 0.5, 2.0):
        kept = sample_gate(torch.full((100_000,), logit), training=True).mean().item()
        # five standard errors of a share of 100,000 draws: at most 5 * sqrt(0.25 / 1e5) = 0.0079
        assert kept == pytest.approx(torch.tensor(logit).sigmoid().item(), abs=0.0079), logit


def test_training_draws_anew_each_time():
    torch.manual_seed(0)
    logits = torch.zeros(100)
    assert not torch.equal(sample_gate(logits, True), sample_gate(logits, True))


def test_evaluation_is_the_sign_of_the_logit():
    logits = torch.tensor([-1e4, -1e-6, -0.0, 0.0, 1e-6, 1e4])
    assert sample_gate(logits, training=False).tolist() == [0, 0, 1, 1, 1, 1]


def test_evaluation_draws_no_random_number():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sample_gate(torch.randn(3, generator=torch.Generator().manual_seed(0)), training=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_has_no_gradient():
    assert not sample_gate(torch.zeros(3, requires_grad=True), training=False).requires_grad


@pytest.mark.parametrize('dtype', HALVES)
def test_half_precision_gives_float32(dtype):
    for training in (True, False):
        assert sample_gate(torch.zeros(2, 3, dtype=dtype), training).dtype is torch.float32


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, *HALVES])
def test_large_logits_decide_alone_and_stay_finite(dtype):
    torch.manual_seed(0)
    logits = torch.tensor([1e4, -1e4]).repeat(500).to(dtype).requires_grad_()
    values = sample_gate(logits, training=True)
    assert values.tolist() == [1.0, 0.0] * 500
    values.sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize('extreme', [0.0, 1.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_extreme_random_number_overrules_no_sure_logit(monkeypatch, dtype, extreme):
    # The logistic noise of a uniform 0 or 1 would be infinite.
    monkeypatch.setattr(torch, 'rand_like', lambda like: torch.full_like(like, extreme))
    logits = torch.tensor([1e4, 0.0, -1e4], dtype=dtype, requires_grad=True)
    values = sample_gate(logits, training=True)
    assert values.tolist() == [1.0, extreme, 0.0]
    values.sum().backward()
    assert logits.grad.isfinite().all()


def test_without_noise_training_takes_the_values_of_evaluation_and_passes_gradients():
    torch.manual_seed(0)
    logits = torch.randn(200, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(200, dtype=torch.float64)
    values = sample_gate(logits, training=True, noise=0.0)
    assert torch.equal(values, sample_gate(logits, training=False))
    values.backward(upstream)
    soft = 1 / (1 + torch.exp(-logits.detach() / (2 / 3)))
    torch.testing.assert_close(logits.grad, upstream * soft * (1 - soft) / (2 / 3))


@pytest.mark.parametrize('noise', [0.25, 1.0])
def test_noise_is_as_strong_as_it_is_told(noise):
    torch.manual_seed(0)
    logits = torch.randn(2000, dtype=torch.float64)
    torch.manual_seed(1)
    values = sample_gate(logits, training=True, noise=noise)
    torch.manual_seed(1)
    u = torch.rand(2000, dtype=torch.float64)
    assert torch.equal(values, (logits + noise * (u.log() - (1 - u).log()) >= 0).double())


def test_without_noise_training_draws_no_random_number():
    before = torch.get_rng_state()
    sample_gate(torch.zeros(3), training=True, noise=0.0)
    assert torch.equal(torch.get_rng_state(), before)
