"""What bench/compare.sh measures: the phases, the cases that take turns in each, and the ratios that are wanted.

A case is one piece of work for one tool. The tools' workers (bench/compare_atmanrl.cpp, llama_worker.py, torch_worker.py)
know six kinds of work:

prefill  one sequence; the logits of its last row
decode   `continuations` of one prompt, a given token of each per step; the logits of all rows of each step
generate `sequences` completions of one prompt, of `new_tokens` each, drawn from the whole vocabulary; the ids
train    mean negative log-likelihood of all tokens, or of those behind the `shared` first ones, and its gradient with
         respect to all parameters
mask     one step of mask training: summed mean cross-entropies of the answers of rollouts that share a prompt, and the
         gradient with respect to one additive mask value per chain-of-thought token
adamw    one update of `parameters` floats
"""

import dataclasses
import itertools
import random

SHAPE = {
    "layers": 30,
    "hidden": 576,
    "heads": 9,
    "kv_heads": 3,
    "head_dim": 64,
    "ffn": 1536,
    "vocab": 49152,
    "rope_theta": 100000.0,
    "rms_eps": 1e-5,
    "max_positions": 2048,
}
# Of the quantised models: rows of a multiple of 256, which the blocks of Q4_K_M need, and large enough that no cache
# holds them. It is that of Qwen3-0.6B, with Llama's layers.
QUANTISED_SHAPE = {
    "layers": 28,
    "hidden": 1024,
    "heads": 16,
    "kv_heads": 8,
    "head_dim": 128,
    "ffn": 3072,
    "vocab": 151936,
    "rope_theta": 1000000.0,
    "rms_eps": 1e-6,
    "max_positions": 2048,
}
THREADS = 2


@dataclasses.dataclass
class Case:
    name: str
    tool: str  # atmanrl, llama.cpp or PyTorch
    fields: dict  # of the request
    timed: bool = True  # False: only its output is compared
    unit: str = "tok/s"  # or "s"
    optional: bool = False  # the worker may answer that this machine has not what it takes; it is left out then
    limit: float = None  # seconds, or tokens per second, that are wanted of it


@dataclasses.dataclass
class Ratio:
    """How many times faster `fast` is than `slow`; both do the same work unless the title says otherwise."""

    title: str
    fast: str
    slow: str
    wanted: float = None


@dataclasses.dataclass
class Phase:
    name: str
    title: str
    weights: str
    cases: list
    ratios: list
    agree: list  # pairs of cases whose outputs are compared, and the largest relative distance |a - b| / |b| allowed

    def without(self, names):
        """What is left of it where cases of these names cannot be."""
        return dataclasses.replace(
            self,
            cases=[c for c in self.cases if c.name not in names],
            ratios=[r for r in self.ratios if not {r.fast, r.slow} & set(names)],
            agree=[a for a in self.agree if not set(a[:2]) & set(names)],
        )


def tokens(count, stream):
    """The same ids for all tools."""
    source = random.Random(1000 + stream)
    return [source.randrange(SHAPE["vocab"]) for _ in range(count)]


def parameter_count(shape=SHAPE):
    attention = shape["hidden"] * shape["head_dim"] * (2 * shape["heads"] + 2 * shape["kv_heads"])
    layer = attention + 3 * shape["hidden"] * shape["ffn"] + 2 * shape["hidden"]
    return shape["vocab"] * shape["hidden"] + shape["layers"] * layer + shape["hidden"]


def beside_llama_cpp(request):
    """llama.cpp is timed with keys and values in 16 bits, its default; a 32-bit cache shows that it computes the same."""
    return [
        Case("atmanrl", "atmanrl", request),
        Case("llama.cpp", "llama.cpp", dict(request, kv="f16")),
        Case("llama.cpp, 32-bit cache", "llama.cpp", dict(request, kv="f32"), timed=False),
    ]


def decode(sequences, weights, wanted):
    request = {
        "phase": "decode",
        "prompt": tokens(128, 0),
        "continuations": [tokens(32, 1 + s) for s in range(sequences)],
    }
    # A step of transformers takes several times as long, so it runs fewer of them.
    short = dict(request, continuations=[c[:8] for c in request["continuations"]])
    title = (
        "decode, 1 sequence after 128 tokens"
        if sequences == 1
        else f"decode, {sequences} sequences that share a prompt of 128 tokens"
    )
    return Phase(
        f"decode-{sequences}",
        title,
        weights,
        beside_llama_cpp(request)
        + [Case("PyTorch", "PyTorch", short), Case("atmanrl, 8 steps", "atmanrl", short, timed=False)],
        [Ratio("llama.cpp", "atmanrl", "llama.cpp", wanted), Ratio("PyTorch", "atmanrl", "PyTorch")],
        AGREE_WITH_LLAMA_CPP[weights] + [("atmanrl, 8 steps", "PyTorch", TOLERANCE["logits"][weights])],
    )


def prefill(weights, wanted):
    request = {"phase": "prefill", "prompt": tokens(512, 0)}
    return Phase(
        "prefill",
        "prefill, 512 tokens",
        weights,
        beside_llama_cpp(request) + [Case("PyTorch", "PyTorch", request)],
        [Ratio("llama.cpp", "atmanrl", "llama.cpp", wanted), Ratio("PyTorch", "atmanrl", "PyTorch")],
        AGREE_WITH_LLAMA_CPP[weights] + [("atmanrl", "PyTorch", TOLERANCE["logits"][weights])],
    )


def quantised(name, title, request, weights, wanted):
    """The same file for both tools; PyTorch has no weights of these types. atmanrl computes what the decoded model
    computes, and with int8 products rounds activations to 8 bits, as llama.cpp does."""
    int8 = "atmanrl, int8 products"
    return Phase(
        f"{name}-quantised",
        title,
        weights,
        beside_llama_cpp(request) + [Case(int8, "atmanrl", dict(request, int8=True))],
        [
            Ratio("llama.cpp", "atmanrl", "llama.cpp", wanted),
            Ratio("llama.cpp, with int8 products", int8, "llama.cpp", wanted),
        ],
        AGREE_WITH_LLAMA_CPP[weights]
        + [(int8, "atmanrl", TOLERANCE["logits"][weights]), (int8, "llama.cpp", TOLERANCE["logits"][weights])],
    )


def quantised_decode(sequences, weights, wanted):
    like = decode(sequences, "f32", None)
    request = dict(like.cases[0].fields)
    request["continuations"] = [c[:16] for c in request["continuations"]]
    return quantised(like.name, like.title, request, weights, wanted)


def quantised_prefill(weights, wanted):
    like = prefill("f32", None)
    return quantised(like.name, like.title, like.cases[0].fields, weights, wanted)


def generation(weights):
    """Tools draw other numbers, so that they do the same work is shown by greedy completions of the same prompt."""
    request = {"phase": "generate", "prompt": tokens(128, 0), "sequences": 8, "new_tokens": 64, "greedy": False}
    greedy = dict(request, greedy=True, new_tokens=16)
    return Phase(
        "generate",
        "generation with sampling, 8 completions of 64 tokens after a prompt of 128",
        weights,
        [
            Case("atmanrl", "atmanrl", request),
            Case("llama.cpp", "llama.cpp", dict(request, kv="f16")),
            Case("atmanrl, greedy", "atmanrl", greedy, timed=False),
            Case("llama.cpp, greedy, 32-bit cache", "llama.cpp", dict(greedy, kv="f32"), timed=False),
        ],
        [Ratio("llama.cpp", "atmanrl", "llama.cpp")],
        [("atmanrl, greedy", "llama.cpp, greedy, 32-bit cache", 0)],
    )


def train(weights, limit):
    own = [tokens(300, 1 + s) for s in range(8)]
    prompt = tokens(200, 0)
    unshared = {"phase": "train", "sequences": own, "shared": 0}
    shared = {"phase": "train", "sequences": [prompt + tokens(100, 1 + s) for s in range(8)], "shared": 200}
    # Where products use AMX: gradients of weights by it, too. PyTorch computes them from bf16, as `rounded` does.
    amx_cases, amx_ratios, amx_agree = [], [], []
    if weights == "bf16":
        for how, (theirs, title, request, wanted) in itertools.product(
            ("split", "rounded"),
            (
                ("PyTorch", "PyTorch, 8 x 300 tokens", unshared, 1.8),
                ("PyTorch, one prompt of 200", "PyTorch, a prompt of 200 and 8 x 100", shared, 3),
            ),
        ):
            ours = theirs.replace("PyTorch", "atmanrl")
            this = f"{ours}, {how} weight gradients"
            amx_cases.append(Case(this, "atmanrl", dict(request, gradients=how), unit="s", optional=True))
            amx_ratios.append(Ratio(f"{title}, with {how} weight gradients", this, theirs, wanted))
            amx_agree.append((this, theirs, TOLERANCE["train"][weights]))
            amx_agree.append((this, ours, TOLERANCE[how]))
    return Phase(
        "train",
        "forward and backward of all parameters, 8 rollouts of 300 tokens",
        weights,
        [
            Case("atmanrl", "atmanrl", unshared, unit="s", limit=limit),
            Case("PyTorch", "PyTorch", unshared, unit="s"),
            Case("atmanrl, one prompt of 200", "atmanrl", shared, unit="s"),
            Case("PyTorch, one prompt of 200", "PyTorch", shared, unit="s"),
            *amx_cases,
        ],
        [
            Ratio("PyTorch, 8 x 300 tokens", "atmanrl", "PyTorch", 1.1),
            Ratio(
                "PyTorch, a prompt of 200 and 8 x 100", "atmanrl, one prompt of 200", "PyTorch, one prompt of 200", 2
            ),
            Ratio("atmanrl without the shared prompt", "atmanrl, one prompt of 200", "atmanrl", 2),
            *amx_ratios,
        ],
        [
            *amx_agree,
            ("atmanrl", "PyTorch", TOLERANCE["train"][weights]),
            ("atmanrl, one prompt of 200", "PyTorch, one prompt of 200", TOLERANCE["train"][weights]),
        ],
    )


def mask(weights):
    request = {
        "phase": "mask",
        "prompt": tokens(200, 0),
        "cots": [tokens(100, 1 + s) for s in range(8)],
        "delimiter": tokens(2, 50),
        "answer": tokens(3, 51),
        "scale": 10,
        "init": -0.4,
    }
    later = dict(request, rows="all_later", repeats=1)
    answer = dict(request, rows="answer_rows", repeats=4)
    return Phase(
        "mask",
        "one mask step, 8 rollouts of 200 prompt + 100 chain-of-thought tokens",
        weights,
        # PyTorch computes the whole sequences whichever rows see the mask, so one of the two is enough to time.
        [
            Case("atmanrl, all_later", "atmanrl", later, unit="s"),
            Case("PyTorch, all_later", "PyTorch", later, unit="s"),
            Case("atmanrl, answer_rows", "atmanrl", answer, unit="s"),
            Case("PyTorch, answer_rows", "PyTorch", dict(answer, repeats=1), unit="s", timed=False),
        ],
        [
            Ratio("PyTorch, all_later", "atmanrl, all_later", "PyTorch, all_later", 3),
            Ratio("atmanrl, answer_rows against all_later", "atmanrl, answer_rows", "atmanrl, all_later", 10),
        ],
        [
            ("atmanrl, all_later", "PyTorch, all_later", TOLERANCE["mask"][weights]),
            ("atmanrl, answer_rows", "PyTorch, answer_rows", TOLERANCE["mask"][weights]),
        ],
    )


def adamw():
    request = {"phase": "adamw", "parameters": parameter_count(), "repeats": 3}
    return Phase(
        "adamw",
        f"AdamW, {parameter_count() / 1e6:.1f} M parameters",
        "f32",
        [Case("atmanrl", "atmanrl", request, unit="s", limit=0.12), Case("PyTorch", "PyTorch", request, unit="s")],
        [Ratio("PyTorch (fused)", "atmanrl", "PyTorch")],
        [("atmanrl", "PyTorch", 1e-5)],
    )


# A wrong rotation gives distances near 1, a mask in the wrong rows 0.1. With bf16 weights the tools round activations in
# different places; that they do the same work is what f32 shows. With quantised weights llama.cpp rounds activations to
# 8 bits, in blocks of 32 beside Q8_0 and of 256 beside Q4_K. Our own logits are moved by 0.1 when activations are
# rounded so in blocks of 32 (the int8 products of these phases), and two roundings add up. Splitting floats moves an
# element of a gradient by 2^-16 of the sum of the sizes of its terms at most, rounding them by 2^-7
# (cpu/amx_gradient.hpp).
TOLERANCE = {
    "logits": {"f32": 1e-4, "bf16": 1e-1, "q8_0": 1.5e-1, "q4_k_m": 2e-1},
    "train": {"f32": 1e-3, "bf16": 5e-2},
    "split": 1e-3,
    "rounded": 1e-2,
    "mask": {"f32": 1e-3, "bf16": 1e-1},
}
AGREE_WITH_LLAMA_CPP = {
    w: [("atmanrl", "llama.cpp, 32-bit cache", limit), ("atmanrl", "llama.cpp", max(limit, 3e-2))]
    for w, limit in TOLERANCE["logits"].items()
}


def phases():
    return [
        decode(1, "f32", 0.9),
        decode(1, "bf16", 1.0),
        decode(8, "f32", 1.9),
        decode(8, "bf16", 1.6),
        decode(16, "f32", 1.9),
        decode(16, "bf16", 2.2),
        prefill("f32", 1.4),
        prefill("bf16", 1.3),
        quantised_decode(1, "q8_0", 0.95),
        quantised_decode(1, "q4_k_m", 0.95),
        quantised_decode(8, "q8_0", 1.5),
        quantised_decode(8, "q4_k_m", 1.5),
        quantised_prefill("q8_0", 1.0),
        quantised_prefill("q4_k_m", 1.0),
        generation("f32"),
        train("f32", 12.5),
        train("bf16", 9),
        mask("f32"),
        mask("bf16"),
        adamw(),
    ]
