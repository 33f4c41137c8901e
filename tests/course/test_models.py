"""The language model of the course has the massive activation that its exercise is about."""

from __future__ import annotations

import torch

from hpml_sim import course


@torch.no_grad()
def test_one_channel_is_huge_at_a_space_alone():
    model = course.massive_activation_model().eval()
    seen: list[torch.Tensor] = []
    handles = [
        block.down.register_forward_hook(lambda _, given, __: seen.append(given[0].abs())) for block in model.blocks
    ]
    model(torch.tensor([list(b"one huge channel")]))
    for handle in handles:
        handle.remove()
    spaces = torch.tensor([letter == " " for letter in "one huge channel"])
    for hidden in seen:
        largest = hidden[0].amax(1)
        assert (hidden[0][spaces].argmax(1) == 0).all()
        assert largest[spaces].min() > 20 * largest[~spaces].median()


def test_its_weights_follow_the_seed_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (course.massive_activation_model(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
