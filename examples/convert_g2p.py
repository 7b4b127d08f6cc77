# SPDX-License-Identifier: Apache-2.0
"""Converts the weights of g2p_en from numpy's npz to safetensors.

    convert_g2p.py CHECKPOINT.npz FOLDER

writes encoder.safetensors and decoder.safetensors (the two GRUs, with PyTorch's tensor names) and
head.safetensors (embedding tables enc_emb, dec_emb; output layer fc_w, fc_b).

The package keeps its GRUs as PyTorch does: gates stacked r, z, n, and
n = tanh(W_n x + b_n + r * (U_n h + c_n)), which is `gru` with reset=after. So the numbers are taken
over as they are; only the names change.
"""
import os
import sys

import numpy as np

import safetensors_io

GRU_NAMES = {
    "w_ih": "weight_ih_l0",
    "w_hh": "weight_hh_l0",
    "b_ih": "bias_ih_l0",
    "b_hh": "bias_hh_l0",
}
HEAD_NAMES = ("enc_emb", "dec_emb", "fc_w", "fc_b")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: convert_g2p.py CHECKPOINT.npz FOLDER")
    checkpoint, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    with np.load(checkpoint) as arrays:
        for part, prefix in (("encoder", "enc_"), ("decoder", "dec_")):
            tensors = {name: arrays[prefix + old] for old, name in GRU_NAMES.items()}
            safetensors_io.write(os.path.join(folder, part + ".safetensors"), tensors)
        head = {name: arrays[name] for name in HEAD_NAMES}
    safetensors_io.write(os.path.join(folder, "head.safetensors"), head)


if __name__ == "__main__":
    main()
