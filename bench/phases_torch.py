#!/usr/bin/env python3
"""The phases of bench/phases_cuda in PyTorch, transformers and peft, on the same GPU: what the same work takes with the
tools that one would otherwise pick. Random bf16 weights of Llama-3.2-1B's shape; 1 prompt of 200 tokens, 8 rollouts of
400 (392 of them chain of thought).

    python3 bench/phases_torch.py [LAYERS [PHASE...]]     16 and all when not given; 77: there is no device

Every phase runs once before it is timed. Attention is torch's scaled_dot_product_attention in bf16; keys and values of
the prompt are computed once where that can be had (decoding, mask steps), by transformers' cache.
"""
import sys
import time

import torch
import torch.nn.functional as functional
import transformers

PROMPT, GROUP, COMPLETION, COT, DELIMITER, ANSWER, MASK_STEPS = 200, 8, 400, 392, 2, 5, 20


def model_of(layers, device):
    config = transformers.LlamaConfig(
        num_hidden_layers=layers, hidden_size=2048, num_attention_heads=32, num_key_value_heads=8, head_dim=64, intermediate_size=8192,
        vocab_size=128256, max_position_embeddings=131072, tie_word_embeddings=True, attn_implementation="sdpa",
        rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192})
    torch.manual_seed(1)
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval().requires_grad_(False)


def seconds_of(work, device):
    def synchronize():
        if device == "cuda":
            torch.cuda.synchronize()

    work()
    synchronize()
    begin = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - begin


def show(phase, tokens, seconds):
    print(f"{phase:<28} {seconds:8.3f} s {tokens / seconds:12.0f} tokens/s", flush=True)


@torch.no_grad()
def prefill(model, ids):
    return model(ids, use_cache=True, logits_to_keep=1)


@torch.no_grad()
def decode(model, prompt):
    cache = prefill(model, prompt).past_key_values
    cache.batch_repeat_interleave(GROUP)
    ids = prompt[:, -1:].repeat(GROUP, 1)
    for _ in range(COMPLETION - 1):
        logits = model(ids, past_key_values=cache, use_cache=True).logits[:, -1]
        ids = torch.multinomial(torch.softmax(logits.float(), -1), 1)


def mask_steps(model, prompt, all_later):
    """One mask per rollout over its chain of thought. The rows before the first that sees the mask are cached."""
    device = prompt.device
    # Torch's attention wants its mask in multiples of eight.
    scored = COT + DELIMITER + ANSWER - 1
    kept = 0 if all_later else COT
    padding = -(scored - kept) % 8
    rollout = torch.cat([torch.full((GROUP, n), i, device=device) for i, n in ((2, COT), (3, DELIMITER), (4, ANSWER - 1 + padding))], 1)
    answer = torch.full((GROUP, ANSWER), 4, device=device)
    with torch.no_grad():
        cache = model(torch.cat([prompt.repeat(GROUP, 1), rollout[:, :kept]], 1), use_cache=True, logits_to_keep=1).past_key_values
    ids = rollout[:, kept:]
    # Without a gradient of the queries, torch 2.11 keeps nothing for that of the mask and fails.
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    first, total = PROMPT + kept, PROMPT + rollout.shape[1]
    rows = torch.arange(scored - ANSWER - kept, scored - kept, device=device)
    causal = torch.full((total, total), torch.finfo(torch.bfloat16).min, device=device).triu(1)[first:]
    h = torch.full((GROUP, COT), -1.0, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([h], lr=1e-2)
    for _ in range(MASK_STEPS):
        optimizer.zero_grad()
        embedded.grad = None
        edit = functional.pad(10 * h.clamp(max=0), (PROMPT, total - PROMPT - COT))
        additive = (causal[None] + edit[:, None, :]).to(torch.bfloat16)[:, None]
        logits = model(inputs_embeds=embedded, attention_mask=additive, past_key_values=cache, use_cache=True, logits_to_keep=rows).logits
        functional.cross_entropy(logits.flatten(0, 1).float(), answer.flatten(), reduction="sum").div(ANSWER).backward()
        optimizer.step()
        cache.crop(-ids.shape[1])


def update(model, prompt):
    ids = torch.cat([prompt.repeat(GROUP, 1), torch.full((GROUP, COMPLETION), 2, device=prompt.device)], 1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=prompt.is_cuda)

    def work():
        logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=COMPLETION).logits
        log_p = -functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, PROMPT:].flatten(), reduction="none")
        (-torch.exp(log_p - log_p.detach()).mean()).backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return work


def main():
    device = "cuda"
    if "--cpu" in sys.argv:  # to try the script itself
        sys.argv.remove("--cpu")
        device = "cpu"
    elif not torch.cuda.is_available():
        print("no CUDA device: skipped")
        return 77
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    wanted = sys.argv[2:] or ["prefill", "decoding", "all_later", "answer_rows", "update"]
    model = model_of(layers, device)
    prompt = torch.ones((1, PROMPT), dtype=torch.long, device=device)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"{name}; {layers} layers, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    if "prefill" in wanted or "decoding" in wanted:
        before = seconds_of(lambda: prefill(model, prompt), device)
        show("prefill", PROMPT, before)
    if "decoding" in wanted:
        show("decoding, 8 rollouts", GROUP * (COMPLETION - 1), seconds_of(lambda: decode(model, prompt), device) - before)
    for rows in ("all_later", "answer_rows"):
        if rows in wanted:
            seconds = seconds_of(lambda: mask_steps(model, prompt, rows == "all_later"), device)
            show(f"{MASK_STEPS} mask steps, {rows}", GROUP * COT * MASK_STEPS, seconds)
    if "update" in wanted:
        import peft

        adapted = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
        show("update of adapters, rank 16", PROMPT + GROUP * COMPLETION, seconds_of(update(adapted, prompt), device))
    if device == "cuda":
        print(f"peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the device")
    return 0


sys.exit(main())
