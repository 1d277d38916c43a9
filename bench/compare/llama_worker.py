"""llama.cpp's side of bench/compare.sh, through the C interface that llama-cpp-python binds."""

import ctypes
import os
import time

import llama_cpp as llama
import numpy
import worker

THREADS = int(os.environ["OMP_NUM_THREADS"])


@llama.llama_log_callback
def errors_only(level, text, _):
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        os.write(2, text)


llama.llama_log_set(errors_only, ctypes.c_void_p(0))
llama.llama_backend_init()


class Batch:
    """Rows (token, position, sequence, whether its logits are wanted), made before the clock runs."""

    def __init__(self, rows):
        self.c = llama.llama_batch_init(len(rows), 0, 1)
        self.c.n_tokens = len(rows)
        for i, (token, position, sequence, scored) in enumerate(rows):
            self.c.token[i] = token
            self.c.pos[i] = position
            self.c.n_seq_id[i] = 1
            self.c.seq_id[i][0] = sequence
            self.c.logits[i] = scored

    def __del__(self):
        llama.llama_batch_free(self.c)


class Model:
    def __init__(self, path):
        parameters = llama.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.c = llama.llama_model_load_from_file(path.encode(), parameters)
        if not self.c:
            raise RuntimeError(f"llama.cpp does not load {path}")
        self.vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.c))

    def __del__(self):
        llama.llama_model_free(self.c)


class Context:
    def __init__(self, model, positions, sequences, batch, kv, flash, unified):
        """positions: of one sequence; kv: what keys and values are stored as, f16 (llama.cpp's default) or f32"""
        p = llama.llama_context_default_params()
        p.n_ctx = positions * sequences
        p.n_batch = p.n_ubatch = max(batch, 32)
        p.n_seq_max = sequences
        p.n_threads = p.n_threads_batch = THREADS
        p.flash_attn_type = int(flash)  # 0 off, 1 on
        p.type_k = p.type_v = llama.GGML_TYPE_F32 if kv == "f32" else llama.GGML_TYPE_F16
        p.kv_unified = unified  # one buffer for all sequences, or one for each
        self.model = model
        self.c = llama.llama_init_from_model(model.c, p)
        if not self.c:
            raise RuntimeError("llama.cpp makes no context")
        self.memory = llama.llama_get_memory(self.c)

    def run(self, batch):
        if llama.llama_decode(self.c, batch.c) != 0:
            raise RuntimeError("llama_decode fails")
        return llama.llama_get_logits(self.c)  # waits for the result

    def logits(self, pointer, rows):
        return numpy.ctypeslib.as_array(pointer, (rows, self.model.vocab)).astype(numpy.float32)

    def __del__(self):
        if self.c:
            llama.llama_free(self.c)


class Prefill:
    def __init__(self, model, request, flash, unified):
        prompt = request["prompt"]
        self.batch = Batch([(t, i, 0, i + 1 == len(prompt)) for i, t in enumerate(prompt)])
        self.tokens = len(prompt)
        self.context = Context(model, len(prompt), 1, len(prompt), request["kv"], flash, unified)

    def __call__(self, out):
        llama.llama_memory_clear(self.context.memory, False)
        start = time.perf_counter()
        pointer = self.context.run(self.batch)
        seconds = time.perf_counter() - start
        if out:
            self.context.logits(pointer, 1).tofile(out)
        return {"seconds": seconds, "tokens": self.tokens}


class Decode:
    def __init__(self, model, request, flash, unified):
        prompt, continuations = request["prompt"], request["continuations"]
        self.shared, self.sequences, steps = len(prompt), len(continuations), len(continuations[0])
        self.context = Context(
            model, self.shared + steps, self.sequences + 1, self.shared, request["kv"], flash, unified
        )
        # The last sequence holds the prompt, the others begin as copies of it.
        self.context.run(Batch([(t, i, self.sequences, i + 1 == self.shared) for i, t in enumerate(prompt)]))
        for s in range(self.sequences):
            llama.llama_memory_seq_cp(self.context.memory, self.sequences, s, -1, -1)
        self.steps = [
            Batch([(c[t], self.shared + t, s, True) for s, c in enumerate(continuations)]) for t in range(steps)
        ]

    def __call__(self, out):
        for s in range(self.sequences):
            llama.llama_memory_seq_rm(self.context.memory, s, self.shared, -1)
        start = time.perf_counter()
        for step in self.steps:
            pointer = self.context.run(step)
        seconds = time.perf_counter() - start
        if out:
            self.context.logits(pointer, self.sequences).tofile(out)
        return {"seconds": seconds, "tokens": len(self.steps) * self.sequences}


class Generation:
    """Completions of one prompt by llama.cpp's sampler: the prompt once, then a token of each sequence per step."""

    def __init__(self, model, request, flash, unified):
        prompt, self.sequences, self.steps = request["prompt"], request["sequences"], request["new_tokens"]
        self.shared = len(prompt)
        self.context = Context(
            model, self.shared + self.steps, self.sequences, self.shared, request["kv"], flash, unified
        )
        self.prompt = Batch([(t, i, 0, i + 1 == self.shared) for i, t in enumerate(prompt)])
        self.batches = [
            Batch([(0, self.shared + t, s, True) for s in range(self.sequences)]) for t in range(self.steps - 1)
        ]
        self.samplers = []
        for s in range(self.sequences):
            chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
            one = llama.llama_sampler_init_greedy() if request["greedy"] else llama.llama_sampler_init_dist(s)
            llama.llama_sampler_chain_add(chain, one)
            self.samplers.append(chain)

    def __call__(self, out):
        memory = self.context.memory
        llama.llama_memory_clear(memory, False)
        start = time.perf_counter()
        self.context.run(self.prompt)
        for s in range(1, self.sequences):
            llama.llama_memory_seq_cp(memory, 0, s, -1, -1)
        # Every sequence draws from the logits of the prompt's last row, then each from its own.
        drawn = [[llama.llama_sampler_sample(chain, self.context.c, -1)] for chain in self.samplers]
        for batch in self.batches:
            for s in range(self.sequences):
                batch.c.token[s] = drawn[s][-1]
            self.context.run(batch)
            for s, chain in enumerate(self.samplers):
                drawn[s].append(llama.llama_sampler_sample(chain, self.context.c, s))
        seconds = time.perf_counter() - start
        if out:
            numpy.array(drawn, dtype=numpy.float32).tofile(out)
        return {"seconds": seconds, "tokens": self.sequences * self.steps}

    def __del__(self):
        for chain in self.samplers:
            llama.llama_sampler_free(chain)


models = {}


def prepare(request):
    """With flash attention or without, with one key-value buffer or one for each sequence: whichever is fastest.
    Flash attention rounds keys and values to 16 bits, so a 32-bit cache goes without."""
    path = request["model"] + ".gguf"
    if path not in models:
        models[path] = Model(path)
    kind = {"prefill": Prefill, "decode": Decode, "generate": Generation}[request["phase"]]
    several = request.get("sequences", len(request.get("continuations", [0]))) > 1
    best, best_seconds = None, None
    for flash in (False, True) if request["kv"] == "f16" else (False,):
        for unified in (True, False) if several else (True,):
            case = kind(models[path], request, flash, unified)
            seconds = min(case("")["seconds"] for _ in range(2))
            if best is None or seconds < best_seconds:
                best, best_seconds = case, seconds
                best.notes = {
                    "settings": f"flash attention {'on' if flash else 'off'}"
                    + (
                        f", {'one key-value buffer for all' if unified else 'a key-value buffer for each'}"
                        if several
                        else ""
                    )
                }
    return best


worker.serve(prepare, models.clear)
