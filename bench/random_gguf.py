#!/usr/bin/env python3
"""Writes a GGUF file in the shape of Llama-3.2-3B-Instruct-Q4_K_M with random blocks, to measure memory with.

    python3 bench/random_gguf.py build/random-3b-q4_k_m.gguf [--layers 28]

Types are those that llama.cpp's Q4_K_M gives: Q6_K for the embedding, and for the values and the second feed-forward
matrix of half the layers; Q4_K for all else. The vocabulary has 128,256 tokens: bytes, and pairs and triples of them by
merges. Scales are such that a weight has a mean near 0 and a standard deviation near 0.02.
"""

import argparse
import pathlib
import random
import struct

F32, Q4_K, Q6_K = 0, 12, 14
BLOCK_BYTES = {Q4_K: 144, Q6_K: 210}
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 3072, 24, 8, 128, 8192, 128256
SPECIAL = 256  # control tokens at the end of the vocabulary
ALIGNMENT = 32


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def uint(value):
    return struct.pack("<II", 4, value)


def real(value):
    return struct.pack("<If", 6, value)


def text(value):
    return struct.pack("<I", 8) + string(value)


def array(kind, items):
    """kind: GGUF's number of the type of the items, which are bytes already"""
    return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)


def byte_alphabet():
    """GPT-2's printable characters for the 256 bytes."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def vocabulary():
    """Tokens, and the merges that make those of more than one byte."""
    letters = list(byte_alphabet().values())
    tokens, merges = list(letters), []
    pairs = [(a, b) for a in letters for b in letters]
    for a, b in pairs:
        tokens.append(a + b)
        merges.append(f"{a} {b}")
    for i in range(VOCAB - SPECIAL - len(tokens)):
        (a, b), c = pairs[i % len(pairs)], letters[(i * 7 + i // len(pairs)) % 256]
        tokens.append(a + b + c)
        merges.append(f"{a}{b} {c}")
    tokens += [f"<|special_{i}|>" for i in range(SPECIAL)]
    return tokens, merges


def blocks(draw, kind, count):
    """Random blocks: every byte is drawn but the scales of a whole block."""
    size = BLOCK_BYTES[kind]
    data = bytearray(draw.randbytes(count * size))
    # Q4_K: step times a scale of 6 bits times a number of 4 bits, less a minimum times 6 bits.
    scales = {0: 8e-5, 2: 6e-4} if kind == Q4_K else {208: 1.46e-5}
    for at, scale in scales.items():
        for i, byte in enumerate(struct.pack("<e", scale)):
            data[at + i :: size] = bytes([byte]) * count
    return data


def more_bits(layer, layers):
    """Whether llama.cpp's Q4_K_M stores a layer's values and second feed-forward matrix as Q6_K."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def tensors(layers):
    """Name, shape (rows, columns) and type."""
    yield "token_embd.weight", (VOCAB, HIDDEN), Q6_K
    yield "rope_freqs.weight", (HEAD_DIM // 2,), F32
    for i in range(layers):
        large = Q6_K if more_bits(i, layers) else Q4_K
        for name, shape, kind in [
            ("attn_norm", (HIDDEN,), F32),
            ("attn_q", (HEADS * HEAD_DIM, HIDDEN), Q4_K),
            ("attn_k", (KV_HEADS * HEAD_DIM, HIDDEN), Q4_K),
            ("attn_v", (KV_HEADS * HEAD_DIM, HIDDEN), large),
            ("attn_output", (HIDDEN, HEADS * HEAD_DIM), Q4_K),
            ("ffn_norm", (HIDDEN,), F32),
            ("ffn_gate", (FFN, HIDDEN), Q4_K),
            ("ffn_up", (FFN, HIDDEN), Q4_K),
            ("ffn_down", (HIDDEN, FFN), large),
        ]:
            yield f"blk.{i}.{name}.weight", shape, kind
    yield "output_norm.weight", (HIDDEN,), F32


def elements(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def bytes_of(shape, kind):
    return 4 * elements(shape) if kind == F32 else elements(shape) // 256 * BLOCK_BYTES[kind]


def padding(size):
    return -size % ALIGNMENT


def write(path, layers):
    tokens, merges = vocabulary()
    fields = {
        "general.architecture": text("llama"),
        "general.name": text("random blocks in the shape of Llama-3.2-3B"),
        "llama.block_count": uint(layers),
        "llama.context_length": uint(131072),
        "llama.embedding_length": uint(HIDDEN),
        "llama.feed_forward_length": uint(FFN),
        "llama.attention.head_count": uint(HEADS),
        "llama.attention.head_count_kv": uint(KV_HEADS),
        "llama.attention.key_length": uint(HEAD_DIM),
        "llama.attention.value_length": uint(HEAD_DIM),
        "llama.attention.layer_norm_rms_epsilon": real(1e-5),
        "llama.rope.freq_base": real(500000.0),
        "llama.rope.dimension_count": uint(HEAD_DIM),
        "llama.vocab_size": uint(VOCAB),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.pre": text("llama-bpe"),
        "tokenizer.ggml.tokens": array(8, [string(t) for t in tokens]),
        "tokenizer.ggml.token_type": array(
            5, [struct.pack("<i", 3 if i >= VOCAB - SPECIAL else 1) for i in range(VOCAB)]
        ),
        "tokenizer.ggml.merges": array(8, [string(m) for m in merges]),
        "tokenizer.ggml.bos_token_id": uint(VOCAB - SPECIAL),
        "tokenizer.ggml.eos_token_id": uint(VOCAB - SPECIAL + 1),
    }
    all_tensors = list(tensors(layers))
    head = [b"GGUF", struct.pack("<IQQ", 3, len(all_tensors), len(fields))]
    head += [string(name) + value for name, value in fields.items()]
    offset = 0
    for name, shape, kind in all_tensors:
        sizes = shape[::-1]
        head.append(string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset))
        offset += bytes_of(shape, kind) + padding(bytes_of(shape, kind))
    head = b"".join(head)
    draw = random.Random(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head + bytes(padding(len(head))))
        for name, shape, kind in all_tensors:
            if kind == F32:
                # rope_freqs divides frequencies; Llama 3's long ones by up to 32
                ones = [1.0] * elements(shape)
                data = struct.pack(f"<{len(ones)}f", *(32.0 if name.startswith("rope") and i > 40 else x
                                                       for i, x in enumerate(ones)))
                file.write(data + bytes(padding(len(data))))
                continue
            rest = elements(shape) // 256
            while rest > 0:
                count = min(rest, 1 << 16)
                file.write(blocks(draw, kind, count))
                rest -= count
            file.write(bytes(padding(bytes_of(shape, kind))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=28)
    arguments = parser.parse_args()
    write(arguments.file, arguments.layers)
    print(f"{arguments.file}: {arguments.file.stat().st_size / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
