"""One set of random weights in the shape of SmolLM2-135M, as Hugging Face folders and as GGUF files, f32 and bf16.

The values are rounded to bf16 before anything is written: all four hold the same numbers. `write_quantised` writes GGUF
files of another shape, quantised by llama.cpp.
"""

import json
import pathlib

QUANTISED = {"q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}  # names here and llama.cpp's


def interleaved_row(row, head_dim):
    """Row of the Hugging Face matrix (rotation of the two halves of a head) that is row `row` of the GGUF one (rotation of
    neighbours): 0, half, 1, half + 1, ... within each head."""
    head, within = divmod(row, head_dim)
    return head * head_dim + within // 2 + (head_dim // 2 if within % 2 else 0)


def shapes(c):
    """Hugging Face name, GGUF name and shape of every tensor; the head is the embedding."""
    q, kv = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
    yield "model.embed_tokens.weight", "token_embd.weight", (c["vocab"], c["hidden"])
    for layer in range(c["layers"]):
        for name, gguf_name, shape in [
            ("input_layernorm", "attn_norm", (c["hidden"],)),
            ("self_attn.q_proj", "attn_q", (q, c["hidden"])),
            ("self_attn.k_proj", "attn_k", (kv, c["hidden"])),
            ("self_attn.v_proj", "attn_v", (kv, c["hidden"])),
            ("self_attn.o_proj", "attn_output", (c["hidden"], q)),
            ("post_attention_layernorm", "ffn_norm", (c["hidden"],)),
            ("mlp.gate_proj", "ffn_gate", (c["ffn"], c["hidden"])),
            ("mlp.up_proj", "ffn_up", (c["ffn"], c["hidden"])),
            ("mlp.down_proj", "ffn_down", (c["hidden"], c["ffn"])),
        ]:
            yield f"model.layers.{layer}.{name}.weight", f"blk.{layer}.{gguf_name}.weight", shape
    yield "model.norm.weight", "output_norm.weight", (c["hidden"],)


def hugging_face_config(c, dtype):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": c["hidden"],
        "num_hidden_layers": c["layers"],
        "num_attention_heads": c["heads"],
        "num_key_value_heads": c["kv_heads"],
        "head_dim": c["head_dim"],
        "intermediate_size": c["ffn"],
        "vocab_size": c["vocab"],
        "max_position_embeddings": c["max_positions"],
        "rms_norm_eps": c["rms_eps"],
        "rope_theta": c["rope_theta"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def write_gguf(path, c, dtype, value_of):
    """
    dtype     f32 or bf16, of matrices
    value_of  Hugging Face name, shape -> tensor of bfloat16
    """
    import gguf
    import numpy
    import torch

    # A temporary file, so that tensors need not all be in memory before they are written.
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    writer.add_name("random weights")
    writer.add_context_length(c["max_positions"])
    writer.add_embedding_length(c["hidden"])
    writer.add_block_count(c["layers"])
    writer.add_feed_forward_length(c["ffn"])
    writer.add_head_count(c["heads"])
    writer.add_head_count_kv(c["kv_heads"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    writer.add_layer_norm_rms_eps(c["rms_eps"])
    writer.add_rope_freq_base(c["rope_theta"])
    writer.add_rope_dimension_count(c["head_dim"])
    writer.add_vocab_size(c["vocab"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if dtype == "f32" else gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")  # ids come in and logits go out
    for name, gguf_name, shape in shapes(c):
        value = value_of(name, shape)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            value = value[[interleaved_row(r, c["head_dim"]) for r in range(shape[0])]]
        if dtype == "f32" or len(shape) == 1:
            writer.add_tensor(gguf_name, value.float().numpy())
        else:
            writer.add_tensor(
                gguf_name,
                value.contiguous().view(torch.int16).numpy().view(numpy.uint8),
                raw_dtype=gguf.GGMLQuantizationType.BF16,
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_value(source, shape):
    """Wide enough that attention is not uniform, so that a wrong rotation or mask shows in the outputs."""
    import torch

    noise = torch.randn(shape, generator=source)
    return (1 + 0.1 * noise if len(shape) == 1 else 0.04 * noise).bfloat16()


def is_written(folder, note, c):
    """Whether the files of that shape are there; the folder is there after this."""
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / note).exists() and json.loads((folder / note).read_text()) == c


def write(folder, c):
    """Writes f32/, bf16/, f32.gguf and bf16.gguf into `folder`, unless they are there."""
    import torch
    from safetensors.torch import save_file

    folder = pathlib.Path(folder)
    if is_written(folder, "shape.json", c):
        return
    source = torch.Generator().manual_seed(1)
    values = {name: random_value(source, shape) for name, _, shape in shapes(c)}
    for dtype, torch_dtype, torch_name in [("f32", torch.float32, "float32"), ("bf16", torch.bfloat16, "bfloat16")]:
        (folder / dtype).mkdir(exist_ok=True)
        (folder / dtype / "config.json").write_text(json.dumps(hugging_face_config(c, torch_name), indent=2) + "\n")
        save_file(
            {name: v.to(torch_dtype) for name, v in values.items()},
            folder / dtype / "model.safetensors",
            {"format": "pt"},
        )
        write_gguf(folder / f"{dtype}.gguf", c, dtype, lambda name, _: values[name])
    (folder / "shape.json").write_text(json.dumps(c) + "\n")


def write_quantised(folder, c):
    """Writes q8_0.gguf and q4_k_m.gguf into `folder`, unless they are there; llama.cpp quantises."""
    import ctypes

    import llama_cpp as llama
    import torch

    folder = pathlib.Path(folder)
    if is_written(folder, "quantised_shape.json", c):
        return
    silent = llama.llama_log_callback(lambda level, text, data: None)  # it has a line for each matrix
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    source = torch.Generator().manual_seed(2)
    whole = folder / "to_quantise.gguf"
    write_gguf(whole, c, "bf16", lambda _, shape: random_value(source, shape))
    for name, kind in QUANTISED.items():
        parameters = llama.llama_model_quantize_default_params()
        parameters.ftype = getattr(llama, f"LLAMA_FTYPE_{kind}")
        target = str(folder / f"{name}.gguf").encode()
        if llama.llama_model_quantize(str(whole).encode(), target, parameters) != 0:
            raise RuntimeError(f"llama.cpp does not quantise to {kind}")
    whole.unlink()
    (folder / "quantised_shape.json").write_text(json.dumps(c) + "\n")
