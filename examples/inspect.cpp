/// \file
/// A look inside: tokens, probabilities, gradients, masks, policy gradients and answers as JSON. One verb per call;
/// `inspect VERB --help` says what goes in and what comes out. The verbs are in inspect/, one per header.

#include "add_backend_options.hpp"
#include "chat_options.hpp"
#include "inspect/input.hpp"
#include "inspect/verbs.hpp"
#include "terminal/standard_streams.hpp"

#include <atmanrl/io/paths.hpp>
#include <atmanrl/ops/temperature.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace {

using atmanrl::expects, atmanrl::usage_error, inspect::common_options;

/// What is to be done once the whole command line has been read: returns the lines to print.
using action = std::function<std::string()>;

void add_common(CLI::App& app, common_options& c) {
  add_backend_options(app, c);
  app.get_option("--backend")->description("cpu, cuda: on a GPU, or reference: plain loops on one thread");
  app.get_option("--backend")->check(CLI::IsMember({"reference", "cpu", "cuda"}));
  app.add_option("--threads", c.threads, "threads of the cpu backend; 0: as many as the machine runs")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--dtype", c.dtype, "storage of the weight matrices; everything else is f32")
      ->check(CLI::IsMember({"f32", "bf16"}))
      ->capture_default_str();
}

void add_model(CLI::App& verb, common_options& c, bool required) {
  auto* const model = verb.add_option(
      "--model", c.model,
      required
          ? "a Hugging Face folder, a .gguf file, or a llama2.c .bin file"
          : "a Hugging Face folder, a .gguf file (with or without weights), a llama2.c .bin file, or a tokenizer.json");
  if (required) model->required();
  verb.add_option("--tokenizer", c.tokenizer, "where the tokenizer is, if it is not in or beside the model");
}

/// A result that cannot be written should not cost the computation first.
std::filesystem::path checked_output(std::string const& out) {
  atmanrl::check_output_file("--out", out);
  return out;
}

CLI::App& add_verb(CLI::App& app, char const* name, char const* what, char const* details) {
  CLI::App& verb = *app.add_subcommand(name, what);
  verb.footer(details);
  return verb;
}

void add_tokenize(CLI::App& app, common_options& c, action& chosen) {
  auto& verb = add_verb(app, "tokenize", "Token ids of the text on standard input",
                        "Prints [ids] of exactly the bytes that were read; no begin-of-text token is added.");
  auto const special = std::make_shared<bool>(false);
  verb.add_flag("--special", *special, "recognise special tokens that are spelled out in the text");
  add_model(verb, c, false);
  verb.callback([&c, &chosen, special] {
    chosen = [&c, special] { return inspect::tokenize(c, inspect::read_standard_input(), *special); };
  });
}

void add_detokenize(CLI::App& app, common_options& c, action& chosen) {
  auto& verb =
      add_verb(app, "detokenize", "Text of token ids",
               "Prints {\"text\",\"bytes\"}: text has U+FFFD where the bytes are not UTF-8, bytes are hexadecimal.");
  auto const ids = std::make_shared<std::string>();
  verb.add_option("--ids", *ids, "token ids, comma-separated")->required();
  add_model(verb, c, false);
  verb.callback([&c, &chosen, ids] { chosen = [&c, ids] { return inspect::detokenize(c, *ids); }; });
}

void add_chat(CLI::App& app, common_options& c, action& chosen) {
  struct texts {
    std::string user;
    std::optional<std::string> system;
  };
  auto& verb = add_verb(app, "chat", "Token ids of a conversation up to the assistant's turn",
                        "Prints [ids], by the model's own chat template or the format that was chosen; the text of a "
                        "model\nwithout a template stands alone. Control tokens "
                        "spelled out in a message stay text.");
  auto const t = std::make_shared<texts>();
  verb.add_option("--user", t->user, "the user's message")->required();
  verb.add_option("--system", t->system, "the system message; where none is given the template has its own");
  add_chat_options(verb, c.chat, "--chat-format,--chat");
  add_model(verb, c, false);
  verb.callback([&c, &chosen, t] { chosen = [&c, t] { return inspect::chat(c, t->user, t->system); }; });
}

void add_logprobs(CLI::App& app, common_options& c, action& chosen) {
  auto& verb = add_verb(app, "logprobs", "Log-probability of each token after those before it",
                        "Prints {\"logprobs\",\"argmax\"}, both one shorter than the ids: logprobs[i] = log p(id[i+1] "
                        "| id[0..i])\nin nats, argmax[i] = the most "
                        "probable token after id[0..i] (the lowest id among equals).");
  auto const ids = std::make_shared<std::string>();
  verb.add_option("--ids", *ids, "token ids, comma-separated; nothing is added to them")->required();
  add_model(verb, c, true);
  verb.callback([&c, &chosen, ids] { chosen = [&c, ids] { return inspect::logprobs(c, *ids); }; });
}

void add_generate(CLI::App& app, common_options& c, action& chosen) {
  auto& verb = add_verb(app, "generate", "New tokens after a prompt",
                        "Prints {\"ids\",\"logprobs\",\"text\"} of the new tokens, the stop token included. "
                        "Log-probabilities are\nthose of logits / temperature "
                        "(temperature 1 when it is 0), whatever top-k and top-p cut off. text is\nnull for a model "
                        "without a tokenizer. Stop tokens are the "
                        "model's own, the\ntokenizer's end of text and, with --chat, what ends a turn.");
  auto const v = std::make_shared<inspect::generate_options>();
  auto const seed = std::make_shared<std::string>("0");  // as text: the parser of numbers lets -1 and 2^64 pass
  verb.add_option("--ids", v->ids, "the prompt as token ids, comma-separated; nothing is added to them");
  verb.add_option("--prompt", v->prompt, "the prompt as text; begin-of-text is put in front where the model wants it");
  verb.add_option("--chat", v->chat, "a user's message");
  verb.add_option("--system", v->system, "the system message of --chat");
  add_chat_options(verb, c.chat, "--chat-format");
  verb.add_flag("--special", v->special, "recognise special tokens that are spelled out in --prompt");
  verb.add_option("--max-new-tokens", v->request.max_new_tokens, "the most tokens to add")->required();
  verb.add_option("--temperature", v->request.temperature, "0: always the most probable token")->capture_default_str();
  verb.add_option("--top-p", v->request.top_p, "keep the most probable tokens that make up this share")
      ->capture_default_str();
  verb.add_option("--top-k", v->request.top_k, "keep this many tokens; 0: all")->capture_default_str();
  verb.add_option("--seed", *seed, "0 to 2^64 - 1; the same seed gives the same tokens")->capture_default_str();
  add_model(verb, c, true);
  verb.callback([&c, &chosen, v, seed] {
    chosen = [&c, v, seed] {
      inspect::generate_request& r = v->request;
      expects<usage_error>(v->ids.has_value() + v->prompt.has_value() + v->chat.has_value() == 1,
                           "generate needs exactly one of --ids, --prompt and --chat");
      expects<usage_error>(!v->system || v->chat, "--system goes with --chat only");
      expects<usage_error>(!v->special || v->prompt, "--special goes with --prompt only");
      expects<usage_error>(r.max_new_tokens > 0, "--max-new-tokens is {}, but it must be above 0", r.max_new_tokens);
      inspect::check_finite("--temperature", r.temperature);
      expects<usage_error>(r.temperature == 0 || atmanrl::is_temperature(r.temperature),
                           "--temperature is {}, but it must be 0 or lie between {} and {}", r.temperature,
                           atmanrl::lowest_temperature, atmanrl::highest_temperature);
      expects<usage_error>(r.top_p > 0 && r.top_p <= 1, "--top-p is {}, but it must be above 0 and at most 1", r.top_p);
      expects<usage_error>(r.top_k >= 0, "--top-k is {}, but it must not be negative", r.top_k);
      char const* const end = seed->data() + seed->size();
      auto const read = std::from_chars(seed->data(), end, r.seed);
      expects<usage_error>(read.ec == std::errc{} && read.ptr == end,
                           "--seed is \"{}\", but it must be a whole number from 0 to 2^64 - 1", *seed);
      return inspect::generate(c, *v);
    };
  });
}

void add_gradient(CLI::App& app, common_options& c, action& chosen) {
  struct texts {
    std::string ids, out;
  };
  auto& verb = add_verb(app, "gradient", "Gradient of the mean next-token cross-entropy",
                        "Writes one f32 tensor per parameter under its Hugging Face name; a tied head is summed "
                        "into\nmodel.embed_tokens.weight. Prints "
                        "{\"loss\",\"gradient_norm\",\"tensors\",\"out\"}.");
  auto const t = std::make_shared<texts>();
  verb.add_option("--ids", t->ids, "token ids, comma-separated, at least two")->required();
  verb.add_option("--out", t->out, "the .safetensors file to write")->required();
  add_model(verb, c, true);
  verb.callback(
      [&c, &chosen, t] { chosen = [&c, t] { return inspect::gradient(c, t->ids, checked_output(t->out)); }; });
}

template <class E>
using by_name = std::map<std::string, E>;
by_name<atmanrl::mask_sharing> const mask_sharings{{"all", atmanrl::mask_sharing::all},
                                                   {"per_layer", atmanrl::mask_sharing::per_layer},
                                                   {"per_head", atmanrl::mask_sharing::per_head}};
by_name<atmanrl::saliency_reduction> const mask_reductions{
    {"mean", atmanrl::saliency_reduction::mean},
    {"token_mean", atmanrl::saliency_reduction::token_mean},
    {"answer_rows", atmanrl::saliency_reduction::answer_rows},
    {"clipped", atmanrl::saliency_reduction::clipped},
    {"length_weighted", atmanrl::saliency_reduction::length_weighted}};

template <class E>
std::vector<std::string> names_of(by_name<E> const& values) {
  std::vector<std::string> names;
  for (auto const& [name, value] : values) names.push_back(name);
  return names;
}

void add_mask(CLI::App& app, common_options& c, action& chosen) {
  struct values {
    inspect::mask_ids ids;
    std::string shape = "pair", rows = "all_later", objective = "cross_entropy", sharing = "all", reduction = "mean";
    atmanrl::mask_options options;
    bool gradient = false;
  };
  auto& verb = add_verb(
      app, "mask", "Trains an attention mask on one rollout",
      "Prints "
      "{\"ce_unmasked\",\"ce_start\",\"ce_end\",\"mask\",\"token_saliency\",\"reward_re_enabled\",\n\"reward_as_"
      "printed\"}: cross-entropy of the answer in nats "
      "per token without mask, at the start and\nafter the last update; the mask row-major over its allowed entries "
      "(or one value per token of the\nchain of "
      "thought). With --gradient also \"gradient\": that of the objective (the answer's mean cross-entropy)\nwith "
      "respect to the mask "
      "at its start value, scale included, without "
      "the sparsity term; with --steps 0 the start\nmay then be 0. The defaults are the paper's (arXiv:2604.16158).");
  auto const v = std::make_shared<values>();
  atmanrl::mask_options& o = v->options;
  verb.add_option("--prompt-ids", v->ids.prompt, "token ids, comma-separated")->required();
  verb.add_option("--cot-ids", v->ids.cot, "the chain of thought")->required();
  verb.add_option("--delimiter-ids", v->ids.delimiter, "what stands between it and the answer")->required();
  verb.add_option("--answer-ids", v->ids.answer, "the answer, without a stop token")->required();
  verb.add_option("--steps", o.steps, "updates of the mask")->capture_default_str();
  verb.add_option("--shape", v->shape, "pair: a value per (row, token); column: a value per token")
      ->check(CLI::IsMember({"pair", "column"}))
      ->capture_default_str();
  verb.add_option("--rows", v->rows, "all_later: all rows see the mask; answer_rows: delimiter and answer do")
      ->check(CLI::IsMember({"all_later", "answer_rows"}))
      ->capture_default_str();
  verb.add_option("--objective", v->objective, "what the mask restores")
      ->check(
          CLI::IsMember(std::vector<std::string>(atmanrl::objectives::names.begin(), atmanrl::objectives::names.end())))
      ->capture_default_str();
  verb.add_option("--sharing", v->sharing,
                  "one mask for all layers and heads, or one for each layer, or for each layer and head")
      ->check(CLI::IsMember(names_of(mask_sharings)))
      ->capture_default_str();
  verb.add_option("--reduction", v->reduction, "of the mask to the rewards")
      ->check(CLI::IsMember(names_of(mask_reductions)))
      ->capture_default_str();
  verb.add_option("--lr", o.learning_rate, "learning rate of AdamW")->capture_default_str();
  verb.add_option("--eps", o.optimizer.eps, "eps of AdamW")->capture_default_str();
  verb.add_option("--init", o.init, "start value of every entry, below 0")->capture_default_str();
  verb.add_option("--scale", o.scale, "factor between an entry and what is added to the score")->capture_default_str();
  verb.add_option("--sparsity", o.sparsity, "weight of the mean of 1 - H / init in the loss")->capture_default_str();
  verb.add_flag("--gradient", v->gradient, "print the gradient at the start value as well");
  add_model(verb, c, true);
  verb.callback([&c, &chosen, v] {
    chosen = [&c, v] {
      atmanrl::mask_options& o = v->options;
      o.shape = v->shape == "pair" ? atmanrl::mask_shape::pair : atmanrl::mask_shape::column;
      o.rows = v->rows == "all_later" ? atmanrl::mask_rows::all_later : atmanrl::mask_rows::answer_rows;
      o.objective = atmanrl::objectives::by_name(v->objective);
      o.sharing = mask_sharings.at(v->sharing);
      o.reduction = mask_reductions.at(v->reduction);
      inspect::check_finite("--lr", o.learning_rate);
      inspect::check_finite("--eps", o.optimizer.eps);
      inspect::check_finite("--init", o.init);
      inspect::check_finite("--scale", o.scale);
      inspect::check_finite("--sparsity", o.sparsity);
      expects<usage_error>(o.steps >= 0, "--steps is {}, but it must not be negative", o.steps);
      expects<usage_error>(o.learning_rate > 0, "--lr is {}, but it must be above 0", o.learning_rate);
      expects<usage_error>(o.optimizer.eps > 0, "--eps is {}, but it must be above 0", o.optimizer.eps);
      expects<usage_error>(o.init <= 0, "--init is {}, but a mask that starts above 0 suppresses nothing", o.init);
      expects<usage_error>(
          o.init < 0 || (o.steps == 0 && v->gradient),
          "--init is 0, which suppresses nothing: there is only a gradient to see then, with --steps 0 --gradient");
      expects<usage_error>(o.scale > 0, "--scale is {}, but it must be above 0", o.scale);
      expects<usage_error>(o.sparsity >= 0, "--sparsity is {}, but it must not be negative", o.sparsity);
      return inspect::mask(c, v->ids, o, v->gradient);
    };
  });
}

void add_grpo(CLI::App& app, common_options& c, action& chosen) {
  auto& verb = add_verb(app, "grpo", "Loss and gradient of one policy-gradient pass over given rollouts",
                        "Reads from standard input {\"model\": PATH, \"groups\": [{\"prompt_ids\": [..], "
                        "\"completions\": [{\"ids\": [..],\n\"logprobs\": [..], \"reward\": x}, ..]}, ..]} and, "
                        "if wanted, \"loss\" (grpo), \"advantage\" (mean_centered),\n\"clip\" (0.2), \"clip_high\" (as "
                        "clip), \"temperature\" (1), \"micro_batch\" (rollouts per pass; 0: as "
                        "many as\nfit). logprobs are the sampler's. Prints "
                        "{\"advantages\",\"ratios\",\"token_losses\",\"loss\",\"gradient_norm\"}:\none advantage per "
                        "completion, groups one "
                        "after the other; ratios and losses per completion and token;\nthe norm before any clipping.");
  auto const out = std::make_shared<std::string>();
  verb.add_option("--out", *out, "write the gradient to this .safetensors file, one f32 tensor per parameter");
  verb.callback([&c, &chosen, out] {
    chosen = [&c, out] {
      auto const path = out->empty() ? std::filesystem::path() : checked_output(*out);
      return inspect::grpo(c, inspect::read_standard_input(), path);
    };
  });
}

void add_answer(CLI::App& app, action& chosen) {
  auto& verb = add_verb(app, "answer", "What completions answer, and whether it is right",
                        "Reads lines {\"completion\": TEXT, \"truth\": X} from standard input and prints for each a "
                        "line {\"extracted\",\n\"extracted_flexible\","
                        "\"correct_strict\",\"correct_flexible\"}, null where nothing was found. extracted is the "
                        "first\nnumber (letter) after the first ####; flexible "
                        "falls back on the rest of the completion. truth is a\nnumber or a solution that ends in #### "
                        "number (gsm8k), a letter or 0 to 3 (mmlu).");
  auto const task = std::make_shared<std::string>();
  verb.add_option("--task", *task, "gsm8k: numbers; mmlu: letters A to D")
      ->required()
      ->check(CLI::IsMember({"gsm8k", "mmlu"}));
  verb.callback([&chosen, task] {
    chosen = [task] { return inspect::answer(inspect::read_standard_input(), *task == "mmlu"); };
  });
}

int complain(std::string sentence) {
  // The option is called otherwise here, where --chat is a message.
  if (auto const at = sentence.find(atmanrl::chat_formats::advice); at != std::string::npos)
    sentence.replace(sentence.find("--chat", at), 6, "--chat-format");
  std::fprintf(stderr, "inspect: %s\n", inspect::one_line(sentence).c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  terminal::open_closed_standard_streams();
  common_options common;
  try {
    CLI::App app(
        "Looks inside a model: one verb, JSON on standard output. Bad input is one line on standard error and exit "
        "code 2.",
        "inspect");
    action chosen;
    add_tokenize(app, common, chosen);
    add_detokenize(app, common, chosen);
    add_chat(app, common, chosen);
    add_logprobs(app, common, chosen);
    add_generate(app, common, chosen);
    add_gradient(app, common, chosen);
    add_mask(app, common, chosen);
    add_grpo(app, common, chosen);
    add_answer(app, chosen);
    std::vector<std::string> verbs;
    for (CLI::App* verb : app.get_subcommands({})) {
      add_common(*verb, common);
      verbs.push_back(verb->get_name());
    }
    app.require_subcommand(1);
    bool const known = argc > 1 && (argv[1][0] == '-' || std::find(verbs.begin(), verbs.end(), argv[1]) != verbs.end());
    expects<usage_error>(known, "\"{}\" is not a verb; there are {}", argc > 1 ? argv[1] : "", fmt::join(verbs, ", "));
    try {
      app.parse(argc, argv);
    } catch (CLI::ParseError const& e) {
      return e.get_exit_code() == 0 ? app.exit(e) : complain(e.what());
    }
    check(common);
    std::string const text = chosen() + '\n';
    bool const written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    return written ? 0 : complain("standard output: cannot be written");
  } catch (std::bad_alloc const&) {
    return complain("out of memory");
  } catch (atmanrl::numeric_error const& e) {
    return complain(common.model.empty() ? e.what() : common.model + ": " + e.what());
  } catch (std::exception const& e) {
    return complain(e.what());
  }
}
