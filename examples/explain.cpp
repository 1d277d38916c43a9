// Which tokens of a chain of thought does the answer rest on, and is that true? One problem, or the completions of a
// run: prints the chain with its saliency, knocks tokens out in that order and in random ones, and writes the figures
// as JSON and as a page. Other chains that the model writes are edited, to see whether its answers follow them.
#include <atmanrl/cpu/cpu_backend.hpp>
#include <atmanrl/experiment/edited_chains.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/report/explain_page.hpp>
#include <atmanrl/grpo.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/json.hpp>
#include <atmanrl/tasks/any_task.hpp>
#include <atmanrl/text/tokenizer.hpp>

#include "chat_options.hpp"
#include "model_dtype.hpp"
#include "program.hpp"
#include "saliency_items.hpp"
#include "task_names.hpp"

#include <unistd.h>
#include <cstdio>
#include <fstream>

using namespace atmanrl;

namespace {

using model_type = llama<cpu_backend>;

struct program_options {
  std::string model = "examples/models/tiny", task = "arithmetic", dtype = "auto", data, json, html, completions,
              question, chain, answer;
  long item = 0;
  int items = 1, limit = 8, max_new_tokens = 160, mask_steps = 20, points = 20, random_orders = 5, threads = 0,
      edit_chains = 0;
  double temperature = 0;
  std::uint64_t seed = 0;
  chat_options chat;
};

/// What is explained: ids and what a reader wants to see of them.
struct subject {
  std::string id, truth;
  std::vector<int> prompt, cot, delimiter, answer;
  std::string prompt_text, text;
  std::optional<std::string> extracted;
  std::optional<bool> correct;
  mask_item item() const { return {prompt, cot, delimiter, answer}; }
};

template <class Part>
std::vector<int> ids_of(std::span<int const> ids, Part const& part) {
  return {ids.begin() + std::ptrdiff_t(part.first), ids.begin() + std::ptrdiff_t(part.last)};
}

/// Rollouts of the model on the task's evaluation items.
std::vector<subject> sampled(program_options const& o, model_type& model, tokenizer const& words,
                             any_task const& task) {
  std::vector<subject> out;
  auto step = sample_evaluation(model, words, task, o.item, o.items, 1, o.max_new_tokens, o.temperature, o.seed);
  step.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    if (r.label_answer.empty()) {
      print_progress(stderr, "{}: the completion has no chain of thought in front of an answer; left out\n", g.item.id);
      return;
    }
    out.push_back({g.item.id, task.answer_text(g.item), g.prompt_ids, std::vector<int>(r.cot().begin(), r.cot().end()),
                   r.label_delimiter, r.label_answer, words.decode(g.prompt_ids), r.text, r.grade.extracted,
                   r.grade.correct_strict});
  });
  return out;
}

/// Chains that the model writes for the task's evaluation items, with an edited number, and what it answers then.
edited_chain_shares edited(program_options const& o, model_type& model, tokenizer const& words, any_task const& task) {
  std::vector<written_chain> written;
  auto step = sample_evaluation(model, words, task, o.item, o.edit_chains, 1, o.max_new_tokens, o.temperature, o.seed);
  step.for_each([&](rollout_group const& g, rollout const& r, std::size_t) {
    if (auto w = written_chain_of(task, g.item, std::string_view(r.text))) written.push_back(std::move(*w));
  });
  return edit_chains(model, words, task, std::span<written_chain const>(written), o.seed);
}

/// A question and a chain of thought that the user typed.
subject typed(program_options const& o, tokenizer const& words, any_task const& task) {
  expects<usage_error>(!o.question.empty() && !o.chain.empty() && !o.answer.empty(),
                       "--question, --chain and --answer belong together");
  task_item const item{"typed", o.question, o.answer, ""};
  auto const prompt = task.prompt(item, words);
  // Encoded in one go and divided as a completion would be, so that spaces fall where they fall in generated text.
  std::string const text = " " + o.chain + delimiter_text(task) + o.answer;
  auto const ids = words.encode(text);
  auto const spans = split_completion(words, ids, {}, task.delimiter());
  expects<usage_error>(!spans.cot.empty() && !spans.answer.empty(),
                       "--chain must hold text in front of the delimiter {}", task.delimiter());
  return {"typed",
          o.answer,
          prompt,
          ids_of(ids, spans.cot),
          ids_of(ids, spans.delimiter),
          ids_of(ids, spans.answer),
          words.decode(prompt),
          text,
          {},
          {}};
}

/// The first completions of a run's completions.jsonl that hold a chain, a delimiter and an answer. Their own answer is
/// explained, right or wrong, through the given model, which need not be the one that wrote them.
std::vector<subject> from_file(program_options const& o, tokenizer const& words) {
  std::ifstream file(o.completions);
  expects<file_error>(file.good(), "{}: cannot be read", o.completions);
  std::vector<subject> out;
  std::string line;
  for (int number = 1; std::getline(file, line) && int(out.size()) < o.limit; ++number) {
    std::string const what = fmt::format("{}, line {}", o.completions, number);
    json const c = parse_json(line, what);
    try {
      auto const ids = c.at("ids").get<std::vector<int>>();
      auto const part = [&](char const* name) {
        json const& s = c.at("spans").at(name);
        index_t const first = s.at(0).get<index_t>(), last = s.at(1).get<index_t>();
        expects<file_error>(first >= 0 && last >= first && last <= index_t(ids.size()),
                            "{}: the span {} is [{}, {}) of {} ids", what, name, first, last, ids.size());
        return ids_of(ids, token_span{first, last});
      };
      subject s;
      s.id = c.value("item", fmt::format("line {}", number));
      s.truth = c.value("truth", "");
      s.prompt_text = c.at("prompt").get<std::string>();
      s.prompt = words.encode_with_specials(s.prompt_text);
      s.cot = part("cot");
      s.delimiter = part("delimiter");
      s.answer = part("answer");
      if (s.cot.empty() || s.delimiter.empty() || s.answer.empty()) continue;
      s.text = c.value("text", words.decode(ids));
      if (c.contains("correct_strict")) s.correct = c.at("correct_strict").get<bool>();
      s.extracted = words.decode(s.answer);
      out.push_back(std::move(s));
    } catch (json::exception const& e) {
      fail<file_error>("{}: is no completion: {}", what, e.what());
    }
  }
  return out;
}

/// The chain as text; on a terminal the more salient tokens stand on darker blue, elsewhere those of the top tenth are
/// in [ ].
std::string shaded(std::vector<std::string> const& tokens, std::vector<float> const& s, bool colour) {
  float high = 0;
  for (float const x : s) high = std::max(high, x);
  auto const order = falling_order(s);
  std::vector<bool> top(s.size());
  for (std::size_t i = 0; i < std::max<std::size_t>(1, s.size() / 10) && i < order.size(); ++i)
    top[std::size_t(order[i])] = true;
  std::string out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    double const share = high > 0 ? std::clamp(double(s[i] / high), 0.0, 1.0) : 0;
    if (!colour)
      out += top[i] ? "[" + tokens[i] + "]" : tokens[i];
    else if (share < 0.1)
      out += tokens[i];
    else
      out += fmt::format("\x1b[48;2;{};{};{}m\x1b[38;2;{}m{}\x1b[0m", int(222 - 214 * share), int(235 - 187 * share),
                         int(247 - 140 * share), share > 0.5 ? "255;255;255" : "0;0;0", tokens[i]);
  }
  return out;
}

page_chart chart_of(std::string title, std::string x, validation_report const& r, share_curve validation_row::*curve) {
  page_chart c{.title = std::move(title), .x_label = std::move(x), .y_label = "p(answer)", .curves = {}};
  for (auto const& row : r.methods)
    c.curves.push_back({.name = row.name, .x = (row.*curve).share, .y = (row.*curve).probability, .control = false});
  for (auto const& row : r.controls)
    c.curves.push_back({.name = row.name, .x = (row.*curve).share, .y = (row.*curve).probability, .control = true});
  return c;
}

std::string number(std::optional<double> x) { return x ? fmt::format("{:.3f}", *x) : "–"; }

int run(program_options const& o) {
  check_input_path("--model", o.model);
  check_input_path("--data", o.data);
  check_input_path("--completions", o.completions);
  if (!o.json.empty()) check_output_file("--json", o.json);
  if (!o.html.empty()) check_output_file("--html", o.html);
  cpu_backend backend(cpu_options{.threads = o.threads});
  cpu::print_build_note();
  tokenizer const words = tokenizer::load(o.model).with_chat(o.chat);
  auto model = model_type::load(backend, o.model, {}, quantised_matrices_of(o.dtype, o.model));
  any_task const task =
      o.task == "gsm8k" ? any_task(gsm8k(o.data.empty() ? "data/gsm8k" : o.data)) : generated_task(o.task);
  std::vector<subject> subjects;
  if (!o.completions.empty())
    subjects = from_file(o, words);
  else if (!o.question.empty() || !o.chain.empty() || !o.answer.empty())
    subjects = {typed(o, words, task)};
  else
    subjects = sampled(o, model, words, task);
  std::erase_if(subjects, [&](subject const& s) {
    index_t const rows = index_t(s.prompt.size() + s.cot.size() + s.delimiter.size() + s.answer.size()) - 1;
    if (rows > model.config().max_positions)
      print_progress(stderr, "{}: {} tokens are more than the model's {}; left out\n", s.id, rows,
                     model.config().max_positions);
    return rows > model.config().max_positions;
  });
  expects<usage_error>(!subjects.empty(), "there is no completion with a chain of thought and an answer to explain");

  std::vector<mask_item> items;
  for (subject const& s : subjects) items.push_back(s.item());
  std::span<mask_item const> const all(items);
  // [methods]
  mask_options const mask = mask_options::recommended().in_steps(o.mask_steps);
  std::vector<saliency_method> methods;
  methods.push_back(run_method("learned mask", estimators::learned_mask(mask), model, all));
  methods.push_back(run_method("leave-one-out", estimators::leave_one_out{}, model, all));
  methods.push_back(run_method("gradient at c", estimators::gradient{}, model, all));
  methods.push_back(run_method("AtMan suppression", estimators::atman_suppression{}, model, all));
  methods.push_back(run_method("gradient x input", estimators::gradient_x_input{}, model, all));
  methods.push_back(run_method("attention rollout", estimators::attention_rollout{}, model, all));
  validation_options const validation{.curve_points = o.points, .random_orders = o.random_orders, .seed = o.seed};
  auto const report = validate_saliency(model, all, std::span<saliency_method const>(methods), {}, validation);
  // [/methods]
  std::vector<std::vector<index_t>> ends;
  for (mask_item const& i : items) ends.push_back(sentence_ends(words, i.cot));
  auto const cut = truncate_chains(model, all, std::span<std::vector<index_t> const>(ends));

  ordered_json out{{"model", o.model}, {"items", ordered_json::array()}, {"methods", ordered_json::array()}};
  explain_page page;
  page.facts = {{"model", o.model},
                {"items", fmt::format("{}", items.size())},
                {"p(answer)",
                 fmt::format("{:.3f} with the whole chain, {:.3f} with none of it", report.p_whole, report.p_without)}};
  bool const colour = ::isatty(STDOUT_FILENO) != 0;
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    subject const& s = subjects[i];
    std::vector<std::string> const tokens = token_texts(words, s.cot);
    print_progress(stdout, "{}: {}\n{}\n{}{}\n", s.id, s.prompt_text,
                   shaded(tokens, methods.front().saliency[i], colour), words.decode(s.delimiter),
                   words.decode(s.answer));
    auto const order = falling_order(methods.front().saliency[i]);
    for (std::size_t k = 0; k < std::min<std::size_t>(5, order.size()); ++k)
      print_progress(stdout, "  {:8.3f}  token {} {:?}\n", methods.front().saliency[i][std::size_t(order[k])], order[k],
                     tokens[std::size_t(order[k])]);
    print_progress(stdout, "\n");

    // The curves of this item alone.
    std::vector<saliency_method> own;
    for (saliency_method const& m : methods) own.push_back({m.name, {m.saliency[i]}, 0, {}});
    validation_options curves = validation;
    curves.rationale = curves.references = false;
    auto const alone = validate_saliency(model, all.subspan(i, 1), std::span<saliency_method const>(own), {}, curves);
    explain_item shown{.id = s.id,
                       .prompt = s.prompt_text,
                       .text = s.text,
                       .truth = s.truth,
                       .extracted = s.extracted,
                       .correct = s.correct,
                       .tokens = tokens};
    ordered_json j{{"id", s.id},
                   {"prompt", s.prompt_text},
                   {"text", s.text},
                   {"truth", s.truth},
                   {"tokens", tokens},
                   {"spans",
                    {{"prompt", s.prompt.size()},
                     {"cot", s.cot.size()},
                     {"delimiter", s.delimiter.size()},
                     {"answer", s.answer.size()}}},
                   {"sentence_ends", ends[i]},
                   {"truncation",
                    {{"share", cut[i].share},
                     {"p", cut[i].p},
                     {"same", cut[i].same},
                     {"whole", cut[i].whole},
                     {"early_answering", cut[i].early_answering},
                     {"information", cut[i].information}}}};
    for (std::size_t m = 0; m < methods.size(); ++m) {
      auto const& values = methods[m].saliency[i];
      auto const& row = alone.methods[m];
      shown.saliency.push_back({.name = methods[m].name,
                                .values = std::vector<double>(values.begin(), values.end()),
                                .note = fmt::format("deletion AUC {:.3f}", row.deletion_auc)});
      j["saliency"][methods[m].name] = values;
      j["deletion"][methods[m].name] = {
          {"share", row.deletion.share}, {"probability", row.deletion.probability}, {"auc", row.deletion_auc}};
      j["insertion"][methods[m].name] = {
          {"share", row.insertion.share}, {"probability", row.insertion.probability}, {"auc", *row.insertion_auc}};
    }
    for (auto const& row : alone.controls)
      j["deletion"][row.name] = {
          {"share", row.deletion.share}, {"probability", row.deletion.probability}, {"auc", row.deletion_auc}};
    shown.charts = {chart_of("Deletion", "share of tokens knocked out", alone, &validation_row::deletion),
                    chart_of("Insertion", "share of tokens brought back", alone, &validation_row::insertion)};
    shown.facts = {{"area over the early-answering curve", fmt::format("{:.3f}", cut[i].early_answering)},
                   {"information of the chain (CIR at its sentences)", fmt::format("{:.3f}", cut[i].information)}};
    page.items.push_back(std::move(shown));
    out["items"].push_back(std::move(j));
  }

  page.table = {{"saliency", "deletion AUC", "insertion AUC", "comprehensiveness 10 %", "sufficiency 10 %",
                 "rank correlation with leave-one-out", "seconds"}};
  page.table_caption = "Means over the items; random, recency: controls";
  auto const add_row = [&](validation_row const& r, bool control) {
    page.table.push_back({r.name, fmt::format("{:.3f}", r.deletion_auc), number(r.insertion_auc),
                          fmt::format("{:.3f}", (*r.comprehensiveness)[2]), fmt::format("{:.3f}", (*r.sufficiency)[2]),
                          number(r.spearman_leave_one_out), control ? "–" : fmt::format("{:.2f}", r.seconds)});
    ordered_json j{{"name", r.name},
                   {"control", control},
                   {"deletion_auc", r.deletion_auc},
                   {"insertion_auc", *r.insertion_auc},
                   {"comprehensiveness", *r.comprehensiveness},
                   {"sufficiency", *r.sufficiency}};
    if (r.spearman_leave_one_out) j["spearman_leave_one_out"] = *r.spearman_leave_one_out;
    out["methods"].push_back(std::move(j));
  };
  for (auto const& r : report.methods) add_row(r, false);
  for (auto const& r : report.controls) add_row(r, true);
  page.charts = {chart_of("Deletion, mean", "share of tokens knocked out", report, &validation_row::deletion),
                 chart_of("Insertion, mean", "share of tokens brought back", report, &validation_row::insertion)};
  page.notes = {
      "Saliency is a necessary condition for a faithful chain of thought, not a sufficient one. A deletion curve means "
      "something only "
      "below that of random orders."};

  std::string table;
  for (auto const& r : page.table) table += fmt::format("{:20} {:>14} {:>14}\n", r[0], r[1], r[2]);
  if (o.edit_chains > 0) {
    auto const shares = edited(o, model, words, task);
    table += '\n' + edited_chains_table(shares, std::size_t(o.edit_chains));
    out["edited_chains"] = to_json(shares);
    page.facts.push_back(
        {"answers that follow an edited number",
         fmt::format("{:.1f} % of {} chains ({:.1f} % stay)", 100 * shares.follow, shares.chains, 100 * shares.stay)});
  }
  bool const printed = print_results(table);
  if (!o.json.empty()) write_file_atomically(o.json, dump_json(out) + "\n");
  if (!o.html.empty()) write_explain_page(o.html, page);
  expect_printed(printed);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    program_options o;
    CLI::App app{"Shows which tokens of a chain of thought the answer rests on, and tests it by knocking them out."};
    app.add_option("--model", o.model, "Hugging Face folder, .gguf or llama2.c .bin")->capture_default_str();
    app.add_option("--task", o.task, "generated problems, or gsm8k")
        ->check(CLI::IsMember(task_names({"gsm8k"})))
        ->capture_default_str();
    app.add_option("--data", o.data, "folder of the task's files");
    add_conversation_options(app, o.chat);
    app.add_option("--item", o.item, "number of the first evaluation item")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--items", o.items, "how many of them")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--temperature", o.temperature, "of the completions; 0: greedy")
        ->check(sampling_temperature())
        ->capture_default_str();
    app.add_option("--max-new-tokens", o.max_new_tokens, "length limit of the completions")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--question", o.question, "a question of your own, with --chain and --answer");
    app.add_option("--chain", o.chain, "its chain of thought");
    app.add_option("--answer", o.answer, "the answer that is explained");
    app.add_option("--completions", o.completions, "completions.jsonl of a run");
    app.add_option("--limit", o.limit, "how many of its lines")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--mask-steps", o.mask_steps, "updates of each mask")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--points", o.points, "points of a curve; 0: one for each token")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--random-orders", o.random_orders, "orders of the random control")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--edit-chains", o.edit_chains,
                   "give the model's chains for so many evaluation items back with their last number replaced: do the "
                   "answers follow?")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    app.add_option("--seed", o.seed, "of completions, random orders and edits")->capture_default_str();
    app.add_option("--threads", o.threads, "0: as many as the processor runs")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    add_dtype_option(app, o.dtype, {"auto", "f32", "packed"});
    app.add_option("--json", o.json, "write tokens, values and curves to this file")->check(given_path());
    app.add_option("--html", o.html, "write a page to look at to this file")->check(given_path());
    parse_arguments(app, argc, argv);
    return run(o);
  });
}
