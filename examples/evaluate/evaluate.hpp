#pragma once
// What evaluate does with a model, on any backend.
#include <atmanrl/backend/machine_memory.hpp>
#include <atmanrl/comm/any.hpp>
#include <atmanrl/evaluation/edited_chains.hpp>
#include <atmanrl/evaluation/evaluate.hpp>
#include <atmanrl/evaluation/letters.hpp>
#include <atmanrl/evaluation/table.hpp>
#include <atmanrl/experiment/memory.hpp>
#include <atmanrl/io/jsonl.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/llama.hpp>
#include <atmanrl/tasks/any_task.hpp>
#include <atmanrl/tasks/task_folder.hpp>
#include <atmanrl/text/stream_decoder.hpp>

#include "../backend_options.hpp"
#include "../model_dtype.hpp"
#include "../printing.hpp"
#include "../terminal/progress.hpp"

namespace evaluating {

using namespace atmanrl;
using any_question = one_of_tasks<arithmetic, gsm8k, mmlu, leaked_answer, skipped_step, memorised>;

struct options : backend_options {
  std::filesystem::path model = "examples/models/tiny", adapter, data, out, completions, compare;
  std::string task = "arithmetic", prompt = "delimiter", dtype = "auto", kv_cache = "f32";
  std::optional<int> few_shot;
  int questions = 200, samples = 4, max_new_tokens = 256, shots = 5, edit_chains = 0;
  double temperature = 1;
  std::uint64_t seed = 0;
  bool letters = false;
  chat_options chat;
};

inline mmlu make_mmlu(options const& o) {
  expects<usage_error>(o.prompt != "cot", "--prompt cot: MMLU has the wordings delimiter and llama");
  expects<usage_error>(!o.few_shot,
                       "--few-shot: MMLU's worked examples have no reasoning to show; --letters uses --shots");
  return mmlu(task_folder("mmlu", o.data),
              {.wording = o.prompt == "llama" ? mmlu_wording::llama : mmlu_wording::delimiter,
               .evaluation_questions = o.questions,
               .evaluation_seed = o.seed,
               .auxiliary_train = {}});
}

inline any_question make_task(options const& o) {
  if (o.task == "mmlu") return make_mmlu(o);
  if (o.task == "gsm8k") {
    auto const wording = o.prompt == "cot"     ? gsm8k_wording::chain_of_thought
                         : o.prompt == "llama" ? gsm8k_wording::llama
                                               : gsm8k_wording::delimiter;
    return gsm8k(task_folder("gsm8k", o.data), {.wording = wording, .few_shot = o.few_shot, .evaluation_seed = o.seed});
  }
  expects<usage_error>(o.prompt == "delimiter" && !o.few_shot, "the task {} has one wording and no worked examples",
                       o.task);
  return generated_task<any_question>(o.task);
}

inline json line_of(task_item const& item, std::span<rollout const> samples) {
  json line{{"id", item.id}, {"question", item.question}, {"answer", item.answer}};
  for (rollout const& r : samples) {
    auto const read = [](std::optional<std::string> const& x) { return x ? json(to_valid_utf8(*x)) : json(nullptr); };
    line["samples"].push_back(json{{"text", to_valid_utf8(r.text)},
                                   {"strict", read(r.grade.extracted)},
                                   {"flexible", read(r.grade.extracted_flexible)},
                                   {"correct_strict", r.grade.correct_strict},
                                   {"correct_flexible", r.grade.correct_flexible},
                                   {"cot_tokens", r.spans.cot.size()},
                                   {"truncated", r.truncated}});
  }
  return line;
}

template <class Model>
void run_letters(Model& model, tokenizer const& words, options const& o) {
  expects<usage_error>(o.task == "mmlu", "--letters asks MMLU: --task is \"{}\"", o.task);
  mmlu const task = make_mmlu(o);
  std::vector<task_item> const items = evaluation_items(task, task.evaluation_size());
  terminal::progress bar;
  bar.begin("letters", 1);
  letters_evaluation const e =
      evaluate_letters(model, words, task, items,
                       {.shots = o.shots, .seed = o.seed, .on_progress = [&](int done, int all) {
                          bar.update(double(done) / double(all), 0, fmt::format("{}/{} questions", done, all));
                        }});
  bar.clear();
  auto const cell = [](interval const& i) {
    return fmt::format("{:.1f} [{:.1f}, {:.1f}]", 100 * i.value, 100 * i.low, 100 * i.high);
  };
  std::string table = fmt::format(
      "{} questions, {} shots   accuracy (%)\nmean over questions        {}\nmean over subjects         {}\n",
      items.size(), o.shots, cell(e.micro), cell(e.macro));
  if (e.fewer_shots > 0) table += fmt::format("{} questions had room for fewer worked examples\n", e.fewer_shots);
  bool const printed = print_results(table);
  if (!o.completions.empty()) {
    jsonl_writer file(o.completions);
    for (letters_result const& r : e.per_question)
      file.append(json{{"id", r.id},
                       {"subject", r.subject},
                       {"answer", std::string(1, r.truth)},
                       {"chosen", std::string(1, r.chosen)},
                       {"log_p", r.log_p}});
  }
  expect_printed(printed);
}

template <class Model>
void run_completions(Model& model, tokenizer const& words, options const& o) {
  std::optional<evaluation> earlier;
  if (!o.compare.empty()) earlier = evaluation_from_json(read_json_file(o.compare), o.compare.string());
  any_question const task = make_task(o);
  std::vector<task_item> const items = evaluation_items(task, o.questions == 0 ? task.evaluation_size() : o.questions);
  if (earlier) {
    std::vector<std::string> ids;
    for (task_item const& item : items) ids.push_back(item.id);
    expect_same_questions(*earlier, ids);
  }
  index_t longest = 0;
  for (task_item const& item : items) longest = std::max(longest, index_t(task.prompt(item, words).size()));
  int const batch =
      questions_per_batch(model.config(), longest, o.samples, o.max_new_tokens, std::size_t{2} << 30, sizeof(float));
  std::size_t const machine = machine_memory_bytes(),
                    taken = evaluation_bytes(model.config(), longest, batch, o.samples, o.max_new_tokens);
  expects<usage_error>(machine == 0 || taken <= machine,
                       "--samples {} with --max-new-tokens {}: keys, values and logits of {} questions would take {}, "
                       "but there are {}",
                       o.samples, o.max_new_tokens, batch, format_bytes(taken), format_bytes(machine));
  std::optional<jsonl_writer> completions;
  if (!o.completions.empty()) completions.emplace(o.completions);
  std::vector<written_chain> written;
  terminal::progress bar;
  bar.begin("evaluation", 1);
  evaluation_options const e{.samples = o.samples,
                             .max_new_tokens = o.max_new_tokens,
                             .temperature = o.temperature,
                             .seed = o.seed,
                             .batch_questions = batch,
                             .on_progress =
                                 [&](int done, int all, index_t tokens) {
                                   bar.update(double(done) / double(all), tokens,
                                              fmt::format("{}/{} questions", done, all));
                                 },
                             .should_stop = {},
                             .on_question =
                                 [&](int, task_item const& item, std::span<rollout const> samples) {
                                   if (completions) completions->append(line_of(item, samples));
                                   if (int(written.size()) >= o.edit_chains) return;
                                   if (auto w = written_chain_of(task, item, samples)) written.push_back(std::move(*w));
                                 }};
  evaluation const found = evaluate(model, words, task, std::span<task_item const>(items), e);
  bar.clear();
  std::string table = earlier ? comparison_table(*earlier, found, "earlier", "now") : evaluation_table(found);
  json figures = to_json(found);
  if (o.edit_chains > 0) {
    auto const edited = edit_chains(model, words, task, std::span<written_chain const>(written), o.seed);
    table += edited_chains_table(edited, std::size_t(o.edit_chains));
    figures["edited_chains"] = to_json(edited);
  }
  bool const printed = print_results(table);
  if (!o.out.empty()) write_file_atomically(o.out, dump_json(figures, 17) + "\n");
  expect_printed(printed);
}

template <class B, class W>
void run(options const& o) {
  bool const bf16_weights = o.dtype == "bf16";
  auto backend = make_backend<B>(o, bf16_weights);
  print_start_note(backend, bf16_weights);
  tokenizer const words = tokenizer::load(o.model).with_chat(o.chat);
  auto model = llama<B, W>::load(backend, o.model, {}, weight_storage_of<B>(o.dtype, o.model, o.int8_products));
  if (!o.adapter.empty()) model.load_adapters(o.adapter);
  if (o.kv_cache == "bf16") model.set_kv_storage(kv_storage::bf16);
  if (o.letters)
    run_letters(model, words, o);
  else
    run_completions(model, words, o);
}

/// The work of with_backend.hpp.
struct program {
  using options = evaluating::options;
  template <class B>
  static int run(options const& o, comm::any_on<B>) {
    check_input_path("--model", o.model);
    check_input_path("--adapter", o.adapter);
    check_input_path("--data", o.data);
    expects<usage_error>(o.out.empty() || !o.letters, "--out is for completions; --letters writes --completions");
    expects<usage_error>(o.compare.empty() || !o.letters,
                         "--compare is for completions, which --letters does not sample");
    expects<usage_error>(o.edit_chains == 0 || o.task != "mmlu", "--edit-chains: MMLU's chains have no number to edit");
    if (!o.out.empty()) check_output_file("--out", o.out);
    if (!o.completions.empty()) check_output_file("--completions", o.completions);
    with_weight_type<B>(o.dtype, [&]<class W>(std::type_identity<W>) { evaluating::run<B, W>(o); });
    return 0;
  }
};

}  // namespace evaluating
