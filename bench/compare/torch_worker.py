"""PyTorch's and transformers' side of bench/compare.sh."""

import gc
import os
import time

import torch
import torch.nn.functional as functional
import transformers
import worker

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
models = {}


def model_of(request):
    weights = request["weights"]
    if weights not in models:
        models[weights] = transformers.AutoModelForCausalLM.from_pretrained(
            request["model"], dtype=torch.float32 if weights == "f32" else torch.bfloat16, attn_implementation="sdpa"
        ).eval()
    return models[weights]


def write(out, tensor):
    if out:
        tensor.detach().float().contiguous().numpy().tofile(out)


def prefill(model, request):
    ids = torch.tensor([request["prompt"]])

    def run(out):
        with torch.inference_mode():
            start = time.perf_counter()
            logits = model(ids, use_cache=True, logits_to_keep=1).logits
            seconds = time.perf_counter() - start
        write(out, logits)
        return {"seconds": seconds, "tokens": ids.numel()}

    return run


def decode(model, request):
    steps = torch.tensor(request["continuations"])
    shared = len(request["prompt"])
    with torch.inference_mode():
        cache = model(torch.tensor([request["prompt"]]), use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(steps.shape[0])

    def run(out):
        if cache.get_seq_length() > shared:
            cache.crop(shared - cache.get_seq_length())
        with torch.inference_mode():
            start = time.perf_counter()
            for t in range(steps.shape[1]):
                logits = model(steps[:, t : t + 1], past_key_values=cache, use_cache=True).logits
            seconds = time.perf_counter() - start
        write(out, logits)
        return {"seconds": seconds, "tokens": steps.numel()}

    return run


def train(model, request):
    ids = torch.tensor(request["sequences"])
    first = max(request["shared"], 1)
    model.requires_grad_(True)

    def run(out):
        start = time.perf_counter()
        model.zero_grad(set_to_none=True)
        # The row of the last token predicts nothing; no logits are computed of rows that are not scored.
        logits = model(ids[:, :-1], use_cache=False, logits_to_keep=ids.shape[1] - first).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, first:].flatten())
        loss.backward()
        seconds = time.perf_counter() - start
        norms = {name: p.grad.float().norm().item() for name, p in model.named_parameters()} if out else None
        return {"seconds": seconds, "tokens": ids.numel(), "loss": loss.item(), "norms": norms}

    return run


def mask(model, request):
    prompt, cots, answer = request["prompt"], request["cots"], torch.tensor(request["answer"])
    begin, end = len(prompt), len(prompt) + len(cots[0])
    ids = torch.tensor([prompt + cot + request["delimiter"] + request["answer"][:-1] for cot in cots])
    length = ids.shape[1]
    model.requires_grad_(False)
    dtype = next(model.parameters()).dtype
    causal = torch.full((length, length), torch.finfo(dtype).min).triu(1)
    sees = torch.zeros(length, 1)
    sees[begin if request["rows"] == "all_later" else end :] = 1
    h = torch.full((len(cots), end - begin), float(request["init"]), requires_grad=True)
    repeats = request["repeats"]

    def run(out):
        start = time.perf_counter()
        for _ in range(repeats):
            h.grad = None
            edit = functional.pad(request["scale"] * h.clamp(max=0), (begin, length - end))
            additive = (causal + sees * edit[:, None, None, :]).to(dtype)
            logits = model(ids, attention_mask=additive, use_cache=False, logits_to_keep=len(answer)).logits
            loss = functional.cross_entropy(
                logits.flatten(0, 1).float(), answer.repeat(len(cots)), reduction="sum"
            ) / len(answer)
            loss.backward()
        seconds = (time.perf_counter() - start) / repeats
        write(out, h.grad)
        return {"seconds": seconds, "tokens": ids.numel(), "loss": loss.item()}

    return run


def adamw(request):
    n, repeats = request["parameters"], request["repeats"]
    p = torch.nn.Parameter(torch.full((n,), 0.01))
    p.grad = (torch.arange(n) % 1024 - 512).float() / 1024
    optimizer = torch.optim.AdamW([p], lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)

    def run(out):
        start = time.perf_counter()
        for _ in range(repeats):
            optimizer.step()
        seconds = (time.perf_counter() - start) / repeats
        if out:
            # While the gradient stays the same, no update depends on the decay of the moments.
            p.grad *= -0.5
            optimizer.step()
        write(out, p[:1024])
        return {"seconds": seconds, "tokens": n}

    return run


def prepare(request):
    if request["phase"] == "adamw":
        return adamw(request)
    return {"prefill": prefill, "decode": decode, "train": train, "mask": mask}[request["phase"]](
        model_of(request), request
    )


def forget():
    models.clear()
    gc.collect()


worker.serve(prepare, forget)
