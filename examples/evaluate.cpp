// Evaluates any model on any task: accuracy by both readings, pass@k, lengths and token classes with bootstrap
// intervals, or MMLU by the log-probabilities of the letters; compares with an earlier evaluation of the same
// questions, and edits chains that the model wrote, to see whether its answers follow them.
//   evaluate --model FOLDER --task gsm8k --prompt cot --questions 100 --samples 4 --out new.json --compare old.json
//   evaluate --model FOLDER --task gsm8k --questions 200 --edit-chains 100
//   evaluate --model FOLDER --task mmlu --letters --questions 0
#include "chat_options.hpp"
#include "command_line.hpp"
#include "model_dtype.hpp"
#include "task_names.hpp"

#include <atmanrl/experiment/edited_chains.hpp>
#include <atmanrl/experiment/letters.hpp>
#include <atmanrl/experiment/progress.hpp>
#include <atmanrl/experiment/table.hpp>
#include <atmanrl/text/stream_decoder.hpp>

namespace {

using namespace atmanrl;
using any_question = one_of_tasks<arithmetic, gsm8k, mmlu, leaked_answer, skipped_step, memorised>;

struct options {
  std::filesystem::path model = "examples/models/tiny", adapter, data, out, completions, compare;
  std::string task = "arithmetic", prompt = "delimiter", dtype = "auto", kv_cache = "f32";
  std::optional<int> few_shot;
  int questions = 200, samples = 4, max_new_tokens = 256, shots = 5, threads = 0, edit_chains = 0;
  double temperature = 1;
  std::uint64_t seed = 0;
  bool letters = false;
  chat_options chat;
};

mmlu make_mmlu(options const& o) {
  expects<usage_error>(o.prompt != "cot", "--prompt cot: MMLU has the wordings delimiter and llama");
  expects<usage_error>(!o.few_shot,
                       "--few-shot: MMLU's worked examples have no reasoning to show; --letters uses --shots");
  return mmlu(task_folder("mmlu", o.data),
              {.wording = o.prompt == "llama" ? mmlu_wording::llama : mmlu_wording::delimiter,
               .evaluation_questions = o.questions,
               .evaluation_seed = o.seed,
               .auxiliary_train = {}});
}

any_question make_task(options const& o) {
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

ordered_json line_of(task_item const& item, std::span<rollout const> samples) {
  ordered_json line{{"id", item.id}, {"question", item.question}, {"answer", item.answer}};
  for (rollout const& r : samples) {
    auto const read = [](std::optional<std::string> const& x) { return x ? json(to_valid_utf8(*x)) : json(nullptr); };
    line["samples"].push_back(ordered_json{{"text", to_valid_utf8(r.text)},
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
  progress bar;
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
      file.append(ordered_json{{"id", r.id},
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
  progress bar;
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
  ordered_json figures = to_json(found);
  if (o.edit_chains > 0) {
    auto const edited = edit_chains(model, words, task, std::span<written_chain const>(written), o.seed);
    table += edited_chains_table(edited, std::size_t(o.edit_chains));
    figures["edited_chains"] = to_json(edited);
  }
  bool const printed = print_results(table);
  if (!o.out.empty()) write_file_atomically(o.out, dump_json(figures, 17) + "\n");
  expect_printed(printed);
}

template <class W>
void run(options const& o) {
  check_input_path("--model", o.model);
  check_input_path("--adapter", o.adapter);
  check_input_path("--data", o.data);
  expects<usage_error>(o.out.empty() || !o.letters, "--out is for completions; --letters writes --completions");
  expects<usage_error>(o.edit_chains == 0 || o.task != "mmlu", "--edit-chains: MMLU's chains have no number to edit");
  if (!o.out.empty()) check_output_file("--out", o.out);
  if (!o.completions.empty()) check_output_file("--completions", o.completions);
  cpu_backend backend({.threads = o.threads});
  cpu::print_build_note();
  tokenizer const words = tokenizer::load(o.model).with_chat(o.chat);
  auto model = llama<cpu_backend, W>::load(backend, o.model, {}, quantised_matrices_of(o.dtype, o.model));
  if (!o.adapter.empty()) model.load_adapters(o.adapter);
  if (o.kv_cache == "bf16") model.set_kv_storage(kv_storage::bf16);
  if (o.letters)
    run_letters(model, words, o);
  else
    run_completions(model, words, o);
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    options o;
    CLI::App app(
        "Accuracy, pass@k, lengths and token classes of a model on a task, with bootstrap intervals over questions");
    app.add_option("--model", o.model, "Hugging Face folder, .gguf or llama2.c .bin")
        ->capture_default_str()
        ->check(given_path());
    app.add_option("--adapter", o.adapter, "folder of a LoRA adapter in PEFT's format")->check(given_path());
    app.add_option("--task", o.task)->capture_default_str()->check(CLI::IsMember(task_names({"gsm8k", "mmlu"})));
    app.add_option("--data", o.data, "folder with the task's files")->check(given_path());
    app.add_option(
           "--prompt", o.prompt,
           "delimiter: the paper's ####; cot: Wei et al. 2022 (gsm8k); llama: lm-evaluation-harness' *_cot_llama")
        ->capture_default_str()
        ->check(CLI::IsMember({"delimiter", "cot", "llama"}));
    add_conversation_options(app, o.chat);
    app.add_option("--few-shot", o.few_shot,
                   "worked examples in front of each question; default: 8 with cot and llama, else 0");
    app.add_option("--questions", o.questions, "drawn by the seed; 0: all")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--samples", o.samples, "completions per question")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--max-new-tokens", o.max_new_tokens)->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--temperature", o.temperature, "0: greedy")->capture_default_str()->check(sampling_temperature());
    app.add_flag("--letters", o.letters, "MMLU by the log-probabilities of the letters, without generation");
    app.add_option("--shots", o.shots, "worked examples of --letters")->capture_default_str()->check(CLI::Range(0, 5));
    app.add_option(
           "--edit-chains", o.edit_chains,
           "give so many chains of the model back with their last number replaced, one of each question: do the "
           "answers follow?")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--seed", o.seed)->capture_default_str();
    app.add_option("--threads", o.threads, "0: all")->capture_default_str()->check(CLI::NonNegativeNumber);
    add_dtype_option(app, o.dtype, {"auto", "f32", "bf16", "packed"});
    app.add_option("--kv-cache", o.kv_cache, "storage of keys and values; bf16 takes half the memory")
        ->capture_default_str()
        ->check(CLI::IsMember({"f32", "bf16"}));
    app.add_option("--completions", o.completions, "file for a line of JSON per question")->check(given_path());
    app.add_option("--out", o.out, "file for the figures as JSON")->check(given_path());
    app.add_option("--compare", o.compare, "figures of an earlier run with the same questions: paired differences")
        ->check(given_path());
    parse_arguments(app, argc, argv);
    if (o.dtype == "bf16")
      run<bf16>(o);
    else
      run<float>(o);
    return 0;
  });
}
