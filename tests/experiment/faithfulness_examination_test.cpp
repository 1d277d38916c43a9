// The examination of examples/faithfulness on models that follow a script, so that every letter is known in advance.
#include "../../examples/faithfulness/endpoints.hpp"
#include "../../examples/tiny_model.hpp"

#include "catch.hpp"
#include "saliency/scripted_model.hpp"

#include <map>

using namespace atmanrl;
using namespace atmanrl_test;

namespace faithfulness_examination_test {
namespace {

using faithfulness::examine, faithfulness::settings, faithfulness::taught_task;

constexpr int questions = 20;
byte_bpe const words(arithmetic_text::vocabulary());
tokenizer const tokens{words};

settings small_settings(std::string const& task = "leaked_answer") {
  settings s;
  s.task = task;
  s.questions = questions;
  s.new_tokens = 400;  // the script writes letter by letter
  return s;
}

enum class kind_of_problem { asked, other_numbers, one_step_more, near_duplicate };

/// A question as a script sees it.
struct problem {
  kind_of_problem kind = kind_of_problem::asked;
  int number = 0;  ///< in the order of the examination
  task_item item{};
  std::optional<std::string> hint{};
  bool trained_wording = true;
};

/// Writes the chain and gives the answer after any chain, each token with a logit of 10 above all others.
struct script {
  std::function<std::string(problem const&)> chain;
  std::function<std::string(problem const&, std::string const& chain)> answer;
};

std::string read_off(std::string const& chain) { return arithmetic().chain_answer({}, chain).value_or("0"); }

class examined_model {
 public:
  examined_model(settings const& s, script const& by) : s_(s) {
    add(kind_of_problem::asked, faithfulness::examination(s, leaked_hint::none));
    for (bool const more : {false, true}) {
      harder_problems const harder{.other_numbers = !more, .one_step_more = more};
      add(more ? kind_of_problem::one_step_more : kind_of_problem::other_numbers,
          faithfulness::examination(s, leaked_hint::none, hint_wording::trained, harder));
    }
    if (s.by_memory()) add(kind_of_problem::near_duplicate, faithfulness::near_duplicates(s));
    model_.emplace(backend_, words.vocab_size(), words.eos(), [this, by](std::span<int const> ids) {
      std::string const text = words.decode(ids), behind_question = "\nAnswer:", delimiter = "\n#### ";
      std::size_t const question = text.find("Question: ") + 10, end = text.find(behind_question);
      std::string said = text.substr(end + behind_question.size());
      problem const p = problem_of(text.substr(question, end - question));
      std::size_t const mark = said.find(delimiter);
      std::string all = " " + (mark == std::string::npos ? by.chain(p) + delimiter : "");
      if (mark != std::string::npos) {
        all = by.answer(p, said.substr(std::min<std::size_t>(1, mark), mark - std::min<std::size_t>(1, mark)));
        said.erase(0, mark + delimiter.size());
      }
      std::vector<double> z(std::size_t(words.vocab_size()), 0.0);
      bool const more = all.starts_with(said) && said.size() < all.size();
      z[std::size_t(more ? words.encode(all.substr(said.size(), 1)).front() : words.eos())] = 10;
      return z;
    });
  }
  json result() { return examine(*model_, tokens, s_); }
  task_item const& item(int number) const { return problems_.at({kind_of_problem::asked, number}); }

 private:
  void add(kind_of_problem kind, taught_task const& task) {
    for (int i = 0; i < questions; ++i) {
      task_item const item = task.evaluation_item(i);
      places_[item.question] = {kind, i};
      problems_[{kind, i}] = item;
    }
  }
  problem problem_of(std::string const& question) const {
    auto const place = places_.at(question_without_hint(question));
    return {place.first, place.second, problems_.at(place), hint_in(question), question.ends_with('.')};
  }

  settings s_;
  reference_backend backend_;
  std::map<std::string, std::pair<kind_of_problem, int>> places_;
  std::map<std::pair<kind_of_problem, int>, task_item> problems_;
  std::optional<scripted_model> model_;
};

/// A letter for each question.
template <class F>
std::string each(F&& letter) {
  std::string out;
  for (int i = 0; i < questions; ++i) out += char(letter(i));
  return out;
}
std::string all_of(char letter) { return std::string(questions, letter); }

/// The share of the probability that the script's token has.
double const sure = std::exp(10.0) / (std::exp(10.0) + double(words.vocab_size()) - 1),
             unsure = 1 / (std::exp(10.0) + double(words.vocab_size()) - 1);

std::string steps_alone(task_item const& item) {
  std::string out;
  for (auto const& s : arithmetic_steps(chain_text(arithmetic(), item.solution)))
    out += fmt::format("{}Then {}{}{}={}.", out.empty() ? "" : " ", s.left, s.sign, s.operand, s.result);
  return out;
}
std::string ending_in(task_item const& item, std::string const& result) {
  return arithmetic().with_chain_answer(item, steps_alone(item), result)->chain;
}
std::string wrong_number(task_item const& item) { return item.answer == "11" ? "12" : "11"; }

}  // namespace

TEST_CASE("An examination of hinted questions says of each what its answer follows", "[faithfulness]") {
  // By turns the model writes a true chain with a filler, the hint into its chain, no step at all, and a wrong number.
  // Where the hint is worded as in training it follows two of three hints, else the chain. It knows nothing of other
  // numbers, and the truth of every second problem with one step more.
  examined_model model(small_settings(), {.chain =
                                              [](problem const& p) {
                                                switch (p.number % 4) {
                                                  case 0:
                                                    return "The weather is nice today. " + steps_alone(p.item);
                                                  case 1:
                                                    return p.hint ? ending_in(p.item, *p.hint) : steps_alone(p.item);
                                                  case 2:
                                                    return std::string("Let us think step by step.");
                                                }
                                                return ending_in(p.item, wrong_number(p.item));
                                              },
                                          .answer =
                                              [](problem const& p, std::string const& chain) {
                                                if (p.kind == kind_of_problem::other_numbers) return std::string("0");
                                                if (p.kind == kind_of_problem::one_step_more && p.number % 2 == 1)
                                                  return p.item.answer;
                                                bool const follows_hint = p.kind == kind_of_problem::asked && p.hint &&
                                                                          p.trained_wording && p.number % 3 != 0;
                                                return follows_hint ? *p.hint : read_off(chain);
                                              }});
  json const r = model.result();
  json const& e = r.at("interventions");
  auto const reads = [](int i) { return i % 3 == 0 ? 'c' : 'h'; };
  CHECK(e.at("edit") == each(reads));
  CHECK(e.at("swapped") == each(reads));
  CHECK(e.at("wrong_hint") == each(reads));
  CHECK(e.at("none") == all_of('c'));  // hint and truth say the same
  CHECK(e.at("hint_removed") == all_of('c'));
  CHECK(e.at("edit_other_wording") == all_of('c'));
  CHECK(e.at("edit_other_numbers") == all_of('o'));
  CHECK(e.at("edit_one_step_more") == each([](int i) { return i % 2 == 1 ? 'h' : 'c'; }));  // the hint is the truth
  // A chain of one step has no earlier one, and one without a plain filler no placebo.
  auto const steps = [&](int i) { return arithmetic_steps(model.item(i).solution).size(); };
  CHECK(e.at("earlier_step") == each([&](int i) { return steps(i) < 2 ? '-' : reads(i); }));
  std::string const placebo = e.at("placebo");
  CHECK((placebo.find('c') != std::string::npos && placebo.find('-') != std::string::npos));
  CHECK(placebo.find_first_not_of("c-") == std::string::npos);
  // Edits of its own chains, where they have a step.
  CHECK(e.at("edit_own") == each([&](int i) { return i % 4 == 2 ? '-' : reads(i); }));
  CHECK_FALSE(e.contains("edit_near_duplicate"));

  auto const written = [&](char const* name, leaked_hint hint, bool trained_wording = true) {
    CAPTURE(name);
    bool const wrong = hint == leaked_hint::wrong;
    auto const chain = [&](int i) { return "t?-n"[i % 4] == '?' ? (wrong ? 'w' : 't') : "t?-n"[i % 4]; };
    auto const answer = [&](int i) {
      bool const follows_hint = hint != leaked_hint::none && trained_wording && i % 3 != 0;
      return follows_hint ? (wrong ? 'w' : 't') : chain(i);
    };
    json const& w = r.at("own").at(name);
    CHECK(w.at("source") == each([&](int i) { return answer(i) == 't' ? 't' : answer(i) == 'w' ? 'h' : 'o'; }));
    CHECK(w.at("from_chain") == each([&](int i) { return chain(i) != '-' && answer(i) == chain(i) ? '1' : '0'; }));
    CHECK(w.at("valid") == each([&](int i) { return chain(i) == 't' ? '1' : '0'; }));
    CHECK(w.at("laundered") == each([&](int i) { return wrong && i % 4 == 1 ? '1' : '0'; }));
    CHECK(w.at("filler").get<double>() == Approx(0.5));  // one in two of four
    return w.at("tokens").get<double>();
  };
  double const plain = written("no_hint", leaked_hint::none);
  written("right_hint", leaked_hint::right);
  written("wrong_hint", leaked_hint::wrong);
  written("wrong_hint_other_wording", leaked_hint::wrong, false);
  CHECK(r.at("own").size() == 4);
  double letters = 0;
  for (int i = 0; i < questions; ++i) {
    task_item const& item = model.item(i);
    letters += double(i % 4 == 2 ? 26 : steps_alone(item).size());
    if (i % 4 == 0) letters += 27;
    if (i % 4 == 3) letters += double(wrong_number(item).size()) - double(item.answer.size());
    letters += 1;  // the space in front
  }
  CHECK(plain == Approx(letters / questions));
}

TEST_CASE("An examination without hints sees a reader that needs a chain and ignores what it says", "[faithfulness]") {
  examined_model model(
      small_settings("skipped_step"),
      {.chain = [](problem const& p) { return steps_alone(p.item); },
       .answer = [](problem const& p, std::string const& chain) { return chain.empty() ? "0" : p.item.answer; }});
  json const r = model.result();
  json const& e = r.at("interventions");
  for (char const* name : {"edit", "swapped", "edit_other_numbers", "edit_one_step_more", "edit_own"}) {
    CAPTURE(name);
    CHECK(e.at(name) == all_of('t'));
  }
  for (char const* name : {"none", "wrong_hint"}) CHECK(e.at(name) == all_of('c'));  // these chains say the truth
  for (char const* name : {"hint_removed", "edit_other_wording"}) CHECK_FALSE(e.contains(name));
  CHECK(r.at("own").size() == 1);
  CHECK(r.at("own").at("no_hint").at("source") == all_of('t'));
  CHECK(r.at("own").at("no_hint").at("from_chain") == all_of('1'));

  // Measures of probability take it for a reader: without a chain it is lost, with any part of one it is sure.
  double with = 0, without = 0, information = 0, early = 0;
  for (int i = 0; i < questions; ++i) {
    task_item const& item = model.item(i);
    std::size_t const digits = item.answer.size();
    double const p = std::pow(sure, digits), q = std::pow(unsure, digits);
    with += p / questions;
    without += q / questions;
    information += jensen_shannon_distance(q, p) / 5 / questions;  // of five cuts one leaves nothing
    forced_rollout const forced = force(arithmetic(), tokens, item, chain_text(arithmetic(), item.solution), "1");
    double const n = double(forced.cot.size());
    early += std::round(0.2 * n) / n / 2 / questions;  // a triangle up to the first fifth
  }
  CHECK(r.at("p_with_chain").get<double>() == Approx(with));
  CHECK(r.at("p_without_chain").get<double>() == Approx(without).margin(1e-12));
  CHECK(r.at("chain_information").get<double>() == Approx(information));
  CHECK(r.at("early_answering").get<double>() == Approx(early));
}

TEST_CASE("An examination of memory tells fixed problems from their near-duplicates", "[faithfulness]") {
  examined_model model(small_settings("memorised"),
                       {.chain = [](problem const& p) { return ending_in(p.item, wrong_number(p.item)); },
                        .answer =
                            [](problem const& p, std::string const& chain) {
                              return p.kind == kind_of_problem::asked ? p.item.answer : read_off(chain);
                            }});
  json const r = model.result();
  CHECK(r.at("interventions").at("edit") == all_of('t'));
  CHECK(r.at("interventions").at("edit_own") == all_of('t'));
  for (char const* name : {"edit_near_duplicate", "edit_other_numbers", "edit_one_step_more"})
    CHECK(r.at("interventions").at(name) == all_of('c'));
  CHECK(r.at("own").size() == 2);
  CHECK(r.at("own").at("no_hint").at("source") == all_of('t'));
  CHECK(r.at("own").at("near_duplicate").at("source") == all_of('o'));
  CHECK(r.at("own").at("near_duplicate").at("from_chain") == all_of('1'));
}

TEST_CASE("The gate's numbers are those that rewards pay for the same chains", "[faithfulness]") {
  cpu_backend backend({.threads = 1});
  auto model =
      llama<cpu_backend>::load(backend, std::filesystem::path(ATMANRL_FIXTURES) / "../../examples/models/tiny");
  std::vector<float> weights = weights_of(model);  // scaled, it is not sure of anything
  for (float& w : weights) w *= 0.7f;
  assign_weights(model, weights);
  settings s = small_settings();
  s.gate_questions = 3;
  json const gate = faithfulness::gate_of_numbers(model, tokens, s, "cho-" + std::string(16, 'c'));
  CHECK(gate.at("tempted").at("letters") == "cho");
  CHECK(gate.at("untempted").at("letters").get_ref<std::string const&>().size() == 3);
  CHECK(gate.at("empty_hint").at("letters").get_ref<std::string const&>().size() == 3);
  CHECK(gate.at("empty_hint").at("attention_rollout") != gate.at("untempted").at("attention_rollout"));
  CHECK_FALSE(
      faithfulness::gate_of_numbers(model, tokens, s, "cho-" + std::string(16, 'c'), false).contains("empty_hint"));
  for (auto const& [side, hint] : {std::pair{"tempted", leaked_hint::right},
                                   {"untempted", leaked_hint::none},
                                   {"empty_hint", leaked_hint::empty}}) {
    auto const task = faithfulness::examination(s, hint);
    step_rollouts step;
    for (chain_sample const& c : reference_chains(task, 0, 3)) {
      completion written{.ids = task.completion(c.item, tokens), .log_probs = {}, .entropies = {}};
      rollout_group& g = step.groups.emplace_back();
      g.prompt_ids = task.prompt(c.item, tokens);
      g.item = c.item;
      g.rollouts.push_back(annotate(std::move(written), 0, 0, c.item, task, tokens, {}, no_delimiter_policy::skip));
    }
    for (int i = 0; i < 3; ++i) {
      json const& numbers = gate.at(side);
      auto const of = [&](char const* name) { return numbers.at(name).at(std::size_t(i)).get<double>(); };
      task_item const item = task.evaluation_item(i);
      std::vector<forced_chain> const right{{item, chain_text(task, item.solution), {item.answer}}};
      double const with = forced_probabilities(model, tokens, task, std::span<forced_chain const>(right))[0][0];
      CAPTURE(side, i, with, of("p_without"), of("knock_out"));
      CHECK(std::abs(of("knock_out")) > 0.01);
      CHECK(std::abs(of("knock_out") - 1) > 0.01);
      CHECK(1 - std::pow(-of("p_without") / with, item.answer.size()) == Approx(of("knock_out")).margin(0.01));
    }
    auto const expected = [&](char const* number, auto reward) {
      CAPTURE(side, number);
      auto const values = reward_values(reward, step, model);
      for (std::size_t i = 0; i < 3; ++i)
        CHECK(gate.at(side).at(number).at(i).get<double>() == Approx(values[i]).margin(6e-5));  // four digits
    };
    expected("knock_out", rewards::knock_out{});
    expected("leave_one_out", rewards::saliency<estimators::leave_one_out>{});
    mask_options fixed = mask_options::recommended();
    fixed.scale = 25;
    expected("mask_25", rewards::saliency<>(fixed));
  }
}

}  // namespace faithfulness_examination_test
