#pragma once
// What explain does with a model, on any backend.
#include <atmanrl/comm/any.hpp>
#include <atmanrl/experiment/metrics.hpp>
#include <atmanrl/experiment/row_budgets.hpp>
#include <atmanrl/io/file.hpp>
#include <atmanrl/io/paths.hpp>
#include <atmanrl/report/explain_page.hpp>
#include <atmanrl/rl/token_rows.hpp>
#include <atmanrl/tasks/task_folder.hpp>

#include "../model_dtype.hpp"
#include "subjects.hpp"

#include <unistd.h>
#include <cstdio>

namespace explaining {

/// The chain as text; on a terminal the more salient tokens stand on darker blue, elsewhere those of the top tenth are
/// in [ ].
inline std::string shaded(std::vector<std::string> const& tokens, std::vector<float> const& s, bool colour) {
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

inline page_chart chart_of(std::string title, std::string x, validation_report const& r,
                           share_curve validation_row::*curve) {
  page_chart c{.title = std::move(title), .x_label = std::move(x), .y_label = "p(answer)", .curves = {}};
  for (auto const& row : r.methods)
    c.curves.push_back({.name = row.name, .x = (row.*curve).share, .y = (row.*curve).probability, .control = false});
  for (auto const& row : r.controls)
    c.curves.push_back({.name = row.name, .x = (row.*curve).share, .y = (row.*curve).probability, .control = true});
  return c;
}

/// What pages and files call an estimator.
inline std::string title_of(std::string_view estimator) {
  if (estimator == estimators::leave_one_out::name) return "leave-one-out";
  if (estimator == estimators::gradient::name) return "gradient at c";
  if (estimator == estimators::atman_suppression::name) return "AtMan suppression";
  std::string title(estimator);
  std::ranges::replace(title, '_', ' ');
  return title;
}
inline bool runs(options const& o, std::string_view estimator) {
  return std::ranges::find(o.estimators, estimator) != o.estimators.end();
}

/// The masks' options with passes within --activation-mib. Where the longest item alone would not be, its layers are
/// computed again for the backward pass. No figure depends on either.
template <class Model>
mask_options within_memory(Model const& model, std::span<saliency_item const> items, mask_options mask,
                           options const& o) {
  std::size_t longest = 0;
  for (saliency_item const& i : items)
    longest = std::max(longest, i.prompt.size() + i.cot.size() + i.delimiter.size() + i.answer.size());
  experiment_options limits;
  limits.activation_mib = o.activation_mib;
  auto const rows = [&] { return budgets_of(model.config(), Model::kept_numbers(model.config()), limits).update; };
  limits.recompute = rows() < index_t(longest);
  mask.row_budget = rows();
  mask.recompute = limits.recompute;
  return mask;
}

inline std::string number(std::optional<double> x) { return x ? fmt::format("{:.3f}", *x) : "–"; }

template <class B>
int run(options const& o) {
  check_input_path("--model", o.model);
  check_input_path("--data", o.data);
  check_input_path("--completions", o.completions);
  if (!o.json.empty()) check_output_file("--json", o.json);
  if (!o.html.empty()) check_output_file("--html", o.html);
  auto backend = make_backend<B>(o, false);
  print_build_note<B>();
  tokenizer const words = tokenizer::load(o.model).with_chat(o.chat);
  auto model = llama<B>::load(backend, o.model, {}, weight_storage_of<B>(o.dtype, o.model, o.int8_products));
  forbid_missing_tokens(model, words);
  any_task const task = o.task == "gsm8k" ? any_task(gsm8k(task_folder("gsm8k", o.data))) : generated_task(o.task);
  int const items_there = evaluation_items_from(task, o.item, o.items, "--item"),
            chains_asked = evaluation_items_from(task, o.item, o.edit_chains, "--item");
  std::vector<subject> subjects;
  if (!o.completions.empty())
    subjects = from_file(o, words);
  else if (!o.question.empty() || !o.chain.empty() || !o.answer.empty())
    subjects = {typed(o, words, task)};
  else
    subjects = sampled(o, items_there, model, words, task);
  std::erase_if(subjects, [&](subject const& s) {
    index_t const rows = index_t(s.prompt.size() + s.cot.size() + s.delimiter.size() + s.answer.size()) - 1;
    if (rows > model.config().max_positions)
      print_progress(stderr, "{}: {} tokens are more than the model's {}; left out\n", s.id, rows,
                     model.config().max_positions);
    return rows > model.config().max_positions;
  });
  expects<usage_error>(!subjects.empty(), "there is no completion with a chain of thought and an answer to explain");

  std::vector<saliency_item> items;
  for (subject const& s : subjects) items.push_back(s.item());
  std::span<saliency_item const> const all(items);
  // [methods]
  mask_options const mask = within_memory(model, all, mask_options::recommended().in_steps(o.mask_steps), o);
  std::vector<saliency_method> methods;
  for (std::string const& name : o.estimators)
    methods.push_back(run_method(title_of(name), estimators::by_name(name, mask), model, all));
  validation_options const validation{.variants = {.row_budget = mask.row_budget},
                                      .curve_points = o.points,
                                      .random_orders = o.random_orders,
                                      .seed = o.seed,
                                      .references = runs(o, estimators::leave_one_out::name)};
  auto const report = validate_saliency(model, all, std::span<saliency_method const>(methods), {}, validation);
  // [/methods]
  std::vector<std::vector<index_t>> ends;
  for (saliency_item const& i : items) ends.push_back(sentence_ends(words, i.cot));
  auto const cut = truncate_chains(model, all, std::span<std::vector<index_t> const>(ends), validation.variants);

  json out{{"model", o.model}, {"items", json::array()}, {"methods", json::array()}};
  explain_page page;
  page.facts = {{"model", o.model},
                {"items", fmt::format("{}", items.size())},
                {"p(answer)",
                 fmt::format("{:.3f} with the whole chain, {:.3f} with none of it", report.p_whole, report.p_without)}};
  bool const colour = ::isatty(STDOUT_FILENO) != 0;
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    subject const& s = subjects[i];
    std::vector<std::string> const tokens = token_texts(words, s.cot);
    print_progress(stdout, "{}: {}\n{}\n{}{}{}\n", s.id, s.prompt_text,
                   shaded(tokens, methods.front().saliency[i], colour), words.decode(s.delimiter),
                   words.decode(s.answer),
                   s.correct == false ? fmt::format("   (wrong: the truth is {})", s.truth) : std::string());
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
    json j{{"id", s.id},
           {"prompt", s.prompt_text},
           {"text", s.text},
           {"answer", words.decode(s.answer)},  // what is explained
           {"truth", s.truth},
           {"correct", s.correct ? json(*s.correct) : json(nullptr)},
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
    json j{{"name", r.name},
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
    auto const shares = edited(o, chains_asked, model, words, task);
    table += '\n' + edited_chains_table(shares, std::size_t(chains_asked));
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

/// The work of with_backend.hpp.
struct program {
  using options = explaining::options;
  template <class B>
  static int run(options const& o, comm::any_on<B>) {
    return explaining::run<B>(o);
  }
};

}  // namespace explaining
