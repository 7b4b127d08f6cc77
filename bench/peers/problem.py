# SPDX-License-Identifier: Apache-2.0
"""Problem strings, and the weights that belong to one, as the peers need them."""
import dataclasses
import json
import re
import struct

import numpy as np

DEFAULTS = {
    "lstm": {"peephole": "0", "clip": "0", "coupled": "0"},
    "gru": {"reset": "after"},
    "rnn": {"act": "tanh"},
    "augru": {"reset": "before"},
}


@dataclasses.dataclass
class Problem:
    """`cell ':' dims [',' key '=' value]*`, as the README of the project explains."""

    cell: str
    input: int
    hidden: list  # per layer
    projection: int
    direction: str  # forward, reverse or bidirectional
    batch: int
    steps: int
    options: dict

    @property
    def layers(self):
        return len(self.hidden)

    @property
    def directions(self):
        return 2 if self.direction == "bidirectional" else 1

    @property
    def output(self):
        return (self.projection or self.hidden[-1]) * self.directions

    def suffixes(self, layer):
        """Endings of the tensor names of one layer, a direction each."""
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]


def parse(text):
    """Reads a problem string that bench_ours has accepted, so only what it means is looked at."""
    cell, _, rest = text.partition(":")
    dims, *pairs = rest.split(",")
    numbers = dict(re.findall(r"([ihlpbt])([0-9/]+)", re.sub("bi|rev", "", dims)))
    hidden = [int(part) for part in numbers["h"].split("/")]
    if len(hidden) == 1:
        hidden *= int(numbers.get("l", 1))
    words = re.findall("bi|rev", dims)
    direction = {"bi": "bidirectional", "rev": "reverse"}[words[0]] if words else "forward"
    options = dict(DEFAULTS.get(cell, {}))
    options.update(pair.split("=", 1) for pair in pairs)
    return Problem(cell, int(numbers["i"]), hidden, int(numbers.get("p", 0)), direction,
                   int(numbers.get("b", 1)), int(numbers.get("t", 100)), options)


def read_safetensors(path):
    """{name: float32 array} of a safetensors file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        flat = np.frombuffer(data[first:last], dtype="<f4")
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def reorder(tensor, order):
    """The row blocks of `tensor` in another order, as gates stand in another library's."""
    blocks = np.split(tensor, len(order))
    return np.concatenate([blocks[block] for block in order])
