# SPDX-License-Identifier: Apache-2.0
"""Writes float32 arrays as a safetensors file.

The format: 8 bytes with the length of the header, the header as JSON (per tensor its type, shape
and byte range in the data), then the data.
"""
import json
import os
import struct

import numpy as np


def write(path, tensors):
    """Writes {name: array} to `path`. The file is whole or absent."""
    header, data, offset = {}, [], 0
    for name, array in sorted(tensors.items()):
        array = np.ascontiguousarray(array, dtype="<f4")
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        data.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
    partial = path + ".part"
    with open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    os.replace(partial, path)
