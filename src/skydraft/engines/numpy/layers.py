"""What both halves of a thinker are made of: linear layers, norms and activations on rows of float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from skydraft.engines.numpy.weights import Floats, Weights

Product: TypeAlias = Callable[[Floats, Floats], Floats]  # [num_rows, num_inputs], [num_inputs, num_outputs]

GELU_BLOCK = 2**14  # numbers: with what is computed of them they stay in a core's cache
SQRT_HALF = np.float32(0.5**0.5)


def together(rows: Floats, matrix: Floats) -> Floats:
    """All rows in one product: fast, but BLAS rounds a row by how many there are and where among them it lies."""
    return rows @ matrix


def apart(rows: Floats, matrix: Floats) -> Floats:
    """Each row in a product of its own: the same bits whatever other rows there are.

    Beside `together` 105 rows take 2 to 4 times as long (a few ms for a prompt of the embedded pair), and one the same.
    """
    return (np.ascontiguousarray(rows)[:, None] @ matrix)[:, 0]  # of rows with gaps numpy computes another way


class Part(NamedTuple):
    """One of several linear layers that read the same rows and are computed as one."""

    name: str
    num_outputs: int
    has_bias: bool = True


class Linear:
    """A linear layer, or several."""

    def __init__(self, weights: Weights, num_inputs: int, *parts: Part) -> None:
        matrices = [weights.take(f"{part.name}.weight", part.num_outputs, num_inputs) for part in parts]
        self._matrix = np.ascontiguousarray(np.concatenate(matrices).T)  # [num_inputs, num_outputs]
        biases = [
            weights.take(f"{part.name}.bias", part.num_outputs) if part.has_bias else np.zeros(part.num_outputs, "f4")
            for part in parts
        ]
        self._bias = np.concatenate(biases) if any(part.has_bias for part in parts) else None

    def __call__(self, rows: Floats, product: Product = together) -> Floats:
        """[num_rows, num_inputs] to [num_rows, num_outputs]"""
        outputs = product(rows, self._matrix)
        return outputs if self._bias is None else np.add(outputs, self._bias, out=outputs)


class LayerNorm:
    """Rows less their mean, divided by their standard deviation."""

    EPSILON = np.float32(1e-5)

    def __init__(self, weights: Weights, name: str, size: int) -> None:
        self._weight, self._bias = weights.take(f"{name}.weight", size), weights.take(f"{name}.bias", size)

    def __call__(self, rows: Floats) -> Floats:
        centred: Floats = rows - rows.mean(axis=-1, keepdims=True)
        centred /= np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + self.EPSILON)
        centred *= self._weight
        centred += self._bias
        return centred


class RmsNorm:
    """Rows divided by the root of their mean square."""

    def __init__(self, weights: Weights, name: str, size: int, epsilon: float) -> None:
        self._weight = weights.take(f"{name}.weight", size)
        self._epsilon = np.float32(epsilon)

    def __call__(self, rows: Floats) -> Floats:
        normed: Floats = rows / np.sqrt(np.square(rows).mean(axis=-1, keepdims=True) + self._epsilon)
        normed *= self._weight
        return normed


def softmax(scores: Floats) -> Floats:
    """Of the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def silu(rows: Floats) -> Floats:
    """x / (1 + exp(-x))"""
    with np.errstate(over="ignore"):  # to infinity, of which the quotient is 0
        activated: Floats = rows / (1 + np.exp(-rows))
    return activated


def gelu(rows: Floats) -> Floats:
    """x times the normal distribution's mass below x, in place, of a contiguous array; an error below 1e-6."""
    flat = rows.reshape(-1)
    for first in range(0, len(flat), GELU_BLOCK):
        block = flat[first : first + GELU_BLOCK]
        block *= 0.5 + 0.5 * erf(block * SQRT_HALF)
    return rows


def erf(x: Floats) -> Floats:
    """The error function, to 5e-7; numpy has none.

    Source: Abramowitz and Stegun 1964, 7.1.26.
    """
    size = np.abs(x)
    t: Floats = np.reciprocal(1 + np.float32(0.3275911) * size)
    tail: Floats = np.multiply(t, np.float32(1.061405429))
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient)
        tail *= t
    size *= size
    np.negative(size, out=size)
    tail *= np.exp(size, out=size)
    signed: Floats = np.copysign(1 - tail, x)
    return signed
