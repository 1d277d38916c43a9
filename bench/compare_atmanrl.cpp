// atmanrl's side of bench/compare.sh: reads requests as lines of JSON, answers each with a line of JSON.
//   {"do": "prepare", "case": NAME, "model": PATH, "weights": "f32" | "bf16" | "q8_0" | "q4_k_m", "phase": PHASE, ...}
//   ->  {}; PATH is a folder, and PATH.gguf the file of quantised weights, which stay packed;
//   with "int8": true their products round activations to 8 bits, and with "gradients": "split" or "rounded" gradients
//   of bf16 weights are computed by AMX from such floats; {"not here": REASON} where that cannot be
//   {"do": "run", "case": NAME, "out": FILE}  ->  {"seconds": S, "tokens": N, ...}; FILE gets what the tools must agree
//   on
//   {"do": "forget"}  ->  {}
// Threads come from OMP_NUM_THREADS. The phases and their fields are those of bench/compare/phases.py.
#include <atmanrl/grpo.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/llama.hpp>

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>

namespace {

using namespace atmanrl;

using token_ids = std::vector<int>;
using runner = std::function<json(std::string const& out)>;

class stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void write_floats(std::string const& path, std::span<float const> values) {
  if (path.empty()) return;
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<char const*>(values.data()), std::streamsize(values.size_bytes()));
  expects<file_error>(bool(file.flush()), "{}: cannot be written", path);
}

double norm_of(std::span<float const> values) {
  double sum = 0;
  for (float const x : values) sum += double(x) * double(x);
  return std::sqrt(sum);
}

template <class Model>
runner prefill(Model& m, json const& request) {
  auto const prompt = request.at("prompt").get<token_ids>();
  auto const cache = std::make_shared<kv_cache<cpu_backend, float>>(m.backend(), m.config(), index_t(prompt.size()));
  auto const pass = std::make_shared<forward_pass<cpu_backend, float>>(m.backend());
  auto const logits = std::make_shared<tensor<cpu_backend, float, 2>>();
  int const id = cache->add_sequence(index_t(prompt.size()));
  return [=, &m](std::string const& out) {
    cache->truncate(id, 0);
    stopwatch const watch;
    ragged_batch batch;
    batch.add(id, prompt);
    m.forward(*cache, batch, *pass);
    int const last = batch.rows() - 1;
    m.logits(*pass, {&last, 1}, *logits);
    double const seconds = watch.seconds();
    write_floats(out, {logits->data(), std::size_t(logits->size())});
    return json{{"seconds", seconds}, {"tokens", prompt.size()}};
  };
}

// All sequences continue one prompt, a given token each per step; every step's logits are computed.
template <class Model>
runner decode(Model& m, json const& request) {
  auto const prompt = request.at("prompt").get<token_ids>();
  auto const continuations = request.at("continuations").get<std::vector<token_ids>>();
  index_t const steps = index_t(continuations[0].size()), shared = index_t(prompt.size());
  auto const cache = std::make_shared<kv_cache<cpu_backend, float>>(m.backend(), m.config(),
                                                                    shared + steps * index_t(continuations.size()));
  auto const pass = std::make_shared<forward_pass<cpu_backend, float>>(m.backend());
  auto const logits = std::make_shared<tensor<cpu_backend, float, 2>>();
  ragged_batch batch;
  int const root = cache->add_sequence(shared);
  batch.add(root, prompt);
  m.forward(*cache, batch, *pass);
  token_ids ids;
  for (std::size_t s = 0; s < continuations.size(); ++s) ids.push_back(cache->add_child(root, shared, steps));
  return [=, &m](std::string const& out) {
    for (int const id : ids) cache->truncate(id, shared);
    stopwatch const watch;
    for (index_t t = 0; t < steps; ++t) {
      ragged_batch step;
      token_ids rows;
      for (std::size_t s = 0; s < ids.size(); ++s)
        rows.push_back(step.add(ids[s], {&continuations[s][std::size_t(t)], 1}));
      m.forward(*cache, step, *pass);
      m.logits(*pass, rows, *logits);
    }
    double const seconds = watch.seconds();
    write_floats(out, {logits->data(), std::size_t(logits->size())});
    return json{{"seconds", seconds}, {"tokens", std::size_t(steps) * ids.size()}};
  };
}

// Completions of one prompt, sampled: the prompt's pass, every step's, and drawing the tokens.
template <class Model>
runner generation(Model& m, json const& request) {
  auto const prompt = request.at("prompt").get<token_ids>();
  generate_options options;
  options.group_size = request.at("sequences").get<int>();
  options.max_new_tokens = request.at("new_tokens").get<int>();
  bool const greedy = request.at("greedy").get<bool>();
  return [=, &m](std::string const& out) {
    std::vector<token_ids> const prompts{prompt};
    stopwatch const watch;
    auto const groups = greedy ? generate(m, std::span(prompts), options, samplers::greedy{})
                               : generate(m, std::span(prompts), options, samplers::multinomial{});
    double const seconds = watch.seconds();
    std::vector<float> ids;
    for (completion const& c : groups[0]) ids.insert(ids.end(), c.ids.begin(), c.ids.end());
    write_floats(out, ids);
    return json{{"seconds", seconds}, {"tokens", ids.size()}};
  };
}

// Mean negative log-likelihood of the tokens from position max(shared, 1) on, and its gradient with respect to all
// parameters. The first `shared` tokens are the same in all sequences and are computed once.
template <class Model>
runner train(Model& m, json const& request) {
  struct state {
    state(Model& m, index_t rows)
        : cache(m.backend(), m.config(), rows),
          pass(m.backend()),
          gradient(tensor<cpu_backend, float, 1>::zeros(m.backend(), {m.layout().size()})) {}
    kv_cache<cpu_backend, float> cache;
    forward_pass<cpu_backend, float> pass;
    tensor<cpu_backend, float, 1> gradient;
  };
  auto const sequences = request.at("sequences").get<std::vector<token_ids>>();
  std::size_t const shared = request.at("shared").get<std::size_t>();
  std::size_t rows = shared;
  for (auto const& s : sequences) rows += s.size() - shared;
  auto const kept = std::make_shared<state>(m, index_t(rows));
  return [=, &m](std::string const& out) {
    state& s = *kept;
    stopwatch const watch;
    s.gradient.fill_zero();
    s.cache.clear();
    ragged_batch batch;
    std::vector<scored_token> scored;
    // The row of a sequence's last token predicts nothing.
    int const root = shared > 0 ? s.cache.add_sequence(index_t(shared)) : -1;
    if (shared > 0) batch.add(root, std::span(sequences[0]).first(shared));
    for (auto const& tokens : sequences) {
      index_t const own = index_t(tokens.size() - shared) - 1;
      int const id = shared > 0 ? s.cache.add_child(root, index_t(shared), own) : s.cache.add_sequence(own);
      int const first = batch.add(id, std::span(tokens).subspan(shared, std::size_t(own)));
      if (shared > 0) scored.push_back({int(shared) - 1, tokens[shared]});
      for (index_t t = 0; t < own; ++t) scored.push_back({first + int(t), tokens[shared + std::size_t(t) + 1]});
    }
    m.forward(s.cache, batch, s.pass, {.mode = gradient_mode::parameters});
    m.log_probs(s.pass, scored);
    double loss = 0;
    for (float const x : s.pass.log_p()) loss -= double(x) / double(scored.size());
    std::vector<float> const dlog_p(scored.size(), float(-1.0 / double(scored.size())));
    m.backward(s.cache, s.pass, {.log_p = dlog_p}, {.parameters = s.gradient.view()});
    double const seconds = watch.seconds();
    json norms;
    std::span<float const> const flat(s.gradient.data(), std::size_t(s.gradient.size()));
    if (!out.empty())
      for (parameter_info const& p : m.layout().all())
        norms[p.name] = norm_of(flat.subspan(std::size_t(p.offset), std::size_t(p.size())));
    return json{
        {"seconds", seconds}, {"tokens", sequences.size() * sequences[0].size()}, {"loss", loss}, {"norms", norms}};
  };
}

// One step of mask training: cross-entropies of the answers and their gradient with respect to one H per CoT token.
template <class Model>
runner mask(Model& m, json const& request) {
  struct state {
    token_ids prompt, delimiter, answer;
    std::vector<token_ids> cots;
    std::unique_ptr<mask_batch<Model>> batch;
  };
  auto const kept = std::make_shared<state>();
  kept->prompt = request.at("prompt").get<token_ids>();
  kept->delimiter = request.at("delimiter").get<token_ids>();
  kept->answer = request.at("answer").get<token_ids>();
  kept->cots = request.at("cots").get<std::vector<token_ids>>();
  std::vector<saliency_item> items;
  for (auto const& c : kept->cots) items.push_back({kept->prompt, c, kept->delimiter, kept->answer});
  auto const rows = request.at("rows") == "all_later" ? mask_rows::all_later : mask_rows::answer_rows;
  kept->batch =
      std::make_unique<mask_batch<Model>>(m, items, mask_shape::column, rows, request.at("scale").get<double>());
  auto& values = kept->batch->values();
  values.assign(std::vector<float>(std::size_t(values.size()), request.at("init").get<float>()));
  int const repeats = request.at("repeats").get<int>();
  return [=](std::string const& out) {
    stopwatch const watch;
    for (int i = 0; i < repeats; ++i) kept->batch->cross_entropies_and_gradient();
    double const seconds = watch.seconds() / repeats;
    double loss = 0;
    for (double const ce : kept->batch->cross_entropies()) loss += ce;
    auto const& gradient = kept->batch->gradient();
    write_floats(out, {gradient.data(), std::size_t(gradient.size())});
    return json{{"seconds", seconds}, {"tokens", kept->batch->rows_per_step()}, {"loss", loss}};
  };
}

runner adamw_update(cpu_backend& backend, json const& request) {
  struct state {
    state(cpu_backend& b, index_t n)
        : p(tensor<cpu_backend, float, 1>::zeros(b, {n})),
          g(tensor<cpu_backend, float, 1>::zeros(b, {n})),
          optimizer({.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01}, b, {n, {}}) {}
    tensor<cpu_backend, float, 1> p, g;
    optim::adamw::state<cpu_backend, float> optimizer;
  };
  index_t const n = request.at("parameters").get<index_t>();
  auto const kept = std::make_shared<state>(backend, n);
  for (index_t i = 0; i < n; ++i) {
    kept->p.data()[i] = 0.01f;
    kept->g.data()[i] = float(i % 1024 - 512) / 1024.0f;
  }
  int const repeats = request.at("repeats").get<int>();
  return [=](std::string const& out) {
    stopwatch const watch;
    for (int i = 0; i < repeats; ++i) kept->optimizer.step(kept->p.view(), kept->g.cview(), 1e-3);
    double const seconds = watch.seconds() / repeats;
    if (!out.empty()) {
      // While the gradient stays the same, no update depends on the decay of the moments.
      for (index_t i = 0; i < n; ++i) kept->g.data()[i] *= -0.5f;
      kept->optimizer.step(kept->p.view(), kept->g.cview(), 1e-3);
    }
    write_floats(out, {kept->p.data(), 1024});
    return json{{"seconds", seconds}, {"tokens", n}};
  };
}

template <class Model>
runner prepare(Model& m, json const& request) {
  std::string const phase = request.at("phase");
  if (phase == "prefill") return prefill(m, request);
  if (phase == "decode") return decode(m, request);
  if (phase == "generate") return generation(m, request);
  if (phase == "train") return train(m, request);
  if (phase == "mask") return mask(m, request);
  if (phase == "adamw") return adamw_update(m.backend(), request);
  fail<usage_error>("there is no phase {}", phase);
}

/// A model with bf16 weights on a backend with options of its own.
struct own_model {
  cpu_backend backend;
  llama<cpu_backend> model;

  own_model(cpu_options const& options, std::string const& path)
      : backend(options), model(llama<cpu_backend>::load(backend, path, {}, weight_storage::bf16)) {}
};

/// The model is loaded once for all cases of a phase.
class worker {
 public:
  json answer(json const& request) {
    std::string const what = request.at("do");
    if (what == "forget") {
      cases_.clear();
      float_.reset();
      int8_.reset();
      bf16_.reset();
      by_gradients_.clear();
      return json::object();
    }
    std::string const name = request.at("case");
    if (what == "run") return cases_.at(name)(request.value("out", ""));
    expects<usage_error>(what == "prepare", "there is no request {}", what);
    std::string const path = request.at("model"), weights = request.at("weights");
    if (request.value("int8", false)) {
      if (!int8_) int8_.emplace(llama<cpu_backend>::load(int8_backend_, path + ".gguf", {}, weight_storage::packed));
      cases_[name] = prepare(*int8_, request);
    } else if (std::string const how = request.value("gradients", "floats"); how != "floats") {
      expects<usage_error>(how == "split" || how == "rounded", "there are no gradients {}", how);
      if (!by_gradients_.contains(how)) {
        cpu_options const options{.gradients = how == "split" ? weight_gradients::split : weight_gradients::rounded};
        try {
          by_gradients_.emplace(how, std::make_unique<own_model>(options, path));
        } catch (usage_error const& e) {
          return json{{"not here", e.what()}};
        }
      }
      cases_[name] = prepare(by_gradients_.at(how)->model, request);
    } else if (weights == "bf16") {
      if (!bf16_) bf16_.emplace(llama<cpu_backend>::load(backend_, path, {}, weight_storage::bf16));
      cases_[name] = prepare(*bf16_, request);
    } else {
      if (!float_)
        float_.emplace(weights == "f32"
                           ? llama<cpu_backend>::load(backend_, path)
                           : llama<cpu_backend>::load(backend_, path + ".gguf", {}, weight_storage::packed));
      cases_[name] = prepare(*float_, request);
    }
    return json::object();
  }

 private:
  cpu_backend backend_, int8_backend_{{.int8_products = true}};
  std::optional<llama<cpu_backend>> float_, int8_, bf16_;           // the first may be packed, the second is
  std::map<std::string, std::unique_ptr<own_model>> by_gradients_;  // where there is AMX
  std::map<std::string, runner> cases_;
};

}  // namespace

int main() try {
  worker w;
  for (std::string line; std::getline(std::cin, line);)
    std::cout << dump_json(w.answer(parse_json(line, "request"))) << std::endl;
} catch (std::exception const& e) {
  std::cerr << "compare_atmanrl: " << e.what() << "\n";
  return 1;
}
