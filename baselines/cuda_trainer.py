"""Step 8: training without torch's autograd: every number of a training step comes from one of the kernels.

What `loss.backward()` and `optimizer.step()` do is written out here: layer by layer forward, keeping what the way back
needs; the loss; layer by layer back; the update. torch only holds the memory. For L layers that is 3 L + 3 kernels and
more: at small sizes the launches (4 to 6 us each) cost more than the work. CUDA graphs are the way out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpml_sim.baselines.cuda_elementwise import sgd_step
from hpml_sim.baselines.cuda_launch import check_operands
from hpml_sim.baselines.cuda_linear import linear_backward, linear_forward
from hpml_sim.baselines.cuda_softmax import check_cross_entropy, cross_entropy_backward, cross_entropy_forward
from hpml_sim.errors import HpmlError


class MlpTrainer:
    """Stochastic gradient descent with momentum for a fully connected ReLU network; trains its weights in place.

    Args:
        model: linear layers with a ReLU between each two, such as `hs.models.mlp(64, 128, 10)`; a Flatten may lead.
        lr: learning rate, > 0.
        momentum: share of the velocity that each step keeps, in [0, 1).

    Raises:
        HpmlError: a network of another form, or an argument out of range.
    """

    def __init__(self, model: nn.Sequential, *, lr: float = 0.1, momentum: float = 0.9):
        layers = [layer for layer in model if not isinstance(layer, nn.Flatten)]
        linears = [layer for layer in layers[::2] if isinstance(layer, nn.Linear)]
        fits = len(linears) == len(layers[::2]) and all(isinstance(layer, nn.ReLU) for layer in layers[1::2])
        if not (fits and len(layers) % 2 == 1 and all(layer.bias is not None for layer in linears)):
            raise HpmlError(
                "MlpTrainer: needs linear layers (with bias) and a ReLU between each two, as mlp() makes them"
            )
        if not (lr > 0 and 0 <= momentum < 1):
            raise HpmlError(f"MlpTrainer: lr={lr!r} must be > 0 and momentum={momentum!r} in [0, 1)")
        self.lr, self.momentum = lr, momentum
        self._weights = [(layer.weight.detach(), layer.bias.detach()) for layer in linears]
        self._velocities = [(torch.zeros_like(w), torch.zeros_like(b)) for w, b in self._weights]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The input and the output of every layer, the last one the logits; ReLU behind all layers but the last."""
        activations = [x.flatten(1)]
        for i, (weight, bias) in enumerate(self._weights):
            activations.append(linear_forward(activations[-1], weight, bias, relu=i < len(self._weights) - 1))
        return activations

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        """One step on a batch.

        Args:
            x: samples, float32, shape (batch, ...).
            labels: their classes, int64, shape (batch,).

        Returns:
            The mean loss before the step, a scalar tensor.
        """
        check_operands("MlpTrainer.step", x=x)
        activations = self.forward(x)
        logits = activations[-1]
        check_cross_entropy(logits, labels)
        loss, norm = cross_entropy_forward(logits, labels)
        grad: Tensor | None = cross_entropy_backward(logits, labels, norm)
        for i in range(len(self._weights) - 1, -1, -1):
            weight, bias = self._weights[i]
            output = activations[i + 1] if i < len(self._weights) - 1 else None  # None: no ReLU here
            assert grad is not None
            grad, grad_weight, grad_bias = linear_backward(
                grad, activations[i], weight, output, needs=(i > 0, True, True)
            )
            # The gradient of the layer below was computed with the old weight, as it must be.
            for parameter, gradient, velocity in zip(
                (weight, bias), (grad_weight, grad_bias), self._velocities[i], strict=True
            ):
                assert gradient is not None
                sgd_step(parameter, gradient, velocity, lr=self.lr, momentum=self.momentum)
        return loss

    @torch.no_grad()
    def accuracy(self, x: Tensor, labels: Tensor) -> float:
        """Share of samples classified right, in [0, 1].

        Args:
            x: samples, float32, shape (batch, ...).
            labels: their classes, int64, shape (batch,).
        """
        return float((self.forward(x)[-1].argmax(dim=1) == labels).float().mean())
